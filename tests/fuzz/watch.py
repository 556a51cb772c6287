"""Sees what a reader does that no reader should: run code, start programs, open a network connection, write elsewhere."""

import contextlib
import os
import sys
import tempfile
import tracemalloc

FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn", "subprocess.Popen",
    "socket.connect", "socket.bind", "pickle.find_class", "marshal.load", "ctypes.dlopen", "webbrowser.open",
)  # fmt: skip
SECRET = "secret.png"

_watched = None  # an audit hook cannot be removed; it looks away while this is None


class Misdeed(BaseException):
    """Not an `Exception`: no reader can take it for a broken file."""


def _hook(event, arguments):
    if _watched is None:
        return
    if event in FORBIDDEN:
        raise Misdeed(f"{event}{arguments!r}"[:300])
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = os.fsdecode(arguments[0]), arguments[1] or "", arguments[2] or 0
        writes = set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        outside = not os.path.abspath(path).startswith((*_watched, "/dev/", "/proc/"))
        if (writes and outside) or os.path.basename(path) == SECRET or path == "/etc/passwd":
            raise Misdeed(f"open{arguments!r}"[:300])


@contextlib.contextmanager
def watched(folder):
    """Raises `Misdeed` within the block.

    Args:
        folder: Where files may be written, besides the system's temporary folder.
    """
    global _watched
    if not getattr(watched, "installed", False):
        sys.addaudithook(_hook)
        watched.installed = True
    _watched = (os.path.abspath(folder), tempfile.gettempdir())
    try:
        yield
    finally:
        _watched = None


@contextlib.contextmanager
def bounded(limit):
    """Raises AssertionError after the block if it took more bytes of memory than the limit, arrays included."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    except Exception:
        peak = tracemalloc.get_traced_memory()[1]
        assert peak < limit, f"{peak} bytes"
        raise
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak} bytes"


@contextlib.contextmanager
def resident_growth(limit):
    """Raises AssertionError after the block if the process grew by more bytes, also where a C library took them.

    Counted where the system lets a process reset its own peak (Linux); elsewhere nothing is looked at.
    """
    before = _reset_peak()
    yield
    if before is not None:
        grown = _resident("VmHWM") - before
        assert grown < limit, f"{grown} bytes"


def _reset_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
