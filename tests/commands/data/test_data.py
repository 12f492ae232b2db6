"""`wovr data inspect` and `wovr data verify`, through the real command line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.store import damage
from tests.data.synthetic import make_episode, write_dataset
from wovr.cli import main
from wovr.data.inspection import choose_episodes
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import shard_path, write_shard

SHARD = "spatial-000001.tar"
KEY = "spatial-000003"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards with three episodes each; SHARD begins with KEY."""
    return write_dataset(tmp_path / "data")


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on standard error, each of which must be an error of ours."""
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith("wovr: error: ")] == []
    return lines


def test_verify_says_what_it_has_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", str(folder)]) == 0
    out, err = capsys.readouterr()
    size = sum(path.stat().st_size for path in folder.glob("*.tar")) / 1e6
    assert out == (
        f"{folder}: 6 episodes, 144 frames, {size:.1f} MB in 2 shards read whole: all as dataset.json says\n"
    )
    assert err == ""


def test_inspect_prints_what_is_there(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["data", "inspect", str(folder)]) == 0
    out = " ".join(re.sub(r"[^\x21-\x7e]+", " ", capsys.readouterr().out).split())
    store = EpisodeStore(folder)
    statistics = store.action_statistics
    for words in (
        "episodes 6 ",
        "frames 144 (24 to 24 an episode)",
        "success rate 33.3% (2 of 6)",
        "image 32 x 32",
        "spatial 0 put cube 0 on the pad 3 72 33.3% (1 of 3)",
        "spatial 1 put cube 1 on the pad 3 72 33.3% (1 of 3)",
        "138 actions",
        f"3 {statistics.min[3]:+.3f} {statistics.q01[3]:+.3f} {statistics.mean[3]:+.3f}",
        store.fingerprint,
        "contact_sheet.png",
    ):
        assert words in out, words


def test_the_contact_sheet_shows_frames_and_success(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheets" / "sheet.png"
    assert main(["data", "inspect", str(folder), "--out", str(out), "--rows", "3", "--columns", "4"]) == 0
    assert not (folder / "contact_sheet.png").exists()
    sheet = np.asarray(Image.open(out))
    store = EpisodeStore(folder)
    rows = choose_episodes(store, 3)
    assert {store.entries[index].meta.task for index in rows} == {0, 1}
    enlarged = [np.kron(store.frames(index)[t], np.ones((3, 3, 1), np.uint8)) for index in rows for t in (0, 23)]
    assert sheet.shape[1] == 4 * (96 + 8)
    row_height = sheet.shape[0] // 3
    for row in range(3):
        cells = sheet[row * row_height : (row + 1) * row_height]
        first, last = cells[-100:-4, 4:100], cells[-100:-4, -100:-4]
        np.testing.assert_array_equal(first, enlarged[2 * row])
        np.testing.assert_array_equal(last, enlarged[2 * row + 1])
        green = (cells[-104, -50] == [30, 160, 60]).all()  # above the last frame
        assert green == store.entries[rows[row]].succeeded
        assert (cells[: row_height - 104] < 100).any()  # a caption


def truncate(folder: Path) -> None:
    path = folder / SHARD
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_at_a_member(folder: Path) -> None:
    """Cut between two members and seal it: every header that is left is whole."""
    path = folder / SHARD
    path.write_bytes(path.read_bytes()[: -(-path.stat().st_size // 3 // 10240) * 10240])
    damage.reseal(path)


def add_pickle(folder: Path) -> None:
    bomb = f"cos\nsystem\n(S'touch {folder}/opened'\ntR.".encode()
    damage.change(folder / SHARD, f"{KEY}.policy.pkl", bomb)


def pickled_array(folder: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {folder}/opened",)

    damage.change(folder / SHARD, f"{KEY}.sim_state.npy", damage.npy(np.array([Bomb()], object), allow_pickle=True))


def set_action(value: float) -> Callable[[Path], None]:
    def edit(actions: np.ndarray) -> np.ndarray:
        actions[5, 2] = value
        return actions

    return lambda folder: damage.change_array(folder / SHARD, f"{KEY}.actions.npy", edit)


def wrong_dimension(folder: Path) -> None:
    damage.change_array(folder / SHARD, f"{KEY}.actions.npy", lambda actions: actions[:, :3])


def wrong_sample_schema(folder: Path) -> None:
    edit = lambda meta: meta.replace(b'"schema_version": 1', b'"schema_version": 7')  # noqa: E731
    damage.change(folder / SHARD, f"{KEY}.meta.json", edit)


def wrong_schema(folder: Path) -> None:
    damage.change_dataset(folder, lambda dataset: dataset.update(schema_version=7))


def wrong_size(folder: Path) -> None:
    other = folder / "other-000000.tar"
    write_shard(other, [make_episode(3, size=(48, 32))])
    frames = damage.members(other)[f"{KEY}.frames.mp4"]
    other.unlink()
    damage.change(folder / SHARD, f"{KEY}.frames.mp4", frames)


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def spoil_byte(folder: Path) -> None:
    """One bit of the simulator's state, which only the SHA-256 can tell."""
    path = folder / SHARD
    data = bytearray(path.read_bytes())
    data[data.index(make_episode(3).sim_state.tobytes()) + 100] ^= 1  # type: ignore[union-attr]
    path.write_bytes(data)


def repeat_key(folder: Path) -> None:
    write_shard(folder / SHARD, [make_episode(number) for number in (2, 4, 5)])
    (folder / f".{SHARD}.json").unlink()
    damage.reseal(folder / SHARD)


BOTH = [
    pytest.param(truncate, [SHARD, "truncated", KEY[:-1], "restore the file"], id="truncated"),
    pytest.param(cut_at_a_member, [SHARD, "truncated", KEY[:-1]], id="cut at a member"),
    pytest.param(add_pickle, [SHARD, KEY, "policy.pkl", "never opened", "remove the member"], id="pickle member"),
    pytest.param(wrong_dimension, [SHARD, KEY, "actions: 3 dimensions", "4"], id="wrong dimension"),
    pytest.param(wrong_sample_schema, [SHARD, KEY, "meta.json: schema version 7", "convert"], id="sample's schema"),
    pytest.param(wrong_schema, ["dataset.json", "schema version 7", "convert"], id="schema"),
    pytest.param(wrong_size, [SHARD, KEY, "48 x 32", "32 x 32"], id="mixed sizes"),
    pytest.param(empty, ["data: holds no episodes", "wovr collect"], id="empty folder"),
    pytest.param(lambda folder: (folder / SHARD).unlink(), [SHARD, "missing"], id="missing shard"),
    pytest.param(lambda folder: (folder / "dataset.json").unlink(), ["dataset.json: missing"], id="unfinished"),
    pytest.param(lambda folder: (folder / "dataset.json").write_text("{"), ["dataset.json: not valid"], id="no JSON"),
    pytest.param(
        lambda folder: damage.change_dataset(folder, lambda dataset: dataset.update(shards=[])),
        ["dataset.json", "lists no shard"],
        id="no shards",
    ),
    pytest.param(
        lambda folder: write_shard(shard_path(folder, "spatial", 2), [make_episode(9)]),
        ["spatial-000002.tar: not listed", "finish the collection"],
        id="one shard more",
    ),
    pytest.param(
        lambda folder: damage.change_dataset(folder, lambda dataset: dataset["shards"][1].update(bytes=20480)),
        [SHARD, "dataset.json says 20480"],
        id="size",
    ),
    pytest.param(lambda folder: (folder / SHARD).write_bytes(b"no tar" * 999), [SHARD, "not a tar file"], id="no tar"),
]

ONLY_VERIFY = [
    pytest.param(pickled_array, [SHARD, KEY, "sim_state.npy: not a plain .npy array"], id="pickled array"),
    pytest.param(
        set_action(1.5), [SHARD, KEY, "actions: step 5, dimension 2: 1.5 is outside [-1, 1]", "normalise"], id="range"
    ),
    pytest.param(set_action(np.nan), [SHARD, KEY, "actions: step 5, dimension 2: nan is not finite"], id="NaN"),
    pytest.param(spoil_byte, [SHARD, "SHA-256"], id="SHA-256"),
    pytest.param(repeat_key, [SHARD, "spatial-000002", "spatial-000000.tar has an episode of this key"], id="twice"),
    pytest.param(
        lambda folder: damage.change_dataset(folder, lambda dataset: dataset.update(successes=5)),
        ["dataset.json: successes is 5, counted 2"],
        id="successes",
    ),
    pytest.param(
        lambda folder: damage.change(folder / SHARD, f"{KEY}.meta.json", lambda meta: meta.replace(b"10.0", b"20.0")),
        [SHARD, KEY, "meta: 20 fps, the data set has 10"],
        id="fps",
    ),
    pytest.param(
        lambda folder: damage.change_dataset(folder, lambda dataset: dataset["shards"][1].update(frames=73)),
        [SHARD, "72 frames, dataset.json says 73"],
        id="frames",
    ),
    pytest.param(
        lambda folder: damage.change_dataset(folder, lambda dataset: dataset["action_statistics"]["max"].reverse()),
        ["dataset.json: action_statistics is"],
        id="statistics",
    ),
]


@pytest.mark.parametrize(("spoil", "words"), BOTH + ONLY_VERIFY)
def test_verify_names_what_is_broken(
    folder: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], words: list[str]
) -> None:
    spoil(folder)
    assert main(["data", "verify", str(folder)]) == 2
    lines = errors(capsys)
    assert len(lines) == 1
    assert [word for word in words if word not in lines[0]] == []
    assert not (folder / "opened").exists()


@pytest.mark.parametrize(("spoil", "words"), BOTH)
def test_inspect_names_what_is_broken(
    folder: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], words: list[str]
) -> None:
    spoil(folder)
    assert main(["data", "inspect", str(folder)]) == 2
    lines = errors(capsys)
    assert len(lines) == 1
    assert [word for word in words if word not in lines[0]] == []
    assert not (folder / "opened").exists()


def test_verify_goes_on_and_reports_each_in_a_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_action(np.inf)(folder)
    damage.change(folder / SHARD, "spatial-000004.frames.mp4", b"no video")
    path = folder / "spatial-000000.tar"
    path.write_bytes(path.read_bytes()[:5000])
    write_shard(shard_path(folder, "spatial", 7), [make_episode(9)])
    assert main(["data", "verify", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert "1 episodes, 24 frames" in out
    assert "4 problems" in out
    lines = err.splitlines()
    assert [line.startswith("wovr: error: ") for line in lines] == [True] * 4
    expected = [
        "spatial-000007.tar: not listed",
        "spatial-000000.tar: truncated",
        f"{SHARD}: episode {KEY}: actions: step 5",
        f"{SHARD}: episode spatial-000004: frames.mp4: not a readable video",
    ]
    assert [part for part, line in zip(expected, lines, strict=True) if part not in line] == []


def test_no_such_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("inspect", "verify"):
        assert main(["data", verb, str(tmp_path / "nowhere")]) == 2
        assert errors(capsys) == [
            f"wovr: error: {tmp_path}/nowhere: no such folder; check the path, or collect episodes: "
            "wovr collect --out DIR"
        ]


def test_a_full_disk_under_the_contact_sheet(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "contact_sheet.png").write_bytes(b"an older sheet")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert main(["data", "inspect", str(folder)]) == 2
    (line,) = errors(capsys)
    assert "contact_sheet.png: cannot be written: No space left on device; free some space" in line
    assert (folder / "contact_sheet.png").read_bytes() == b"an older sheet"


def test_a_sheet_of_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(folder), "--rows", "0"]) == 2
    assert len(errors(capsys)) == 1


def test_help_names_both_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert [word for word in ("wovr data", "inspect", "verify") if word not in out] == []
