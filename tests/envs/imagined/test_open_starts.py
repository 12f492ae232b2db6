"""Start states whose outcome is open: what the value function sees of them, and which are drawn afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.keyframes.episodes import write_mixed
from wovr.data.keyframes.rules import KeyframeRules, find_keyframes
from wovr.data.keyframes.start_states import StartStates
from wovr.data.keyframes.store import save_keyframes
from wovr.data.store.reader import EpisodeStore
from wovr.envs.imagined.open_starts import foresee_starts, keep_open_starts
from wovr.errors import UserError
from wovr.types import StartState


class ByNumber:
    """Foresees success by the mean of the red channel of the last frame; keeps what it was shown."""

    window = 3
    threshold = 0.5
    consecutive = 1

    def __init__(self, tasks: int = 2) -> None:
        self.tasks = [("spatial", task) for task in range(tasks)]
        self.clips: list[torch.Tensor] = []

    def probability(self, frames: torch.Tensor, tasks: object) -> torch.Tensor:
        self.clips.append(frames)
        return frames[:, 2:, ..., 0].float().mean((2, 3)) / 255


@pytest.fixture
def pool(tmp_path: Path) -> StartStates:
    folder = write_mixed(tmp_path / "mixed")
    save_keyframes(tmp_path / "keyframes", find_keyframes(EpisodeStore(folder), KeyframeRules()).found)
    return StartStates([folder], tmp_path / "keyframes", 0.5)


def test_the_value_function_sees_what_came_before() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3)).astype(np.uint8)
    starts = [
        StartState("spatial", 0, 0, reference=frames[0]),
        StartState("spatial", 1, 0, reference=frames[0], memory=frames[:2]),
        StartState("spatial", 1, 0, reference=frames[0], memory=frames),
    ]
    value = ByNumber()
    found = foresee_starts(value, starts)
    np.testing.assert_allclose(found, [frames[last, ..., 0].mean() / 255 for last in (0, 1, 4)], rtol=1e-5)
    expected = np.stack([frames[[0, 0, 0]], frames[[0, 0, 1]], frames[2:]])
    np.testing.assert_array_equal(value.clips[0].numpy(), expected)
    assert foresee_starts(value, []).shape == (0,)


def test_only_open_states_are_drawn(pool: StartStates) -> None:
    value = ByNumber()
    foreseen = {id(start): seen for starts in (pool.starts, pool.keyframe_starts)
                for start, seen in zip(starts, foresee_starts(value, starts).tolist(), strict=True)}  # fmt: skip
    low, high = np.quantile(list(foreseen.values()), [0.3, 0.8]).tolist()
    said = keep_open_starts(pool, value, (low, high))
    assert f"of {len(pool.starts)} first frames and" in said
    assert said.endswith(f"have a value from {low:g} to {high:g}")
    drawn = pool.draw(400, np.random.default_rng(0))
    for task in (0, 1):
        first = [foreseen[id(start)] for start in pool.starts if start.task == task]
        any_open = any(low <= seen <= high for seen in first)
        of_task = [start for start in drawn if start.task == task]
        assert of_task
        for start in of_task:
            assert low <= foreseen[id(start)] <= high or (start.memory is None and not any_open)
    assert sum(start.memory is not None for start in drawn) == 200


def test_bounds_and_value_functions_that_do_not_fit(pool: StartStates) -> None:
    for bounds in ((-0.1, 0.5), (0.5, 1.2), (0.9, 0.1), (float("nan"), 1.0)):
        with pytest.raises(UserError, match=r"--start_value is .*; give two probabilities"):
            keep_open_starts(pool, ByNumber(), bounds)
    with pytest.raises(UserError, match=r"not trained for task spatial/1; train one on episodes of this task"):
        keep_open_starts(pool, ByNumber(1), (0.1, 0.9))
    with pytest.raises(UserError, match=r"--start_value .* leaves none of \d+ keyframes; widen it, or leave it out"):
        keep_open_starts(pool, ByNumber(), (1.0, 1.0))
