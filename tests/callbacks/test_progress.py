from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from wovr.callbacks.progress import TrainingProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(progress: TrainingProgress, total: float = 4) -> None:
    trainer: Any = SimpleNamespace(
        global_step=0, estimated_stepping_batches=total, loggers=[], progress_bar_metrics={"train/loss": 0.25}
    )
    progress.on_train_start(trainer, None)  # type: ignore[arg-type]
    for step in range(1, 5):
        trainer.global_step = step
        progress.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
    progress.on_train_end(trainer, None)  # type: ignore[arg-type]


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    run(TrainingProgress(line_seconds=0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("step 1/4  ETA 0:00:0")
    assert lines[0].endswith("train/loss 0.25")
    run(TrainingProgress(line_seconds=1000))
    assert len(capsys.readouterr().err.splitlines()) == 1
    run(TrainingProgress(line_seconds=1000), total=float("inf"))
    assert capsys.readouterr().err.startswith("step 4  ETA ?")


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    run(TrainingProgress())
    assert "4/4" in terminal.getvalue()
    assert "train/loss 0.25" in terminal.getvalue()


def test_nothing_on_other_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TrainingProgress(line_seconds=0)
    progress.disable()
    run(progress)
    assert capsys.readouterr().err == ""
