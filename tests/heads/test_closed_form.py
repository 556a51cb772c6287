"""The heads' loss in closed form, at once and over blocks of classes, against differentiated logits."""

import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from keras import ops

from keras_sphereface import heads, losses

pytestmark = pytest.mark.core

DIM, CLASSES, BATCH = 16, 23, 12
BLOCK = 5  # Four blocks, and a rest of three classes
MARGINS = ("sphereface", "sphereface_r_v1", "sphereface_r_v2", "cosface", "arcface", "normface")
CASES = {
    **{
        f"{margin}-{norm}": (heads.MarginHead, {"margin": margin, "margin_value": 1.4, "feature_norm": norm})
        for margin in MARGINS
        for norm in ("none", "hard", "soft")
    },
    "graph": (heads.MarginHead, {"margin_value": 1.4, "weight_norm": "graph", "loss_weight": 50.0}),
    "softmax": (heads.Softmax, {}),
    "bias-eta": (heads.MarginHead, {"margin_value": 1.4, "use_bias": True, "feature_norm": "soft"}),
    "repulsion": (heads.SphereFacePlus, {}),
    **{f"sphereface2-{variant}": (heads.SphereFace2, {"variant": variant, "margin": 1.2}) for variant in "CAM"},
}


def make_head(case, **kwargs):
    factory, arguments = CASES[case]
    scale = {} if case == "softmax" else {"scale": 12.0}
    head = factory(CLASSES, **{**arguments, **scale, **kwargs})
    head.build((None, DIM))
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(DIM, CLASSES))
    head.kernel.assign(kernel / np.linalg.norm(kernel, axis=0) * (1.0 if head.weight_norm == "projected" else 2.0))
    return head


@pytest.fixture
def batch(rng):
    labels = rng.integers(0, CLASSES, BATCH)
    labels[:3] = (0, CLASSES - 1, 4)
    return rng.normal(size=(BATCH, DIM)).astype("float32"), labels.astype("int32")


def weighted_sum(values):
    """So that every example has its own upstream gradient."""
    return ops.sum(values * ops.arange(1, BATCH + 1, dtype="float32"))


def loss_and_gradients(head, batch, loss=None):
    embeddings, labels = batch
    loss = loss or (lambda x: head.loss(x, labels))
    value, (to_embeddings,), rest = value_and_gradients(
        lambda x: weighted_sum(loss(x)), [embeddings], head.trainable_variables
    )
    return [np.array(value), to_embeddings, *rest]


def assert_close(actual, expected, tolerance):
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("case", CASES)
def test_blocks_are_the_dense_head(case, batch):
    """To 1e-6 of the largest entry: loss and the gradients to embeddings, class weights and bias."""
    expected = loss_and_gradients(make_head(case, class_block=None), batch)
    assert_close(loss_and_gradients(make_head(case, class_block=BLOCK), batch), expected, 1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case != "repulsion"])
def test_the_closed_form_is_the_gradient_of_the_logits(case, batch):
    labels = batch[1]
    head = make_head(case) if case.startswith("sphereface2") else make_head(case, norm_penalty=0.0)

    def by_logits(x):
        logits = head(x, labels)
        if case.startswith("sphereface2"):
            return head.loss_weight / head.scale * losses.one_vs_all(logits, labels, head.positive_weight)
        factor = head.feature_norm.loss_factor(head.loss_weight, head.scale)
        return factor * losses.cross_entropy(logits, labels)

    assert_close(loss_and_gradients(head, batch), loss_and_gradients(head, batch, by_logits), 3e-6)


@pytest.mark.parametrize("case", ["sphereface_r_v2-soft", "softmax", "sphereface2-A"])
def test_compiled_blocks_are_the_dense_head(case, batch):
    """The backend's own loop, with gradients assembled in place."""
    embeddings, labels = batch
    expected = loss_and_gradients(make_head(case, class_block=None), batch)
    head = make_head(case, class_block=BLOCK)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = weighted_sum(head.loss(x, labels))
            return [value, *tape.gradient(value, [x, *[v.value for v in head.trainable_variables]])]

        actual = step(tf.constant(embeddings))
    elif keras.backend.backend() == "jax":
        import jax

        def loss(x, values):
            with keras.StatelessScope(state_mapping=list(zip(head.trainable_variables, values))):
                return weighted_sum(head.loss(x, labels))

        values = [v.value for v in head.trainable_variables]
        value, (to_x, to_values) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(embeddings, values)
        actual = [value, to_x, *to_values]
    else:
        pytest.skip("PyTorch runs eagerly: the other tests cover it")
    assert_close([np.asarray(a) for a in actual], expected, 1e-6)


@pytest.mark.parametrize("class_block", [None, BLOCK])
@pytest.mark.parametrize("case", ["sphereface_r_v2-soft", "cosface-none", "softmax", "sphereface2-A"])
@pytest.mark.parametrize("transformation", ["jit", "checkpoint", "scan"])
def test_jax_may_differentiate_a_transformation_of_the_loss(transformation, case, class_block, batch):
    """From outside, when the program in which the loss was computed has ended."""
    if keras.backend.backend() != "jax":
        pytest.skip("JAX's transformations")
    import jax

    head = make_head(case, class_block=class_block)

    def loss(x, labels, values):
        with keras.StatelessScope(state_mapping=list(zip(head.trainable_variables, values))):
            return ops.sum(head.loss(x, labels))

    def scanned(x, labels, values):
        halves = (x.reshape(2, -1, DIM), labels.reshape(2, -1))
        return jax.lax.scan(lambda total, half: (total + loss(*half, values), None), 0.0, halves)[0]

    transformed = scanned if transformation == "scan" else getattr(jax, transformation)(loss)
    values = [variable.value for variable in head.trainable_variables]
    expected, actual = (jax.grad(one, argnums=(0, 2))(*batch, values) for one in (loss, transformed))
    assert_close(jax.tree.leaves(actual), jax.tree.leaves(expected), 3e-6)


@pytest.mark.parametrize("options", [{"class_block": None}, {"class_block": BLOCK}, {"detach": False}])
def test_accuracy_is_the_share_of_nearest_classes(options):
    head = heads.ArcFace(CLASSES, **options)
    head.build((None, CLASSES))
    head.kernel.assign(np.eye(CLASSES))
    embeddings = np.zeros((4, CLASSES), "float32")
    embeddings[0, 9] = 1.0
    embeddings[1, 3], embeddings[1, 21] = 0.6, 0.8  # nearest is 21
    embeddings[2, 3], embeddings[2, 21] = 1.0, 1.0  # a tie; the last has no direction at all
    _, statistics = head.loss_and_statistics(embeddings, np.array([9, 3, 21, 0]))
    np.testing.assert_array_equal(ops.convert_to_numpy(statistics["accuracy"]), [1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(ops.convert_to_numpy(statistics["target_angle"]), [0, 53.1301, 45, 90], atol=1e-3)


def test_blocks_are_chosen_by_size_and_need_detachment():
    head = heads.ArcFace(2_000_000)
    assert head.block_size(64) == 131_072  # 32 MiB of float32
    assert head.block_size(None) == 65_536
    assert heads.ArcFace(85_742).block_size(128) == 85_742
    assert heads.ArcFace(2_000_000, class_block=None).block_size(64) == 2_000_000
    assert heads.ArcFace(10, class_block=64).block_size(64) == 10
    assert heads.ArcFace(10, detach=False).class_block == "auto"
    with pytest.raises(ValueError, match=r"needs detach=True.*Received: class_block=5"):
        heads.ArcFace(10, detach=False, class_block=5)
    for wrong in (0, -1, 2.0, True, "all"):
        with pytest.raises(ValueError, match="None, 'auto' or an integer of at least 1"):
            heads.ArcFace(10, class_block=wrong)
