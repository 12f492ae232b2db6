"""`wovr data label`, through the real command line."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.refusal import refused
from tests.data.synthetic import write_dataset
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore


def answer(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    """What the person types; the end of the input after it."""
    lines = iter(answers)

    def typed(_: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", typed)


def test_labels_are_asked_for_kept_and_applied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_dataset(tmp_path / "data"), tmp_path / "labelled"
    answer(monkeypatch, "99", "soon", "5", "none")
    assert main(["data", "label", str(data), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "spatial-000000 (1 of 6), 24 frames: put cube 0 on the pad" in shown
    assert "no frame 99" in shown
    assert "'soon' is not a frame" in shown
    assert "2 of 6 episodes labelled, 1 successes" in shown
    assert not out.exists()
    sheet = Image.open(data / "labels/spatial-000000.png")
    assert sheet.size == (8 * (96 + 8), 3 * (96 + 8 + 18))
    # The same command goes on, and takes an answer back.
    answer(monkeypatch, "0", "back", "23", "none", "7", "n")
    assert main(["data", "label", str(data), "--out", str(out)]) == 0
    assert "spatial-000002 (3 of 6)" in capsys.readouterr().out
    before, after = EpisodeStore(data), EpisodeStore(out)
    firsts = [5, None, 23, None, 7, None]
    for index, first in enumerate(firsts):
        assert after.success(index).tolist() == [first is not None and t >= first for t in range(24)]
        assert after.encoded_video(index) == before.encoded_video(index)
        np.testing.assert_array_equal(after.actions(index), before.actions(index))
    assert after.entries[0].meta.extra["success"] == "labelled by hand"
    assert main(["data", "verify", str(out)]) == 0


def test_labels_of_other_data_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = write_dataset(tmp_path / "one"), write_dataset(tmp_path / "other", shards=1)
    answer(monkeypatch, "3")
    assert main(["data", "label", str(one)]) == 0
    (other / "labels").mkdir()
    (other / "labels/labels.json").write_bytes((one / "labels/labels.json").read_bytes())
    assert "belong to other data" in refused(capsys, "label", other)
