"""What all tests share."""

import gc
import pathlib

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz-examples",
        type=int,
        default=0,
        help="changed files that tests/fuzz tries for every reader, new ones each time",
    )


@pytest.fixture
def shared():
    """The folder with real data and public weights that developers have beside the project."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (real data and public weights), which is not part of the project")
    return SHARED


@pytest.fixture
def reference():
    """The folder with recorded numbers that are part of the project."""
    return ROOT / "tests" / "reference"


@pytest.fixture(scope="module", autouse=True)
def _what_is_older_is_no_garbage():
    """Keras collects garbage after each test: for seconds if it looks at all that was imported and compiled before."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(2109)
    yield
    keras.backend.clear_session()


@pytest.fixture
def rng():
    return np.random.default_rng(5565)
