"""The evaluation with models whose numbers are known: perfect, deaf to actions, and one that copies the first frame."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.commands.point_world import POINT, SIZE, PerfectModel, copy_model, write_idm, write_point_dataset
from wovr.commands.evaluate.held_out import HeldOutEpisodes
from wovr.commands.evaluate.measure_rollouts import (
    COPIED,
    IMAGINED,
    REAL,
    Measurement,
    RolloutMaker,
    measure_quality,
    rollout_seed,
)
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.video import decode_video
from wovr.errors import UserError
from wovr.metrics.catalogue import Instruments

METRICS = (
    "psnr",
    "ssim",
    "lpips[idm]",
    "flolpips[idm]",
    "fid[idm]",
    "fvd[idm]",
    "action_following",
    "permanence",
    "fps",
)
HORIZONS = (5, 9, 12)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return EpisodeStore(write_point_dataset(tmp_path_factory.mktemp("points")))


@pytest.fixture(scope="module")
def idm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_idm(tmp_path_factory.mktemp("idm") / "idm.ckpt")


def measure(
    maker: RolloutMaker, store: EpisodeStore, idm: Path, out: Path, batch_size: int = 3, **changes: Any
) -> dict[str, Any]:
    measurement = Measurement(
        **{
            "metrics": METRICS,
            "horizons": HORIZONS,
            "instruments": Instruments(out, idm),
            "batch_size": batch_size,
            "seed": 0,
            "videos": 2,
            "workers": 1,
            "device": torch.device("cpu"),
            "env": POINT,
            "env_args": {"size": SIZE},
        }
        | changes
    )
    return measure_quality(maker, HeldOutEpisodes(store, measurement.horizons), measurement, out)


@pytest.fixture(scope="module")
def perfect(store: EpisodeStore, idm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("perfect")
    return measure(PerfectModel(store), store, idm, out), out


def at(values: dict[str, Any], row: str, name: str, horizon: int = 9) -> Any:
    return values["rows"][row][name]["by_horizon"][str(horizon)]


def test_a_perfect_model_gets_perfect_numbers(perfect: tuple[dict[str, Any], Path]) -> None:
    values, _ = perfect
    assert values["episodes"] == {"5": 4, "9": 3, "12": 2}
    for horizon in HORIZONS:
        assert at(values, IMAGINED, "psnr", horizon) == "inf"
        assert at(values, IMAGINED, "ssim", horizon) == pytest.approx(1, abs=1e-6)
        for name in ("lpips[idm]", "flolpips[idm,farneback]", "fid[idm]", "fvd[idm]"):
            assert at(values, IMAGINED, name, horizon) == pytest.approx(0, abs=1e-5), name
        assert at(values, IMAGINED, "action_r2", horizon) == at(values, REAL, "action_r2", horizon)
        assert at(values, IMAGINED, "action_mae", horizon) == at(values, REAL, "action_mae", horizon)
        assert at(values, COPIED, "psnr", horizon) < 40
        assert at(values, COPIED, "fvd[idm]", horizon) > at(values, IMAGINED, "fvd[idm]", horizon)
    assert at(values, IMAGINED, "lost", 12) == 0
    assert "psnr" not in values["rows"][REAL]
    assert at(values, IMAGINED, "fps") > 0
    assert "fps" not in values["rows"][COPIED]


def test_under_swapped_actions_the_simulator_is_the_truth(
    perfect: tuple[dict[str, Any], Path], store: EpisodeStore, idm: Path, tmp_path: Path
) -> None:
    values, _ = perfect
    deaf = measure(PerfectModel(store, deaf=True), store, idm, tmp_path, metrics=("action_following",))
    assert at(values, IMAGINED, "swap_difference") == pytest.approx(at(values, REAL, "swap_difference"), rel=0.02)
    assert at(values, IMAGINED, "swap_difference") > 0.5
    assert at(values, IMAGINED, "swap_r2") == pytest.approx(at(values, REAL, "swap_r2"), abs=0.02)
    assert at(deaf, IMAGINED, "swap_difference") == 0
    assert at(deaf, REAL, "swap_difference") == at(values, REAL, "swap_difference")


def test_a_model_that_copies_gets_what_the_copied_row_says(store: EpisodeStore, idm: Path, tmp_path: Path) -> None:
    values = measure(copy_model, store, idm, tmp_path)
    rows = values["rows"]
    assert {name: score["by_horizon"] for name, score in rows[IMAGINED].items() if name != "fps"} == {
        name: score["by_horizon"] for name, score in rows[COPIED].items()
    }


def test_numbers_do_not_depend_on_the_batches(
    perfect: tuple[dict[str, Any], Path], store: EpisodeStore, idm: Path, tmp_path: Path
) -> None:
    values, _ = perfect
    one_by_one = measure(PerfectModel(store), store, idm, tmp_path, batch_size=1)
    for name in ("psnr", "ssim", "lpips[idm]", "fvd[idm]", "action_r2", "swap_difference"):
        for horizon in HORIZONS:
            one, other = at(values, COPIED, name, horizon), at(one_by_one, COPIED, name, horizon)
            assert one == pytest.approx(other, rel=1e-4, abs=1e-6), name


def test_a_rollout_keeps_its_seed_in_any_batch(store: EpisodeStore, idm: Path, tmp_path: Path) -> None:
    makers = [PerfectModel(store), PerfectModel(store)]
    for maker, size in zip(makers, (1, 4), strict=True):
        measure(maker, store, idm, tmp_path, size, metrics=("psnr",))
    assert makers[0].seeds == makers[1].seeds == {episode: rollout_seed(0, episode) for episode in range(4)}
    assert makers[0].batches == [1, 1, 1, 1]
    assert makers[1].batches == [4]
    assert rollout_seed(1, 0) != rollout_seed(0, 0)


def test_what_is_left_on_disk_can_be_looked_at(perfect: tuple[dict[str, Any], Path], store: EpisodeStore) -> None:
    values, out = perfect
    json.loads(json.dumps(values, allow_nan=False))
    assert values["plots"]
    assert {"plots/psnr.png", "plots/lpips-idm.png", "plots/action_mae.png"} <= set(values["plots"])
    for name in values["plots"]:
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300
    assert len(values["videos"]) == 2
    lengths = []
    for name in values["videos"]:
        video = decode_video((out / name).read_bytes())
        lengths.append(len(video))
        third = video.shape[2] // 3
        real, mine, difference = (
            video[:, :, : third - 16],
            video[:, :, third + 8 : 2 * third - 8],
            video[:, :, -third + 16 :],
        )
        np.testing.assert_allclose(real.mean((1, 2, 3)), mine.mean((1, 2, 3)), atol=4)
        assert abs(difference.mean() - 128) < 4, "a perfect model leaves no difference"
    assert sorted(lengths) == [5, 12]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    assert f"fvd[idm] by_horizon/{COPIED}" in tags
    assert f"ssim by_frame/{IMAGINED}" in tags
    steps = [event.step for event in events.Scalars(f"ssim by_horizon/{IMAGINED}")]
    assert steps == list(HORIZONS)


def test_curves_have_a_value_for_every_imagined_frame(perfect: tuple[dict[str, Any], Path]) -> None:
    values, _ = perfect
    curve = values["rows"][COPIED]["psnr"]["by_frame"]
    assert len(curve) == 12
    assert curve[0] is None, "the given frame"
    assert all(isinstance(value, float | str) for value in curve[1:])


def test_without_a_simulator_real_futures_are_missing_and_a_note_says_so(idm: Path, tmp_path: Path) -> None:
    folder = write_point_dataset(tmp_path / "data", (9, 9))
    store = EpisodeStore(folder)
    words: dict[str, Any] = {"metrics": ("action_following",), "horizons": (5,), "env": "nowhere"}
    values = measure(copy_model, store, idm, tmp_path / "out", **words)
    assert at(values, IMAGINED, "swap_difference", 5) == 0
    assert "action_following: no real futures under swapped actions: " in values["notes"][1]
    assert math.isfinite(at(values, REAL, "action_r2", 5))
    assert at(values, REAL, "swap_difference", 5) is None


def test_short_episodes_are_left_out_and_long_horizons_refused(store: EpisodeStore, idm: Path, tmp_path: Path) -> None:
    values = measure(copy_model, store, idm, tmp_path, metrics=("psnr",), horizons=(9,))
    assert values["episodes"] == {"9": 3}
    assert values["notes"] == ["1 episodes shorter than 9 frames are left out"]
    with pytest.raises(
        UserError, match="horizon 13 is longer than every episode used, the longest has 12 frames; give"
    ):
        HeldOutEpisodes(store, [5, 13])
    assert HeldOutEpisodes(store, [5], 2).episodes == [0, 3]
