"""Weights to and from a hub that is a folder here: what travels, and what is refused of what arrives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from wovr.cli import main
from wovr.commands.weights.manifest import MANIFEST, write_manifest

REPO = "somebody/tabletop"


class FakeHub:
    """Repositories in a folder, behind the two doors of the client that are used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.created: list[tuple[str, bool]] = []
        self.fetched: list[str] = []

    def create_repo(self, repo: str, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.created.append((repo, private))

    def upload_folder(self, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str) -> None:
        for name in allow_patterns:
            place = self.folder / repo_id / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder_path / name, place)

    def download(self, repo: str, name: str, revision: str, local_dir: Path) -> str:
        self.fetched.append(name)
        if not (self.folder / repo / name).exists():
            raise huggingface_hub.errors.EntryNotFoundError(f"404 Client Error.\n\nEntry Not Found for {name}")
        place = local_dir / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / repo / name, place)
        return str(place)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.chdir(tmp_path)
    hub = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    packed = Path("weights/tabletop")
    (packed / "episodes").mkdir(parents=True)
    for name in ("policy.ckpt", "README.md", "episodes/dataset.json", "episodes/episodes-000000.tar"):
        (packed / name).write_bytes(name.encode() * 100)
    write_manifest(packed, {"version": "0"})
    (packed / "private.txt").write_text("stays here")
    return hub


def test_what_is_pushed_is_pulled(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "push", REPO, "--private", "true"]) == 0
    assert hub.created == [(REPO, True)]
    assert not (hub.folder / REPO / "private.txt").exists()
    (hub.folder / REPO / "unasked.bin").write_text("more")
    assert main(["weights", "pull", REPO, "--out", "theirs"]) == 0
    assert hub.fetched[0] == MANIFEST
    assert "unasked.bin" not in hub.fetched
    pushed = {
        p.relative_to("weights/tabletop"): p.read_bytes() for p in Path("weights/tabletop").rglob("*") if p.is_file()
    }
    pulled = {p.relative_to("theirs"): p.read_bytes() for p in Path("theirs").rglob("*") if p.is_file()}
    del pushed[Path("private.txt")]
    assert pulled == pushed
    assert "5 files, sizes and SHA-256 as weights.json says" in capsys.readouterr().out
    assert sorted(path.name for path in Path().iterdir()) == ["hub", "theirs", "weights"]


def test_what_was_changed_is_not_pushed(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    Path("weights/tabletop/policy.ckpt").write_bytes(b"policy.ckpT" * 100)
    assert main(["weights", "push", REPO]) == 2
    assert "policy.ckpt: SHA-256 is" in capsys.readouterr().err
    assert hub.created == []


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """A change of the manifest in the repository."""

    def carry_out(repo: Path) -> None:
        manifest = json.loads((repo / MANIFEST).read_text())
        change(manifest)
        (repo / MANIFEST).write_text(json.dumps(manifest))

    return carry_out


def named(name: str) -> Callable[[Path], object]:
    return changed(lambda manifest: manifest["files"].update({name: manifest["files"]["policy.ckpt"]}))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda repo: (repo / "policy.ckpt").write_bytes(b"another one"), "policy.ckpt: 11 bytes, 1,100 expected"),
        (lambda repo: (repo / "policy.ckpt").write_bytes(b"policy.ckpT" * 100), "policy.ckpt: SHA-256 is"),
        (lambda repo: (repo / "policy.ckpt").write_bytes(b"x" * 5000), "policy.ckpt is larger than it may be"),
        (lambda repo: (repo / "policy.ckpt").unlink(), "Entry Not Found for policy.ckpt; check the name"),
        (lambda repo: (repo / MANIFEST).write_text("{"), "not valid JSON"),
        (lambda repo: (repo / MANIFEST).write_text("[]"), "not a list of weights"),
        (named("../../evil.ckpt"), "names the file '../../evil.ckpt', which has no place there"),
        (named("/etc/passwd"), "names the file '/etc/passwd'"),
        (named("run.py"), "names the file 'run.py'"),
        (named(".hidden.ckpt"), "names the file '.hidden.ckpt'"),
        (changed(lambda found: found["files"]["policy.ckpt"].update(bytes=10**10)), "10000.0 MB in all; allow so much"),
        (changed(lambda found: found["files"]["policy.ckpt"].update(bytes="1")), "says nothing sound of 'policy.ckpt'"),
        (changed(lambda found: found.update(format=2)), "not a list of weights"),
    ],
)
def test_what_arrives_wrong_leaves_nothing(
    damage: Callable[[Path], object], told: str, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "push", REPO]) == 0
    damage(hub.folder / REPO)
    assert main(["weights", "pull", REPO, "--out", "theirs"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line
    assert sorted(path.name for path in Path().iterdir()) == ["hub", "weights"]


def test_nothing_is_overwritten(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "pull", REPO]) == 2
    assert "weights/tabletop: is there already; choose another --out" in capsys.readouterr().err
    assert hub.fetched == []
