"""Folders of stages: which are finished, stopped, changed; and one chain at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml

from tests.envs.test_rollout import make_policy, save_policy
from wovr.commands.pace.child import Ended
from wovr.commands.pace.folders import Fingerprints, StageFolder
from wovr.commands.pace.run import run_stages
from wovr.commands.pace.stages import Stage, Surroundings, read_stages
from wovr.errors import UserError
from wovr.runs import only_run, read_json, write_json


class FakeVerb:
    """Writes a result that depends on its words, and a marker of its own; dies before it in the stages told."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.dies: set[str] = set()
        self.found: dict[str, list[str]] = {}
        self.ended: list[str] = []

    def __call__(
        self,
        words: Sequence[str],
        log: Path,
        descriptors: Sequence[int],
        threads: int | None,
        launcher: Sequence[str],
    ) -> FakeVerb:
        self.folder, self.words, self.seconds = Path(words[-1]), list(words[:-1]), 0.0
        self.ran.append(self.folder.name)
        self.found[self.folder.name] = sorted(path.name for path in self.folder.iterdir())
        return self

    def poll(self) -> Ended | None:
        if not self.seconds:
            self.seconds = 100.0
            return None
        write_json(self.folder / "metrics.json", {"words": self.words})
        if self.folder.name in self.dies:
            raise SystemExit("killed")
        write_json(self.folder / "DONE", {"inputs": "the verb's own"})
        return Ended(0, 2.0, 1000)

    def terminate(self) -> None:
        self.ended.append(self.folder.name)

    def wait(self, seconds: float) -> bool:
        return bool(self.ended)

    def kill(self) -> None:
        raise AssertionError("it has ended by itself")


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    """a -> b -> c, and d by itself; b has a configuration."""
    monkeypatch.chdir(tmp_path)
    Path("b.yaml").write_text("x: 1")
    return make_chain()


def make_chain(**args: int) -> list[Stage]:
    return read_stages(
        [
            {"name": "a", "command": "fit", "args": {name: value for name, value in args.items() if name == "a"}},
            {"name": "b", "command": "fit", "config": "b.yaml", "needs": ["a"]},
            {"name": "c", "command": "fit", "needs": ["b"], "args": {"seed": "{seed}"}},
            {"name": "d", "command": "fit"},
        ]
    )


def go(chain: list[Stage], verb: FakeVerb, first: str | None = None, seed: int = 0) -> list[str]:
    verb.ran.clear()
    names = [stage.name for stage in chain]
    chosen = chain[names.index(first) :] if first else chain
    ran = run_stages(chain, chosen, Surroundings(Path("out"), "spatial", seed), launch=verb)
    assert ran == verb.ran
    return ran


def test_what_changed_runs_again_and_what_needs_it(chain: list[Stage]) -> None:
    verb = FakeVerb()
    assert go(chain, verb) == ["a", "b", "c", "d"]
    assert go(chain, verb) == []
    Path("b.yaml").write_text("# a remark\nx: 1")
    assert go(chain, verb) == []
    Path("b.yaml").write_text("x: 2")
    # Its result is the same as before: what needs it is as good as it was.
    assert go(chain, verb) == ["b"]
    assert verb.found["b"] == ["stage.json"]  # of the old one nothing is left
    assert go(make_chain(a=1), verb) == ["a", "b"]
    assert go(make_chain(a=1), verb, seed=1) == ["c"]
    write_json(Path("out/a/metrics.json"), "made by hand")
    assert go(make_chain(a=1), verb, seed=1) == ["b"]


def test_from_takes_what_comes_before_as_it_is(chain: list[Stage]) -> None:
    verb = FakeVerb()
    go(chain, verb)
    Path("b.yaml").write_text("x: 2")
    assert go(chain, verb, "c") == []
    Path("out/b/DONE").unlink()
    with pytest.raises(UserError, match="stage 'b' is needed and not finished"):
        go(chain, verb, "c")


def test_a_killed_stage_goes_on_in_its_folder(chain: list[Stage]) -> None:
    verb = FakeVerb()
    verb.dies = {"b"}
    with pytest.raises(SystemExit):
        go(chain, verb)
    assert verb.ran == ["a", "b"]
    assert verb.ended == ["b"]
    verb.dies = set()
    assert go(chain, verb) == ["b", "c", "d"]
    assert verb.found["b"] == ["metrics.json", "stage.json"]
    attempts = read_json(Path("out/b/stage.json"))["attempts"]
    assert [attempt["seconds"] for attempt in attempts] == [100.0, 2.0]  # noted before it was killed


def test_what_was_made_from_other_inputs_is_kept(chain: list[Stage]) -> None:
    verb = FakeVerb()
    go(chain, verb)
    for number in (1, 2):
        (Path("out/b") / f"real-{number}.tar").write_bytes(b"weeks of work")
        Path("b.yaml").write_text(f"x: {number + 1}")
        assert go(chain, verb) == ["b"]
    assert verb.found["b"] == ["stage.json"]
    kept = sorted(path.relative_to("out").as_posix() for path in Path("out").glob("b.before-*/*"))
    names = ("DONE", "metrics.json", "stage.json")
    assert kept == sorted([f"b.before-{number}/{name}" for number in (1, 2) for name in (*names, f"real-{number}.tar")])


def test_a_stage_that_was_stopped_is_kept_too(chain: list[Stage]) -> None:
    verb = FakeVerb()
    verb.dies = {"b"}
    with pytest.raises(SystemExit):
        go(chain, verb)
    verb.dies = set()
    Path("b.yaml").write_text("x: 2")
    assert go(chain, verb) == ["b", "c", "d"]
    assert Path("out/b.before-1/metrics.json").exists()
    attempts = read_json(Path("out/b/stage.json"))["attempts"]
    assert [attempt["seconds"] for attempt in attempts] == [2.0]  # what the other one took is not this one's


def test_a_folder_that_a_command_given_by_hand_fills_stays(chain: list[Stage]) -> None:
    verb = FakeVerb()
    go(chain, verb)
    Path("b.yaml").write_text("x: 2")
    with only_run(Path("out/b")), pytest.raises(UserError, match="another `wovr` command"):
        go(chain, verb)
    assert Path("out/b/DONE").exists()
    assert not Path("out/b.before-1").exists()


def test_the_same_networks_from_another_training_are_the_same_input(tmp_path: Path) -> None:
    fingerprint = Fingerprints()
    found = []
    for name, seconds, scale in (("a", 1.0, 1.0), ("b", 99.0, 1.0), ("c", 1.0, 2.0)):
        folder = tmp_path / name
        policy = make_policy()
        with torch.no_grad():
            next(policy.parameters()).mul_(scale)
        (folder / "checkpoints").mkdir(parents=True)
        path = save_policy(folder / "checkpoints" / "last.ckpt", policy)
        torch.save({**torch.load(path), "callbacks": {"Timer": {"time_elapsed": {"train": seconds}}}}, path)
        write_json(folder / "metrics.json", {"seconds": seconds})
        write_json(folder / "DONE", {})
        found.append(fingerprint(folder))
    assert found[0] == found[1] != found[2]


def test_seconds_of_a_measurement_are_no_part_of_it(tmp_path: Path) -> None:
    found = []
    for name, seconds, rate in (("a", 1.0, 0.5), ("b", 2.0, 0.5), ("c", 1.0, 0.6)):
        write_json(tmp_path / name / "metrics.json", {"sr": [{"rate": rate, "seconds": seconds}]})
        write_json(tmp_path / name / "DONE", {"seconds": seconds})
        found.append(Fingerprints()(tmp_path / name))
    assert found[0] == found[1] != found[2]


def test_a_stage_without_a_marker_of_its_own_gets_one(chain: list[Stage], tmp_path: Path) -> None:
    given = Surroundings(Path("out"), "spatial", 0)
    folder = StageFolder(chain[0], given, {})
    assert folder.state() == "to come"
    folder.begin("wovr fit")
    assert folder.state() == "stopped"
    assert Fingerprints()(folder.path) is None
    folder.finish()
    assert folder.state() == "done"
    assert Fingerprints()(folder.path) is not None
    assert yaml.safe_load(folder.run.marker.read_text())["inputs"] == folder.inputs
