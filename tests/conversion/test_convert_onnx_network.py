"""Conversion of any convolutional network in ONNX, beside ONNX Runtime on the file itself."""

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from keras_sphereface import cli, errors
from keras_sphereface import export as exports
from keras_sphereface.conversion import convert
from keras_sphereface.conversion.onnx_network import MOST_LAYERS

onnx = pytest.importorskip("onnx", reason="needs the extra [export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [export]")

from onnx_networks import DIM, Builder, Network  # noqa: E402

NCHW_TO_NHWC = [0, 2, 3, 1]


def numbers(builder, *values):
    """A weight of integers: sizes, axes."""
    return builder.weight(np.array(values, "int64"))


def conv(builder, x, before, after, size=3, groups=1, **attributes):
    return builder.node(
        "Conv", x, builder.weight(builder.normal(after, before // groups, size, size)), group=groups, **attributes
    )


def norm(builder, x, size):
    values = (
        builder.uniform(size),
        builder.normal(size, 9)[:, 0],
        builder.normal(size, 9)[:, 0],
        builder.uniform(size),
    )
    return builder.node("BatchNormalization", x, *map(builder.weight, values))


def gemm(builder, x, inputs, transposed=True, bias=True):
    matrix = builder.normal(DIM, inputs)
    offset = [builder.weight(builder.normal(DIM, 9)[:, 0])] if bias else []
    return builder.node(
        "Gemm", x, builder.weight(matrix if transposed else matrix.T.copy()), *offset, transB=int(transposed)
    )


def pooled(builder, x, channels):
    """The vectors of a map's means, and of them the embeddings."""
    return gemm(builder, builder.node("Flatten", builder.node("GlobalAveragePool", x)), channels)


# Each function makes embeddings of `x`, 3 channels of 32 x 32.


def mobilefacenet(b, x):
    """InsightFace's: a stem of grouped convolutions, inverted bottlenecks, a depthwise convolution over all."""

    def unit(x, before, after, size=1, groups=1, act=True, **attributes):
        x = norm(b, conv(b, x, before, after, size, groups, **attributes), after)
        return b.node("PRelu", x, b.weight(b.uniform(after)[:, None, None] / 2)) if act else x

    x = unit(x, 3, 8, 3, strides=[2, 2], pads=[1] * 4)
    x = unit(x, 8, 8, 3, groups=4, pads=[1] * 4)
    y = unit(unit(x, 8, 16), 16, 16, 3, groups=16, strides=[2, 2], pads=[1] * 4)
    x = unit(y, 16, 8, act=False)
    y = unit(unit(x, 8, 16), 16, 16, 3, groups=16, pads=[1] * 4)
    x = b.node("Add", x, unit(y, 16, 8, act=False))
    x = unit(unit(x, 8, 12), 12, 12, 8, groups=12, act=False)
    return norm(b, gemm(b, b.node("Flatten", x), 12, bias=False), DIM)


def squeezed(b, x):
    """Squeeze and excitation by linear layers, whose vectors become maps again."""
    x = b.node("Relu", conv(b, x, 3, 6))
    y = b.node("Squeeze", b.node("GlobalAveragePool", x), numbers(b, 2, 3))
    y = b.node("Sigmoid", b.node("MatMul", y, b.weight(b.normal(6, 6))))
    x = b.node("Mul", x, b.node("Unsqueeze", y, numbers(b, -2, -1)))
    return pooled(b, x, 6)


def unsqueezed_twice(b, x):
    y = b.node("Flatten", b.node("GlobalAveragePool", x))
    y = b.node("Unsqueeze", b.node("Unsqueeze", y, numbers(b, -1)), numbers(b, -1))
    return pooled(
        b, b.node("Add", b.node("Mul", x, y), b.node("Reshape", b.node("Flatten", y), numbers(b, 0, -1, 1, 1))), 3
    )


def squeezed_twice(b, x):
    y = b.node("Squeeze", b.node("Squeeze", b.node("GlobalMaxPool", x), numbers(b, 3)), numbers(b, 2))
    return gemm(b, y, 3)


def pools(b, x):
    x = b.node("Relu", conv(b, x, 3, 4, 7, strides=[2, 2], pads=[3] * 4))
    x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    x = b.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("MaxPool", conv(b, x, 4, 4, 1), kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    return gemm(b, b.node("ReduceMean", x, axes=[-1, 2], keepdims=0), 4)


def padded_pools(b, x):
    """Padding of numbers below zero, and padding that counts in a mean or does not."""
    x = b.node("MaxPool", conv(b, x, 3, 4), kernel_shape=[3, 5], strides=[2, 2], pads=[1, 2, 1, 2])
    x = b.node("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    x = b.node("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, count_include_pad=1)
    x = b.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)
    return pooled(b, b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), 4)


def pools_rounded_up(b, x):
    """Caffe's."""
    x = b.node("MaxPool", b.node("Relu", conv(b, x, 3, 4)), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    options = {"pads": [1] * 4, "ceil_mode": 1, "auto_pad": "NOTSET"}  # the last as PyTorch's newer exporter has it
    x = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[3, 3], **options)
    return pooled(b, b.node("MaxPool", x, kernel_shape=[2, 1], strides=[2, 2], ceil_mode=1), 4)


def scaled_products(b, x):
    """A matrix and a bias times numbers, a bias of one number, and embeddings that are maps of one pixel."""
    y = b.node(
        "Gemm", b.node("Flatten", x), b.weight(b.normal(3072, 8)), b.weight(np.float32([2])), alpha=0.5, beta=3.0
    )
    return conv(b, b.node("Unsqueeze", y, numbers(b, 2, 3)), 8, DIM, 1)


def shuffled(b, x):
    """ShuffleNet's."""
    x = b.node("Reshape", conv(b, x, 3, 8), numbers(b, -1, 2, 4, 30, 30))
    x = b.node("Reshape", b.node("Transpose", x, perm=[0, 2, 1, 3, 4]), numbers(b, 0, 8, 30, 30))
    return pooled(b, conv(b, x, 8, 8, groups=2), 8)


def shuffled_at_the_end(b, x):
    """As PyTorch's newer exporter joins two steps."""
    x = b.node("Reshape", conv(b, x, 3, 8), numbers(b, -1, 2, 4, 30, 30))
    return gemm(b, b.node("Reshape", b.node("Transpose", x, perm=[0, 2, 1, 3, 4]), numbers(b, 0, 7200)), 7200)


def expanded(b, x):
    """Squeeze and excitation by `expand_as`, and a mean of rows and columns in one axis."""
    y = b.node("Reshape", x, numbers(b, 0, 0, -1))
    y = gemm(b, b.node("ReduceMean", y, axes=[2], keepdims=0), 3)
    y = b.node("Gemm", y, b.weight(b.normal(DIM, 3)))
    y = b.node("Reshape", b.node("Sigmoid", y), numbers(b, 1, 3, 1, 1))
    return pooled(b, b.node("Mul", x, b.node("Expand", y, b.node("Shape", x))), 3)


def sizes_computed(b, x):
    """`F.pad` and a view as PyTorch's older exporter writes them."""
    ahead = b.node("ConstantOfShape", numbers(b, 4), value=onnx.numpy_helper.from_array(np.array([0], "int64")))
    both = b.node("Reshape", b.node("Concat", numbers(b, 1, 2, 3, 0), ahead, axis=0), numbers(b, -1, 2))
    turned = b.node("Slice", both, numbers(b, -1), numbers(b, -(2**63) + 1), numbers(b, 0), numbers(b, -1))
    x = b.node(
        "Pad", x, b.node("Cast", b.node("Reshape", b.node("Transpose", turned, perm=[1, 0]), numbers(b, -1)), to=7)
    )
    size = b.node("Slice", b.node("Shape", x), numbers(b, 2), numbers(b, 4))
    area = b.node("Mul", b.node("Gather", size, b.weight(np.int64(0))), b.node("Gather", size, b.weight(np.int64(1))))
    length = b.node("Sub", b.node("Add", b.node("Mul", area, numbers(b, 6)), numbers(b, 4)), numbers(b, 4))
    length = b.node("Concat", numbers(b, -1), b.node("Div", length, numbers(b, 2)), axis=0)
    return gemm(b, b.node("Reshape", x, length), 3 * 35 * 35)


def normalized_before_the_matrix(b, x):
    """Vectors whose order is ONNX's, where something comes between map and matrix."""
    x = conv(b, x, 3, 4, strides=[4, 4])
    return gemm(b, norm(b, b.node("Flatten", x), 256), 256)


def pads(b, x):
    x = b.node("Pad", x, numbers(b, 0, 0, 2, 0, 0, 0, 1, 3))
    x = conv(b, x, 3, 4, 3, pads=[0, 1, 2, 1])
    x = conv(b, x, 4, 4, 3, auto_pad="SAME_UPPER", strides=[2, 2])
    return pooled(b, conv(b, x, 4, 8, 3, groups=4, dilations=[2, 2], pads=[2] * 4), 8)


def strided(b, x):
    x = conv(b, x, 3, 4, 1, strides=[2, 2])
    return pooled(b, conv(b, x, 4, 4, 2, strides=[1, 3]), 4)


def activations(b, x):
    maps = [
        b.node("Clip", x, b.weight(np.float32(0)), b.weight(np.float32(0.5))),
        b.node("Clip", x, b.weight(np.float32(0)), b.weight(np.float32(3.4e38))),
        b.node("LeakyRelu", x, alpha=0.2),
        b.node("PRelu", x, b.weight(np.float32([0.3]))),
        b.node("Tanh", x),
        b.node("HardSwish", x),
        b.node("HardSigmoid", x, alpha=1 / 6),
        b.node("HardSigmoid", x),
        b.node("Clip", x, b.weight(np.float32(-0.5)), b.weight(np.float32(0.25))),
        b.node("Clip", x, "", b.weight(np.float32(0.25))),
        b.node("Clip", x, b.weight(np.float32(0.25))),
        b.node("Clip", x),
        b.node("Elu", x),
        b.node("Elu", x, alpha=0.5),
        b.node("Selu", x),
        b.node("Softplus", x),
        b.node("Sum", x, b.node("Neg", b.node("Pow", x, b.weight(np.float32(2)))), x),
    ]
    return pooled(b, b.node("Concat", *maps, axis=1), 3 * len(maps))


def arithmetic(b, x):
    """Preprocessing inside the file, by one number or one for each channel."""
    x = b.node("Div", b.node("Sub", x, b.weight(b.uniform(3)[:, None, None])), b.weight(np.float32(0.3)))
    x = b.node("Sub", b.weight(np.float32([[[[0.1]]]])), b.node("Mul", b.weight(b.uniform(3).reshape(1, 3, 1, 1)), x))
    y = b.node("Add", b.node("MatMul", b.node("Flatten", x), b.weight(b.normal(3072, DIM))), b.weight(b.uniform(DIM)))
    return b.node("Sub", y, gemm(b, b.node("Flatten", x), 3072))


def viewed(b, x):
    """`x.view(x.size(0), -1)` as PyTorch's older exporter writes it; the order is channels, rows, columns."""
    x = b.node("Identity", conv(b, x, 3, 4, strides=[4, 4]))
    size = b.node("Gather", b.node("Shape", x), numbers(b, 0), axis=0)
    rest = b.node("Slice", b.node("Cast", numbers(b, 5, -1), to=7), numbers(b, 1), numbers(b, 2))
    return gemm(b, b.node("Reshape", x, b.node("Concat", size, rest, axis=0)), 4 * 64, transposed=False)


def reshaped_for_one(b, x):
    return gemm(b, b.node("Reshape", b.node("Dropout", x), numbers(b, 1, 3072)), 3072)


def half_by_instance(b, x):
    """IBN-Net's: one half of the channels normalized by the image's own mean and variance, the other by the batch's."""
    b.nodes.append(onnx.helper.make_node("Split", [conv(b, x, 3, 8)], ["one", "two"], axis=1))
    numbers = b.weight(b.uniform(4)), b.weight(b.normal(4, 9)[:, 0])
    one = b.node("InstanceNormalization", "one", *numbers, epsilon=1e-3)
    x = b.node("Relu", b.node("Concat", one, norm(b, "two", 4), axis=1))
    return gemm(b, b.node("Flatten", b.node("GlobalMaxPool", x)), 8)


def prelu_of_vectors(b, x):
    return b.node("PRelu", gemm(b, b.node("Flatten", x, axis=-3), 3072), b.weight(b.uniform(DIM)))


def unit_length(b, x):
    return b.node("LpNormalization", gemm(b, b.node("Flatten", x), 3072), axis=1)


def normalized(b, x):
    """`torch.nn.functional.normalize`."""
    x = gemm(b, b.node("Flatten", x), 3072)
    length = b.node("ReduceL2", x, axes=[1], keepdims=1)
    length = b.node("Clip", length, b.weight(np.float32(1e-12)))
    return b.node("Div", x, b.node("Expand", length, b.node("Shape", x)))


def squares_summed(b, x):
    """`tf.math.l2_normalize` as tf2onnx writes it."""
    x = gemm(b, b.node("Flatten", x), 3072)
    squares = b.node("ReduceSum", b.node("Mul", x, x), numbers(b, -1), keepdims=1)
    length = b.node("Sqrt", b.node("Max", squares, b.weight(np.float32(1e-12))))
    return b.node("Mul", x, b.node("Reciprocal", length))


def lengths_written_out(b, x):
    """Vectors divided by their lengths as people write it, each after the other."""
    x = gemm(b, b.node("Flatten", x), 3072)
    two, half = b.weight(np.float32(2)), b.weight(np.float32(0.5))
    squares = b.node("ReduceSum", b.node("Pow", x, two), numbers(b, 1), keepdims=0)
    length = b.node("Unsqueeze", b.node("Pow", squares, half), numbers(b, 1))
    x = b.node("Mul", b.node("Div", x, b.node("Cast", length, to=1)), two)
    squares = b.node("Add", b.weight(np.float32(1e-10)), b.node("ReduceSumSquare", x, axes=[1]))
    x = b.node("Mul", b.node("Pow", squares, b.weight(np.float32(-0.5))), x)
    x = b.node("Mul", x, two)
    return b.node("Mul", x, b.node("Div", b.weight(np.float32(1)), b.node("ReduceL2", x, axes=[-1])))


def transposed(b, x):
    """Weights that are put right by nodes, and channels that are moved last before they are flattened."""
    kernel = b.node("Transpose", b.weight(b.normal(3, 3, 3, 4)), perm=[3, 2, 0, 1])
    x = b.node("Transpose", b.node("Conv", x, kernel, strides=[4, 4]), perm=NCHW_TO_NHWC)
    matrix = b.node("Reshape", b.weight(b.normal(4, 64, DIM)), numbers(b, -1, DIM))
    return b.node(
        "MatMul",
        b.node("Reshape", x, numbers(b, -1, 256)),
        b.node("Squeeze", b.node("Unsqueeze", matrix, numbers(b, 0)), numbers(b, 0)),
    )


def max_feature_map(b, x):
    """LightCNN's: the larger of two halves, by `Split` and by `Slice`."""
    x = conv(b, x, 3, 8)
    b.nodes.append(onnx.helper.make_node("Split", [x], ["left", "right"], axis=1))
    x = conv(b, b.node("Max", "left", "right"), 4, 5)
    low = b.node("Slice", x, numbers(b, 0), numbers(b, 3), numbers(b, 1), numbers(b, 1))
    high = b.node("Slice", x, numbers(b, -3), numbers(b, 2**63 - 1), numbers(b, -3))
    b.nodes.append(
        onnx.helper.make_node("Split", [b.node("Min", low, high, low), numbers(b, 1, 2)], ["one", "two"], axis=-3)
    )
    return gemm(b, b.node("Flatten", "two"), 2 * 28 * 28)


def two_outputs_and_what_nobody_takes(b, x):
    b.node("Erf", x)
    return gemm(b, b.node("Flatten", x), 3072)


NETWORKS = [
    mobilefacenet,
    squeezed,
    unsqueezed_twice,
    squeezed_twice,
    pools,
    padded_pools,
    pools_rounded_up,
    scaled_products,
    shuffled,
    shuffled_at_the_end,
    expanded,
    sizes_computed,
    normalized_before_the_matrix,
    pads,
    strided,
    activations,
    arithmetic,
    viewed,
    reshaped_for_one,
    half_by_instance,
    prelu_of_vectors,
    unit_length,
    normalized,
    squares_summed,
    lengths_written_out,
    transposed,
    max_feature_map,
    two_outputs_and_what_nobody_takes,
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.onnx"


def save(path, network, size=(1, 3, 32, 32)):
    builder = Builder()
    network(builder, "images")
    path.write_bytes(builder.model(size).SerializeToString())
    return path


def pictures(count=3):
    return np.random.RandomState(3).randint(0, 256, (count, 32, 32, 3)).astype("uint8")


def by_onnx_runtime(path, inputs):
    session = onnxruntime.InferenceSession(str(path))
    inputs = inputs.astype("float32").transpose(0, 3, 1, 2)
    return np.concatenate([session.run(None, {"images": one[None]})[0].reshape(1, -1) for one in inputs])


def by_keras(model, images):
    return ops.convert_to_numpy(model(images, training=False))


def close(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max() < 1e-5


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_gives_what_onnx_runtime_gives(network, path, tmp_path):
    model = convert(save(path, network))
    expected = by_onnx_runtime(path, (pictures() - 127.5) / 127.5)
    assert close(by_keras(model, pictures()), expected)
    report = model.conversion_report
    assert (report.architecture, report.backbone["embedding_dim"]) == ("onnx", DIM)
    assert report.reference == f"ONNX Runtime {onnxruntime.__version__}"
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(by_keras(again, pictures()), by_keras(model, pictures()))


def test_the_layers_are_kerass_own_with_names_of_their_own_kind(path):
    model = convert(save(path, mobilefacenet))
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert [layer.name for layer in model.layers[:5]] == [
        "images",
        "rescaling_1",
        "zeropadding2d_1",
        "conv2d_1",
        "batchnormalization_1",
    ]
    assert [layer.groups for layer in model.layers if isinstance(layer, keras.layers.Conv2D)][:2] == [1, 4]
    assert sum(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in model.layers) == 3


def test_is_float32_under_another_policy(path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = convert(save(path, mobilefacenet))
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in model.layers[1:]} == {"float32"}  # behind the input


def test_is_trained_on(path):
    model = convert(save(path, mobilefacenet))
    before = model.get_layer("conv2d_2").get_weights()[0]
    trained = keras.Model(model.input, keras.layers.Dense(2)(model.output))
    trained.compile("sgd", "mse", jit_compile=False)
    trained.fit(pictures(), np.ones((3, 2)), verbose=0)
    assert np.abs(model.get_layer("conv2d_2").get_weights()[0] - before).max() > 0


def test_preprocessing_of_images_that_have_their_channels_last(path):
    """As tf2onnx writes a Keras model that begins with `Rescaling` or an activation."""

    def network(b, x):
        x = b.node("Sub", b.node("Cast", x, to=1), b.weight(np.float32([123.7, 116.3, 103.5])))
        x = b.node("Mul", b.weight(np.float32(1 / 58).reshape(1, 1, 1, 1)), x)
        x = b.node("Transpose", b.node("Tanh", x), perm=[0, 3, 1, 2])
        return pooled(b, conv(b, x, 3, 4), 4)

    model = convert(save(path, network, [1, 32, 32, 3]), image_mean=0, image_std=1)
    session = onnxruntime.InferenceSession(str(path))
    expected = [session.run(None, {"images": one[None].astype("float32")})[0] for one in pictures()]
    assert close(by_keras(model, pictures()), np.concatenate(expected))
    for wrong in (np.float32([1, 2, 3])[:, None, None], np.ones(32, "float32")):
        save(path, lambda b, x: b.node("Sub", x, b.weight(wrong)), [1, 32, 32, 3])  # noqa: B023
        with pytest.raises(errors.FileFormatError, match=r"Sub of 'x0': expected one number, or 3 for channels"):
            convert(path)


def test_preprocessing_for_each_channel(path):
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    model = convert(save(path, pads), image_mean=mean, image_std=std)
    expected = by_onnx_runtime(path, (pictures() - np.array(mean)) / np.array(std))
    assert close(by_keras(model, pictures()), expected)
    assert "(RGB - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375), 32x32" in str(model.conversion_report)
    with pytest.raises(ValueError, match=r"`image_mean` must be a finite number. Received: image_mean=\[1, 2\]"):
        convert(path, image_mean=[1, 2])
    with pytest.raises(ValueError, match=r"`image_std` must be positive. Received: image_std=\[1.0, 0.0, 1.0\]"):
        convert(path, image_std=[1, 0, 1])


def test_a_network_trained_on_bgr(path):
    model = convert(save(path, pads), channel_order="BGR", image_mean=[1.0, 2.0, 3.0])
    as_trained = ((pictures() - np.array([1.0, 2.0, 3.0])) / 127.5)[..., ::-1]
    assert close(by_keras(model, pictures()), by_onnx_runtime(path, as_trained))


def test_bgr_of_networks_that_cannot_be_turned(path):
    save(path, lambda b, x: pooled(b, conv(b, conv(b, x, 3, 3, groups=3), 3, 4), 4))
    with pytest.raises(
        errors.FileFormatError, match="its first convolution, which was turned from BGR, is not what takes"
    ):
        convert(path, channel_order="BGR")
    save(path, reshaped_for_one)
    with pytest.raises(ValueError, match="a network without a convolution is not turned"):
        convert(path, channel_order="BGR")


def test_as_deep_as_it_may_be(path):
    """Keras follows a network by recursion."""

    def network(b, x):
        for _ in range(MOST_LAYERS - 4):
            x = b.node("Relu", x)
        return pooled(b, x, 3)

    model = convert(save(path, network))
    assert len(model.layers) == MOST_LAYERS + 1


def test_size_of_the_images(path):
    def network(b, x):
        return pooled(b, conv(b, x, 3, 4, pads=[1] * 4), 4)

    assert convert(save(path, network)).input_shape == (None, 32, 32, 3)
    with pytest.raises(errors.FileFormatError, match=r"takes images of 32x32, but `input_shape` is \(48, 40, 3\)"):
        convert(path, input_shape=(48, 40, 3))
    assert convert(save(path, network, ["n", 3, "h", "w"])).input_shape == (None, 112, 112, 3)
    assert convert(path, input_shape=(48, 40, 3)).input_shape == (None, 48, 40, 3)
    with pytest.raises(errors.FileFormatError, match=r"images of 5000x32, expected 1x1 to 1024x1024"):
        convert(save(path, network, [1, 3, 5000, 32]))
    with pytest.raises(
        errors.FileFormatError, match=r"should be \(images, 3, height, width\). Received: 'images', \(1, 4,"
    ):
        convert(save(path, network, [1, 4, 32, 32]))


def test_an_iresnet_of_which_the_architecture_is_not_named(path):
    path.write_bytes(Network().build().SerializeToString())
    model = convert(path)
    assert (model.conversion_report.architecture, model.input_shape) == ("iresnet", (None, 32, 32, 3))
    as_layers = convert(path, "onnx")
    assert as_layers.conversion_report.architecture == "onnx"
    assert close(by_keras(as_layers, pictures()), by_keras(model, pictures()))


def test_the_packages_own_export_comes_back(path):
    """Its images have their channels last, and preprocessing and unit length are in it."""
    images = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 128, -1)(images)
    x = keras.layers.ReLU()(keras.layers.Conv2D(4, 3, strides=2)(x))
    x = keras.layers.UnitNormalization()(keras.layers.Dense(DIM)(keras.layers.Flatten()(x)))
    original = keras.Model(images, x)
    exports.export(original, path, format="onnx")
    model = convert(path, image_mean=0, image_std=1)
    assert close(by_keras(model, pictures()), by_keras(original, pictures()))


def weights_elsewhere(path, **changes):
    """A file as PyTorch's newer exporter writes it."""
    builder = Builder()
    mobilefacenet(builder, "images")
    onnx.save(builder.model(), path, save_as_external_data=True, location="network.onnx.data", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = changes.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_in_a_file_beside_it(path):
    model = convert(weights_elsewhere(path))
    assert close(by_keras(model, pictures()), by_onnx_runtime(path, (pictures() - 127.5) / 127.5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"location": "/etc/passwd"}, "in '/etc/passwd', expected the name of a file beside it"),
        ({"location": "../network.onnx.data"}, "in '../network.onnx.data', expected the name"),
        ({"location": ".."}, "in '..', which should be beside it and is not there"),
        ({"location": ""}, "in '', expected the name"),
        ({"location": "x" * 5000}, "in 'x+"),
        ({"location": "link"}, "in 'link', expected the name"),
        ({"location": "absent"}, "in 'absent', which should be beside it and is not there"),
        ({"length": "9999999"}, "are not in 'network.onnx.data', which is too short"),
        ({"offset": "-4"}, "which is too short"),
        ({"length": "many"}, "which is too short"),
        ({"length": "4"}, "the weights 'w0' are damaged"),
    ],
)
def test_weights_that_are_not_beside_it(changes, message, path):
    (path.parent / "link").symlink_to("/etc/passwd")
    with pytest.raises(errors.FileFormatError, match=message):
        convert(weights_elsewhere(path, **changes))


def named_by_all_layers(b, x):
    """One matrix of 1 MB, of which a hundred layers would make 100 MB."""
    x = gemm(b, b.node("Flatten", x), 3072)
    x = b.node("MatMul", x, b.weight(b.normal(DIM, 512)))
    matrix = b.weight(b.normal(512, 512))
    for _ in range(100):
        x = b.node("MatMul", x, matrix)


def joined_again_and_again(b, x):
    """A weight of some numbers, of which forty nodes would make a billion."""
    matrix = b.weight(b.normal(8, 8))
    for _ in range(40):
        matrix = b.node("Concat", matrix, matrix, axis=0)
    b.node("MatMul", b.node("Flatten", x), matrix)


def padded_without_end(b, x):
    for _ in range(12):
        x = b.node("Pad", x, numbers(b, 0, 0, 32, 32, 0, 0, 32, 32))
        x = b.node("Concat", *[x] * 16, axis=1)
    pooled(b, x, 3)


def too_many(b, x):
    for _ in range(2401):
        x = b.node("Relu", x)
    pooled(b, x, 3)


def joined_at_once(b, x):
    """A list of names that would take a thousand times the memory of the weight that they name."""
    b.node(
        "MatMul",
        b.node("Flatten", x),
        b.node("Concat", *[b.node("Identity", b.weight(b.normal(64, 64)))] * 2000, axis=0),
    )


def gathered_again(b, x):
    b.node(
        "MatMul", b.node("Flatten", x), b.node("Gather", b.weight(b.normal(64, 64)), b.weight(np.zeros(4096, "int64")))
    )


def many_maps(b, x):
    x = conv(b, x, 3, 16384, 1)
    for _ in range(70):
        x = b.node("Relu", x)
    pooled(b, x, 16384)


def large_windows(b, x):
    for _ in range(400):
        x = b.node("MaxPool", x, kernel_shape=[31, 31], pads=[15] * 4)
    x = b.node("Pad", x, numbers(b, 0, 0, 32, 32, 0, 0, 32, 32))
    for _ in range(400):
        x = b.node("MaxPool", x, kernel_shape=[255, 255], pads=[127] * 4)
    pooled(b, x, 3)


def of_two_layers_each(b, x):
    kernel = b.weight(b.normal(3, 3, 2, 2))
    for _ in range(600):
        x = b.node("Conv", x, kernel, pads=[1, 1, 0, 0])
    pooled(b, x, 3)


def bounded_above(b, x):
    x = gemm(b, b.node("Flatten", x), 3072)
    length = b.node("ReduceL2", x, axes=[1])
    b.node("Div", x, b.node("Clip", length, b.weight(np.float32(0)), b.weight(np.float32(1))))


def bounded_far_from_zero(b, x):
    x = gemm(b, b.node("Flatten", x), 3072)
    length = b.node("ReduceL2", x, axes=[1])
    b.node("Div", x, b.node("Max", length, b.weight(np.float32([0.1]))))


def of_other_vectors(b, x):
    x, y = gemm(b, b.node("Flatten", x), 3072), gemm(b, b.node("Flatten", x), 3072)
    b.node("Div", x, b.node("ReduceL2", y, axes=[1]))


def not_a_column(b, x):
    x = gemm(b, b.node("Flatten", x), 3072)
    b.node("Div", x, b.node("ReduceL2", x, axes=[1], keepdims=0))


def squares_far_from_zero(b, x):
    """An epsilon of squares that counts in short vectors, which Keras's unit length has not."""
    x = gemm(b, b.node("Flatten", x), 3072)
    squares = b.node("Add", b.node("ReduceSumSquare", x, axes=[1]), b.weight(np.float32(1e-5)))
    b.node("Div", x, b.node("Sqrt", squares))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda b, x: b.node("Softmax", x), r"Softmax of 'x0': no known operator. Known: Add, AveragePool, "),
        (
            lambda b, x: b.node("Relu", x),
            r"its first output 'x0' should be \(images, embedding length\), found \(None, 32, 32, 3\)",
        ),
        (lambda b, x: b.node("Shape", x), r"found no tensor of the images"),
        (lambda b, x: conv(b, x, 4, 4), r"Conv of 'x0': expected a kernel for 3 channels"),
        (lambda b, x: conv(b, x, 3, 4, 33), r"Conv of 'x0': "),
        (lambda b, x: conv(b, x, 3, 4, strides=[0, 1]), r"its strides are \(0, 1\), expected 2 integers from 1 on"),
        (lambda b, x: conv(b, x, 3, 4, strides=[1]), r"its strides are \(1,\), expected 2 integers"),
        (lambda b, x: conv(b, x, 3, 4, pads=[0, 0, 99, 0]), r"expected padding within a map's size"),
        (lambda b, x: conv(b, x, 3, 4, auto_pad="SAME_LOWER"), r"expected explicit padding"),
        (lambda b, x: conv(b, x, 3, 3, groups=3, strides=[1, 2]), r"expected the same stride in both directions"),
        (lambda b, x: b.node("Conv", x, x), r"Conv of 'x0': its input 1 is no weight"),
        (lambda b, x: b.node("Conv", x), r"Conv of 'x0': its input 1 is no weight"),
        (lambda b, x: b.node("Conv", x, numbers(b, 3)), r"its weight 'w0' has the shape \(1,\), expected 4 axes"),
        (lambda b, x: norm(b, x, 4), r"expected 3 numbers of each kind"),
        (
            lambda b, x: b.node("InstanceNormalization", x, *[b.weight(np.ones(4, "float32"))] * 2),
            r"expected 3 numbers of each kind",
        ),
        (lambda b, x: b.node("PRelu", x, b.weight(np.ones(3, "float32"))), r"expected one number, or 3 for channels"),
        (lambda b, x: b.node("Clip", x, b.weight(np.float32(1)), b.weight(np.float32(0))), r"expected bounds in order"),
        (lambda b, x: b.node("Clip", x, x), r"its input 1 is no weight"),
        (lambda b, x: b.node("Div", x, b.weight(np.float32(0))), r"expected no division by zero"),
        (lambda b, x: b.node("Div", x, x), r"Div of 'x0': its input 1 is no weight"),
        (lambda b, x: b.node("Add", x, b.node("Flatten", x)), r"expected two tensors of as many axes"),
        (
            lambda b, x: b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0]),
            r"expected padding by half a window",
        ),
        (
            lambda b, x: b.node("AveragePool", x, kernel_shape=[3, 3], pads=[1, 0, 1, 1]),
            r"expected padding that counts",
        ),
        (
            lambda b, x: b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
            r"expected sizes rounded down",
        ),
        (lambda b, x: b.node("ReduceMean", x, axes=[1]), r"expected the mean over rows and columns"),
        (lambda b, x: b.node("ReduceL2", x, axes=[1]), r"its input 0 is not vectors"),
        (lambda b, x: b.node("Flatten", x, axis=2), r"expected one vector per image"),
        (lambda b, x: b.node("Reshape", x, numbers(b, 3, 1024)), r"expected sizes of whole images, not \[3, 1024\]"),
        (lambda b, x: b.node("Reshape", x, x), r"Reshape of 'x0': its input 1 is no weight"),
        (lambda b, x: b.node("Squeeze", x, numbers(b, 2)), r"expected rows and columns of one pixel"),
        (lambda b, x: b.node("Transpose", x, perm=[0, 3, 2, 1]), r"expected channels moved first or last"),
        (lambda b, x: norm(b, b.node("Transpose", x, perm=NCHW_TO_NHWC), 3), r"its input 0 has the channels last"),
        (
            lambda b, x: norm(b, b.node("Relu", b.node("Transpose", x, perm=NCHW_TO_NHWC)), 3),
            r"its input 0 has the channels last",
        ),
        (lambda b, x: b.node("Pow", x, b.weight(np.float32(3))), r"Pow of 'x0': expected the square"),
        (lambda b, x: b.node("Sqrt", x), r"Sqrt of 'x0': expected the root of a sum of squares"),
        (lambda b, x: b.node("Reciprocal", x), r"Reciprocal of 'x0': expected the inverse of a length"),
        (
            lambda b, x: b.node("ReduceSum", x, numbers(b, 1)),
            r"ReduceSum of 'x0': expected the sum of vectors' squares",
        ),
        (lambda b, x: b.node("ReduceSum", b.node("Mul", x, x), numbers(b, 1)), r"its input 0 is not vectors"),
        (of_other_vectors, "expected vectors and their own lengths"),
        (not_a_column, "expected vectors and their own lengths"),
        (squares_far_from_zero, "expected a least length of at most 1e-05"),
        (lambda b, x: b.node("Concat", x, x, axis=2), r"expected channels"),
        (lambda b, x: gemm(b, b.node("Flatten", x), 9), r"expected a matrix for 3072 numbers"),
        (
            lambda b, x: b.node("Gemm", b.node("Flatten", x), b.weight(b.normal(3072, 5)), transA=1),
            r"vectors as they are",
        ),
        (lambda b, x: b.node("Expand", x, b.node("Shape", x)), r"expected one pixel, expanded to a map"),
        (lambda b, x: b.node("Reshape", x, numbers(b, 0, 100)), r"expected 3072 numbers per image, not \[0, 100\]"),
        (lambda b, x: b.node("Reshape", x, numbers(b, 0, 32, 3, 32)), r"expected the order of numbers kept"),
        (lambda b, x: b.node("Gelu", x, approximate="tanh"), r"expected the exact one"),
        (lambda b, x: b.node("Pad", x, numbers(b, 0, 1, 0, 0, 0, 0, 0, 0)), r"expected zeros around rows and columns"),
        (lambda b, x: b.node("Slice", x, numbers(b, 0), numbers(b, 3)), r"expected one range of channels"),
        (
            lambda b, x: b.node("Slice", x, numbers(b, 3), numbers(b, 9), numbers(b, 1)),
            r"expected at least one channel",
        ),
        (lambda b, x: b.node("Split", x, axis=2), r"expected channels"),
        (lambda b, x: b.node("Split", x, numbers(b, 1), axis=1), r"expected 1 parts of 3 channels"),
        (named_by_all_layers, "its layers have many times the weights that are stored"),
        (joined_again_and_again, "Concat of 'x[0-9]+': expected each weight once"),
        (joined_at_once, "Concat of 'x2': expected each weight once"),
        (gathered_again, "Gather of 'x1': expected no more indices than there are numbers"),
        (many_maps, "are more numbers than any face network has"),
        (large_windows, "more products than any face network has"),
        (of_two_layers_each, "it needs more than 900 layers"),
        (bounded_above, "expected no upper bound of a length"),
        (bounded_far_from_zero, "expected a least length of at most 1e-05"),
        (
            lambda b, x: b.node("Add", gemm(b, b.node("Flatten", x), 3072), b.weight(np.ones((1, 1, 1), "float32"))),
            "one number",
        ),
        (
            lambda b, x: b.nodes.append(onnx.helper.make_node("Relu", [x], ["y"], domain="own")),
            "own.Relu of 'y': no known operator",
        ),
        (lambda b, x: b.node("A" * 3000, x), r"AAAA\.\.\.\.$"),
        (padded_without_end, "are more numbers than any face network has"),
        (too_many, "it has 2404 operators, expected at most 2400"),
    ],
)
def test_networks_that_are_not_read(network, message, path):
    with pytest.raises(errors.FileFormatError, match=message) as error:
        convert(save(path, network), "onnx")
    assert "\n" not in str(error.value)


def test_networks_in_16_bits_are_told_so(path):
    half, numbers = onnx.TensorProto.FLOAT16, [1, 3, 8, 8]
    values = [onnx.helper.make_tensor_value_info(name, half, numbers) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "half", values[:1], values[1:])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(errors.FileFormatError, match=r"'x' are not float32 numbers\. Export the network in float32"):
        convert(path)


def test_what_the_embeddings_do_not_need_is_not_run(path):
    """A loop that does not end, behind a second output."""
    builder = Builder()
    pads(builder, "images")
    builder.nodes.insert(0, endless())
    model = builder.model()
    model.graph.output.append(onnx.helper.make_tensor_value_info("never", onnx.TensorProto.INT64, [1]))
    path.write_bytes(model.SerializeToString())
    assert close(by_keras(convert(path), pictures()), by_keras(convert(save(path, pads)), pictures()))


def endless():
    make = onnx.helper
    number, flag = onnx.TensorProto.INT64, onnx.TensorProto.BOOL
    values = [
        make.make_tensor_value_info(name, kind, []) for name, kind in (("i", number), ("on", flag), ("v", number))
    ]
    body = make.make_graph(
        [make.make_node("Identity", ["on"], ["still"]), make.make_node("Identity", ["v"], ["w"])],
        "body",
        values,
        [make.make_tensor_value_info("still", flag, []), make.make_tensor_value_info("w", number, [])],
        [],
    )
    return make.make_node("Loop", ["", "", "w0"], ["never"], body=body)


def test_is_for_onnx_files(tmp_path):
    with pytest.raises(ValueError, match=r"'onnx' is for .onnx files. Received: path='.*m.pth'"):
        convert(tmp_path / "m.pth", "onnx")


def test_command_line(path, tmp_path, capsys):
    save(path, mobilefacenet)
    words = ["convert", str(path), "--image-mean", "123.675", "116.28", "103.53", "--image-std", "57"]
    assert cli.main([*words, "--output", str(tmp_path / "model.keras")]) == 0
    assert "-> onnx (Functional), " in capsys.readouterr().out
    assert cli.main(["convert", str(path), "--image-mean", "1", "2", "--output", str(tmp_path / "model.keras")]) == 2
    assert "--image-mean takes one number, or one for each of red, green and blue" in capsys.readouterr().err


def test_a_published_mobilefacenet_on_faces(shared):
    """A file that somebody else made; its accuracy on all of LFW is in docs/convert.md."""
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    file = shared / "weights" / "mobilefacenet_foamliu.onnx"
    faces = sorted((shared / "data" / "lfw_112x112").rglob("*.jpg"))[:8]
    faces = np.stack([np.asarray(Image.open(face)) for face in faces])
    found = by_keras(convert(file, image_mean=mean, image_std=std), faces)
    session = onnxruntime.InferenceSession(str(file))
    inputs = ((faces - mean) / std).astype("float32").transpose(0, 3, 1, 2)
    assert close(found, np.concatenate([session.run(None, {"input0": one[None]})[0] for one in inputs]))
