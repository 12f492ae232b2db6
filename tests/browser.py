"""Tests in a browser: Playwright and the machine's Chromium, headless; skipped with the reason where one is missing."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

PROGRAM = next((path for name in NAMES if (path := shutil.which(name))), None)

_MISSING = [
    what
    for what, there in (
        ("chromium", PROGRAM is not None),
        ("playwright", importlib.util.find_spec("playwright") is not None),
    )
    if not there
]

needs_browser: Any = [
    pytest.mark.browser,
    pytest.mark.skipif(
        bool(_MISSING), reason=f"needs {' and '.join(_MISSING)}: apt-get install chromium, pip install playwright"
    ),
]


@contextmanager
def browser() -> Iterator[Any]:
    """Playwright's browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()
