"""Coverage-guided fuzzing of the readers by atheris: changed files that reach new code are kept and changed further.

    python -m pip install atheris
    python tests/fuzz/coverage_guided.py --seconds=10

tries every reader of `targets.py` for so long (`--only=.rec` for one), under the same watch as `test_fuzz.py`: only the
promised errors, bounded memory, nothing is run. Prints files tried and the branches of this package that they reached; the
first file that breaks a promise ends the run, with its path.
"""

import argparse
import importlib
import os
import pathlib
import pkgutil
import re
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import atheris

with atheris.instrument_imports(include=["keras_sphereface"]):
    from targets import TARGETS, faces

    for module in pkgutil.iter_modules(faces.__path__):  # they are imported on first use, too late to be instrumented
        if not module.name.startswith("tensorflow"):
            importlib.import_module(f"{faces.__name__}.{module.name}")
from test_fuzz import attempt

MAX_LENGTH = 65_536  # bytes of a file; the largest sound one has half of it


def fuzz(name, options):
    """Fuzzes one reader; libFuzzer ends the process."""
    target = TARGETS[name]
    content = target.seed()
    attempt(target, content)
    corpus = pathlib.Path(tempfile.mkdtemp())
    (corpus / "sound").write_bytes(content)
    arguments = [
        f"-max_total_time={options.seconds}",
        f"-seed={options.seed}",
        f"-max_len={max(MAX_LENGTH, len(content))}",
        "-timeout=60",
        "-rss_limit_mb=4096",
        f"-artifact_prefix={tempfile.gettempdir()}/broken-promise-",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *arguments], lambda data: attempt(target, data) and None)
    atheris.Fuzz()


def in_a_fork(name, options):
    """Runs `fuzz` in a fork, so that the packages are imported and instrumented once.

    Returns:
        `(status, output)`.
    """
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            fuzz(name, options)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return status, output.read().decode(errors="replace")


def main():
    """Fuzzes the readers one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="for each reader (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="of the changes (default: 1)")
    parser.add_argument("--only", action="append", choices=list(TARGETS), help="a reader; may be given again")
    options, tried = parser.parse_args(), 0
    for name in options.only or TARGETS:
        status, output = in_a_fork(name, options)
        runs, reached = re.search(r"Done (\d+) runs", output), re.findall(r"cov: (\d+)", output) or ["0"]
        if status or runs is None:
            sys.exit(f"{output[-6000:]}\n{name}: exit status {status}")
        tried += int(runs[1])
        print(f"{name}: {runs[1]} files tried, branches reached {reached[0]}, at the end {reached[-1]}", flush=True)
    print(f"{tried} files tried for {len(options.only or TARGETS)} readers: no other error, no misdeed")


if __name__ == "__main__":
    main()
