"""Runs a function in a fresh process: simulators and torch must not share one (their LLVMs clash)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def in_simulator(function: Callable[..., Any], *args: Any) -> Any:
    """Run a module-level `function` in a spawned process and return (or raise) what it does."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
