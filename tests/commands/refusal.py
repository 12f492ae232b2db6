"""Commands that end in one line."""

from __future__ import annotations

import pytest

from wovr.cli import main


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a wrong command ends with."""
    assert main(["data", *map(str, words)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("wovr: error: ")
    return lines[0]
