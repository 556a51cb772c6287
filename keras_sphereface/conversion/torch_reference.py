"""The backbones once more, in PyTorch's functions on a checkpoint's own tensors: the other side of the parity report.

Nothing is shared with the Keras backbones but the published layouts, so that a wrong axis or padding shows.
"""

import numpy as np

from keras_sphereface import errors
from keras_sphereface.backbones.mobilefacenet import BOTTLENECKS

_EPSILON = 1e-5
_VIT_EPSILON = 2e-5  # of the batch normalizations behind the tokens


def embeddings(family: str, tensors: dict[str, np.ndarray], images: np.ndarray, config: dict) -> np.ndarray:
    """Computes a reference network's embeddings.

    Args:
        family: `"sfnet"`, `"iresnet"`, `"ir"`, `"mobilefacenet"` or `"vit"`.
        tensors: Tensor names to NumPy arrays.
        images: `(n, height, width, 3)` float array, already normalized.
        config: What the tensors do not tell: `units` of the stages (`sfnet`, `iresnet`), `block_order` (`sfnet`),
            `num_heads` (`vit`); further entries are passed over.

    Returns:
        `(n, embedding_dim)` NumPy array.
    """
    torch = errors.require("torch", "convert")
    t = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    x = torch.from_numpy(images.astype("float32")).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        if family == "sfnet":
            return _sfnet(t, x, config["units"], config["block_order"]).numpy()
        if family == "iresnet":
            return _iresnet(t, x, config["units"]).numpy()
        if family == "ir":
            return _ir(t, x).numpy()
        if family == "vit":
            return _vit(t, x, config["num_heads"]).numpy()
        return _mobilefacenet(t, x).numpy()


def _functions():
    return errors.require("torch.nn.functional", "convert")


def _conv(t, x, name, stride=1, groups=1, padding=None):
    weight = t[f"{name}.weight"]
    padding = weight.shape[-1] // 2 if padding is None else padding
    return _functions().conv2d(x, weight, t.get(f"{name}.bias"), stride=stride, padding=padding, groups=groups)


def _norm(t, x, name, epsilon=_EPSILON):
    if f"{name}.weight" not in t:
        return x
    statistics = (t[f"{name}.running_mean"], t[f"{name}.running_var"])
    return _functions().batch_norm(x, *statistics, t[f"{name}.weight"], t[f"{name}.bias"], eps=epsilon)


def _prelu(t, x, name):
    return _functions().prelu(x, t[f"{name}.weight"])


def _linear(t, x, name="fc", norm="features"):
    x = _functions().linear(x.flatten(1), t[f"{name}.weight"], t[f"{name}.bias"])
    return _norm(t, x, norm)


def _sfnet(t, x, units, block_order):
    for stage, count in enumerate(units, start=1):
        x = _norm(t, _conv(t, x, f"layer{stage}.0.conv1", stride=2), f"layer{stage}.0.bn1").relu()
        for index in range(1, count + 1):
            name = f"layer{stage}.{index}"
            y = _norm(t, _conv(t, x, f"{name}.conv1"), f"{name}.bn1").relu()
            y = _norm(t, _conv(t, y, f"{name}.conv2"), f"{name}.bn2")
            x = x + y.relu() if block_order == "relu_add" else (x + y).relu()
    return _linear(t, x)


def _iresnet(t, x, units):
    x = _prelu(t, _norm(t, _conv(t, x, "conv1"), "bn1"), "prelu")
    for stage, count in enumerate(units, start=1):
        for index in range(count):
            name, stride = f"layer{stage}.{index}", 2 if index == 0 else 1
            y = _conv(t, _norm(t, x, f"{name}.bn1"), f"{name}.conv1")
            y = _prelu(t, _norm(t, y, f"{name}.bn2"), f"{name}.prelu")
            y = _norm(t, _conv(t, y, f"{name}.conv2", stride), f"{name}.bn3")
            if index == 0:
                x = _norm(t, _conv(t, x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = x + y
    return _linear(t, _norm(t, x, "bn2"))


def _ir(t, x):
    """By the modules' own numbers: a unit with a convolution beside it begins a stage, as the first one does."""
    x = _prelu(t, _norm(t, _conv(t, x, "input_layer.0"), "input_layer.1"), "input_layer.2")
    number = 0
    while f"body.{number}.res_layer.0.weight" in t:
        name = f"body.{number}"
        projects = f"{name}.shortcut_layer.0.weight" in t
        stride = 2 if projects or number == 0 else 1
        y = _ir_residual(t, x, f"{name}.res_layer", stride)
        if projects:
            x = _norm(t, _conv(t, x, f"{name}.shortcut_layer.0", stride), f"{name}.shortcut_layer.1")
        else:
            x = _functions().max_pool2d(x, 1, stride)
        x, number = x + y, number + 1
    return _linear(t, _norm(t, x, "output_layer.0"), "output_layer.3", "output_layer.4")


def _ir_residual(t, x, name, stride):
    x = _conv(t, _norm(t, x, f"{name}.0"), f"{name}.1")
    number = 2
    if f"{name}.2.running_var" in t:
        x, number = _norm(t, x, f"{name}.2"), 3
    x = _prelu(t, x, f"{name}.{number}")
    x = _norm(t, _conv(t, x, f"{name}.{number + 1}", stride), f"{name}.{number + 2}")
    for se in (f"{name}.{number + 3}", f"{name}.se_block"):
        if f"{se}.fc1.weight" in t:
            x = x * _conv(t, _conv(t, x.mean((2, 3), keepdim=True), f"{se}.fc1").relu(), f"{se}.fc2").sigmoid()
    return x


def _mobilefacenet(t, x):
    x = _prelu(t, _norm(t, _conv(t, x, "conv1.conv", 2), "conv1.bn"), "conv1.prelu")
    x = _conv(t, x, "dw_conv1.conv", groups=x.shape[1])
    x = _prelu(t, _norm(t, x, "dw_conv1.bn"), "dw_conv1.prelu")
    index = 0
    for _, channels, repetitions, first_stride in BOTTLENECKS:
        for repetition in range(repetitions):
            stride = first_stride if repetition == 0 else 1
            y = _bottleneck(t, x, f"blocks.{index}.conv", stride)
            x = x + y if stride == 1 and x.shape[1] == channels else y
            index += 1
    x = _prelu(t, _norm(t, _conv(t, x, "conv2.conv"), "conv2.bn"), "conv2.prelu")
    x = _norm(t, _conv(t, x, "linear7.conv", groups=x.shape[1], padding=0), "linear7.bn")
    return _norm(t, _conv(t, x, "linear1.conv"), "linear1.bn").flatten(1)


def _bottleneck(t, x, name, stride):
    y = _prelu(t, _norm(t, _conv(t, x, f"{name}.0"), f"{name}.1"), f"{name}.2")
    y = _prelu(t, _norm(t, _conv(t, y, f"{name}.3", stride, groups=y.shape[1]), f"{name}.4"), f"{name}.5")
    return _norm(t, _conv(t, y, f"{name}.6"), f"{name}.7")


def _vit(t, x, heads):
    x = _conv(t, x, "patch_embed.proj", stride=t["patch_embed.proj.weight"].shape[-1], padding=0)
    x, number = x.flatten(2).mT + t["pos_embed"], 0
    while f"blocks.{number}.norm1.weight" in t:
        name = f"blocks.{number}"
        x = x + _attention(t, _layer_norm(t, x, f"{name}.norm1"), f"{name}.attn", heads)
        y = _functions().relu6(_each(t, _layer_norm(t, x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        x, number = x + _each(t, y, f"{name}.mlp.fc2"), number + 1
    x = _layer_norm(t, x, "norm").flatten(1)
    for number in (0, 2):
        x = _norm(t, _each(t, x, f"feature.{number}"), f"feature.{number + 1}", _VIT_EPSILON)
    return x


def _attention(t, x, name, heads):
    """By each head's matrix of tokens by tokens."""
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in _each(t, x, f"{name}.qkv").chunk(3, dim=2))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return _each(t, (weights @ v).transpose(1, 2).flatten(2), f"{name}.proj")


def _layer_norm(t, x, name):
    return _functions().layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], eps=_EPSILON)


def _each(t, x, name):
    return _functions().linear(x, t[f"{name}.weight"], t.get(f"{name}.bias"))
