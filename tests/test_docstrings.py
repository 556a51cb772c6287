"""The examples in docstrings: those that need no file and nothing of the reader's own run, and print what they say."""

import ast
import builtins
import doctest
import importlib
import pathlib
import re

import keras
import numpy as np
import pytest

import keras_sphereface as ksf

PACKAGE = pathlib.Path(ksf.__file__).parent
FILES = re.compile(
    r"\.(bin|csv|db|gif|h5|idx|jpg|json|keras|npz|onnx|png|pth|rec|tfrecord|txt)\b|hf://|push_to_hub|read_ijb|read_cfp"
)
FEWEST = 100  # what is left to run must not dwindle unseen

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the examples print NumPy's arrays")


def documented():
    """`(file, name, docstring)` of every function, class and method with an example."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ">>>" in (ast.get_docstring(node) or ""):
                yield path.relative_to(PACKAGE), node.name, ast.get_docstring(node)


def names_of(file):
    """What an example of a file may use: the file's own names and the usual imports."""
    module = ".".join(["keras_sphereface", *file.with_suffix("").parts]).removesuffix(".__init__")
    return {**vars(importlib.import_module(module)), "keras": keras, "np": np, "keras_sphereface": ksf, "ksf": ksf}


def needs_no_more(example, names):
    """Whether an example uses those names and its own alone, and no file."""
    used = [node for node in ast.walk(ast.parse(example)) if isinstance(node, (ast.Name, ast.arg))]
    known = set(names) | set(dir(builtins))
    known |= {node.arg if isinstance(node, ast.arg) else node.id for node in used
              if isinstance(node, ast.arg) or isinstance(node.ctx, ast.Store)}  # fmt: skip
    return not FILES.search(example) and all(node.id in known for node in used if isinstance(node, ast.Name))


def runnable():
    """The examples that run here."""
    for file, name, docstring in documented():
        if file.name in ("distribution.py", "demo.py", "lazy.py"):  # JAX, a server, a module's own first lines
            continue
        names = names_of(file)
        example = doctest.DocTestParser().get_doctest(docstring, names, name, str(file), 0)
        if needs_no_more("".join(part.source for part in example.examples), names):
            yield pytest.param(example, id=f"{file}-{name}")


class Checker(doctest.OutputChecker):
    """Where no output is stated, anything may be printed; TensorFlow's shapes are tuples to a reader."""

    def check_output(self, want, got, optionflags):
        got = re.sub(r"TensorShape\(\[([^\]]*)\]\)", lambda shape: str(ast.literal_eval(f"({shape[1]},)")), got)
        return not want or super().check_output(want, got, optionflags)


EXAMPLES = list(runnable())


def test_most_examples_run():
    assert len(EXAMPLES) >= FEWEST


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_prints_what_it_says(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ksf.margins, "_TABLE", dict(ksf.margins._TABLE))  # an example registers one
    keras.utils.set_random_seed(0)
    for part in example.examples:
        if not part.want and isinstance(ast.parse(part.source).body[-1], ast.Expr):
            part.source = f"_ = {part.source}"  # which otherwise would be printed, and wanted
    complaints = []
    result = doctest.DocTestRunner(Checker()).run(example, out=complaints.append)
    assert result.attempted
    assert not result.failed, "".join(complaints)
