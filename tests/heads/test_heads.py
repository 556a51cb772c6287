"""Behaviour of the heads: every combination is finite, saves and loads, and bad input is refused."""

import itertools
import json
import math

import keras
import numpy as np
import pytest
from gradients import value_and_gradients

from keras_sphereface import feature_norms, heads, regularizers

pytestmark = pytest.mark.core

FACTORIES = {
    "Softmax": heads.Softmax,
    "NormFace": heads.NormFace,
    "CosFace": heads.CosFace,
    "ArcFace": heads.ArcFace,
    "SphereFace": heads.SphereFace,
    "SphereFaceR": heads.SphereFaceR,
    "SphereFacePlus": heads.SphereFacePlus,
    "SphereFace2": heads.SphereFace2,
}
DIM, CLASSES = 8, 5


def axis_data():
    """Embeddings at known angles to the classes: class i points along axis i."""
    embeddings = np.zeros((3, DIM), "float32")
    embeddings[0, 0] = 2.0  # angle 0 to class 0, norm 2
    embeddings[1, :2] = (1.0, math.sqrt(3.0))  # 60 degrees to class 0, 30 to class 1, norm 2
    embeddings[2, 2] = -2.0  # angle 180 to class 2
    return embeddings, np.array([0, 1, 2], "int32")


def built(factory, **kwargs):
    head = factory(CLASSES, **kwargs)
    head.build((None, DIM))
    head.kernel.assign(np.eye(DIM, CLASSES))
    return head


@pytest.mark.parametrize("name", FACTORIES)
def test_which_heads_have_a_choice_of_feature_norm(name):
    if name == "SphereFace2":
        with pytest.raises(ValueError, match="feature_norm"):
            FACTORIES[name](CLASSES, feature_norm="soft")
    else:
        assert FACTORIES[name](CLASSES, feature_norm="soft").feature_norm.name == "soft"


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_public_factories_are_all_tested():
    assert set(FACTORIES) | {"MarginHead", "BinaryHead"} == set(heads.__all__)


def test_logits_of_known_angles():
    embeddings, labels = axis_data()
    cos30, cos60 = math.sqrt(3) / 2, 0.5
    logits = numpy(built(heads.CosFace, margin=0.25, scale=10.0)(embeddings, labels))
    np.testing.assert_allclose(logits[1], [10 * cos60, 10 * (cos30 - 0.25), 0, 0, 0], atol=1e-5)
    logits = numpy(built(heads.SphereFaceR, variant="v1", margin=2.0, scale=10.0)(embeddings, labels))
    np.testing.assert_allclose(logits[1], [10 * cos60, 10 * cos60, 0, 0, 0], atol=1e-5)
    logits = numpy(built(heads.SphereFaceR, variant="v2", margin=2.0, feature_norm="none")(embeddings, labels))
    cos45 = math.sqrt(0.5)
    np.testing.assert_allclose(logits[1], 2 * np.array([cos30, cos30, cos45, cos45, cos45]), atol=1e-5)


@pytest.mark.parametrize("name", FACTORIES)
def test_without_labels_there_is_no_margin(name):
    embeddings, _ = axis_data()
    kwargs = {} if name == "Softmax" else {"scale": 10.0}
    logits = numpy(built(FACTORIES[name], **kwargs)(embeddings))
    assert logits.shape == (3, CLASSES)
    if name == "SphereFace2":
        assert logits[1].argmax() == 1
    else:
        radius = 2.0 if name == "Softmax" else 10.0
        np.testing.assert_allclose(logits[1], radius * np.array([0.5, math.sqrt(3) / 2, 0, 0, 0]), atol=1e-5)


def test_loss_of_known_angles():
    # Two classes at right angles, embedding along the first: CE = log(1 + exp(-s)).
    head = heads.NormFace(2, scale=3.0, loss_weight=6.0)
    head.build((None, 2))
    head.kernel.assign(np.eye(2))
    loss = numpy(head.loss(np.array([[5.0, 0.0]]), np.array([0])))
    assert loss == pytest.approx(6.0 / 3.0 * math.log1p(math.exp(-3.0)), rel=1e-6)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize(
    ("variant", "margin", "ours", "others"),
    # The similarity is adjusted to g(z) = 2 ((z + 1) / 2)^3 - 1: of 60 degrees -5 / 32, of 90 degrees -3 / 4.
    [("C", 0.25, -5 / 32 - 0.25, -0.75 + 0.25), ("A", math.pi / 6, -0.75, -0.75), ("M", 1.5, -0.75, -0.75)],
)
def test_sphereface2_of_known_angles(variant, margin, ours, others, detach):
    """An embedding 60 degrees from its class, which the margins A and M make 90, and 90 from the other."""
    head = heads.SphereFace2(2, variant=variant, margin=margin, scale=32.0, loss_weight=None, detach=detach)
    head.build((None, 3))
    head.kernel.assign(np.eye(3, 2))
    head.bias.assign([8.0])
    embedding = np.float32([[3.0, 0.0, 3.0 * math.sqrt(3.0)]])
    ours, others = 32 * ours + 8, 32 * others + 8
    np.testing.assert_allclose(numpy(head(embedding, np.array([0]))), [[ours, others]], atol=1e-4)
    np.testing.assert_allclose(numpy(head(embedding)), [[32 * -5 / 32 + 8, 32 * -0.75 + 8]], atol=1e-4)
    expected = 0.7 * math.log1p(math.exp(-ours)) + 0.3 * math.log1p(math.exp(others))
    assert numpy(head.loss(embedding, np.array([0]))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("variant", "margin", "slope"),
    # With g'(z) = 3 ((z + 1) / 2)^2 and a unit embedding at 60 degrees: of the target's logit by the angle.
    [
        ("C", 0.25, 3 * 0.75**2 * -math.sqrt(0.75)),  # g'(1/2) * -sin 60
        ("A", math.pi / 6, 0.75 * -1.0),  # g'(0) * -sin 90
        ("M", 1.5, 0.75 * -1.5),  # g'(0) * -1.5 sin 90
    ],
)
def test_without_detachment_sphereface2_is_differentiated_through_its_margin(variant, margin, slope):
    embedding, tangent = np.float32([[0.5, 0.0, math.sqrt(0.75)]]), np.array([-math.sqrt(0.75), 0.0, 0.5])
    for detach, expected in ((False, slope), (True, -math.sqrt(0.75))):  # with it, as the cosine itself
        head = heads.SphereFace2(2, variant=variant, margin=margin, scale=32.0, detach=detach)
        head.build((None, 3))
        head.kernel.assign(np.eye(3, 2))
        _, (gradient,), _ = value_and_gradients(lambda x, head=head: head(x, np.array([0]))[0, 0], [embedding])
        assert gradient[0] @ tangent == pytest.approx(32 * expected, rel=1e-4)


def test_soft_norm_adds_the_penalty_on_norms():
    arguments = {"variant": "v1", "feature_norm": "soft", "margin": 1.0, "scale": 4.0, "loss_weight": 4.0}
    embeddings, labels = axis_data()
    plain = numpy(built(heads.SphereFaceR, norm_penalty=0.0, **arguments).loss(embeddings, labels))
    absolute = numpy(built(heads.SphereFaceR, norm_penalty=0.5, **arguments).loss(embeddings, labels))
    squared = numpy(built(heads.SphereFaceR, norm_penalty=0.5, penalty_power=2, **arguments).loss(embeddings, labels))
    np.testing.assert_allclose(absolute - plain, 0.5 * abs(2.0 - 4.0), rtol=1e-5)
    np.testing.assert_allclose(squared - plain, 0.5 * (2.0 - 4.0) ** 2, rtol=1e-5)


def test_what_has_no_direction_is_zero_and_one_vector_is_a_batch():
    """Of the three lengths 5, 1e-8 and 0 only the first has a direction; and a batch of one keeps its dimension."""
    vectors = keras.ops.convert_to_tensor([[3.0, 4.0], [1e-8, 0.0], [0.0, 0.0]])
    directions, norms = feature_norms.normalize(vectors, axis=1)
    np.testing.assert_allclose(numpy(directions), [[0.6, 0.8], [0, 0], [0, 0]], rtol=1e-6, atol=0)
    np.testing.assert_allclose(numpy(norms), [5, 0, 0], rtol=1e-6, atol=0)
    directions, norms = feature_norms.normalize(vectors[:1], axis=1)
    assert (tuple(directions.shape), tuple(norms.shape)) == ((1, 2), (1,))
    assert numpy(feature_norms.norm_penalty(norms, 8.0)).tolist() == [3.0]  # not its square unless asked


def test_repulsion_counts_distinct_classes_once():
    head = built(heads.SphereFacePlus, repulsion=1.0)
    plain = built(heads.SphereFace)
    embeddings = np.tile(axis_data()[0][:1], (4, 1))
    labels = np.array([0, 1, 1, 0], "int32")
    difference = numpy(head.loss(embeddings, labels)) - numpy(plain.loss(embeddings, labels))
    # One pair of classes, at a right angle.
    np.testing.assert_allclose(difference, (math.pi / 2) ** -2, rtol=1e-4)
    same = numpy(head.loss(embeddings, labels * 0)) - numpy(plain.loss(embeddings, labels * 0))
    np.testing.assert_allclose(same, 0.0, atol=1e-6)


def test_repulsion_is_the_mean_over_pairs():
    """Of classes at 0, 60 and 120 degrees: two pairs at pi / 3, one at 2 pi / 3; and the fourth is not in the batch."""
    angles = np.radians([0, 60, 120, 1])
    weights = keras.ops.convert_to_tensor(np.stack([np.cos(angles), np.sin(angles)]), "float32")
    penalty = regularizers.angular_repulsion(weights, np.array([2, 0, 1, 1, 0], "int32"))
    assert float(penalty) == pytest.approx((2 * 9 + 9 / 4) / 3 / math.pi**2, rel=1e-5)


def test_repulsion_knows_no_lengths():
    """Of class weights of length 3 at 60 degrees."""
    plain, repelled = (built(heads.Softmax, repulsion=repulsion) for repulsion in (0.0, 1.0))
    kernel = np.eye(DIM, CLASSES)
    kernel[:2, 1] = 0.5, math.sqrt(3) / 2
    for head in (plain, repelled):
        head.kernel.assign(3.0 * kernel)
    embeddings, labels = axis_data()[0][:2], np.array([0, 1])
    difference = numpy(repelled.loss(embeddings, labels)) - numpy(plain.loss(embeddings, labels))
    np.testing.assert_allclose(difference, (math.pi / 3) ** -2, rtol=1e-4)


ANGULAR = ("sphereface", "sphereface_r_v1", "sphereface_r_v2", "cosface", "arcface", "normface")
COMBINATIONS = list(itertools.product(ANGULAR, ("none", "hard", "soft")))
EXTREMES = np.array([[1.0, 0], [-1.0, 0], [0, 0], [1e-20, 0], [1e4, 1e4]], "float32")


@pytest.mark.parametrize(("margin", "feature_norm"), COMBINATIONS)
def test_every_combination_is_finite_at_the_extremes(margin, feature_norm):
    for detach, weight_norm in itertools.product((True, False), ("projected", "graph")):
        head = heads.MarginHead(
            2, margin, 1.4, feature_norm=feature_norm, scale=30.0, detach=detach, weight_norm=weight_norm
        )
        head.build((None, 2))
        head.kernel.assign(np.eye(2))

        def total(embeddings, head=head):
            return keras.ops.sum(head.loss(embeddings, np.array([0, 0, 1, 0, 1])))

        value, gradients, kernel_gradients = value_and_gradients(total, [EXTREMES], [head.kernel])
        assert np.isfinite(value), (detach, weight_norm)
        assert np.isfinite(gradients[0]).all(), (detach, weight_norm)
        assert np.isfinite(kernel_gradients[0]).all(), (detach, weight_norm)


@pytest.mark.parametrize("adjustment", [3.0, 0.5])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("variant", ["C", "A", "M"])
def test_sphereface2_is_finite_at_the_extremes(variant, detach, adjustment):
    head = heads.SphereFace2(2, variant=variant, margin=1.3, detach=detach, adjustment=adjustment)
    head.build((None, 2))
    head.kernel.assign(np.eye(2))

    def total(embeddings):
        return keras.ops.sum(head.loss(embeddings, np.array([0, 0, 1, 0, 1])))

    value, gradients, _ = value_and_gradients(total, [EXTREMES])
    assert np.isfinite(value)
    assert np.isfinite(gradients[0]).all()


@pytest.mark.parametrize("name", FACTORIES)
def test_an_embedding_that_is_not_finite_or_too_long_has_a_loss_of_nan(name):
    embeddings, labels = np.repeat(axis_data()[0][1:2], 5, axis=0), np.array([0, 1, 2, 1, 0])
    embeddings[1, 3] = np.nan
    embeddings[2, 0] = np.inf
    embeddings[3] = 2e19  # finite, but not its square
    for kwargs in ({}, {"class_block": 2}, {"detach": False}):
        head = built(FACTORIES[name], **kwargs)
        expected = [False, True, True, True, False]
        for function in (head.loss, step_of(head.loss), graph_of(head.loss)):
            np.testing.assert_array_equal(np.isnan(numpy(function(embeddings, labels))), expected)
        for given in ([], [labels]):
            np.testing.assert_array_equal(np.isnan(numpy(head(embeddings, *given))).all(axis=1), expected)

        def total(embeddings, head=head):
            return keras.ops.sum(head.loss(embeddings, labels))

        _, gradients, kernel_gradients = value_and_gradients(total, [embeddings], [head.kernel])
        np.testing.assert_array_equal(np.isnan(gradients[0]).any(axis=1), expected)
        assert np.isnan(kernel_gradients[0]).any()


def graph_of(function):
    """The function as a graph, which TensorFlow rewrites by rules of its own, without XLA; elsewhere itself."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function)


def step_of(function):
    """The function compiled, where the backend compiles."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


@pytest.mark.parametrize("num_classes", [2, 3, 40, 10_000])
@pytest.mark.parametrize(("variant", "margin"), [("C", 0.1), ("A", 0.3), ("M", 1.3)])
def test_sphereface2_starts_in_balance(variant, margin, num_classes):
    """At right angles, the gradients of the target and of all other classes to the bias cancel."""
    head = heads.SphereFace2(num_classes, variant=variant, margin=margin, scale=8.0)
    head.build((None, 2))
    head.kernel.assign(np.stack([np.ones(num_classes), np.zeros(num_classes)]))
    loss = lambda x: keras.ops.sum(head.loss(x, np.array([1])))  # noqa: E731
    _, _, (gradient,) = value_and_gradients(loss, [np.array([[0.0, 1.0]])], [head.bias])
    # Each side's gradient is of the order of loss_weight / scale * positive_weight = 4.
    assert abs(gradient[0]) < 1e-3


@pytest.mark.parametrize("name", FACTORIES)
def test_one_class(name):
    head = FACTORIES[name](1)
    embeddings = np.ones((3, 4), "float32")
    value, gradients, _ = value_and_gradients(lambda x: keras.ops.sum(head.loss(x, np.zeros(3, "int32"))), [embeddings])
    assert np.isfinite(value)
    assert np.isfinite(gradients[0]).all()


@pytest.mark.parametrize("kwargs", [{"class_block": None}, {"class_block": 2}, {"detach": False}])
@pytest.mark.parametrize(
    ("margin", "weight_norm", "length"), [("normface", "none", 3.0), ("sphereface_r_v2", "graph", 1.0)]
)
def test_statistics_of_weights_of_any_length_and_a_bias(margin, weight_norm, length, kwargs):
    """Angles know no length, and the class found is that of the largest logit without the margin, bias included."""
    head = built(
        lambda classes: heads.MarginHead(
            classes, margin, 2.0, feature_norm="none", weight_norm=weight_norm, use_bias=True, **kwargs
        )
    )
    head.kernel.assign(3.0 * np.eye(DIM, CLASSES))
    head.bias.assign(np.array([0.0, 0.0, 12.0, 0.0, 5.0]) * length / 3.0)
    embeddings, labels = axis_data()
    _, statistics = head.loss_and_statistics(embeddings, labels)
    np.testing.assert_allclose(numpy(statistics["target_angle"]), [0.0, 30.0, 180.0], atol=1e-3)
    np.testing.assert_array_equal(numpy(statistics["accuracy"]), [0.0, 0.0, 1.0])  # of "none": 6 < 12, 5.2 < 12, 6 > 5
    np.testing.assert_array_equal(numpy(head(embeddings)).argmax(axis=1), [2, 2, 2])


@pytest.mark.parametrize("weight_norm", ["projected", "graph"])
def test_class_weights_are_on_the_sphere(weight_norm):
    head = heads.ArcFace(CLASSES, weight_norm=weight_norm)
    head.build((None, DIM))
    np.testing.assert_allclose(np.linalg.norm(numpy(head.unit_kernel()), axis=0), 1.0, rtol=1e-5)
    if weight_norm == "graph":
        head.kernel.assign(3.0 * np.eye(DIM, CLASSES))
        loss = lambda: keras.ops.sum(head.loss(axis_data()[0], axis_data()[1]))  # noqa: E731
        _, _, (gradient,) = value_and_gradients(loss, [], [head.kernel])
        radial = (gradient * np.eye(DIM, CLASSES)).sum(axis=0)
        np.testing.assert_allclose(radial, 0.0, atol=1e-4)
        assert np.abs(gradient).max() > 1e-2


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", FACTORIES)
def test_a_functional_model_saves_loads_and_trains(name, policy, tmp_path, rng):
    keras.config.set_dtype_policy(policy)
    try:
        images, labels = keras.Input((12,)), keras.Input((), dtype="int32")
        head = FACTORIES[name](CLASSES, name="head")
        model = keras.Model([images, labels], head(keras.layers.Dense(DIM)(images), labels))
        model.compile(
            keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
        )
        x, y = rng.normal(size=(16, 12)).astype("float32"), rng.integers(0, CLASSES, 16).astype("int32")
        history = model.fit([x, y], y, batch_size=8, epochs=1, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
        before = model.predict([x, y], verbose=0)
        assert before.dtype == np.float32
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.predict([x, y], verbose=0), before)
        assert loaded.get_layer("head").get_config() == head.get_config()
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_head_computes_in_float32_under_mixed_precision():
    embeddings, labels = axis_data()
    expected = numpy(built(heads.ArcFace).loss(embeddings, labels))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        head = built(heads.ArcFace)
    finally:
        keras.config.set_dtype_policy("float32")
    logits = head(keras.ops.cast(embeddings, "float16"), labels)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    np.testing.assert_allclose(numpy(head.loss(embeddings, labels)), expected, rtol=1e-6)


@pytest.mark.parametrize("name", FACTORIES)
def test_class_weights_and_bias_are_float32_under_mixed_precision(name):
    """Of the embedding every number is one of float16; of the weights and of the bias, if there is one, none is."""
    embeddings = np.float32([[3.0, 4.0] + [0.0] * (DIM - 2)])
    logits = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            head = built(FACTORIES[name], **({"use_bias": True} if name == "Softmax" else {}))
            head.kernel.assign(np.eye(DIM, CLASSES) * 0.9999)
            if head.bias is not None:
                head.bias.assign(np.full(head.bias.shape, 0.12345))
            logits.append(numpy(head(embeddings)))
        finally:
            keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_labels_that_are_floats_are_not_rounded_under_mixed_precision(policy):
    """bfloat16 has no 257, float16 no 2049: the margin would be that of another class."""
    keras.config.set_dtype_policy(policy)
    try:
        inputs, labels = keras.Input((DIM,)), keras.Input(())
        head = heads.CosFace(3000, margin=0.5, scale=10.0, autocast=True)
        outputs = [head(inputs, labels), head(inputs)]
        model = keras.Model([inputs, labels], outputs)
    finally:
        keras.config.set_dtype_policy("float32")
    assert [output.dtype for output in outputs] == ["float32"] * 2
    given = np.array([257.0, 2049.0, 3.0], "float32")
    with_margin, plain = model.predict([np.full((3, DIM), 1.001, "float32"), given], verbose=0)
    expected = 5.0 * (np.arange(3000) == given[:, None])
    np.testing.assert_allclose(plain - with_margin, expected, atol=1e-4)


def test_numbers_of_numpy_are_numbers():
    """As of `labels.max() + 1`."""
    given = {"num_classes": 5, "margin_value": 0.5, "scale": 8.0, "sample_rate": 0.5, "seed": 3}
    kinds = {int: np.int64, float: np.float32}
    head = heads.MarginHead(margin="arcface", **{name: kinds[type(value)](value) for name, value in given.items()})
    config = json.loads(json.dumps(head.get_config()))
    assert {name: config[name] for name in given} == given
    for seed in ("a", 1.5, True, -1, 2**31):
        with pytest.raises(ValueError, match="`seed` must be None or an integer"):
            heads.ArcFace(5, seed=seed)


def test_bad_arguments_are_refused():
    for arguments, words in (
        ({"variant": "v3"}, "one of .*'v2'.*Received: variant='v3'"),
        ({"variant": ["v1"]}, r"one of .*Received: variant=\['v1'\]"),
        ({"margin": 0.9}, "at least 1.0. Received: margin=0.9"),
        ({"margin": "1.4"}, "finite number. Received: margin='1.4'"),
        ({"feature_norm": "medium"}, "one of .*'soft'.*Received: feature_norm='medium'"),
        ({"scale": 0.0}, "`scale` must be a finite number above 0. Received: scale=0.0"),
        ({"loss_weight": -1.0}, "`loss_weight`"),
        ({"norm_penalty": -1.0}, "`norm_penalty`"),
        ({"weight_norm": "sphere"}, "'projected'.*Received: weight_norm='sphere'"),
        ({"weight_norm": "none"}, "'graph' for a margin.*Received: weight_norm='none', margin='sphereface_r_v2'"),
        ({"penalty_power": 3}, "Received: penalty_power=3"),
        ({"penalty_power": True}, "Received: penalty_power=True"),
        ({"kernel_initializer": None}, "Received: kernel_initializer=None"),
    ):
        with pytest.raises(ValueError, match=words):
            heads.SphereFaceR(CLASSES, **arguments)
    for num_classes in (0, -1, 2.5, True, None):
        with pytest.raises(ValueError, match="`num_classes` must be an integer of at least 1"):
            heads.SphereFaceR(num_classes)
    with pytest.raises(ValueError, match=r"'C', 'A', 'M'.*Received: variant='B'"):
        heads.SphereFace2(CLASSES, variant="B")
    with pytest.raises(ValueError, match=r"'C', 'A', 'M'.*Received: variant=\['C'\]"):
        heads.SphereFace2(CLASSES, variant=["C"])
    with pytest.raises(ValueError, match=r"at least 1 for variant 'M'.*Received: variant='M', margin=0.4"):
        heads.SphereFace2(CLASSES, variant="M")
    with pytest.raises(ValueError, match="below 1"):
        heads.SphereFace2(CLASSES, positive_weight=1.0)
    with pytest.raises(ValueError, match=r"one of .*Received: margin='arcfase'"):
        heads.MarginHead(CLASSES, margin="arcfase")


@pytest.mark.parametrize("name", FACTORIES)
def test_bad_input_is_refused(name):
    head = built(FACTORIES[name])
    embeddings = np.ones((2, DIM), "float32")
    for labels in ([0, CLASSES], [-1, 0]):
        with pytest.raises(ValueError, match=rf"in \[0, {CLASSES}\).*Received: \[{max(labels, key=abs)}\]"):
            head.loss(embeddings, np.array(labels))
        with pytest.raises(ValueError, match=rf"in \[0, {CLASSES}\)"):
            head(embeddings, np.array(labels))
    with pytest.raises(ValueError, match="in \\[0"):
        head.loss(embeddings, np.array([0.5, 1.0]))
    with pytest.raises(ValueError, match=r"in \[0, .*Received: \[4294967297\]"):  # 1 in 32 bits
        head.loss(embeddings, np.array([0, 2**32 + 1]))
    with pytest.raises(ValueError, match=r"needs labels, .*Received: labels=None"):
        head.loss(embeddings, None)
    for labels in (["0", "1"], np.array(["0", "1"]), np.array(["0", "1"], object)):
        with pytest.raises(ValueError, match=r"integer class numbers\. Received: dtype"):
            head.loss(embeddings, labels)
    with pytest.raises(ValueError, match=r"embeddings of real numbers\. Received: dtype='complex64'"):
        head.loss(embeddings.astype("complex64"), np.array([0, 1]))
    with pytest.raises(ValueError, match="not one-hot"):
        head.loss(embeddings, np.eye(CLASSES)[:2])
    with pytest.raises(ValueError, match="shape \\(batch, embedding_dim\\)"):
        head.loss(np.ones((2, 3, DIM)), np.array([0, 1]))
    with pytest.raises(ValueError, match=f"built for embeddings of {DIM} dimensions"):
        head.loss(np.ones((2, DIM + 1)), np.array([0, 1]))


@pytest.mark.parametrize("name", ["ArcFace", "SphereFace2"])
def test_a_symbolic_loss_is_refused(name):
    """The functional model of it would train without the class weights."""
    with pytest.raises(ValueError, match=r"would lack the class weights.*Received: embeddings='faces', symbolic"):
        FACTORIES[name](CLASSES).loss(keras.Input((DIM,), name="faces"), keras.Input((), dtype="int32"))


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("name", ["ArcFace", "SphereFace2"])
def test_no_example_has_no_loss(name, detach):
    head, embeddings, labels = (
        FACTORIES[name](CLASSES, detach=detach),
        np.ones((0, DIM), "float32"),
        np.ones(0, "int32"),
    )
    assert tuple(head.loss(embeddings, labels).shape) == (0,)
    assert tuple(head(embeddings, labels).shape) == (0, CLASSES)


@pytest.mark.parametrize("name", ["ArcFace", "SphereFace2"])
def test_there_is_a_label_for_each_embedding(name):
    head = built(FACTORIES[name])
    for method in (head, head.loss):
        with pytest.raises(ValueError, match=r"a label for each of 3 embeddings\. Received: 1 labels"):
            method(np.ones((3, DIM), "float32"), np.array([1]))


@pytest.mark.parametrize("name", ["ArcFace", "SphereFace2"])
def test_labels_may_stand_in_a_column_but_not_in_two(name):
    """As Keras gives the labels of arrays; for one example too."""
    head, (embeddings, labels) = built(FACTORIES[name]), axis_data()
    for function in (head, head.loss):
        for count in (1, 3):
            given, column = (numpy(function(embeddings[:count], y[:count])) for y in (labels, labels[:, None]))
            np.testing.assert_array_equal(given, column)
        with pytest.raises(ValueError, match=r"not one-hot vectors\. Received: shape \(3, 2\)"):
            function(embeddings, np.stack([labels, labels], axis=1))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others know every shape")
def test_labels_of_a_shape_that_is_not_known():
    """As of `tf.numpy_function` in a pipeline of tf.data."""
    import tensorflow as tf

    head = built(heads.ArcFace)
    embeddings, labels = axis_data()
    loss = tf.function(head.loss, input_signature=[tf.TensorSpec((3, DIM)), tf.TensorSpec(None, tf.int32)])
    for given in (labels, labels[:, None]):
        np.testing.assert_allclose(loss(embeddings, given).numpy(), numpy(head.loss(embeddings, labels)), rtol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        loss(embeddings, np.eye(CLASSES, dtype="int32")[labels])


@pytest.mark.parametrize(
    ("dtype", "classes"), [("uint8", 256), ("int8", 200), ("int8", 1000), ("uint16", 65_536), ("int16", 40_000)]
)
def test_labels_of_few_bits_may_have_more_classes_than_their_type(dtype, classes):
    head = heads.ArcFace(classes, seed=1)
    embeddings, labels = axis_data()
    expected = numpy(head.loss(embeddings, labels))
    np.testing.assert_array_equal(numpy(head.loss(embeddings, labels.astype(dtype))), expected)
    if "u" not in dtype:
        with pytest.raises(ValueError, match=r"Received: \[-1\]"):
            head.loss(embeddings, np.array([0, 1, -1], dtype))


def test_a_bad_label_inside_a_compiled_step_is_never_silent():
    head = built(heads.ArcFace)
    embeddings, labels = np.ones((2, DIM), "float32"), np.array([0, CLASSES], "int32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with pytest.raises(tf.errors.InvalidArgumentError, match=f"Labels must be integers in \\[0, {CLASSES}\\)"):
            tf.function(head.loss)(embeddings, labels)
    elif keras.backend.backend() != "jax":
        pytest.skip("PyTorch runs eagerly: test_bad_input_is_refused covers it")
    losses = numpy(step_of(head.loss)(embeddings, labels))
    assert np.isfinite(losses[0])
    assert np.isnan(losses[1])


def test_the_margin_is_a_saved_variable(tmp_path):
    head = built(heads.SphereFaceR, margin=1.4)
    assert float(head.current_margin) == pytest.approx(1.4)
    model = keras.Sequential([keras.Input((DIM,)), head])
    head.current_margin.assign(1.1)
    model.save_weights(tmp_path / "head.weights.h5")
    head.current_margin.assign(1.4)
    model.load_weights(tmp_path / "head.weights.h5")
    assert float(head.current_margin) == pytest.approx(1.1)
    assert len(model.trainable_weights) == 1


def test_gradients_agree_between_the_logits_and_the_loss(rng):
    """The head is a plain layer: cross-entropy of its logits is its loss."""
    embeddings = rng.normal(size=(6, DIM)).astype("float32")
    labels = rng.integers(0, CLASSES, 6)
    head = built(heads.SphereFaceR, margin=1.3, loss_weight=None)

    def outside(x):
        logits = head(x, labels)
        return keras.ops.sum(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))

    expected = value_and_gradients(lambda x: keras.ops.sum(head.loss(x, labels)), [embeddings], [head.kernel])
    actual = value_and_gradients(outside, [embeddings], [head.kernel])
    assert actual[0] == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(actual[1][0], expected[1][0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(actual[2][0], expected[2][0], rtol=1e-4, atol=1e-6)
