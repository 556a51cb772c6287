"""A lock that a fork and another process may be handed."""

import functools
import os
import threading
import weakref


class ProcessLock:
    """A lock between the threads of one process; in a fork, and where it is unpickled, it is a new one.

    A fork is made while other threads work, and has none of them: nobody would ever open what they had locked.
    """

    def __init__(self):
        self._lock = threading.Lock()
        _all_locks().add(self)

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *exception):
        self._lock.release()

    def __reduce__(self):
        return ProcessLock, ()


@functools.cache
def _all_locks():
    """The process's locks, which a fork renews before it does anything else."""
    locks = weakref.WeakSet()
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
        os.register_at_fork(after_in_child=lambda: [_renew(lock) for lock in locks])
    return locks


def _renew(lock):
    lock._lock = threading.Lock()
