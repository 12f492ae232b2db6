"""How the C library hands memory out, which on a CPU is up to half of a network's time."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_SERVED_FROM_THE_HEAP = 1 << 27
_KEPT_AT_ITS_END = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep what was freed for the next tensor instead of giving it back to the system at once.

    By default arrays are mapped anew, those above 32 MiB always, and the system clears their pages one by one when they
    are first written: the same work again at each layer of each step. Kept, they are written at once. A process then
    holds its greatest need until it ends. Somebody's own MALLOC_... or GLIBC_TUNABLES are left as they are.

    Returns:
        Whether anything was changed; elsewhere than under glibc nothing is.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        if "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""):
            return False
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, ValueError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _SERVED_FROM_THE_HEAP) and mallopt(_M_TRIM_THRESHOLD, _KEPT_AT_ITS_END))
