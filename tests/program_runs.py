"""Runs of `examples/train_ms1m.py` in forks, one after another: run by `test_train_ms1m.py` in a process of its own.

    python tests/program_runs.py RUNS.json

RUNS.json is a list of lists of flags. Prints a JSON list of what each run printed and its exit status.
"""

import json
import os
import pathlib
import sys
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

from forks import attempt, train_ms1m

import keras_sphereface  # noqa: F401 - before the forks


def run(flags):
    """One run: `{"output": ..., "status": ...}`."""
    with tempfile.TemporaryFile() as output:

        def work(pipe):
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            train_ms1m(flags)

        status = attempt(work)
        output.seek(0)
        return {"status": status, "output": output.read().decode(errors="replace")}


if __name__ == "__main__":
    runs = json.loads(pathlib.Path(sys.argv[1]).read_text())
    print(json.dumps([run(flags) for flags in runs]))
