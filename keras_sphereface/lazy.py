"""Names of a package that are imported when they are first used."""

import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any


def attach(
    package: str, names: dict[str, list[str]], submodules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Makes the functions by which a package imports its names when they are first used (PEP 562).

    Args:
        package: The package's `__name__`.
        names: Dictionary from a module of the package to the names that are taken from it.
        submodules: Modules of the package that are public themselves. Defaults to none.

    Returns:
        `(__getattr__, __dir__, __all__)`, to be assigned in the package.

    Example:
    >>> __getattr__, __dir__, __all__ = attach(__name__, {"images": ["read_image", "as_image"]}, ["ijb"])
    """
    module_of = {name: module for module, own in names.items() for name in own}
    public = sorted([*module_of, *submodules])

    def get(name):
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{module_of.get(name, name)}")
        value = getattr(module, name) if name in module_of else module
        setattr(sys.modules[package], name, value)
        return value

    def listed():
        return [*public, *(name for name in vars(sys.modules[package]) if name.startswith("__"))]

    return get, listed, public
