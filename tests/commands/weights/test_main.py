from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from wovr.cli import main
from wovr.metrics.networks.weights import WEIGHTS, WeightsFile

CONTENT = b"not many weights"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry whose address nobody answers at."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    file = WeightsFile("small.bin", "http://127.0.0.1:9/small.bin", len(CONTENT), digest, "a small one", "none")
    monkeypatch.setitem(WEIGHTS, "small", file)


def test_list_tells_what_is_at_hand(small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.bin").write_bytes(CONTENT)
    assert main(["weights", "list", "--weights", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    rows = {line.split()[1]: line for line in printed.splitlines() if line.startswith("│")}
    assert set(WEIGHTS) <= set(rows)
    assert "yes" in rows["small"]
    assert "no" in rows["i3d"].split("│")[-2]
    (tmp_path / "small.bin").write_bytes(b"of something else")
    assert main(["weights", "list", "--weights", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "another file" in captured.out
    assert "17 bytes, 16 expected" in captured.err


def test_fetch_checks_what_is_there_and_says_what_went_wrong(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "fetch", "small", "--weights", str(tmp_path)]) == 2
    assert (
        f"cannot be fetched: [Errno 111] Connection refused; download it elsewhere and put it at {tmp_path}/small.bin"
        in (capsys.readouterr().err)
    )
    (tmp_path / "small.bin").write_bytes(CONTENT)
    assert main(["weights", "fetch", "small", "--weights", str(tmp_path)]) == 0
    assert "16 bytes, SHA-256 as expected" in capsys.readouterr().out
    assert main(["weights", "fetch", "small,large", "--weights", str(tmp_path)]) == 2
    assert "unknown weights 'large'; choose from: alexnet, inception, i3d, raft" in capsys.readouterr().err
