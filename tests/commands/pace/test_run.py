"""Stages side by side: when each may start, with how many threads, and what becomes of the others if one fails."""

from __future__ import annotations

import io
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from wovr.commands.pace import run as pace_run
from wovr.commands.pace.child import Ended
from wovr.commands.pace.run import run_stages, startable
from wovr.commands.pace.stages import Stage, Surroundings, read_stages
from wovr.errors import Terminated, UserError
from wovr.runs import read_json


class Clockwork:
    """Stages that take a given number of looks; notes who runs beside whom."""

    def __init__(self, looks: dict[str, int], fails: str = "", deaf: Sequence[str] = ()) -> None:
        self.looks, self.fails = looks, fails
        self.running: list[str] = []
        self.beside: dict[str, list[str]] = {}
        self.threads: dict[str, int | None] = {}
        self.told_to_end: list[str] = []
        self.killed: list[str] = []
        self.deaf = deaf

    def __call__(
        self,
        words: Sequence[str],
        log: Path,
        descriptors: Sequence[int],
        threads: int | None,
        launcher: Sequence[str],
    ) -> One:
        name = Path(words[-1]).name
        self.beside[name] = list(self.running)
        self.running.append(name)
        self.threads[name] = threads
        return One(self, name)


class One:
    """A stage of a Clockwork."""

    seconds = 1.0

    def __init__(self, works: Clockwork, name: str) -> None:
        self.works, self.name, self.left = works, name, works.looks[name]

    def poll(self) -> Ended | None:
        self.left -= 1
        if self.left > 0:
            return None
        self.works.running.remove(self.name)
        return Ended(1 if self.name == self.works.fails else 0, 1.0, 1000)

    def terminate(self) -> None:
        self.works.told_to_end.append(self.name)

    def wait(self, seconds: float) -> bool:
        """Ctrl-C reaches every stage of a Clockwork but those that are deaf, which only listen to SIGTERM."""
        return self.name not in self.works.deaf or self.name in self.works.told_to_end

    def kill(self) -> None:
        self.works.killed.append(self.name)


def stages_of(*entries: tuple[str, list[str], bool]) -> list[Stage]:
    return read_stages([{"name": n, "command": "fit", "needs": needs, "alone": alone} for n, needs, alone in entries])


DIAMOND = (("a", [], False), ("b", ["a"], False), ("c", ["a"], False), ("d", ["b", "c"], True), ("e", [], False))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pace_run, "_TICK", 0.0)
    monkeypatch.setattr(pace_run, "count_workers", lambda workers: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def go(works: Clockwork, jobs: int, chain: list[Stage] | None = None) -> list[str]:
    chain = chain or stages_of(*DIAMOND)
    given = Surroundings(Path("out"), "spatial", 0)
    return run_stages(chain, chain, given, jobs=jobs, launch=works, console=Console(file=io.StringIO()))


def test_one_after_the_other(folder: Path) -> None:
    works = Clockwork(dict.fromkeys("abcde", 2))
    assert go(works, 1) == ["a", "b", "c", "d", "e"]
    assert not any(works.beside.values())
    assert set(works.threads.values()) == {None}
    assert go(works, 1) == []


def test_side_by_side(folder: Path) -> None:
    works = Clockwork({"a": 2, "b": 9, "c": 2, "d": 2, "e": 20})
    assert go(works, 2) == ["a", "e", "b", "c", "d"]
    # c waits for b's place, d for everybody.
    assert works.beside == {"a": [], "e": ["a"], "b": ["e"], "c": ["e"], "d": []}
    assert works.threads == {"a": 3, "b": 3, "c": 3, "e": 3, "d": None}
    assert all(read_json(Path("out") / name / "stage.json")["attempts"][0]["status"] == 0 for name in "abcde")


def test_threads_that_the_user_has_chosen_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    works = Clockwork(dict.fromkeys("abcde", 1))
    go(works, 2)
    assert set(works.threads.values()) == {None}


def test_a_stage_that_wants_to_be_alone_is_not_overtaken_for_ever() -> None:
    chain = stages_of(("a", [], False), ("b", [], True), ("c", [], False))
    assert [stage.name for stage in startable(chain, [], 2)] == ["a"]
    assert startable(chain[1:], chain[:1], 2) == []  # c would be free to go
    assert [stage.name for stage in startable(chain[1:], [], 2)] == ["b"]
    assert startable(chain[2:], [chain[1]], 2) == []
    assert [stage.name for stage in startable(chain[1:], [], 1)] == ["b"]


def test_when_one_fails_the_others_are_stopped_and_go_on_next_time(folder: Path) -> None:
    works = Clockwork({"a": 1, "b": 3, "c": 1, "d": 1, "e": 9}, fails="b")
    with pytest.raises(UserError, match="stage 'b' failed with status 1"):
        go(works, 3)
    assert works.told_to_end == ["e"]
    assert (folder / "out" / "c" / "DONE").exists()
    assert not (folder / "out" / "e" / "DONE").exists()
    again = Clockwork({"b": 3, "d": 1, "e": 1})
    assert go(again, 3) == ["b", "e", "d"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyboardInterrupt(), ["e"]),  # a has got it from the terminal; e has not, as when only the chain is signalled
        (Terminated(signal.SIGTERM), ["a", "e"]),
        (Terminated(signal.SIGHUP), ["a", "e"]),
        (ZeroDivisionError(), ["a", "e"]),
    ],
)
def test_whatever_ends_a_chain_its_stages_may_save(
    error: BaseException, told: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = Clockwork(dict.fromkeys("abcde", 5), deaf=["e"])
    monkeypatch.setattr(pace_run.time, "sleep", lambda seconds: raise_it(error))
    with pytest.raises(type(error)):
        go(works, 2)
    assert works.told_to_end == told
    assert works.killed == []


def test_a_second_ctrl_c_kills_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = Clockwork(dict.fromkeys("abcde", 5))
    monkeypatch.setattr(pace_run.time, "sleep", lambda seconds: raise_it(KeyboardInterrupt()))
    monkeypatch.setattr(One, "wait", lambda self, seconds: raise_it(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        go(works, 2)
    assert works.killed == ["a", "e"]


def raise_it(error: BaseException) -> bool:
    raise error


@pytest.mark.parametrize("flag", ["alone", "each_round"])
def test_flags_of_a_stage_are_yes_or_no(flag: str) -> None:
    with pytest.raises(UserError, match=f"stage 'a': {flag} is 'maybe'; give true or false"):
        read_stages([{"name": "a", "command": "fit", flag: "maybe"}])
