"""The recorded cases of the authors' heads: how each is made with our public names."""

from keras_sphereface import heads


def make_head(case, num_classes=40, **kwargs):
    """Makes the head of one entry of the recording's `meta` list."""
    name = case["head"]
    if name == "sphereface_r":
        return heads.SphereFaceR(
            num_classes,
            variant=case["variant"],
            feature_norm=case["feature_norm"],
            margin=case["m"],
            scale=case.get("s", 1.0),
            loss_weight=case["lw"],
            norm_penalty=case.get("t", 0.0),
            **kwargs,
        )
    if name == "sphereface2":
        return heads.SphereFace2(
            num_classes,
            variant=case["margin"],
            margin=case["m"],
            scale=case["r"],
            positive_weight=case["alpha"],
            adjustment=case["t"],
            loss_weight=case["lw"],
            **kwargs,
        )
    if name == "sphereface_plus":
        return heads.SphereFacePlus(num_classes, case["m"], case["s"], repulsion=case["lambda_mhe"], **kwargs)
    if name == "softmax":
        return heads.Softmax(num_classes, **kwargs)
    if name == "normface":
        return heads.NormFace(num_classes, scale=case["s"], **kwargs)
    factory = {"sphereface": heads.SphereFace, "arcface": heads.ArcFace, "cosface": heads.CosFace}[name]
    return factory(num_classes, margin=case["m"], scale=case["s"], **kwargs)
