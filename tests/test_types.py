"""Everything public says the types of what it takes and returns, and the package says so to type checkers."""

import functools
import importlib
import inspect
import pathlib
import pkgutil

import pytest

import keras_sphereface as ksf
from keras_sphereface import cli, model_folder

PACKAGE = "keras_sphereface"
SPECIAL = ("__init__", "__call__")
UNNAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def is_ours(value):
    return (getattr(value, "__module__", None) or "").startswith(PACKAGE)


def public_names(module):
    return getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]


def plain_function(value):
    """The function in a method, a property or a decorated function; None for something else."""
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    value = getattr(value, "fget", None) or getattr(value, "func", value)
    value = inspect.unwrap(value) if callable(value) else value
    return value if inspect.isfunction(value) and is_ours(value) else None


@functools.singledispatch
def functions_of(value, path, seen):
    """Yields the path and the function of all that can be reached by public names."""
    if function := plain_function(value):
        yield path, function


@functions_of.register(type(inspect))
def _(module, path, seen):
    if module in seen or not module.__name__.startswith(PACKAGE):
        return
    seen.add(module)
    for name in public_names(module):
        yield from functions_of(getattr(module, name), f"{path}.{name}", seen)


@functions_of.register(type)
def _(cls, path, seen):
    if cls in seen or not is_ours(cls):
        return
    seen.add(cls)
    for name, value in vars(cls).items():
        if name in SPECIAL or not name.startswith("_"):
            yield from functions_of(value, f"{path}.{name}", seen) if plain_function(value) else ()
    for base in cls.__mro__[1:]:
        yield from functions_of(base, base.__qualname__, seen)


def untyped(function):
    """Names of the arguments that say no type; `return` where the result does not."""
    signature = inspect.signature(function)
    named = [p for p in signature.parameters.values() if p.kind not in UNNAMED and p.name not in ("self", "cls")]
    missing = [p.name for p in named if p.annotation is p.empty]
    return missing + ["return"] * (signature.return_annotation is signature.empty and function.__name__ != "__init__")


@pytest.mark.parametrize("package", [ksf, model_folder, cli], ids=lambda package: package.__name__)
def test_everything_public_has_types(package):
    for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
        if module.name != "__main__":
            importlib.import_module(f"{package.__name__}.{module.name}")
    functions = dict(functions_of(package, package.__name__, set()))
    assert functions
    missing = {path: names for path, function in functions.items() if (names := untyped(function))}
    assert not missing, "\n".join(f"{path}: {', '.join(names)}" for path, names in missing.items())


def test_the_walk_reaches_heads_methods_and_submodules():
    paths = dict(functions_of(ksf, "ksf", set()))
    assert {
        "ksf.heads.SphereFaceR",
        "ksf.heads.MarginHead.call",
        "ksf.Recognizer.verify",
        "ksf.data.ijb.read_media",
    } <= {*paths}
    assert len(paths) > 250


def test_type_checkers_are_told():
    assert (pathlib.Path(ksf.__file__).parent / "py.typed").is_file()
