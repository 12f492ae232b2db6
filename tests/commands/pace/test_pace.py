"""`wovr pace`: a whole chain at toy size, in this process and in child processes that are killed."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from tests.commands.pace.chain import CHAIN, STAGES, write_chain
from tests.commands.test_fit import assert_equal
from wovr.cli import main
from wovr.commands.pace import main as pace
from wovr.commands.pace.child import Ended

NAMES = [stage["name"] for stage in STAGES]
NOTEBOOK = Path(__file__).resolve().parents[3] / "notebooks" / "tour.ipynb"


@dataclass
class Finished:
    """A process that has ended before anybody asks."""

    ended: Ended
    seconds: float = 0.0

    def poll(self) -> Ended:
        return self.ended

    def end(self, interrupt: bool) -> None:
        raise AssertionError("it has ended")


class InProcess:
    """Runs the commands of stages in this process, which imports everything once, and notes which."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def __call__(
        self,
        words: Sequence[str],
        log: Path,
        descriptors: Sequence[int],
        threads: int | None,
        launcher: Sequence[str],
    ) -> Finished:
        self.ran.append(Path(words[-1]).name)
        started = time.monotonic()
        with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            status = main(list(words))
        return Finished(Ended(status, time.monotonic() - started, 1_000_000))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, InProcess]]:
    """The folder of the whole chain, run once, and what ran it."""
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        run = InProcess()
        patched.setattr(pace, "Child", run)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        write_chain(folder)
        assert main(["pace", "--config", "chain.yaml", "--out", "out"]) == 0
        yield folder, run
        torch.set_num_threads(threads)


def again(chain: tuple[Path, InProcess], *flags: str) -> list[str]:
    """The same command with more flags; the stages that it ran."""
    folder, run = chain
    run.ran.clear()
    with contextlib.chdir(folder):
        assert main(["pace", "--config", "chain.yaml", "--out", "out", *flags]) == 0
    return list(run.ran)


def test_every_stage_connects_to_those_it_needs(chain: tuple[Path, InProcess]) -> None:
    out = chain[0] / "out"
    assert chain[1].ran == NAMES
    assert all((out / name / "DONE").exists() for name in NAMES)
    refit = yaml.safe_load((out / "wm_refit" / "config.yaml").read_text())
    assert refit["data"]["init_args"]["folder"] == ["out/collect_base", "out/collect_evolved"]
    assert refit["init_from"] == "out/wm_fit/checkpoints/last.ckpt"
    record = json.loads((out / "rl_refit" / "stage.json").read_text())
    assert record["command"].startswith("wovr rl --config rl.yaml --policy out/rl_fit/checkpoints/last.ckpt")
    assert len(record["attempts"]) == 1


def test_the_report_holds_what_was_measured_and_names_what_was_not(chain: tuple[Path, InProcess]) -> None:
    out = chain[0] / "out"
    values = json.loads((out / "metrics.json").read_text())
    assert [entry["stage"] for entry in values["success"]] == ["sr_base", "sr_rl", "sr_pace"]
    measured = json.loads((out / "sr_pace" / "metrics.json").read_text())["sr"]["all"]
    assert values["success"][-1]["all"] == measured
    assert values["budget"]["real_episodes"] == values["budget"]["limit"] == 20
    assert values["budget"]["evaluation_episodes"] == 3 * 2 + 2
    curves = [json.loads((out / name / "metrics.json").read_text())["curve"] for name in ("rl_fit", "rl_refit")]
    assert values["budget"]["imagined_frames"] == sum(row["rollout_frames"] for rows in curves for row in rows) > 0
    assert values["missing"] == ["online GRPO under the same real budget: no stage of this chain runs it"]
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert page.count("data:video/mp4;base64,") >= 5
    assert page.count("<svg") >= 3  # success, and a learning curve of each RL
    assert not re.findall(r"""(?:src|href)=['"](?!data:|#)""", page)
    for shown in ("after PACE", "81.5", "psnr", "false successes", "online GRPO under the same real budget"):
        assert shown in page
        assert shown in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 8
    assert all((out / link).exists() for link in links)


def test_finished_stages_are_skipped_and_changed_ones_run_again(chain: tuple[Path, InProcess]) -> None:
    folder = chain[0]
    assert again(chain) == []
    stages = [dict(stage) for stage in STAGES]
    stages[NAMES.index("sr_rl")] |= {"args": {**STAGES[NAMES.index("sr_rl")]["args"], "videos": 0}}
    write_chain(folder, stages=stages)
    assert again(chain, "--until", "sr_rl") == ["sr_rl"]
    write_chain(folder)
    (folder / "out" / "keyframes_evolved" / "DONE").unlink()  # as a killed command leaves it
    assert again(chain, "--until", "keyframes_evolved") == ["sr_rl", "keyframes_evolved"]


def test_a_moved_chain_is_the_same_chain(chain: tuple[Path, InProcess]) -> None:
    folder = chain[0]
    (folder / "out").rename(folder / "moved")
    try:
        assert again(chain, "--out", "moved") == []
    finally:
        (folder / "moved").rename(folder / "out")


def execute(cell: str, names: dict[str, Any]) -> Any:
    """Run a notebook's cell; what its last line is worth, as the notebook would show it."""
    body = ast.parse(cell).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


def test_the_notebook_shows_a_chain(
    chain: tuple[Path, InProcess], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WOVR_RUN", str(chain[0] / "out"))
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    names: dict[str, Any] = {}
    shown = [execute("".join(cell["source"]), names) for cell in cells]
    pictures = [picture.size for picture in shown if isinstance(picture, Image.Image)]
    assert pictures[:2] == [(16 * 16 * 2, 16 * 2), (16 * 16 * 2, 2 * 16 * 2)]
    assert len(pictures) == 3
    printed = capsys.readouterr().out
    assert "after PACE" in printed
    assert "32 frames, PSNR" in printed
    assert "8 episodes" in printed


def test_a_chain_killed_at_random_moments_ends_the_same(chain: tuple[Path, InProcess], tmp_path: Path) -> None:
    write_chain(tmp_path)
    words = [sys.executable, "-m", "wovr", "pace", "--config", "chain.yaml", "--out", "out", "--until", "sft_fit"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "text": True}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    seed = random.SystemRandom().randrange(1000)
    moments = random.Random(seed)
    for number, least, most in ((signal.SIGKILL, 0.5, 3.0), (signal.SIGTERM, 2.0, 5.0), (signal.SIGKILL, 3.0, 7.0)):
        process = subprocess.Popen(words, **options, **pipes)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(least, most))
        process.send_signal(number)
        process.communicate()
        assert process.returncode in (0, -number, 128 + number)
    result = subprocess.run(words, **options, **pipes, check=False)
    assert result.returncode == 0, f"seed {seed}: {result.stderr}"
    folders = [folder / "out" for folder in (chain[0], tmp_path)]
    found = [torch.load(out / "sft_fit/checkpoints/last.ckpt", weights_only=True) for out in folders]
    assert_equal(found[0]["state_dict"], found[1]["state_dict"])
    datasets = [json.loads((out / "demos" / "dataset.json").read_text())["shards"] for out in folders]
    assert datasets[0] == datasets[1]
    lines = result.stdout.splitlines()
    assert lines[-1] == "report: out/report.html"
    assert any(re.match(r"\[2/2\] sft_fit.*: ", line) for line in lines)


def write_two(folder: Path, **changes: Any) -> Path:
    """A chain of two stages that nothing has to be installed for."""
    act = {"policy": "random", "suite": "spatial", "env": "tests.envs.point_env:PointEnv", "num_envs": 2, "workers": 1}
    stages = [
        {"name": "a", "command": "collect", "args": {**act, "episodes": 2}},
        {"name": "b", "command": "data keyframes {stage:a}", "args": {"lead": "nonsense"}},
    ]
    (folder / "wm.yaml").write_text("{}\n")
    path = folder / "two.yaml"
    path.write_text(yaml.safe_dump({"stages": stages} | changes, sort_keys=False))
    return path


def test_a_failing_stage_is_named_with_its_log_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pace, "Child", InProcess())
    write_two(tmp_path)
    assert main(["pace", "--config", "two.yaml", "--out", "out"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "stage 'b' failed with status 2: --lead nonsense" in line
    assert "see out/b/stage.log; by hand: wovr data keyframes out/a --lead nonsense --out out/b" in line
    assert (tmp_path / "out" / "a" / "DONE").exists()
    assert not (tmp_path / "out" / "b" / "DONE").exists()
    for flags in (["--seed", "1"], ["--suite", "goal"], ["--seed", "1", "--dry_run", "true"]):
        assert main(["pace", "--config", "two.yaml", "--out", "out", *flags]) == 2
        assert "out: was begun with other inputs: s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "flags", "line"),
    [
        ({}, ["--from", "c"], "--from c: no such stage; the stages are a, b"),
        ({}, ["--until", "c"], "--until c: no such stage"),
        ({}, ["--from", "b", "--until", "a"], "--until a comes before --from b"),
        ({}, ["--from", "b"], "stage 'a' is needed and not finished"),
        ({"budget": {"real_episodes": 1}}, [], "budget.real_episodes is 1, and the chain takes 2 (a 2)"),
        ({"budget": {"episodes": 1}}, [], "budget: unknown key 'episodes'"),
        ({}, ["--rounds=-1"], "rounds is -1"),
        ({}, ["--sweet", "x"], "see: wovr pace --help"),
        ({"stages": [{"name": "a", "command": "fit", "config": "no.yaml"}]}, [], "stage 'a': config no.yaml: no such"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    changes: dict[str, Any],
    flags: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = InProcess()
    monkeypatch.setattr(pace, "Child", run)
    write_two(tmp_path, **changes)
    assert main(["pace", "--config", "two.yaml", "--out", "out", *flags]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert len(error.splitlines()) == 1
    assert run.ran == []


@pytest.mark.parametrize("name", ["tabletop", "metaworld", "libero"])
def test_the_chains_that_come_with_the_project_are_within_their_budgets(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(NOTEBOOK.parents[1])
    assert (
        main(["pace", "--config", f"conf/pace/{name}.yaml", "--out", str(tmp_path / "out"), "--dry_run", "true"]) == 0
    )
    printed = capsys.readouterr().out
    planned, limit = re.findall(r"real episodes: ([\d,]+), the budget is ([\d,]+)", printed)[0]
    assert planned == limit
    places = re.findall(r"wovr collect .*--init_states[= ](\S+)", printed)
    assert len(places) == 4
    assert places[3] not in places[:3]  # what is measured was not trained on


@pytest.mark.parametrize(
    ("env", "suite", "tasks"),
    [("metaworld", "mt10", "1,2"), ("libero", "libero_object", ""), ("my_arm:Arm", "s", "0")],
)
def test_an_environment_by_name_needs_no_file_and_no_number(
    env: str,
    suite: str,
    tasks: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(NOTEBOOK.parents[1])
    words = ["--env", env, "--suite", suite, *(["--tasks", tasks] if tasks else [])]
    assert main(["pace", *words, "--out", str(tmp_path / "out"), "--dry_run", "true"]) == 0
    printed = capsys.readouterr().out
    acting = re.findall(r"wovr (?:collect|evaluate) (.*)", printed)
    assert len(acting) == 8
    for line in acting:
        assert f"--env {env} " in line
        assert (f"--tasks {tasks} " in line) == bool(tasks)
    assert not re.findall(r"_dim|_channels|touch|data\.memory", printed)


def test_an_environment_for_a_chain_that_has_no_place_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_chain(tmp_path)
    assert main(["pace", "--config", "chain.yaml", "--env", "metaworld", "--dry_run", "true"]) == 2
    assert "--env is given, and no stage has a place for it; use conf/pace/small.yaml" in capsys.readouterr().err


def test_a_dry_run_shows_stages_commands_and_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_chain(tmp_path, rounds=2, budget={"real_episodes": 24})
    assert main(["pace", "--config", "chain.yaml", "--out", "out", "--dry_run", "true"]) == 0
    printed = capsys.readouterr().out
    assert "wovr collect --policy expert --episodes 8 --init_states :-100" in printed
    assert "wovr evaluate --policy out/rl_refit_2/checkpoints/last.ckpt" in printed
    assert "--init_from out/wm_refit/checkpoints/last.ckpt --trainer.max_steps 4" in printed  # in the second round
    assert "real episodes: 24, the budget is 24" in printed
    assert not (tmp_path / "out").exists()
    assert CHAIN["stages"] is STAGES
