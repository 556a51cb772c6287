"""Conversion of PyTorch checkpoints: the recorded networks, the layouts of the known trainers, broken files."""

import json
import os
import pickle
import tarfile
import zipfile

import backbone_cases
import numpy as np
import pytest
from keras import ops

import keras_sphereface
from keras_sphereface import backbones, cli, errors
from keras_sphereface.conversion import ConversionReport, architectures, checkpoint, convert, mapping

torch = pytest.importorskip("torch", reason="conversion reads PyTorch files: pip install 'keras_sphereface[convert]'")


def tensors_of(backbone):
    """A state dict for a backbone, with the counters that PyTorch's batch normalization adds."""
    state = {name: torch.from_numpy(x) for name, x in backbone_cases.seeded_tensors(backbone).items()}
    for name in [name for name in state if name.endswith("running_var")]:
        state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return state


def embed(model, images):
    return ops.convert_to_numpy(model(images, training=False))


def sfnet(**arguments):
    return backbones.SFNet((0, 1, 0, 0), channels=(4, 6, 6, 8), embedding_dim=5, **arguments)


def save(path, content):
    torch.save(content, path)
    return str(path)


@pytest.fixture
def state():
    return tensors_of(sfnet())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pth"


def embeddings_after(path, content, **arguments):
    model = convert(save(path, content), architecture="sfnet", **arguments)
    return embed(model, backbone_cases.images((112, 112, 3)))


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("sfnet4", "sfnet4"),
        ("sfnet20", "sfnet20"),
        ("sfnet20_bn", "sfnet20"),
        ("sfnet20_bn", "sfnet20_bn"),
        ("sfnet20_deprecated", "sfnet20_deprecated"),
        ("iresnet_1111", "iresnet"),
    ],
)
def test_recorded_networks_of_the_authors(shared, name, architecture):
    recording = np.load(shared / "reference" / "backbones_io.npz")
    model = convert(shared / "reference" / f"{name}.pth", architecture=architecture)
    images = recording["images_nhwc"] * 127.5 + 127.5
    expected = recording[f"{name}/embeddings"]
    error = np.abs(embed(model, images) - expected).max() / np.abs(expected).max()
    assert error < 1e-4
    assert model.conversion_report.max_relative_difference < 1e-4


@pytest.mark.parametrize(
    ("backbone", "found"),
    [
        (backbones.IResNet((1, 2, 1, 1), channels=(4, 4, 4, 4), embedding_dim=4), "iresnet"),
        (sfnet(batch_norm=True), "sfnet_bn"),
        (backbones.MobileFaceNet(embedding_dim=4), "mobilefacenet"),
    ],
)
def test_names_tell_the_architecture(backbone, found, path):
    model = convert(save(path, tensors_of(backbone)))
    assert model.conversion_report.architecture == model.name == found
    named = convert(path, found)
    images = backbone_cases.images((112, 112, 3))
    np.testing.assert_array_equal(embed(model, images), embed(named, images))


def test_an_architecture_that_names_do_not_tell(state, path):
    with pytest.raises(
        errors.FileFormatError, match=r"an SFNet, and its blocks' order.*'sfnet', or 'sfnet_deprecated'"
    ):
        convert(save(path, state))
    first_names = {name.replace(".0.conv1.", ".0.conv."): value for name, value in state.items()}
    assert convert(save(path, first_names)).get_config()["block_order"] == "relu_add"
    with pytest.raises(
        errors.FileFormatError, match=r"of no known architecture, the first are a, b, c\. Convert an ONNX export"
    ):
        convert(save(path, {name: torch.ones(3) for name in "abcd"}))


def test_recorded_mobilefacenet(shared):
    recording = np.load(shared / "reference" / "mobilefacenet_xiaoccer_io.npz")
    model = convert(shared / "weights" / "mobilefacenet_xiaoccer_068.ckpt", architecture="mobilefacenet")
    embeddings = embed(model, recording["images_rgb_uint8"])
    assert model.input_shape == (None, 112, 96, 3)
    assert np.abs(embeddings - recording["embeddings"]).max() < 1e-4


@pytest.mark.parametrize(
    ("case", "architecture"),
    [
        ("sfnet10_relu_add", "sfnet10_deprecated"),
        ("sfnet20_bn", "sfnet20_bn"),
        ("iresnet18", "iresnet18"),
        ("iresnet18", "iresnet"),
        ("mobilefacenet", "mobilefacenet"),
        ("mobilefacenet_112x96", "mobilefacenet"),
    ],
)
def test_golden_networks_through_a_file(case, architecture, reference, path):
    """Written as PyTorch would, read back, the networks give the values recorded with PyTorch."""
    golden = np.load(reference / "backbones_golden.npz")[case]
    original = backbone_cases.make(case)
    model = convert(save(path, tensors_of(original)), architecture=architecture)
    assert model.name == architecture
    plain = {k: v for k, v in original.get_config().items() if k != "name"}
    assert {k: v for k, v in model.get_config().items() if k != "name"} == plain
    embeddings = embed(model, backbone_cases.images(plain["input_shape"]))
    assert np.abs(embeddings - golden).max() / np.abs(golden).max() < 1e-4


def test_function_and_package_do_not_hide_each_other():
    assert keras_sphereface.convert is convert
    assert callable(keras_sphereface.convert)


def test_layouts_of_the_known_trainers(state, path):
    """The same tensors in each trainer's wrapping give the same model."""
    expected = embeddings_after(path, state)
    head = {"w": torch.ones(5, 3)}
    parallel = {f"module.{name}": value for name, value in state.items()}
    wrappings = {
        "parallel": parallel,
        "twice parallel": {f"module.{name}": value for name, value in parallel.items()},
        "opensphere 1": {"backbone": parallel, "head": {f"module.{name}": x for name, x in head.items()}},
        "opensphere 2": {"backbone": state, "head": head},
        "opensphere 2, to resume": {
            "step": 5,
            "epoch": 1,
            "model": {"backbone": state, "head": head},
            "optimizer": {"state": {}},
            "scheduler": {"last_epoch": 5},
            "scaler": {},
        },
        "arcface_torch": {
            "epoch": 1,
            "global_step": 5,
            "state_dict_backbone": parallel,
            "state_dict_softmax_fc": {"weight": torch.ones(3, 5)},
            "state_optimizer": {},
            "state_lr_scheduler": {},
        },
        "mobilefacenet": {"epoch": 68, "net_state_dict": state},
        "prefixes": {f"backbone.{name}": value for name, value in state.items()},
        "prefixes with head": {**{f"module.backbone.{k}": v for k, v in state.items()}, "module.head.w": head["w"]},
    }
    for name, content in wrappings.items():
        np.testing.assert_array_equal(embeddings_after(path, content), expected, err_msg=name)


def test_older_file_format_and_lower_precision(state, path):
    expected = embeddings_after(path, state)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    model = convert(path, architecture="sfnet")
    np.testing.assert_array_equal(embed(model, backbone_cases.images((112, 112, 3))), expected)
    halves = {name: value.half() for name, value in state.items()}
    np.testing.assert_allclose(embeddings_after(path, halves), expected, atol=1e-2)


def test_first_versions_name_of_a_stages_convolution(state, path):
    """OpenSphere's first sfnet_deprecated called it `conv`, and its activations have no parameters."""
    renamed = {name.replace(".0.conv1.", ".0.conv."): value for name, value in state.items()}
    assert renamed.keys() != state.keys()
    later, first = (
        embed(convert(save(path, names), architecture="sfnet_deprecated"), backbone_cases.images((112, 112, 3)))
        for names in (state, renamed)
    )
    np.testing.assert_array_equal(first, later)
    both = {**state, "layer1.0.conv.weight": state["layer1.0.conv1.weight"]}
    with pytest.raises(errors.FileFormatError, match=r"unknown tensors: layer1\.0\.conv\.weight"):
        convert(save(path, both), architecture="sfnet_deprecated")


def test_the_first_names_tell_the_block_order(state, path):
    """Parity could not: the reference takes the order that is named, too."""
    renamed = {name.replace(".0.conv1.", ".0.conv."): value for name, value in state.items()}
    with pytest.raises(errors.FileFormatError, match=r"'layer1\.0\.conv\.weight' has a name that only.*_deprecated"):
        convert(save(path, renamed), architecture="sfnet")
    assert "block order    add_relu (not recorded" in str(
        convert(save(path, state), architecture="sfnet").conversion_report
    )


def test_bookkeeping_of_other_trainers_is_left_aside(state, path):
    compiled = {f"_orig_mod.{name}": value for name, value in state.items()}
    extras = {"best_acc": 0.5, "loops": {"fit": [1, None]}, "optimizer_states": [{"state": torch.zeros(1)}]}
    report = convert(save(path, {"state_dict": compiled, **extras}), architecture="sfnet").conversion_report
    assert set(report.ignored) == set(extras)


def test_preprocessing_and_input_shape(path):
    tall = sfnet(input_shape=(112, 96, 3))
    file = save(path, tensors_of(tall))
    with pytest.raises(errors.FileFormatError, match=r"112x112.*fc\.weight \(has \(5, 336\), expected \(5, 392\)\)"):
        convert(file, architecture="sfnet")
    model = convert(file, architecture="sfnet", input_shape=(112, 96, 3), image_mean=100.0, image_std=50.0)
    assert model.input_shape == (None, 112, 96, 3)
    assert "(RGB - 100) / 50, 112x96" in str(model.conversion_report)
    with pytest.raises(
        ValueError, match=r"`image_mean` must be one finite number for 'sfnet', .* Received: image_mean=\[123"
    ):
        convert(file, architecture="sfnet", image_mean=[123.7, 116.3, 103.5])


def test_converted_model_survives_saving(state, path, tmp_path):
    import keras

    model = convert(save(path, state), architecture="sfnet")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = backbone_cases.images((112, 112, 3))
    np.testing.assert_array_equal(embed(model, images), embed(loaded, images))


def test_global_mixed_precision_does_not_touch_the_conversion(state, path):
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = convert(save(path, state), architecture="sfnet")
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.dtype_policy.name == "float32"
    assert model.conversion_report.max_relative_difference < 1e-5


def test_report(state, path):
    file = save(path, {"epoch": 3, "backbone": {**state}, "head": {"w": torch.zeros(5, 9), "b": torch.zeros(1)}})
    report = convert(file, architecture="sfnet").conversion_report
    assert isinstance(report, ConversionReport)
    values = json.loads(report.to_json())
    assert values == json.loads(json.dumps(report.to_dict()))
    assert values["architecture"] == "sfnet"
    assert values["backbone"]["class_name"] == "SFNet"
    assert values["backbone"]["channels"] == [4, 6, 6, 8]
    assert values["parameters"] == sum(x.numel() for x in state.values())
    assert values["ignored"] == ["epoch"]
    assert values["head_weights"] == {"kernel": [5, 9], "bias": [1]}
    assert 0 <= values["max_relative_difference"] < 1e-5
    assert values["min_cosine"] > 0.99999
    text = str(report)
    assert all(part in text for part in (file, "kernel 5x9", "epoch", values["sha256"], "largest difference"))


@pytest.mark.parametrize(
    ("head", "layout"),
    [
        ({"w": (5, 9)}, None),
        ({"w": (9, 5)}, None),
        ({"weight": (9, 5)}, None),
        ({"w": (5, 5)}, "features_first"),
        ({"w": (5, 5)}, "classes_first"),
        ({"weight": (5, 5)}, None),
    ],
)
def test_class_weights_in_either_layout(head, layout, state, path):
    ((name, shape),) = head.items()
    stored = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    file = save(path, {"backbone": state, "head": {name: torch.from_numpy(stored), "b": torch.ones(1, shape[-1])}})
    if shape[0] != 5 or shape[1] != 5:
        file = save(path, {"backbone": state, "head": {name: torch.from_numpy(stored)}})
    weights = convert(file, architecture="sfnet", head_layout=layout).conversion_report.head_weights
    classes_first = name == "weight" or layout == "classes_first" or (shape[0] == 9)
    np.testing.assert_array_equal(weights["kernel"], stored.T if classes_first else stored)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"w": (5, 5)}, r"\(5, 5\).*head_layout"),
        ({"w": (4, 9)}, r"\(4, 9\).*include_head=False"),
        ({"weight": (4, 9)}, r"\(4, 9\)"),
        ({"v": (5, 9)}, "tensors v;"),
        ({"w": (5, 9), "t": (1,)}, "tensors t, w;"),
        ({"w": (5, 9), "b": (4,)}, "bias has 4 values"),
    ],
)
def test_heads_that_cannot_be_told(head, message, state, path):
    content = {"backbone": state, "head": {name: torch.zeros(shape) for name, shape in head.items()}}
    file = save(path, content)
    with pytest.raises(errors.FileFormatError, match=message):
        convert(file, architecture="sfnet")
    assert convert(file, architecture="sfnet", include_head=False).conversion_report.head_weights == {}


def test_only_counters_of_known_modules_are_passed_over(state, path):
    with pytest.raises(errors.FileFormatError, match=r"unknown tensors: layer1\.0\.bn1\.num_batches_tracked"):
        convert(save(path, {**state, "layer1.0.bn1.num_batches_tracked": torch.tensor(7)}), architecture="sfnet")


def test_networks_that_pytorch_cannot_compute(path):
    state = tensors_of(sfnet(batch_norm=True))
    state["layer2.0.bn1.running_var"] -= 100
    with pytest.raises(errors.FileFormatError, match=r"own embeddings .* below zero in layer2\.0\.bn1\.running_var"):
        convert(save(path, state), architecture="sfnet")
    state = tensors_of(sfnet())
    state["fc.weight"] = torch.full_like(state["fc.weight"], 3e38)
    with pytest.raises(errors.FileFormatError, match=r"own embeddings .* overflow float32"):
        convert(save(path, state), architecture="sfnet")
    for argument in ("image_mean", "image_std"):
        with pytest.raises(ValueError, match=f"Received: {argument}=nan"):
            convert(path, architecture="sfnet", **{argument: float("nan")})


def test_missing_unknown_and_misshapen_tensors_are_named(state, path):
    del state["layer2.1.conv2.bias"]
    state["layer9.surprise"] = torch.zeros(1)
    state["layer2.0.conv1.bias"] = torch.zeros(7)
    with pytest.raises(errors.FileFormatError) as error:
        convert(save(path, state), architecture="sfnet")
    message = str(error.value)
    assert "missing tensors: layer2.1.conv2.bias;" in message
    assert "unknown tensors: layer9.surprise;" in message
    assert "tensors of another shape: layer2.0.conv1.bias (has (7,), expected (6,))" in message
    assert "\n" not in message


def test_a_tensor_that_claims_a_large_network_takes_no_memory(state, path):
    """One column of a matrix with ten million rows: the layer would have four billion weights."""
    state["fc.weight"] = torch.zeros(10_000_000, 1)
    with pytest.raises(errors.FileFormatError, match=r"fc\.weight \(has \(10000000, 1\), expected \(10000000, 392\)\)"):
        convert(save(path, state), architecture="sfnet")
    with pytest.raises(errors.FileFormatError, match=r"for 100000x100000 images; .*fc\.weight"):
        convert(save(path, tensors_of(sfnet())), architecture="sfnet", input_shape=(100_000, 100_000, 3))


@pytest.mark.parametrize("architecture", ["sfnet", "iresnet"])
def test_names_of_thousands_of_units_build_no_network(architecture, state, path):
    """It would take Keras minutes, and beyond Python's stack."""
    save(path, {**state, **{f"layer3.{index}.conv1.weight": torch.zeros(1) for index in range(1, 3001)}})
    with pytest.raises(errors.FileFormatError, match=r"of 30\d\d residual units, expected at most 120"):
        convert(path, architecture=architecture)


def test_names_that_a_file_gives_fit_on_a_line(state, path):
    state["evil\nname\n"] = state["x" * 100_000] = state[""] = torch.zeros(1)
    with pytest.raises(errors.FileFormatError) as error:
        convert(save(path, state), architecture="sfnet")
    assert "unknown tensors: '', evil name, xxx" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ["fc.weight", "layer3.0.conv1.weight"])
def test_missing_tensor_that_tells_a_size(name, state, path):
    del state[name]
    with pytest.raises(errors.FileFormatError, match=f"missing tensor '{name}'"):
        convert(save(path, state), architecture="sfnet")


def test_depth_in_the_name_is_held_to(state, path):
    """The name fixes the units: SFNet-4 has fewer than the file, SFNet-10 more."""
    with pytest.raises(errors.FileFormatError, match=r"unknown tensors: layer2\.1\.conv1\.bias"):
        convert(save(path, state), architecture="sfnet4")
    with pytest.raises(errors.FileFormatError, match=r"missing tensors: layer3\.1\.conv1\.bias"):
        convert(save(path, state), architecture="sfnet10")
    with pytest.raises(errors.FileFormatError, match=r"missing tensors: .*bn1"):
        convert(save(path, state), architecture="sfnet_bn")


def test_unknown_architecture_lists_the_known_ones(state, path):
    with pytest.raises(ValueError, match=r"Received: architecture='resnet50'.*iresnet50"):
        convert(save(path, state), architecture="resnet50")
    with pytest.raises(ValueError, match=r"Received: architecture=\['sfnet'\]"):
        convert(save(path, state), architecture=["sfnet"])
    assert {"sfnet64_deprecated", "iresnet200", "mobilefacenet"} <= set(architectures())


class _Danger:
    """Pickles to a call that leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_pickled_code_is_not_run(tmp_path, state):
    trace = tmp_path / "it_ran"
    for name, write in {
        "zip.pth": lambda file: torch.save({**state, "x": _Danger(trace)}, file),
        "old.pth": lambda file: torch.save({"x": _Danger(trace)}, file, _use_new_zipfile_serialization=False),
        "pickle.pth": lambda file: file.write_bytes(pickle.dumps(_Danger(trace), protocol=2)),
        "module.pth": lambda file: torch.save(torch.nn.Linear(2, 2), file),
    }.items():
        file = tmp_path / name
        write(file)
        with pytest.raises(errors.FileFormatError) as error:
            convert(file, architecture="sfnet")
        assert str(file) in str(error.value)
        assert "\n" not in str(error.value)
        assert "weights_only" not in str(error.value), "no advice to load it unsafely"
        assert ("Linear" if name == "module.pth" else "mkdir") in str(error.value)
        assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds a Tensor"),
        ([torch.zeros(3)], "holds a list"),
        ({}, "non-empty state dict"),
        ({"backbone": {}}, "the entry 'backbone' holds nothing, expected a non-empty state dict"),
        ({1: torch.zeros(3)}, "names that are not strings"),
        ({"fc.weight": "text"}, "'fc.weight' is a str"),
        ({"weights": {"a": torch.zeros(1)}}, "has the entries weights; expected"),
        ({"backbone": {"a": torch.zeros(1)}, "net_state_dict": {"a": torch.zeros(1)}}, "exactly one of"),
        ({"backbone": {"a": torch.zeros(1)}, "secret": [torch.zeros(1)]}, "unknown entries: secret"),
        ({"fc.weight": torch.tensor([[1.0, float("nan")]])}, "'fc.weight' has values that are not finite"),
        ({"fc.weight": torch.eye(3).to_sparse()}, "'fc.weight' is sparse"),
        (
            {"fc.weight": torch.zeros(4, dtype=torch.uint8).view(torch.bits8)},
            "'fc.weight' is torch.bits8, expected num",
        ),
        ({"fc.weight": torch.zeros(2, 2, dtype=torch.complex64)}, "complex"),
        ({"fc.weight": torch.zeros(2, 2, device="meta")}, "without data"),
        ({"fc.weight": torch.zeros(1).expand(1 << 42)}, "larger than its data"),
        ({"layer1.0.conv1.weight": torch.zeros(3)}, r"'layer1.0.conv1.weight' has the shape \(3,\)"),
        ({"layer1.0.conv1.weight": torch.zeros(0, 3, 3, 3)}, "positive sizes"),
    ],
)
def test_files_that_are_no_state_dict(content, message, path):
    with pytest.raises(errors.FileFormatError, match=message) as error:
        convert(save(path, content), architecture="sfnet")
    assert "\n" not in str(error.value)


def test_single_numbers_beside_the_network_are_no_part_of_it(state, path):
    """PyTorch's trainers keep their best accuracy as a tensor. A negated view is numbers like others."""
    state["fc.bias"] = torch._neg_view(-state["fc.bias"])
    model = convert(save(path, {"state_dict": state, "best_acc1": torch.tensor(90.0)}), "sfnet")
    assert model.conversion_report.ignored == ("best_acc1",)


def cyclic():
    entry = [1]
    entry.append(entry)
    return entry


def doubled():
    entry = [1]
    for _ in range(60):  # 2**60 places, and 60 lists
        entry = [entry, entry]
    return entry


@pytest.mark.parametrize("entry", [cyclic(), doubled()], ids=["cyclic", "doubled"])
def test_entries_that_do_not_end_are_left_aside(entry, state, path):
    assert convert(save(path, {"backbone": state, "notes": entry}), "sfnet").conversion_report.ignored == ("notes",)


def test_one_tensor_under_many_names_takes_no_memory(state, path):
    state["fc.bias"] = shared = torch.zeros(1000)
    save(path, {**state, **{f"more{number}": shared for number in range(100)}})
    with pytest.raises(errors.FileFormatError, match=r"bytes, but share [\d,]+; expected at most 2 names"):
        convert(path, architecture="sfnet")
    tied = checkpoint.read(save(path, {"a": shared, "b": shared}))
    assert set(tied.backbone) == {"a", "b"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image_mean": True}, ValueError, "`image_mean` must be a finite number. Received: image_mean=True"),
        ({"image_std": float("inf")}, ValueError, "image_std=inf"),
        ({"include_head": "no"}, ValueError, "`include_head` must be True or False. Received: include_head='no'"),
        ({"path": 12345}, TypeError, "`path` must be the path of a file. Received: path=12345"),
    ],
)
def test_arguments_are_checked_before_the_file_is_read(arguments, error, message, path):
    with pytest.raises(error, match=message):
        convert(**{"path": path, "architecture": "sfnet", **arguments})


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_is_named(path):
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(errors.FileFormatError, match=r"'fc\.weight' is sparse.*nested"):
        convert(save(path, {"fc.weight": nested}), architecture="sfnet")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02.", b"PK\x03\x04broken zip"])
def test_bytes_that_are_no_checkpoint(content, path):
    path.write_bytes(content)
    with pytest.raises(errors.FileFormatError, match="no PyTorch checkpoint") as error:
        convert(path, architecture="sfnet")
    assert "\n" not in str(error.value)


def test_an_archive_of_something_else_is_told_as_such(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    with pytest.raises(errors.FileFormatError, match=r"archive of something else, with config\.json, metadata\.json"):
        convert(path, architecture="sfnet")


def test_a_packed_archive_is_not_unpacked_to_many_times_its_size(state, path, tmp_path):
    save(tmp_path / "plain.pth", {**state, "fc.bias": torch.zeros(1 << 20)})
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(errors.FileFormatError, match=r"bytes would unpack to 4,\d+,\d+"):
        convert(path, architecture="sfnet")


def test_a_packed_archive_of_real_weights_is_read(state, path, tmp_path):
    expected = embeddings_after(tmp_path / "plain.pth", state)
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    model = convert(path, architecture="sfnet")
    np.testing.assert_array_equal(embed(model, backbone_cases.images((112, 112, 3))), expected)


def test_other_archives_of_pytorch_get_no_advice_to_load_them_unsafely(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    script = path.read_bytes()
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    for content, kind in ((script, "TorchScript"), (path.read_bytes(), r"legacy \.tar")):
        path.write_bytes(content)
        with pytest.raises(errors.FileFormatError, match=f"it is a {kind} archive") as error:
            convert(path, architecture="sfnet")
        assert "weights_only" not in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({}, None),
        ({"w": torch.full((5, 9), float("nan"))}, "'w' has values that are not finite"),
        (torch.zeros(5, 9), "the entry 'head' holds a Tensor"),
        ({"w": torch.zeros(1, device="meta")}, "without data"),
    ],
)
def test_without_its_head_a_file_is_read_whatever_the_head_holds(head, message, state, path):
    file = save(path, {"backbone": state, "head": head})
    report = convert(file, architecture="sfnet", include_head=False).conversion_report
    assert (report.head_weights, report.ignored[0]) == ({}, "head")
    if message is None:
        assert convert(file, architecture="sfnet").conversion_report.head_weights == {}
        return
    with pytest.raises(errors.FileFormatError, match=message):
        convert(file, architecture="sfnet")


def test_prefixes_inside_an_entry(state, path):
    """A whole classifier's state dict under `state_dict`, as Lightning writes it, the best score beside it a tensor."""
    content = {**{f"module.backbone.{k}": v for k, v in state.items()}, "module.head.w": torch.ones(5, 9)}
    callbacks = {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.5), "best_k_models": {}}}
    file = save(path, {"epoch": 2, "state_dict": content, "callbacks": callbacks})
    report = convert(file, architecture="sfnet").conversion_report
    assert report.head_weights["kernel"].shape == (5, 9)
    report = convert(path, architecture="sfnet", include_head=False).conversion_report
    assert (report.head_weights, report.ignored[:3]) == ({}, ("epoch", "callbacks", "head.*"))
    both = save(path, {"state_dict": content, "head": {"w": torch.ones(5, 9)}})
    with pytest.raises(errors.FileFormatError, match=r"two heads, head and head\.\*, expected one"):
        convert(both, architecture="sfnet")


def test_truncated_file(state, path):
    save(path, state)
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(errors.FileFormatError, match="no PyTorch checkpoint"):
            convert(path, architecture="sfnet")


def test_absent_file_is_the_operating_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "absent.pth", architecture="sfnet")


def test_odd_kernel_needs_the_input_shape(path):
    odd = backbones.MobileFaceNet(embedding_dim=4, input_shape=(96, 96, 3))
    file = save(path, tensors_of(odd))
    with pytest.raises(errors.FileFormatError, match=r"\(6, 6\).*pass `input_shape`"):
        convert(file, architecture="mobilefacenet")
    assert convert(file, architecture="mobilefacenet", input_shape=(96, 96, 3)).input_shape == (None, 96, 96, 3)


def test_every_variable_has_its_tensor():
    for backbone in (
        sfnet(),
        sfnet(batch_norm=True),
        backbone_cases.make("iresnet18"),
        backbone_cases.make("mobilefacenet"),
    ):
        slots = mapping.slots(backbone)
        assert len(slots) == len(backbone.weights)
        assert {id(slot.variable) for slot in slots.values()} == {id(w) for w in backbone.weights}


def test_command_line(state, path, tmp_path, capsys):
    import keras

    file = save(path, {"backbone": state, "head": {"w": torch.ones(5, 9)}})
    output, report, head = tmp_path / "model.keras", tmp_path / "report.json", tmp_path / "head.npz"
    arguments = ["convert", file, "--architecture", "sfnet", "--output", str(output)]
    assert cli.main([*arguments, "--report", str(report), "--head", str(head)]) == 0
    printed = capsys.readouterr().out
    assert "parity" in printed
    assert f"wrote {output}" in printed
    assert keras.saving.load_model(output).output_shape == (None, 5)
    assert json.loads(report.read_text())["architecture"] == "sfnet"
    np.testing.assert_array_equal(np.load(head)["kernel"], np.ones((5, 9)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--architecture", "sfnet4", "--output", "{tmp}/m.keras"], "unknown tensors: layer2.1.conv1.bias"),
        (["--architecture", "nonsense", "--output", "{tmp}/m.keras"], "Received: architecture='nonsense'"),
        (["--architecture", "sfnet", "--output", "{tmp}/m.h5"], "--output must end in .keras"),
        (["--architecture", "sfnet", "--output", ""], "--output must end in .keras"),
        (["--architecture", "sfnet", "--output", "{tmp}/no/m.keras"], "does not exist"),
        (["--architecture", "sfnet", "--output", "{tmp}/m.keras", "--head", "{tmp}/h.npz"], "has no class weights"),
    ],
)
def test_command_line_errors_are_one_line(arguments, message, state, path, tmp_path, capsys):
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    code = cli.USAGE if "must end" in message else cli.ERROR
    assert cli.main(["convert", save(path, state), *arguments]) == code
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (tmp_path / "m.keras").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--report", "{tmp}/m.keras"], "--report would overwrite --output"),
        (["--report", "{tmp}/checkpoint.pth"], "--report would overwrite the checkpoint"),
        (["--report", "{tmp}/folder/../link.pth"], "--report would overwrite the checkpoint"),
        (["--head", "{tmp}/h.npz", "--report", "{tmp}/folder/../h.npz"], "--report would overwrite --head"),
        (["--report", "{tmp}/folder"], "Expected a file"),
        (["--head", "{tmp}/folder.npz"], "Expected a file"),
        (["--head", "{tmp}/h.npz", "--no-head"], "leave one away"),
    ],
)
def test_command_line_keeps_what_is_there(arguments, message, state, path, tmp_path, capsys):
    """Two outputs of one name, or the checkpoint's own, are refused before anything is written."""
    file = save(path, {"backbone": state, "head": {"w": torch.ones(5, 9)}})
    before = path.read_bytes()
    (tmp_path / "link.pth").symlink_to(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.npz").mkdir()
    fixed = ["convert", file, "--architecture", "sfnet", "--output", str(tmp_path / "m.keras")]
    assert cli.main([*fixed, *(argument.format(tmp=tmp_path) for argument in arguments)]) in (cli.USAGE, cli.ERROR)
    assert message in capsys.readouterr().err
    assert path.read_bytes() == before
    assert not (tmp_path / "m.keras").exists()
