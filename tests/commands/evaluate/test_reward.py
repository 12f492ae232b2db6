"""`wovr evaluate --reward`, through the command line, on toy episodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.data.lamps import lamps
from tests.data.synthetic import make_episode
from tests.tasks.test_reward import CONFIG
from wovr.cli import main
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.models.reward import load_classifier


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lamps(tmp_path_factory.mktemp("lamps"))


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with a window of 3 that knows what success is."""
    folder = tmp_path_factory.mktemp("reward")
    (folder / "reward.yaml").write_text(yaml.safe_dump(CONFIG))
    words = ["--config", str(folder / "reward.yaml"), "--data.folder", str(data), "--out", str(folder / "run")]
    changes = ["--data.window", "3", "--model.network.init_args.window", "3", "--model.ema_decay", "0.9"]
    assert main(["fit", *words, *changes, "--trainer.max_steps", "60", "--model.choose_threshold", "true"]) == 0
    return folder / "run/checkpoints/last.ckpt"


def test_it_measures_prints_and_remembers(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = load_classifier(checkpoint)
    held_out = lamps(tmp_path / "held_out", range(20, 28))
    words = ["evaluate", "--reward", str(checkpoint), "--data", str(held_out), "--out", str(tmp_path / "quality")]
    assert main([*words, "--imagined", str(data), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    values = json.loads((tmp_path / "quality/metrics.json").read_text())["reward"]
    assert values["threshold"] == classifier.threshold
    real = values["real"]["all"]
    assert (real["frames"], real["positives"], real["episodes"], real["succeeded"]) == (8 * 10, 16, 8, 4)
    assert real["recall"] > 0.9
    assert real["episode_accuracy"] == 1.0
    assert list(values["real"]["suites"]["spatial"]["tasks"]) == ["0", "1"]
    assert values["imagined"]["all"]["episodes"] == 12
    assert all((tmp_path / "quality" / name).stat().st_size > 1000 for name in values["plots"])
    assert f"frames: successful from probability {classifier.threshold:.3g} on" in printed
    assert "episodes: successful after 2 such frames in a row" in printed
    assert "…" not in printed, "no column is cut"
    assert max(map(len, printed.splitlines())) <= 140
    before = (tmp_path / "quality/metrics.json").stat().st_mtime_ns
    assert main([*words, "--imagined", str(data), "--device", "cpu"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'quality'} is complete\n{printed}"
    assert (tmp_path / "quality/metrics.json").stat().st_mtime_ns == before
    strictly = ("--threshold", "1.0", "--consecutive", "1")
    assert main([*words, *strictly]) == 2
    assert "holds a finished result of other inputs: consecutive was None and is 1" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "strict"), *strictly]) == 0
    strict = json.loads((tmp_path / "strict/metrics.json").read_text())["reward"]
    assert (strict["threshold"], strict["consecutive"]) == (1.0, 1)
    assert "imagined" not in strict
    assert strict["real"]["all"]["recall"] <= real["recall"]


def test_evaluating_on_the_training_episodes_is_noted(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--reward", str(checkpoint), "--data", str(data), "--out", str(tmp_path / "q")]) == 0
    assert "trained on these same episodes, which are not held out" in capsys.readouterr().out


def test_wrong_questions_to_evaluate_are_a_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = lamps(tmp_path / "goal", range(4), suite="goal")
    short = lamps(tmp_path / "short", range(4), length=2)
    large = tmp_path / "large"
    write_shard(shard_path(large, "s", 0), [make_episode(0, 9, (32, 32))])
    finish_dataset(large)
    for folder, words, line in (
        (other, (), f"{checkpoint}: judging {other}: the success classifier was not trained for task 0 of goal and 1"),
        (large, (), "was trained on pictures of 16 x 16, those of"),
        (short, (), "episode spatial-000000: 2 frames, the classifier looks at 3"),
        (tmp_path / "absent", (), "absent"),
        (other, ("--threshold", "0"), "--threshold is 0.0; give a number in (0, 1]"),
        (other, ("--consecutive", "0"), "--consecutive is 0; give 1 or more"),
    ):
        out = tmp_path / "q"
        assert main(["evaluate", "--reward", str(checkpoint), "--data", str(folder), "--out", str(out), *words]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert "Traceback" not in error
        assert not out.exists()
