"""Readers on files that are almost right: only the promised errors, little memory, and nothing is run.

    python -m pytest tests/fuzz --fuzz-examples=2000

tries so many files a reader, new ones each time; without the option a few dozen, always the same.
"""

import pathlib
import tempfile

import pytest

hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis, of the extra [test]")

from mutations import changed  # noqa: E402
from targets import TARGETS  # noqa: E402
from watch import SECRET, bounded, watched  # noqa: E402


def attempt(target, content):
    """Reads a file in a folder of its own; beside the folder lies one that no file may lead to."""
    with tempfile.TemporaryDirectory() as outer:
        folder = pathlib.Path(outer, "inner", "folder")
        folder.mkdir(parents=True)
        pathlib.Path(outer, SECRET).write_bytes(b"secret")
        with watched(folder), bounded(target.memory):
            try:
                target.read(folder, content)
            except target.errors as error:
                message = str(error)
                assert message, "an error without a message"
                return message
    return None


@pytest.mark.parametrize("name", TARGETS)
def test_only_promised_errors(name, request):
    target = TARGETS[name]
    content = target.seed()
    attempt(target, content)  # imports, and shows that the sound file is read
    asked = request.config.getoption("--fuzz-examples")
    settings = hypothesis.settings(
        max_examples=asked or target.examples,
        derandomize=not asked,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    @settings
    @hypothesis.given(changed(content, target.kind))
    def read(changed_content):
        attempt(target, changed_content)

    read()


@pytest.mark.parametrize("name", [name for name in TARGETS if name != ".bin with code"])
def test_the_sound_file_is_read(name):
    """A fuzzer whose first file is refused would try nothing."""
    assert attempt(TARGETS[name], TARGETS[name].seed()) is None


def test_a_pickle_with_code_is_refused():
    assert "posix.system" in attempt(TARGETS[".bin with code"], TARGETS[".bin with code"].seed())
