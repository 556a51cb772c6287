"""Runs something in forks of one process, and kills it: the framework is imported once, not at every attempt.

For scripts that the tests start in a process of their own: a framework that is at work already must not be forked.
"""

import os
import pathlib
import runpy
import signal
import sys
import time
import traceback

STEP, SAVE = b".", b"s"  # what the work writes into its pipe
TRAIN_MS1M = pathlib.Path(__file__).resolve().parent.parent / "examples" / "train_ms1m.py"


def attempt(work, kill_at=0, kind=STEP, delay=0.0):
    """Runs `work(pipe)` in a fork; kills it at an event of that number, or lets it end.

    Args:
        work: Function of the pipe's number, to which it writes `STEP` and `SAVE`.
        kill_at: Number of the event of that kind, from 1; 0: never. An odd one is killed by SIGKILL, an even one by SIGTERM.
        kind: `STEP` or `SAVE`.
        delay: Seconds between the event and the signal.

    Returns:
        The exit status, negative after a signal.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_status_of(work, writer))
    os.close(writer)
    events = 0
    while event := os.read(reader, 1):
        events += event == kind
        if events == kill_at:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL if kill_at % 2 else signal.SIGTERM)
            break
    os.close(reader)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _status_of(work, pipe):
    try:
        work(pipe)
        status = 0
    except SystemExit as end:
        status = end.code or 0
        if not isinstance(status, int):  # as Python does at a program's end
            print(status, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else 1


def train_ms1m(flags, pipe=None):
    """The program `examples/train_ms1m.py` as it is, in this process, with those flags.

    Args:
        flags: List of command-line arguments.
        pipe: Number of a pipe to which `STEP` and `SAVE` are written, the latter just before a checkpoint. Defaults to
            `None`.
    """
    if pipe is not None:
        from keras_sphereface.callbacks import Checkpoint

        _report(Checkpoint, "on_train_batch_begin", pipe, STEP)
        _report(Checkpoint, "on_epoch_end", pipe, SAVE)
    sys.argv = [str(TRAIN_MS1M), *flags]
    runpy.run_path(str(TRAIN_MS1M), run_name="__main__")


def _report(owner, name, pipe, event):
    method = getattr(owner, name)

    def reporting(*args, **kwargs):
        os.write(pipe, event)
        return method(*args, **kwargs)

    setattr(owner, name, reporting)
