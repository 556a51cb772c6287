"""Every backbone: golden values, parameter counts, configuration, saving, precision, gradients."""

import math

import backbone_cases
import keras
import numpy as np
import pytest
from keras import ops

from keras_sphereface import backbones
from keras_sphereface.conversion import mapping

pytestmark = pytest.mark.core

UPRIGHT = (112, 96, 3)
TINY = (48, 32, 3)  # for checks in which the size of the faces plays no part
NO_LENGTHS = ("abc", None, float("inf"), float("nan"), True)
SMALL_SFNET = {"units": (1, 0, 1, 0), "channels": (4, 8, 8, 8), "embedding_dim": 6}
# The shared check runs on these: each family and each option once, small enough to save, load and differentiate.
SMALL = {
    "sfnet": lambda **k: backbones.SFNet(**SMALL_SFNET, **k),
    "sfnet_relu_add": lambda **k: backbones.SFNet(**SMALL_SFNET, block_order="relu_add", dropout=0.5, **k),
    "sfnet_bn": lambda **k: backbones.SFNet(**SMALL_SFNET, batch_norm=True, **k),
    "iresnet": lambda **k: backbones.IResNet((1, 2, 1, 1), (4, 8, 8, 8), embedding_dim=6, dropout=0.5, **k),
    "iresnet_se": lambda **k: backbones.IResNet(
        (1, 2, 1, 1), (4, 8, 8, 8), 6, shortcut="subsample", inner_norm=False, se_reduction=2, **k
    ),
    "mobilefacenet": lambda **k: backbones.MobileFaceNet(
        embedding_dim=6, width=0.25, bottlenecks=((2, 32, 2, 2), (4, 32, 1, 2), (2, 64, 2, 2)), **k
    ),
    "patch_sfnet": lambda **k: backbones.PatchSFNet((1, 1, 0), (8, 8, 8), (8, 8, 8), embedding_dim=6, **k),
    "vit": lambda **k: backbones.ViT(2, 8, 2, patch_size=15, drop_path=0.5, mask_ratio=0.4, embedding_dim=6, **k),
}
small = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL.keys())


def numpy(x):
    return ops.convert_to_numpy(x)


def filled(backbone):
    """Gives a backbone the seeded weights, so that batch normalization's statistics are not trivial."""
    mapping.assign(backbone, backbone_cases.seeded_tensors(backbone), "seeded")
    return backbone


def parameters(backbone, trainable_only=False):
    weights = backbone.trainable_weights if trainable_only else backbone.weights
    return sum(int(np.prod(w.shape)) for w in weights)


def sfnet_parameters(units, channels, embedding_dim, columns=7, batch_norm=False):
    """3x3 kernels with a bias, or with two trained numbers per batch-norm channel instead."""
    after = 2 if batch_norm else 1
    total, inputs = 0, 3
    for count, c in zip(units, channels):
        total += 9 * inputs * c + after * c + 2 * count * (9 * c * c + after * c)
        inputs = c
    total += inputs * 7 * columns * embedding_dim + embedding_dim
    return total + 2 * embedding_dim if batch_norm else total


def iresnet_parameters(units, channels, embedding_dim, columns=7):
    """3x3 and 1x1 kernels, two trained numbers per batch-norm channel, one per PReLU channel."""
    inputs = channels[0]
    total = 9 * 3 * inputs + 2 * inputs + inputs
    for count, c in zip(units, channels):
        total += inputs * c + 2 * c  # the shortcut
        for index in range(count):
            first = inputs if index == 0 else c
            total += 2 * first + 9 * first * c + 2 * c + c + 9 * c * c + 2 * c
        inputs = c
    return total + 2 * inputs + (inputs * 7 * columns * embedding_dim + embedding_dim) + 2 * embedding_dim


def vit_parameters(config):
    """Two matrices of attention and two of the perceptron in each block, normalizations with two numbers a dimension."""
    dim, inner = config["hidden_dim"], int(config["hidden_dim"] * config["mlp_ratio"])
    tokens = math.prod(size // config["patch_size"] for size in config["input_shape"][:2])
    attention = 3 * dim * dim + 3 * dim * config["qkv_bias"] + dim * dim + dim
    block = 2 * dim + attention + 2 * dim + (dim * inner + inner) + (inner * dim + dim)
    patches = 3 * config["patch_size"] ** 2 * dim + dim + tokens * dim
    embedding = tokens * dim * dim + 2 * dim + dim * config["embedding_dim"] + 2 * config["embedding_dim"]
    return patches + config["depth"] * block + 2 * dim + embedding


UNITS = {
    "sfnet4": (0, 0, 0, 0),
    "sfnet10": (0, 1, 2, 0),
    "sfnet20": (1, 2, 4, 1),
    "sfnet36": (2, 4, 8, 2),
    "sfnet64": (3, 8, 16, 3),
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet200": (6, 26, 60, 6),
}


def check_parameters(case, backbone):
    """Compares the count with arithmetic over the papers' layers; MobileFaceNet has a test of its own."""
    name, arguments = backbone_cases.CASES[case]
    if name == "mobilefacenet":
        return
    if name.startswith("vit"):
        assert parameters(backbone, trainable_only=True) == vit_parameters(backbone.get_config())
        return
    count = sfnet_parameters if name.startswith("sfnet") else iresnet_parameters
    columns = 6 if "112x96" in case else 7
    options = {"batch_norm": True} if arguments.get("batch_norm") else {}
    expected = count(UNITS[name], arguments["channels"], arguments["embedding_dim"], columns, **options)
    assert parameters(backbone, trainable_only=True) == expected


@pytest.mark.parametrize("case", backbone_cases.CASES)
def test_golden_values_recorded_in_pytorch(case, reference):
    golden = np.load(reference / "backbones_golden.npz")
    backbone = filled(backbone_cases.make(case))
    embeddings = numpy(backbone(backbone_cases.images(backbone.get_config()["input_shape"]), training=False))
    error = np.abs(embeddings - golden[case]).max() / np.abs(golden[case]).max()
    assert error < 1e-4
    check_parameters(case, backbone)


@small
@pytest.mark.parametrize("input_shape", [(112, 112, 3), UPRIGHT], ids=["112x112", "112x96"])
def test_shape_dtype_and_independence_of_the_batch(make, input_shape):
    backbone = filled(make(input_shape=input_shape))
    images = backbone_cases.images(input_shape, count=3)
    together = numpy(backbone(images, training=False))
    alone = np.concatenate([numpy(backbone(images[i : i + 1], training=False)) for i in range(3)])
    assert together.shape == (3, 6)
    assert together.dtype == np.float32
    assert backbone.embedding_dim == 6
    assert backbone.output_shape == (None, 6)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


@small
def test_integer_and_float_images_are_the_same(make):
    backbone = filled(make(input_shape=TINY))
    images = backbone_cases.images(TINY)
    expected = numpy(backbone(images, training=False))
    np.testing.assert_array_equal(expected, numpy(backbone(images.astype("float32"), training=False)))
    np.testing.assert_allclose(expected, backbone.predict(images, verbose=0), rtol=1e-4, atol=1e-5)


@small
def test_config_round_trip(make):
    backbone = make(input_shape=UPRIGHT, image_mean=100.0, image_std=50.0, dtype="mixed_bfloat16", name="mine")
    config = backbone.get_config()
    clone = type(backbone).from_config(config)
    assert clone.get_config() == config
    assert clone.name == "mine"
    assert clone.dtype_policy.name == "mixed_bfloat16"
    assert [layer.dtype_policy.name for layer in clone.layers] == [layer.dtype_policy.name for layer in backbone.layers]
    assert [w.shape for w in clone.weights] == [w.shape for w in backbone.weights]


@small
def test_keras_file_round_trip_without_custom_objects(make, tmp_path):
    backbone = filled(make(input_shape=TINY))
    backbone.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(backbone)
    assert loaded.get_config() == backbone.get_config()
    images = backbone_cases.images(TINY)
    np.testing.assert_array_equal(numpy(loaded(images, training=False)), numpy(backbone(images, training=False)))


@small
def test_weights_file_round_trip(make, tmp_path):
    backbone = filled(make(input_shape=TINY))
    backbone.save_weights(tmp_path / "model.weights.h5")
    other = make(input_shape=TINY)
    other.load_weights(tmp_path / "model.weights.h5")
    for saved, loaded in zip(backbone.weights, other.weights):
        np.testing.assert_array_equal(numpy(saved), numpy(loaded))


@small
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_float32_weights_and_embeddings(make, policy):
    images = backbone_cases.images(TINY)
    backbone = filled(make(input_shape=TINY, dtype=policy))
    embeddings = backbone(images, training=False)
    assert keras.backend.standardize_dtype(embeddings.dtype) == "float32"
    assert {keras.backend.standardize_dtype(w.dtype) for w in backbone.weights} == {"float32"}
    kernels = [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)]
    assert {layer.compute_dtype for layer in kernels} == {policy.removeprefix("mixed_")}
    full = numpy(filled(make(input_shape=TINY, dtype="float32"))(images, training=False))
    for half, exact in zip(numpy(embeddings), full):
        assert half @ exact / np.linalg.norm(half) / np.linalg.norm(exact) > 0.99


@small
def test_global_policy_is_respected(make):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = make()
    finally:
        keras.config.set_dtype_policy("float32")
    assert backbone.dtype_policy.name == "mixed_bfloat16"
    assert backbone.get_config()["dtype"]["config"]["name"] == "mixed_bfloat16"


@small
def test_every_weight_learns(make):
    """One step of plain gradient descent moves every kernel, and all weights stay finite."""
    backbone = filled(make(input_shape=TINY))
    before = [numpy(w).copy() for w in backbone.trainable_weights]
    backbone.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    images = backbone_cases.images(TINY, count=8)
    backbone.fit(images, np.random.RandomState(0).standard_normal((8, 6)), batch_size=8, epochs=1, verbose=0)
    for weight, old in zip(backbone.trainable_weights, before):
        new = numpy(weight)
        assert np.isfinite(new).all(), weight.path
        # A shift before a batch normalization has no gradient; every kernel and slope has one.
        assert not weight.path.endswith(("kernel", "alpha")) or np.abs(new - old).max() > 0, weight.path


@small
def test_fresh_weights_give_finite_and_distinct_embeddings(make):
    embeddings = numpy(make(input_shape=TINY)(backbone_cases.images(TINY), training=False))
    assert np.isfinite(embeddings).all()
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0


def test_deep_plain_network_starts_with_units_near_the_identity():
    """SFNet-64 without batch normalization: He's weights in its 30 units would make the embeddings explode."""
    images = backbone_cases.images((112, 112, 3))
    for order in ("add_relu", "relu_add"):
        kwargs = {"channels": (8, 8, 8, 8), "embedding_dim": 8, "block_order": order}
        assert 1e-3 < np.abs(numpy(backbones.SFNet64(**kwargs)(images))).max() < 10


@pytest.mark.parametrize("options", [{}, {"shortcut": "subsample", "inner_norm": False, "se_reduction": 4}])
def test_deep_iresnet_of_initial_weights_infers_about_what_it_trains_on(options):
    keras.utils.set_random_seed(0)
    backbone = backbones.IResNet((2, 10, 30, 2), (8, 8, 16, 16), embedding_dim=64, input_shape=TINY, **options)
    images = np.random.default_rng(0).integers(0, 256, (16, *TINY)).astype("float32")
    inferred, trained = numpy(backbone(images, training=False)), numpy(backbone(images, training=True))
    assert 0.5 < trained.std() < 2.0
    assert 0.3 < inferred.std() < 3.0  # 1e7 where normalization layers expect variance 1 of every map


def test_preprocessing_is_inside():
    """SFNet-4 sees (x - mean) / std: shifting and scaling both the image and the arguments changes nothing."""
    images = np.random.RandomState(0).uniform(0, 255, (2, 112, 112, 3)).astype("float32")
    a = filled(backbones.SFNet4(channels=(4, 4, 4, 4), embedding_dim=4))
    b = filled(backbones.SFNet4(channels=(4, 4, 4, 4), embedding_dim=4, image_mean=27.5, image_std=12.75))
    np.testing.assert_allclose(numpy(a(images)), numpy(b((images - 127.5) / 10 + 27.5)), rtol=1e-3, atol=1e-4)
    rescaled = a.get_layer("rescale")(np.array([[[[0.0, 127.5, 255.0]]]], "float32"))
    np.testing.assert_allclose(numpy(rescaled).ravel(), [-1.0, 0.0, 1.0], atol=1e-6)
    mobile = backbones.MobileFaceNet(width=0.125).get_layer("rescale")(np.array([[[[0.0, 127.5, 255.0]]]], "float32"))
    np.testing.assert_allclose(numpy(mobile).ravel(), [-0.99609375, 0.0, 0.99609375], atol=1e-6)


def test_sfnet20_parameters_as_published():
    """SphereFace's 20-layer network for 112x96 crops has 22.67 million parameters."""
    backbone = backbones.SFNet20(input_shape=UPRIGHT)
    assert backbone.get_config()["channels"] == (64, 128, 256, 512)
    assert round(parameters(backbone) / 1e6, 2) == 22.67
    assert parameters(backbone) == sfnet_parameters((1, 2, 4, 1), (64, 128, 256, 512), 512, columns=6)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("iresnet18", 24.03), ("iresnet34", 34.14), ("iresnet50", 43.59), ("iresnet100", 65.16), ("iresnet200", 118.83)],
)
def test_iresnet_parameters_as_published(name, millions):
    """The arithmetic that the golden cases are held to gives the published numbers at full width."""
    assert round(iresnet_parameters(UNITS[name], (64, 128, 256, 512), 512) / 1e6, 2) == millions


def test_iresnet18_at_full_width():
    backbone = backbones.IResNet18()
    assert parameters(backbone, trainable_only=True) == 24_025_600
    assert backbone.output_shape == (None, 512)


def test_mobilefacenet_parameters():
    """The paper's 0.99 million: its Table 1 without the batch normalizations' and PReLUs' per-channel numbers."""
    kernels = 27 * 64 + 9 * 64
    inputs = 64
    for expansion, channels, repetitions, _ in [
        (2, 64, 5, 2),
        (4, 128, 1, 2),
        (2, 128, 6, 1),
        (4, 128, 1, 2),
        (2, 128, 2, 1),
    ]:
        for _ in range(repetitions):
            wide = inputs * expansion
            kernels += inputs * wide + 9 * wide + wide * channels
            inputs = channels
    kernels += 128 * 512 + 49 * 512 + 512 * 128
    backbone = backbones.MobileFaceNet()
    found = sum(int(np.prod(w.shape)) for w in backbone.weights if w.path.endswith("kernel"))
    assert found == kernels
    assert round(kernels / 1e6, 2) == 0.98
    assert round(parameters(backbone, trainable_only=True) / 1e6, 1) == 1.0


def test_mobilefacenet_width_rounds_to_multiples_of_eight():
    backbone = backbones.MobileFaceNet(width=0.4)
    channels = {layer.filters for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)}
    # 25.6 -> 24, widened to 48 and 96; 51.2 -> 48, widened to 96 and 192; 204.8 -> 208
    assert channels == {24, 48, 96, 192, 208}
    assert backbone.output_shape == (None, 128)


def test_stride_two_pads_like_pytorch():
    """A kernel that copies its centre picks the even rows and columns: padding one on the left, not on the right."""
    backbone = backbones.SFNet4(channels=(1, 1, 1, 1), embedding_dim=1, image_mean=0.0, image_std=1.0)
    layer = backbone.get_layer("layer1_0_conv1")
    kernel = np.zeros((3, 3, 3, 1), "float32")
    kernel[1, 1, 0, 0] = 1.0
    layer.kernel.assign(kernel)
    image = np.arange(112 * 112, dtype="float32").reshape(1, 112, 112, 1).repeat(3, axis=-1)
    copied = numpy(layer(backbone.get_layer("layer1_0_conv1_pad")(image)))
    np.testing.assert_array_equal(copied[0, :, :, 0], image[0, ::2, ::2, 0])


@pytest.mark.parametrize("name", ["sfnet4", "iresnet18", "mobilefacenet"])
def test_get_passes_arguments_on(name):
    backbone = backbones.get(name, embedding_dim=16, input_shape=(64, 48, 3))
    assert isinstance(backbone, backbones.FaceBackbone)
    assert backbone.name == name
    assert backbone.input_shape == (None, 64, 48, 3)
    assert backbone.output_shape == (None, 16)


def test_table_of_names():
    assert backbones.names() == (
        *("sfnet4", "sfnet10", "sfnet20", "sfnet36", "sfnet64"),
        *("iresnet18", "iresnet34", "iresnet50", "iresnet100", "iresnet200"),
        *("mobilefacenet", "patch_sfnet"),
        *("vit_t", "vit_s", "vit_b", "vit_l"),
    )


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Received: name='resnet100'.*iresnet100"):
        backbones.get("resnet100")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: backbones.SFNet4(block_order="relu"), "block_order.*'relu'"),
        (lambda: backbones.SFNet((1, 1)), "four stages"),
        (lambda: backbones.SFNet4(channels=(8, 8, 8)), "four stages"),
        (lambda: backbones.IResNet((1, 1, 0, 1)), "four stages"),
        (lambda: backbones.SFNet4(embedding_dim=0), "embedding_dim=0"),
        (lambda: backbones.SFNet4(embedding_dim=2.5), "embedding_dim=2.5"),
        (lambda: backbones.SFNet4(input_shape=(112, 112)), r"input_shape.*\(112, 112\)"),
        (lambda: backbones.SFNet4(input_shape=(112, 112, 1)), "input_shape"),
        (lambda: backbones.SFNet4(input_shape=112), "Received: 112"),
        (lambda: backbones.SFNet4(input_shape=(None, None, 3)), "input_shape"),
        (lambda: backbones.SFNet4(image_std=0.0), "image_std"),
        (lambda: backbones.SFNet4(image_std=float("nan")), "image_std=nan"),
        (lambda: backbones.IResNet18(image_mean=float("inf")), "image_mean=inf"),
        (lambda: backbones.MobileFaceNet(image_mean=True), "image_mean=True"),
        (lambda: backbones.PatchSFNet(image_std="1"), "image_std='1'"),
        *((lambda value=value: backbones.SFNet4(embedding_dim=value), "embedding_dim=") for value in NO_LENGTHS),
        (lambda: backbones.SFNet((-1, 0, 0, 0)), r"`units`.*at least 0.*units=\(-1"),
        (lambda: backbones.SFNet((1.5, 0, 0, 0)), r"`units`.*four stages.*units=\(1.5"),
        (lambda: backbones.SFNet(3), "`units`.*four stages.*units=3"),
        (lambda: backbones.SFNet4(channels=(8.0, 8, 8, 8)), r"`channels`.*channels=\(8.0"),
        (lambda: backbones.IResNet18(channels=(8, 8, 0, 8)), r"`channels`.*at least 1"),
        (lambda: backbones.IResNet18(shortcut="identity"), r"`shortcut` must be one of .*shortcut='identity'"),
        (
            lambda: backbones.IResNet18(se_reduction=0),
            "`se_reduction` must be an integer of at least 1.*se_reduction=0",
        ),
        (lambda: backbones.PatchSFNet((-1, 0, 0)), r"`units`.*three stages.*units=\(-1"),
        (lambda: backbones.PatchSFNet(hidden=(0, 8, 8)), r"`hidden`.*hidden=\(0"),
        (lambda: backbones.PatchSFNet(input_shape=(3, 4, 3)), r"at least \(4, 4, 3\).*Received: \(3, 4, 3\)"),
        (lambda: backbones.SFNet4(input_shape=(True, 32, 3)), "input_shape"),
        (lambda: backbones.MobileFaceNet(width=float("inf")), "width=inf"),
        (lambda: backbones.MobileFaceNet(bottlenecks=5), "bottlenecks.*Received: 5"),
        (lambda: backbones.MobileFaceNet(bottlenecks=((2, 64, 1.0, 2),)), r"bottlenecks.*1\.0"),
        (lambda: backbones.get(["sfnet4"]), r"name=\['sfnet4'\]"),
        (lambda: backbones.MobileFaceNet(width=0.0), "width"),
        (lambda: backbones.MobileFaceNet(bottlenecks=((2, 64, 5),)), "bottlenecks"),
        (lambda: backbones.ViT(depth=0), "depth=0"),
        (lambda: backbones.ViT(2, hidden_dim=20), "`hidden_dim` must be a multiple of `num_heads`.*20, num_heads=8"),
        (lambda: backbones.ViT(2, mlp_ratio=0.001), r"mlp_ratio=0\.001"),
        (lambda: backbones.ViT(2, patch_size=200), r"hold a patch of 200x200\. Received: \(112, 112, 3\)"),
        (lambda: backbones.ViTTiny(drop_path=1.0), r"`drop_path` must be at least 0 and below 1.*=1\.0"),
        (lambda: backbones.ViTTiny(mask_ratio=-0.1), r"mask_ratio=-0\.1"),
        (lambda: backbones.SFNet4(dropout=1.0), r"`dropout` must be at least 0 and below 1\. Received: dropout=1\.0"),
        (lambda: backbones.IResNet18(dropout="a"), "`dropout` must be a finite number. Received: dropout='a'"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", ["sfnet4", "mobilefacenet", "patch_sfnet", "vit_t"])
def test_an_argument_that_is_not_known_is_refused(name):
    with pytest.raises(
        TypeError, match=r"embeding_dim=64\. Known: .*dtype, name, trainable\. Did you mean 'embedding_dim'\?$"
    ):
        backbones.get(name, embeding_dim=64)


def test_numpys_integers_are_kept_as_pythons():
    size, ones = np.int64(32), np.ones(4, "int64")
    config = backbones.SFNet(ones, 8 * ones, embedding_dim=size, input_shape=(size, size, 3)).get_config()
    values = [*config["units"], *config["channels"], *config["input_shape"], config["embedding_dim"]]
    assert {type(value) for value in values} == {int}


def test_the_smallest_images_of_patches():
    assert backbones.PatchSFNet(input_shape=(4, 4, 3), embedding_dim=4).output_shape == (None, 4)


def saved_and_loaded(backbone, tmp_path):
    backbone.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras")


@small
def test_layers_that_were_frozen_one_by_one_stay_frozen(make, tmp_path):
    backbone = make(input_shape=TINY)
    assert "frozen" not in backbone.get_config()
    frozen = [layer for layer in backbone.layers if layer.weights][:2]
    for layer in frozen:
        layer.trainable = False
    loaded = saved_and_loaded(backbone, tmp_path)
    assert [layer.name for layer in loaded.layers if not layer.trainable] == [layer.name for layer in frozen]
    assert len(loaded.trainable_weights) == len(backbone.trainable_weights) < len(make().trainable_weights)
    assert loaded.get_config() == backbone.get_config()
    backbone.trainable = False
    assert "frozen" not in backbone.get_config()
    assert saved_and_loaded(backbone, tmp_path).trainable_weights == []


def test_an_interrupted_fine_tuning_goes_on_after_loading(tmp_path):
    """A layer that came back trainable would cost the optimizer's state, with a warning only."""
    backbone = SMALL["sfnet"](input_shape=TINY)
    backbone.get_layer("fc").trainable = False
    backbone.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    backbone.fit(backbone_cases.images(TINY), np.ones((2, 6)), verbose=0)
    loaded = saved_and_loaded(backbone, tmp_path)
    for saved, again in zip(backbone.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(numpy(saved), numpy(again))


@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")
def test_a_quantized_backbone_is_loaded_again(tmp_path):
    backbone = filled(SMALL["sfnet"](input_shape=TINY))
    backbone.quantize("int8")
    loaded = saved_and_loaded(backbone, tmp_path)
    assert loaded.get_layer("fc").quantization_mode == "int8"
    images = backbone_cases.images(TINY)
    np.testing.assert_array_equal(numpy(loaded(images)), numpy(backbone(images)))


def test_the_configuration_has_the_dtype_of_the_layers():
    backbone = SMALL["sfnet"](input_shape=TINY, dtype="float32")
    before = backbone.get_config()
    backbone.dtype_policy = "mixed_bfloat16"
    assert backbone.get_config() == before
