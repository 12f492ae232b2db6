"""Memory that was freed is used again; counted by the page faults of a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource
import numpy as np
from wovr.allocation import keep_freed_memory
changed = keep_freed_memory()
for _ in range(2):
    np.ones(12_500_000)  # 100 MB: above the 32 MiB that glibc would ever take from its heap by itself
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(12_500_000)
print(int(changed), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**variables: str) -> tuple[int, int]:
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run(
        [sys.executable, "-c", _FAULTS], env=unset | variables, capture_output=True, text=True, check=True
    )
    changed, count = run.stdout.split()
    return int(changed), int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    changed, count = faults()
    assert changed
    assert count < 100  # 5 times 24,000 pages of 4 KiB otherwise, or 5 times 48 of 2 MiB


@pytest.mark.parametrize("own", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}])
def test_somebodys_own_settings_are_left(own: dict[str, str]) -> None:
    assert faults(**own)[0] == 0
