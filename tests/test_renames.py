"""Results of before a class was moved are still known, though their folders name it as it was called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wovr.errors import UserError
from wovr.renames import RENAMES, old_names, present_names
from wovr.runs import RunFolder, write_json

OLD, NEW = "wovr.tasks.reward_training.Old", "wovr.tasks.reward.RewardTraining"


@pytest.fixture(autouse=True)
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMES, OLD, NEW)


def options(name: str) -> dict[str, Any]:
    return {"model": {"class_path": name, "init_args": {"parts": [name, 1, None]}}, name: "a key stays"}


def test_texts_at_any_depth_are_replaced_and_nothing_else() -> None:
    expected = options(NEW)
    expected[OLD] = expected.pop(NEW)
    assert present_names(options(OLD)) == expected
    assert old_names(options(OLD)) == [OLD, OLD]
    assert old_names(options(NEW)) == []


def test_a_finished_run_of_before_is_done(tmp_path: Path) -> None:
    write_json(tmp_path / "DONE", {"inputs": {"model": OLD}})
    run = RunFolder(tmp_path, {"model": NEW})
    assert run.is_done()
    run.refuse_others()
    with pytest.raises(UserError, match=r"model was 'wovr\.tasks\.reward\.RewardTraining' and is 'x'"):
        RunFolder(tmp_path, {"model": "x"}).refuse_others()
