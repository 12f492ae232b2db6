"""The same `wovr data convert` again, after its source has changed, or not: nothing is mixed, nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.commands.refusal import refused
from tests.data.converters.foreign import CAMERA, WRIST, write_lerobot, write_libero
from wovr.cli import main
from wovr.data.converters.lerobot.reader import LeRobotReader
from wovr.data.store.reader import EpisodeStore


def convert(source: Path, out: Path, *options: str, camera: str = CAMERA) -> int:
    return main(["data", "convert", str(source), "--out", str(out), "--camera", camera, *options])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def raw_actions(folder: Path) -> np.ndarray:
    store = EpisodeStore(folder)
    assert store.action_range is not None
    return store.action_range.invert(store.actions(1))


def test_a_source_that_changed_is_converted_anew_and_the_old_result_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_lerobot(tmp_path / "arm", "v2.1"), tmp_path / "out"
    assert convert(source, out) == 0
    before = contents(out)
    larger = np.full((9, 4), 30.0, np.float32) * np.linspace(-1, 1, 9, dtype=np.float32)[:, None]
    shutil.rmtree(source)
    write_lerobot(tmp_path / "arm", "v2.1", action=larger)
    assert convert(source, out) == 0
    said = capsys.readouterr().out
    kept = tmp_path / "out.before-1"
    assert f"the source has changed since {out} was filled from it; what it held is kept in {kept}" in said
    assert contents(kept) == before
    np.testing.assert_allclose(raw_actions(out), larger[:-1], atol=1e-5)
    assert main(["data", "verify", str(kept)]) == 0
    assert convert(source, out) == 0
    assert not (tmp_path / "out.before-2").exists(), "nothing changed since"


@pytest.mark.parametrize("what", ["a label", "a video", "a file more"])
def test_any_change_of_content_is_noticed_whatever_the_times_say(what: str, tmp_path: Path) -> None:
    source, out = write_lerobot(tmp_path / "arm", "v2.1"), tmp_path / "out"
    assert convert(source, out) == 0
    if what == "a label":
        path = source / "meta/episodes.jsonl"
        path.write_bytes(path.read_bytes().replace(b"cube", b"ball"))
        path = source / "meta/tasks.jsonl"
        changed = path.read_bytes().replace(b"cube", b"ball")
    elif what == "a video":
        path = source / f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
        changed = (source / f"videos/chunk-000/{WRIST}/episode_000001.mp4").read_bytes()
    else:
        path, changed = source / "meta/more.jsonl", b"{}\n"
    status = path.stat() if path.exists() else None
    path.write_bytes(changed)
    if status is not None:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert convert(source, out) == 0
    assert (tmp_path / "out.before-1/dataset.json").exists()


def test_what_was_not_read_or_is_the_same_elsewhere_changes_nothing(tmp_path: Path) -> None:
    source, out = write_lerobot(tmp_path / "arm", "v2.1"), tmp_path / "out"
    assert convert(source, out) == 0
    before = contents(out)
    copied = tmp_path / "elsewhere/arm"
    shutil.copytree(source, copied)
    os.utime(copied / "meta/info.json", (1, 1))
    (copied / f"videos/chunk-000/{WRIST}/episode_000001.mp4").unlink()
    (copied / ".cache").mkdir()
    (copied / ".cache/state").write_text("x")
    assert convert(copied, out) == 0
    assert contents(out) == before
    assert not (tmp_path / "out.before-1").exists()
    libero = write_libero(tmp_path / "libero/a.hdf5")
    assert convert(libero.parent, tmp_path / "l", camera="agentview_rgb") == 0
    (libero.parent / "notes.txt").write_text("a note beside the files")
    assert convert(libero.parent, tmp_path / "l", camera="agentview_rgb") == 0
    assert not (tmp_path / "l.before-1").exists()


def test_a_stopped_run_is_not_gone_on_with_from_another_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_lerobot(tmp_path / "arm", "v2.1"), tmp_path / "out"
    monkeypatch.setattr("wovr.data.converters.to_shards.SHARD_EPISODES", 1)
    frames = LeRobotReader.frames

    def stop(self: LeRobotReader, index: int, camera: str) -> object:
        if index == 2:
            raise KeyboardInterrupt
        return frames(self, index, camera)

    with monkeypatch.context() as patch:
        patch.setattr(LeRobotReader, "frames", stop)
        assert convert(source, out) == 130
    assert len(list(out.glob("*.tar"))) == 2
    shutil.rmtree(source)
    write_lerobot(tmp_path / "arm", "v2.1", action=np.full((9, 4), 9.0, np.float32))
    assert convert(source, out) == 0
    np.testing.assert_allclose(raw_actions(out), 9.0, atol=1e-5)
    assert len(list((tmp_path / "out.before-1").glob("*.tar"))) == 2


def test_shards_of_another_range_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_lerobot(tmp_path / "arm"), tmp_path / "out"
    assert convert(source, out) == 0
    for change in ("action_range", "source_content"):  # by an older version that measured, or noted, otherwise
        inputs = json.loads((out / "convert.json").read_text())
        del inputs[change]
        (out / "convert.json").write_text(json.dumps(inputs))
        assert convert(source, out) == 0
        assert "is kept in" in capsys.readouterr().out
    assert "normalise was 'auto'" in refused(
        capsys, "convert", source, "--out", out, "--camera", CAMERA, "--normalise", "quantile"
    )


def test_a_source_that_changes_meanwhile_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_lerobot(tmp_path / "arm", "v2.1"), tmp_path / "out"
    frames = LeRobotReader.frames

    def recording(self: LeRobotReader, index: int, camera: str) -> object:
        (source / "meta/episodes.jsonl").open("a").write("\n")
        return frames(self, index, camera)

    monkeypatch.setattr(LeRobotReader, "frames", recording)
    line = refused(capsys, "convert", source, "--out", out, "--camera", CAMERA)
    assert "episodes.jsonl: changed while it was converted" in line
    assert not (out / "DONE").exists()
