from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from wovr.errors import UserError
from wovr.metrics.networks import weights
from wovr.metrics.networks.weights import (
    WEIGHTS,
    WeightsFile,
    checked_weights,
    fetch_weights,
    read_state_dict,
    weights_folder,
)

CONTENT = b"weights " * 1000


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a server of `tmp_path/served`, which holds `small.bin`."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "small.bin").write_bytes(CONTENT)
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, server: str) -> WeightsFile:
    file = WeightsFile(
        "small.bin", f"{server}/small.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "a small one", "none"
    )
    monkeypatch.setitem(WEIGHTS, "small", file)
    return file


def test_the_table_is_pinned() -> None:
    for name, file in WEIGHTS.items():
        assert len(file.sha256) == 64, name
        assert file.url.startswith("https://"), name
        assert file.size > 10**7, name
        digits = Path(file.file).stem.rpartition("-")[2]
        if len(digits) == 8:  # torch's convention: the name ends with the first digits
            assert file.sha256.startswith(digits)


def test_the_folder_is_as_given_else_the_environments_else_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("WOVR_WEIGHTS", raising=False)
    assert weights_folder() == tmp_path / "cache" / "wovr" / "weights"
    monkeypatch.setenv("WOVR_WEIGHTS", str(tmp_path / "there"))
    assert weights_folder() == tmp_path / "there"
    assert weights_folder(tmp_path / "here") == tmp_path / "here"


def test_a_file_is_fetched_whole_and_checked(small: WeightsFile, tmp_path: Path) -> None:
    arrived: list[int] = []
    path = fetch_weights("small", tmp_path / "folder", arrived.append)
    assert path.read_bytes() == CONTENT
    assert sum(arrived) == len(CONTENT)
    assert [file.name for file in path.parent.iterdir()] == ["small.bin"]
    assert checked_weights("small", tmp_path / "folder") == path
    (tmp_path / "served" / "small.bin").unlink()
    assert fetch_weights("small", tmp_path / "folder") == path, "what is there is not fetched again"


def test_what_arrives_wrong_does_not_stay(small: WeightsFile, tmp_path: Path) -> None:
    (tmp_path / "served" / "small.bin").write_bytes(CONTENT[:-1] + b"X")
    with pytest.raises(UserError, match=r"small\.bin\.part: SHA-256 is \w{64}, "):
        fetch_weights("small", tmp_path / "folder")
    (tmp_path / "served" / "small.bin").write_bytes(CONTENT[:100])
    with pytest.raises(UserError, match="100 bytes, 8,000 expected"):
        fetch_weights("small", tmp_path / "folder")
    (tmp_path / "served" / "small.bin").unlink()
    with pytest.raises(UserError, match=r"cannot be fetched: .*; download it elsewhere and put it at .*small\.bin"):
        fetch_weights("small", tmp_path / "folder")
    assert list((tmp_path / "folder").glob("*")) == []


def test_no_network_is_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = WeightsFile("small.bin", "http://127.0.0.1:9/small.bin", 1, "0" * 64, "a small one", "none")
    monkeypatch.setitem(WEIGHTS, "small", file)
    monkeypatch.setattr(weights, "_TIMEOUT", 2.0)
    with pytest.raises(UserError, match="cannot be fetched: "):
        fetch_weights("small", tmp_path)


def test_a_file_copied_by_hand_is_checked_too(small: WeightsFile, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"small\.bin: missing \(a small one, 0 MB\); fetch it with: wovr weights fetch"
    ):
        checked_weights("small", tmp_path)
    (tmp_path / "small.bin").write_bytes(CONTENT.upper())
    with pytest.raises(UserError, match="SHA-256 is"):
        checked_weights("small", tmp_path)


def test_weights_are_never_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("unpickled",)

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_state_dict(tmp_path / "evil.pth", {"a": torch.Size([1])})
    torch.save({"a": torch.zeros(2), "b": torch.zeros(3)}, tmp_path / "good.pth")
    assert list(read_state_dict(tmp_path / "good.pth", {"b": torch.Size([3])})) == ["b"]
    with pytest.raises(UserError, match=r"no weight 'b' of shape \(4,\)"):
        read_state_dict(tmp_path / "good.pth", {"b": torch.Size([4])})
