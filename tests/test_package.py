"""The package as a whole: names, layers, cheap and harmless import."""

import ast
import pathlib
import subprocess
import sys

import pytest

import keras_sphereface as ksf

PACKAGE = pathlib.Path(ksf.__file__).parent

# The package's parts from low to high, and the lower ones that each may import. Not listed: not allowed.
MAY_IMPORT = {
    "arguments": "",
    "errors": "",
    "version": "",
    "lazy": "",
    "hints": "",
    # 0: pure functions, files
    "angular": "",
    "devices": "",
    "files": "",
    "embedder": "files",
    "safe_config": "",
    "model_size": "safe_config",
    "weights_file": "files",
    # 1: tables and readers; evaluation never sees Keras, data never scores
    "margins": "angular",
    "feature_norms": "",
    "finite_mean": "",
    "evaluation": "files weights_file",
    "data": "devices files",
    "presets": "files",
    "faces": "data",
    # 2: layers and networks
    "losses": "margins",
    "regularizers": "margins",
    "heads": "devices margins feature_norms losses regularizers",
    "backbones": "",
    "schedules": "",
    "distribution": "data heads",
    "fused_sgd": "devices",
    "optimizers": "fused_sgd",
    "guarded_optimizer": "",
    "sampled_optimizers": "fused_sgd",
    # 3: what people call
    "traced_backbone": "backbones",
    "classifier": "devices embedder finite_mean losses sampled_optimizers traced_backbone",
    "imprinting": "classifier data",
    "registration": "backbones classifier fused_sgd guarded_optimizer heads schedules",
    "evaluator": "evaluation",
    "ijb_evaluator": "evaluator evaluation data",
    "callbacks": "data distribution evaluator files guarded_optimizer",
    "plots": "angular classifier evaluation heads margins",
    "model_card": "files presets",
    "layer_graph": "backbones",
    "model_folder": "embedder files layer_graph model_size safe_config weights_file",
    "precision": "layer_graph",
    "export": "devices embedder evaluation evaluator files layer_graph precision",
    "conversion": "backbones export files model_size",
    "hub_arguments": "presets",
    "hub_errors": "",
    "hub_files": "hub_arguments hub_errors model_folder presets",
    "hub": "backbones embedder hub_arguments hub_errors hub_files model_card model_folder precision presets weights_file",
    "recognition": "data embedder evaluation evaluator export faces files hub precision presets",
    "demo": "data recognition",
    # 4
    "cli": "backbones callbacks classifier conversion data demo devices embedder evaluation evaluator export faces files "
    "heads hub ijb_evaluator imprinting model_card model_folder optimizers plots precision presets recognition registration "
    "schedules",
}


def imports_of(path):
    """The parts of the package that a file imports."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "keras_sphereface":
                parts |= {alias.name for alias in node.names}
            elif node.module.startswith("keras_sphereface."):
                parts.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            parts |= {a.name.split(".")[1] for a in node.names if a.name.startswith("keras_sphereface.")}
    return parts


def test_every_part_has_its_layer():
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert parts - {"__init__"} == set(MAY_IMPORT)
    order = list(MAY_IMPORT)
    for part, lower in MAY_IMPORT.items():
        assert all(order.index(name) < order.index(part) for name in lower.split()), part


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_layers(part):
    """A part imports only what the table allows it."""
    allowed = {part, "arguments", "errors", "hints", "lazy", "version", *MAY_IMPORT[part].split()}
    for path in list((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]:
        assert imports_of(path) <= allowed, path


def test_evaluation_is_numpy_only():
    for path in (PACKAGE / "evaluation").rglob("*.py"):
        words = path.read_text()
        assert "import keras\n" not in words, path
        assert "tensorflow" not in words, path


def test_every_public_name_is_there():
    assert set(ksf.__all__) <= set(dir(ksf))
    for name in ksf.__all__:
        assert getattr(ksf, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ksf.nothing


def test_type_checkers_see_the_names_that_are_imported_when_used():
    for package in (ksf, ksf.data, ksf.faces, ksf.recognition):
        tree = ast.parse(pathlib.Path(package.__file__).read_text())
        (block,) = (
            node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        )
        names = {alias.asname for statement in block.body for alias in statement.names}
        assert names == set(package.__all__) - {"__version__"}, package


def test_help_needs_no_keras():
    result = run_python(
        "import sys, keras_sphereface_command; from keras_sphereface.cli import COMMANDS, build_parser\n"
        "for command in COMMANDS: build_parser(command)\n"
        "assert not {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)"
    )
    assert result.returncode == 0, result.stderr


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_import_has_no_side_effects():
    result = run_python(
        "import keras, os, sys; before = dict(os.environ); modules = set(sys.modules); import keras_sphereface; "
        "assert dict(os.environ) == before; "
        "optional = {'matplotlib', 'PIL', 'huggingface_hub', 'onnx', 'tqdm'} & (set(sys.modules) - modules); "
        "assert not optional, optional"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


def test_saved_models_load_after_the_import_alone(tmp_path):
    path = tmp_path / "model.keras"
    backbone = ksf.backbones.SFNet4(embedding_dim=8, channels=(4, 4, 4, 4))
    ksf.FaceClassifier(backbone, ksf.heads.SphereFaceR(3)).save(path)
    result = run_python(
        f"import keras, keras_sphereface; print(keras.saving.load_model({str(path)!r}).head.num_classes)"
    )
    assert result.stdout.strip().endswith("3"), result.stderr


def test_every_module_and_public_object_says_what_it_is():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


def test_command_help_names_every_command():
    result = subprocess.run(
        [sys.executable, "-m", "keras_sphereface.cli", "--help"], capture_output=True, text=True, check=False
    )
    from keras_sphereface.cli import COMMANDS

    assert result.returncode == 0
    for command in COMMANDS:
        assert command in result.stdout
        assert (PACKAGE / "cli" / f"{command}.py").exists(), command
