"""README and docs: every Python block runs, every command of a shell block exists with its options, the site builds.

A block that cannot run here has a comment in front of it, `<!-- not run: REASON -->`. It still has to compile, and the
names of this package in it have to exist. One that `<!-- runs with the model inside the package -->` is run in a copy of the
package that has it.
"""

import ast
import contextlib
import importlib
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface import cli

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
NOT_RUN = "not run: "
NEEDS_DEFAULT = "runs with the model inside the package"
HAS_DEFAULT = any(preset.default for preset in ksf.presets.table().values())


def blocks(page, language):
    """The code blocks of a page as `(first line's number, mark, code)`."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        if match["language"] == language:
            yield text.count("\n", 0, match.start("code")) + 1, match["mark"] or "", match["code"]


def page_id(page):
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """What the pages' examples find beside them: photos, packed faces, pairs, a model."""
    folder = tmp_path_factory.mktemp("faces")
    dataset = ksf.data.synthetic(4, 6, seed=3)
    images, labels = zip(*(dataset.read(record) for record in range(dataset.num_images)))
    ksf.data.write_recordio(folder / "faces" / "train.rec", images, labels)
    for number, (image, label) in enumerate(zip(images, labels)):
        path = folder / "my_photos" / f"person_{label}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ksf.data.encode_jpeg(image, 95))
    left, right = np.triu_indices(len(images), 1)
    labels = np.array(labels)
    mated = labels[left] == labels[right]
    pairs = ksf.data.PairSet.from_arrays(np.stack(images), left, right, mated, np.arange(len(left)) % 10, name="own")
    ksf.data.write_bin(folder / "pairs.bin", pairs)
    backbone = ksf.backbones.SFNet4(embedding_dim=16, channels=(4, 4, 8, 8))
    ksf.embedder.build_embedder(backbone).save(folder / "model.keras")
    return folder


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_blocks_run(page, faces, monkeypatch):
    """All of a page's blocks in order, as one program, which warns of nothing."""
    monkeypatch.chdir(faces)
    namespace = {"__name__": "page"}
    monkeypatch.setattr(ksf.margins, "_TABLE", dict(ksf.margins._TABLE))  # pages register their own
    try:
        for line, mark, code in blocks(page, "python"):
            program = compile("\n" * line + code, str(page), "exec")
            if mark.startswith(NOT_RUN) or (mark == NEEDS_DEFAULT and not HAS_DEFAULT):
                check_names(code, f"{page_id(page)}:{line}")
            else:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(program, namespace)
    finally:
        keras.config.set_dtype_policy("float32")


def check_names(code, where):
    """Fails if the code names something of the package, as `ksf.a.b`, that isn't there."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("ksf."):
            value = ksf
            for name in ast.unparse(node).split(".")[1:]:
                if not name.isidentifier():
                    break  # An attribute of what a call returned.
                assert hasattr(value, name), f"{where}: there is no {ast.unparse(node)}"
                value = getattr(value, name)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_shell_blocks_name_what_exists(page):
    for line, _, code in blocks(page, "bash"):
        for command in code.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\|", command.partition(" #")[0]):
                check_command(shlex.split(part, comments=True), f"{page_id(page)}:{line}: {part.strip()}")


def check_command(words, where):
    """Fails if a command of this project, or an option of it, is unknown."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]  # A variable in front of the command.
    if not words:
        return
    if words[0] == "keras-sphereface":
        check_own_command(words[1:], where)
    elif words[0] in ("python", "python3"):
        check_python_command(words[1:], where)
    else:
        assert words[0] in ("mkdocs", "tensorboard", "cd", "git"), where


def check_own_command(words, where):
    code = 0
    with contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            cli.build_parser(words[0]).parse_args(words)
        except SystemExit as stop:
            code = stop.code
    assert not code, f"{where}\n{error.getvalue()}"


def check_python_command(words, where):
    if words[0] == "-m":
        assert words[1] in ("pip", "pytest", "venv", "build") or importlib.util.find_spec(words[1]), where
        files = [word for word in words[2:] if word.startswith("tests/")]
        assert all((ROOT / file).exists() for file in files), where
        return
    program = ROOT / words[0]
    assert program.is_file(), where
    text = program.read_text(encoding="utf-8")
    for word in words[1:]:
        option = re.match(r"--(?:no)?(\w[\w-]*)", word)
        if option and option[1] not in ("help", "helpfull"):
            assert re.search(rf'"(?:--)?{option[1]}"', text), f"{where}: no flag {word}"


def test_reasons_are_given():
    marks = [mark for page in PAGES for _, mark, _ in blocks(page, "python")]
    run = [mark for mark in marks if not mark.startswith(NOT_RUN)]
    assert len(run) >= 2 * (len(marks) - len(run)), "most blocks run"
    assert all(len(mark) > len(NOT_RUN) + 10 for mark in marks if mark.startswith(NOT_RUN))


def test_pictures_are_there_and_small():
    for page in PAGES:
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            path = page.parent / target
            assert path.is_file(), f"{page_id(page)}: {target}"
            assert path.stat().st_size < (150 if path.suffix == ".png" else 1000) * 1000, path


def test_the_reference_of_data_shows_names_of_data():
    text = (ROOT / "docs" / "reference" / "data.md").read_text(encoding="utf-8")
    for path in re.findall(r"^::: (\S+)$", text, re.MULTILINE):
        parent, _, name = path.rpartition(".")
        if hasattr(importlib.import_module(parent), name) and name in ksf.data.__all__:
            continue
        module = importlib.import_module(path)
        own = {name for name, value in vars(module).items() if getattr(value, "__module__", None) == path}
        assert {name for name in own if not name.startswith("_")} <= set(ksf.data.__all__), path


def test_site_builds_without_a_warning(tmp_path):
    for module in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(module, reason="needs the extra [docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    reference = (tmp_path / "reference" / "heads" / "index.html").read_text(encoding="utf-8")
    assert "SphereFaceR" in reference
    assert "<math" in reference, "formulas are MathML"
    assert 'class="arithmatex"' not in reference
