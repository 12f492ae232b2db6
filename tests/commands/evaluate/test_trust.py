"""`wovr evaluate --metrics trust`, through the command line, in the point environment; and a trust that is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands.evaluate.test_hallucination import make_pair
from tests.commands.point_world import POINT, write_checkpoint, write_point_dataset
from tests.envs.test_rollout import make_policy, save_policy
from tests.models.trust.toys import Remembering, small_trust
from tests.models.world_model.tiny_world import tiny_world
from wovr.cli import main
from wovr.commands.evaluate.trust import judged_rollout
from wovr.models.reward import SuccessClassifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_point_dataset(folder / "data", (25, 25, 25, 25))
    write_checkpoint(folder / "wm.ckpt", tiny_world(action_dim=2))
    write_checkpoint(folder / "trust.ckpt", small_trust(2))
    write_checkpoint(folder / "other.ckpt", small_trust(3))
    save_policy(folder / "policy.ckpt", make_policy())
    torch.manual_seed(0)
    tasks = [("spatial", task) for task in range(3)]
    write_checkpoint(folder / "reward.ckpt", SuccessClassifier(1, 0.5, 1, channels=[8, 8], tasks=tasks))
    return folder


def evaluate(folder: Path, out: Path, *words: str) -> int:
    options = {
        **{name: folder / f"{name}.ckpt" for name in ("policy", "reward", "trust")},
        "world_model": folder / "wm.ckpt",
        "data": folder / "data",
        "out": out,
        "metrics": "trust",
        "episodes": 3,
        "horizon": 20,
        "num_envs": 4,
        "workers": 1,
        "device": "cpu",
        "uncertainty_seeds": 1,
        "env": POINT,
        "env_args.size": 16,
    }
    flags = {f"--{name}": str(value) for name, value in options.items()}
    flags |= dict(zip(words[::2], words[1::2], strict=True))
    return main(["evaluate", *(word for flag in flags.items() for word in flag)])


def test_a_trust_is_measured(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder, tmp_path) == 0
    printed = capsys.readouterr().out
    values = json.loads((tmp_path / "metrics.json").read_text())["trust"]
    assert values["rollouts"] == 9
    assert set(values["signals"]) == {"distrust", "critic", "action_error", "doubt", "redrawn"}
    assert sum(row["frames"] for row in values["calibration"]) == values["chunks"] >= 9
    assert values["right_psnr"] == 20.0
    assert "area under the ROC" in printed
    assert f"9 rollouts, {values['chunks']} chunks" in printed
    assert evaluate(folder, tmp_path) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path} is complete\n")
    assert evaluate(folder, tmp_path, "--keep", "0.8") == 2
    assert "keep was 0.7 and is 0.8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--keep", "0"), "--keep is 0.0; give a share above 0, at most 1"),
        (("--episodes", "0"), "--episodes is 0; give 1 or more"),
        (("--trust", "none.ckpt"), "none.ckpt: no such file"),
        (("--metrics", "trust,hallucination"), "are measured by different programs"),
    ],
)
def test_what_cannot_be_measured_is_a_line(
    words: tuple[str, ...], line: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(folder, tmp_path, *words) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "metrics.json").exists()


def test_a_trust_of_other_actions(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder, tmp_path, "--trust", str(folder / "other.ckpt")) == 2
    assert "the trust was learned on actions of 3 dimensions, the world model has" in capsys.readouterr().err


def test_a_chunk_is_wrong_where_its_last_frame_is() -> None:
    """The real frames of a made pair are brighter by one grey level each frame."""
    told = np.repeat(np.array([0.9, 0.3, 0.2], np.float32), 8)[:20]
    info = {
        "trust": told,
        "distrust": 1 - told[:, None],
        "uncertainty": np.arange(20, dtype=np.float32),
    }
    pair = make_pair([0] * 20 + [1], [0] * 25, **info, success_probability=np.zeros(20))
    trust = Remembering([1.0])
    trust.right_psnr = 20 * np.log10(255 / 16.5)  # 16 grey levels are right, 17 are wrong
    judged = judged_rollout(pair, trust)
    assert (judged.imagined, judged.real) == (True, False)
    assert judged.trust.tolist() == pytest.approx([0.9, 0.3, 0.2])
    assert judged.signals["critic"].tolist() == pytest.approx([0.1, 0.7, 0.8])
    assert judged.signals["redrawn"].tolist() == [7, 15, 19]
    assert judged.wrong.tolist() == [False, False, True]  # 8, 16 and 20 grey levels
