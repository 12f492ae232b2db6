"""How simulator processes are started: clean, whatever the parent has imported."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
"""Environment variables of a simulator process: one thread each, since the processes are the parallelism."""


@contextmanager
def clean_children() -> Iterator[None]:
    """Conditions under which a spawned process starts clean: one thread, deaf to Ctrl-C, without our main module.

    Spawning imports the parent's main module into the child once more. Ours is free of torch; a user's script that
    trains and simulates is not, and would run twice for want of `if __name__ == "__main__"`. Simulators need neither.
    Ctrl-C reaches every process of the terminal; it is the parent who then ends the others.
    """
    main, before = sys.modules["__main__"], {name: os.environ.get(name) for name in ONE_THREAD}
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ.update(ONE_THREAD)
    # multiprocessing starts this helper with the first process, and unblocks signals when it does.
    resource_tracker.ensure_running()
    # A signal blocked at a process's birth stays so; the parent gets one that comes now as soon as it is unblocked.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
