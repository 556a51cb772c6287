"""Conversion of the IR networks of AdaFace, CVLface, face.evoLVe and InsightFace_Pytorch, beside PyTorch's own modules."""

import itertools
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_sphereface import cli, errors
from keras_sphereface.conversion import checkpoint, convert

torch = pytest.importorskip("torch", reason="conversion reads PyTorch files: pip install 'keras_sphereface[convert]'")
nn = torch.nn

UNITS, CHANNELS, DIM = (1, 2, 2, 1), (8, 12, 16, 20), 6


class Squeeze(nn.Module):
    def __init__(self, channels, reduction):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Unit(nn.Module):
    def __init__(self, inputs, outputs, stride, inner_norm, squeeze):
        super().__init__()
        same = inputs == outputs
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            *([nn.BatchNorm2d(outputs)] if inner_norm else []),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        if squeeze:
            name = squeeze if squeeze != "next" else str(len(self.res_layer))
            self.res_layer.add_module(name, Squeeze(outputs, 4))

    def forward(self, x):
        return self.shortcut_layer(x) + self.res_layer(x)


class IR(nn.Module):
    """As the papers' code has it, in the order and with the names of its modules."""

    def __init__(self, units=UNITS, channels=CHANNELS, inner_norm=True, squeeze=None, affine=True):
        super().__init__()
        first = channels[0]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)
        )
        body, inputs = [], first
        for count, outputs in zip(units, channels):
            for index in range(count):
                body.append(Unit(inputs, outputs, 2 if index == 0 else 1, inner_norm, squeeze))
                inputs = outputs
        self.body = nn.Sequential(*body)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(inputs * 49, DIM),
            nn.BatchNorm1d(DIM, affine=affine),
        )

    def forward(self, x):
        return self.output_layer(self.body(self.input_layer(x)))


def made(**arguments):
    """A network with seeded weights and statistics that are not trivial."""
    torch.manual_seed(0)
    module = IR(**arguments)
    for name, value in module.state_dict().items():
        if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
            value.uniform_(0.5, 1.0)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.1)
    return module.eval()


def embeddings(module, images, flip=False):
    x = torch.from_numpy((images[..., ::-1] if flip else images).astype("float32")).permute(0, 3, 1, 2)
    with torch.no_grad():
        return module((x - 127.5) / 127.5).numpy()


def check(model, module, flip=False):
    images = np.random.RandomState(3).randint(0, 256, (3, 112, 112, 3)).astype("uint8")
    expected = embeddings(module, images, flip)
    found = ops.convert_to_numpy(model(images, training=False))
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4
    assert model.conversion_report.max_relative_difference < 1e-4


def save(path, content):
    torch.save(content, path)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.ckpt"


def test_adaface(path):
    """Lightning's file: the network under `model.`, the head beside it, the callbacks by their class, BGR."""
    module = made(affine=False)
    state = {f"model.{name}": value for name, value in module.state_dict().items()}
    kernel = torch.randn(DIM, DIM)
    head = {"kernel": kernel, **{name: torch.ones(1) for name in ("t", "batch_mean", "batch_std")}}
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    monitor = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    content = {
        "epoch": 25,
        "global_step": 1000,
        "pytorch-lightning_version": "1.4.4",
        "state_dict": {**state, **{f"head.{name}": value for name, value in head.items()}},
        "callbacks": {monitor: {"monitor": "val_acc", "best_model_score": torch.tensor(0.97)}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [torch.optim.lr_scheduler.MultiStepLR(optimizer, [12, 20, 24]).state_dict()],
        "hparams_name": "kwargs",
        "hyper_parameters": {"arch": "ir_50", "head": "adaface", "m": 0.4},
    }
    with as_module(monitor):
        save(path, content)
    model = convert(path, channel_order="BGR")  # the names tell that it is an IR
    check(model, module, flip=True)
    report = model.conversion_report
    np.testing.assert_array_equal(report.head_weights["kernel"], kernel.numpy())
    assert "callbacks" in report.ignored
    assert "the first layer turned from BGR" in str(report)
    assert model.get_config()["units"] == UNITS


class as_module:
    """Puts a class where pickle looks for it, and takes it away again."""

    def __init__(self, cls):
        self.module = type(sys)(cls.__module__)
        setattr(self.module, cls.__name__, cls)

    def __enter__(self):
        names = self.module.__name__.split(".")
        self.names = [".".join(names[: count + 1]) for count in range(len(names))]
        sys.modules.update({name: type(sys)(name) for name in self.names} | {self.module.__name__: self.module})

    def __exit__(self, *_):
        for name in self.names:
            del sys.modules[name]


def test_the_class_of_a_callback_is_not_imported(path):
    """The file is read with empty classes in their place, and only of those names."""
    other = type("Surprise", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    with as_module(other):
        save(path, {"state_dict": made().state_dict(), "callbacks": {other: {}}})
    with pytest.raises(
        errors.FileFormatError, match=r"refers to pytorch_lightning\.callbacks\.model_checkpoint\.Surprise"
    ):
        convert(path, "ir", channel_order="BGR")
    assert "pytorch_lightning" not in sys.modules


@pytest.mark.parametrize("prefix", ["", "net.", "model.net.", "module."])
def test_cvlface_in_both_of_its_formats(prefix, path, tmp_path):
    module = made(affine=False)
    state = {prefix + name: value.clone() for name, value in module.state_dict().items()}
    check(convert(save(path, state), "ir", channel_order="RGB"), module)
    safetensors = pytest.importorskip("safetensors.torch", reason="reads safetensors files: the extra [convert]")
    safetensors.save_file(state, tmp_path / "model.safetensors")
    model = convert(tmp_path / "model.safetensors", "ir", channel_order="RGB")
    check(model, module)
    assert model.conversion_report.checkpoint.endswith("model.safetensors")


@pytest.mark.parametrize(
    ("inner_norm", "squeeze"), [(False, None), (False, "next"), (True, "next"), (True, "se_block")]
)
def test_units_of_each_kind(inner_norm, squeeze, path, tmp_path):
    """face.evoLVe's and InsightFace_Pytorch's units have one normalization less; squeeze and excitation has three names."""
    module = made(inner_norm=inner_norm, squeeze=squeeze)
    model = convert(save(path, module.state_dict()), "ir", channel_order="RGB")
    check(model, module)
    config = model.get_config()
    assert (config["inner_norm"], config["se_reduction"]) == (inner_norm, 4 if squeeze else None)
    model.save(tmp_path / "model.keras")
    check_the_same(model, keras.saving.load_model(tmp_path / "model.keras"))


def check_the_same(model, other):
    images = np.random.RandomState(3).randint(0, 256, (1, 112, 112, 3)).astype("uint8")
    np.testing.assert_array_equal(*(ops.convert_to_numpy(one(images, training=False)) for one in (model, other)))


def test_depth_and_squeeze_in_the_name_are_held_to(path):
    deep = made(units=(3, 4, 14, 3), channels=(4, 8, 12, 16), squeeze="se_block")
    save(path, deep.state_dict())
    check(convert(path, "ir_se_50", channel_order="RGB"), deep)
    with pytest.raises(errors.FileFormatError, match=r"unknown tensors: body\.0\.res_layer\.se_block\.fc1\.weight"):
        convert(path, "ir_50", channel_order="RGB")
    with pytest.raises(errors.FileFormatError, match=r"unknown tensors: body\.1[0-9]\."):
        convert(path, "ir_se_18", channel_order="RGB")
    save(path, made().state_dict())
    with pytest.raises(errors.FileFormatError, match=r"missing tensors: .*body\.0\.res_layer\.6\.fc1\.weight"):
        convert(path, "ir_se_18", channel_order="RGB")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("body.3.shortcut_layer.0.weight"), r"6 units `body.<number>.res_layer` in 3 stages"),
        (lambda state: state.pop("body.4.res_layer.1.weight"), r"missing tensors: body\.4\.res_layer\.1\.weight"),
        (lambda state: state.pop("output_layer.3.weight"), r"missing tensor 'output_layer\.3\.weight'"),
        (lambda state: state.pop("output_layer.4.bias"), r"missing tensors: output_layer\.4\.bias"),
        (lambda state: state.update({"body.9.x": torch.zeros(1)}), r"unknown tensors: body\.9\.x"),
        (
            lambda state: state.update({"body.0.res_layer.5.fc1.weight": torch.zeros(8)}),
            r"the shape \(8,\), expected 4",
        ),
    ],
)
def test_what_does_not_fit_is_named_as_in_the_file(change, message, path):
    state = dict(made().state_dict())
    change(state)
    with pytest.raises(errors.FileFormatError, match=message) as error:
        convert(save(path, state), "ir", channel_order="RGB")
    assert "\n" not in str(error.value)


def test_names_of_thousands_of_units_build_no_network(path):
    state = {f"body.{number}.res_layer.0.weight": torch.zeros(1) for number in range(3000)}
    with pytest.raises(errors.FileFormatError, match="of 3000 residual units, expected at most 120"):
        convert(save(path, state), "ir", channel_order="RGB")
    with pytest.raises(errors.FileFormatError, match="of 0 units"):
        convert(save(path, {"weight": torch.zeros(1)}), "ir", channel_order="RGB")


def test_the_order_of_the_channels_must_be_given(path):
    save(path, made().state_dict())
    with pytest.raises(ValueError, match=r"`channel_order` must be given for IR networks.*AdaFace's own.*BGR"):
        convert(path, "ir")
    with pytest.raises(ValueError, match=r"one of \('RGB', 'BGR'\)\. Received: channel_order='bgr'"):
        convert(path, "ir", channel_order="bgr")


@pytest.mark.parametrize("architecture", ["sfnet", "mobilefacenet"])
def test_any_network_can_be_turned(architecture, path):
    """A model of BGR gives for BGR what the same weights as of RGB give for RGB."""
    import backbone_cases

    from keras_sphereface import backbones

    make = {
        "sfnet": lambda: backbones.SFNet((0, 0, 0, 0), channels=(4, 6, 6, 8), embedding_dim=5),
        "mobilefacenet": lambda: backbones.MobileFaceNet(embedding_dim=5),
    }[architecture]
    save(path, {name: torch.from_numpy(x) for name, x in backbone_cases.seeded_tensors(make()).items()})
    images = backbone_cases.images((112, 112, 3))
    turned = convert(path, architecture, channel_order="BGR")(images[..., ::-1], training=False)
    plain = convert(path, architecture)(images, training=False)
    np.testing.assert_allclose(ops.convert_to_numpy(turned), ops.convert_to_numpy(plain), atol=1e-5)


def test_a_shared_prefix_is_no_split(path):
    """Names that would fall together, or of neither part, are left as they are."""
    tensors = {"backbone.a": torch.zeros(1), "model.a": torch.ones(1)}
    assert set(checkpoint.read(save(path, tensors)).backbone) == set(tensors)
    tensors = {"model.a": torch.zeros(1), "tail.a": torch.ones(1)}
    assert set(checkpoint.read(save(path, tensors)).backbone) == set(tensors)


def broken_safetensors():
    """Ends, lengths and headers that no file should have, and one that is PyTorch's."""
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    size = len(header).to_bytes(8, "little")
    return {
        "empty": b"",
        "short": size + header + b"\0" * 4,
        "huge": (1 << 60).to_bytes(8, "little") + header,
        "no json": (4).to_bytes(8, "little") + b"{{{{",
        "claims": (len(header) + 9).to_bytes(8, "little") + header.replace(b"[2]", b"[20000000000]") + b"\0" * 8,
        "other type": size + header.replace(b"F32", b"X32") + b"\0" * 8,
    }


@pytest.mark.parametrize("content", broken_safetensors().values(), ids=broken_safetensors().keys())
def test_broken_safetensors(content, tmp_path):
    pytest.importorskip("safetensors", reason="reads safetensors files: the extra [convert]")
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(errors.FileFormatError, match="no safetensors file") as error:
        convert(file, "ir", channel_order="RGB")
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "absent.safetensors", "ir", channel_order="RGB")


def test_command_line(path, tmp_path, capsys):
    save(path, made().state_dict())
    arguments = ["convert", str(path), "--architecture", "ir", "--output", str(tmp_path / "model.keras")]
    assert cli.main(arguments) == cli.ERROR
    assert "must be given for IR networks" in capsys.readouterr().err
    assert cli.main([*arguments, "--channel-order", "BGR"]) == 0
    assert "turned from BGR" in capsys.readouterr().out


def test_all_names_are_distinct():
    from keras_sphereface.conversion import ir

    for inner_norm, squeeze in itertools.product((True, False), (None, 4)):
        names = ir.module_names({"units": (3, 4, 14, 3), "inner_norm": inner_norm, "se_reduction": squeeze}, {})
        assert len(set(names.values())) == len(names)
