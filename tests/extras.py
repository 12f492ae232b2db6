"""Tests that need an optional extra: marked with its name, skipped with the reason where it is missing."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest

PACKAGES = {
    "openvla": ("timm", "transformers", "tokenizers", "sentencepiece"),
    "lora": ("peft",),
    "metaworld": ("metaworld",),
    "libero": ("libero",),
    "lerobot": ("lerobot",),
    "docs": ("mkdocs", "material", "mkdocstrings"),
    "wandb": ("wandb",),
}
"""Extra -> the packages its tests import."""

REQUIRED = tuple(filter(None, os.environ.get("WOVR_EXTRAS", "").split(",")))
"""Extras that have to be there: their tests fail where they cannot run, so that none is skipped unnoticed."""


def needs(extra: str) -> Any:
    """Mark a test, or a whole module by `pytestmark`, with `extra(name=...)`, by which `pytest -m` finds it.

    Packages are looked for without importing them: some would bring MuJoCo into the process of the tests.
    """
    missing = [package for package in PACKAGES[extra] if importlib.util.find_spec(package) is None]
    marks = [
        pytest.mark.extra(name=extra),
        pytest.mark.skipif(
            bool(missing) and extra not in REQUIRED, reason=f"needs the extra {extra}: pip install 'wovr[{extra}]'"
        ),
    ]

    def mark(test: Any) -> Any:
        for one in marks:
            test = one(test)
        return test

    mark.marks = marks  # type: ignore[attr-defined]
    return mark
