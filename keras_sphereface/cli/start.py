"""Starts Keras for a command, without the notices that TensorFlow writes to stderr on every machine.

TensorFlow's libraries write them before any setting is read, past Python's `sys.stderr`. So the stream itself goes to a file
meanwhile, and what is no notice is written to the real one afterwards.
"""

import contextlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

STDERR = 2
# glog's lines: severity, month and day, time. "303": CUDA's library isn't there, as on every machine without a GPU.
_NOTICE = re.compile(
    rb"([IW]\d{4} |WARNING: All log messages before|To enable the following instructions)|.*cuInit.*\(303\)"
)


def start_keras(show_all: bool = False) -> None:
    """Imports Keras and registers the package's layers and models.

    Args:
        show_all: Whether TensorFlow's notices are shown. Defaults to `False`.
    """
    if "keras" in sys.modules or show_all or sys.stderr is None:
        importlib.import_module("keras_sphereface.registration")
        return
    # From here on warnings are no news either. Nor are errors, e.g. that there is no GPU: one that counts is raised as well.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_notices():
        importlib.import_module("keras_sphereface.registration")
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is not None:
            tensorflow.config.list_physical_devices()  # says the rest of what it has to say


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
    """Holds back what is written to stderr, and writes at the end what is no notice of TensorFlow's."""
    sys.stderr.flush()
    stderr = os.dup(STDERR)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, STDERR)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not _NOTICE.match(line):
                    os.write(STDERR, line)
