"""What is seen of a chain: lines without a terminal, a live table in one."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from wovr.commands.pace import view as pace_view
from wovr.commands.pace.stages import Stage
from wovr.commands.pace.view import RAN, ChainView

STAGES = [Stage("a", "fit", seconds=10), Stage("b", "fit", seconds=20), Stage("c", "fit", seconds=30)]


def drive(view: ChainView, log: Path) -> None:
    with view:
        view.skip(STAGES[0], 3.0)
        view.start(STAGES[1], "wovr fit --x '[1]'", "stopped", 5.0)
        log.write_text("step 10/40\n")
        view.tick(STAGES[1], 5.0, 10.0, log)
        log.write_text("step 20/40 [red]\n")
        view.tick(STAGES[1], 5.0, 20.0, log)


def test_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    view = ChainView(STAGES, ["done", "stopped", "to come"], Console(file=out, width=20))
    drive(view, tmp_path / "log")
    view.end(STAGES[1], RAN, 65, 3_000_000_000)
    assert out.getvalue().splitlines() == [
        "[1/3] a: done before",
        "[2/3] b (stopped): wovr fit --x '[1]'",
        "[2/3] b: done in 0:01:05, 3.00 GB",
    ]


def test_what_is_left_of_stages_side_by_side() -> None:
    stages = [*STAGES[:2], Stage("c", "fit", seconds=30, needs=("a",)), Stage("d", "fit", seconds=1, needs=("c",))]
    views = [ChainView(stages, ["to come"] * 4, Console(file=io.StringIO()), jobs) for jobs in (1, 2, 4)]
    assert [view.left() for view in views] == [
        (61.0, 0),
        (41.0, 0),
        (41.0, 0),
    ]  # a, c and d have to wait for each other


def test_a_table_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_view, "_REFRESH", 0.0)
    out = io.StringIO()
    view = ChainView(STAGES, ["done", "stopped", "to come"], Console(file=out, force_terminal=True, width=100))
    drive(view, tmp_path / "log")
    assert "wovr fit --x '[1]'" in out.getvalue()
    row = view.rows["b"]
    assert (row.seconds, row.left, row.line) == (25.0, 20.0, "step 20/40 [red]")  # 10 steps in 10 s, 20 to come
    assert view.left() == (50.0, 0)
    assert view.summary().startswith("1 of 3 stages")
    view.end(STAGES[1], RAN, 40.0, 1)
    assert view.left() == (60.0, 0)  # twice as slow here as where c was timed
    plain = Console(file=io.StringIO(), width=100)
    plain.print(view.table())
    shown = plain.file.getvalue()  # type: ignore[attr-defined]
    assert "2 of 3 stages" in shown
    assert "ETA 0:01:00" in shown
