"""The success classifier: windows, tasks, and what its checkpoint brings back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wovr.errors import UserError
from wovr.functional.images import frames_to_float
from wovr.models.checkpoint import KEY, fingerprint_of, network_fingerprint, record
from wovr.models.reward import SuccessClassifier, load_classifier

TASKS = [("spatial", 0), ("goal", 3)]


def small(seed: int = 0, **changes: Any) -> SuccessClassifier:
    torch.manual_seed(seed)
    network = SuccessClassifier(**({"channels": (8, 8, 16), "embedding": 8, "tasks": TASKS} | changes)).eval()
    with torch.no_grad():  # away from its neutral start, so that tasks make a difference
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network


def pictures(count: int, length: int, size: int = 16) -> torch.Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(0, 256, (count, length, size, size, 3), np.uint8))


@pytest.mark.parametrize("window", [1, 2, 4])
def test_every_frame_is_judged_by_the_window_that_it_ends(window: int) -> None:
    network, frames = small(window=window), pictures(3, 6)
    tasks = [TASKS[0], TASKS[1], TASKS[0]]
    probability = network.probability(frames, tasks)
    assert probability.shape == (3, 7 - window)
    assert probability.dtype == torch.float32
    assert not probability.requires_grad
    for row, task in enumerate(tasks):
        for place in range(7 - window):
            alone = frames_to_float(frames[row : row + 1, place : place + window])  # (1, 3, window, H, W)
            images = alone.transpose(1, 2).flatten(1, 2)  # (1, 3 * window, H, W)
            logit = network(images, torch.tensor([network.tasks.index(task)]))
            torch.testing.assert_close(probability[row, place], logit.sigmoid()[0].detach())
    others = network.probability(frames, [tasks[1], tasks[1], tasks[0]])
    assert not torch.allclose(others[0], probability[0]), "another task"
    torch.testing.assert_close(others[1:], probability[1:])


def test_many_windows_are_judged_in_parts() -> None:
    network, frames = small(), pictures(3, 101)
    together = network.probability(frames, [TASKS[0]] * 3)
    apart = torch.cat([network.probability(frames[i : i + 1], [TASKS[0]]) for i in range(3)])
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("size", [(15, 20), (64, 64)])
def test_pictures_of_any_size_are_taken(size: tuple[int, int]) -> None:
    frames = torch.zeros(1, 2, *size, 3, dtype=torch.uint8)
    assert small().probability(frames, TASKS[:1]).shape == (1, 1)


def test_a_task_it_was_not_trained_for_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        small().probability(pictures(2, 2), [TASKS[0], ("spatial", 7)])
    assert "was not trained for task 7 of spatial, only for goal 3; spatial 0" in str(caught.value)
    assert "wovr fit --config conf/reward.yaml" in str(caught.value)
    with pytest.raises(UserError, match="task 0 of long and 1 more"):
        small().check_tasks([("long", 0), ("long", 1), TASKS[0]])
    with pytest.raises(UserError, match="3 tasks, the classifier has room for 2; set the network's max_tasks to 3"):
        small(max_tasks=2).add_tasks([("long", 0)])


def test_a_new_task_leaves_the_others_as_they_were() -> None:
    network, frames = small(), pictures(1, 3)
    before = network.probability(frames, TASKS[1:])
    network.add_tasks([("long", 5), ("long", 5), TASKS[1]])
    assert network.tasks == [*TASKS, ("long", 5)]
    assert torch.equal(network.probability(frames, TASKS[1:]), before)


def test_tasks_and_a_chosen_threshold_travel_in_the_checkpoint(tmp_path: Path) -> None:
    network, frames = small(consecutive=3, threshold=0.4), pictures(1, 4)
    network.add_tasks([("long", 5)])
    network.set_threshold(0.8125)
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, KEY: record({"network": network}, {})}, tmp_path / "reward.ckpt")
    found = load_classifier(tmp_path / "reward.ckpt")
    assert (found.threshold, found.consecutive, found.window) == (0.8125, 3, 2)
    assert found.tasks == network.tasks
    assert not found.training
    assert torch.equal(found.probability(frames, [("long", 5)]), network.probability(frames, [("long", 5)]))
    assert network_fingerprint(tmp_path / "reward.ckpt", SuccessClassifier) == fingerprint_of(network)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"window": 0}, "window is 0"),
        ({"consecutive": 0}, "consecutive is 0"),
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"channels": (16, 20)}, "multiples of 8"),
    ],
)
def test_wrong_numbers_are_said(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        SuccessClassifier(**arguments)


def test_frames_of_another_shape_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="L >= 2"):
        small().probability(pictures(1, 1), TASKS[:1])
    with pytest.raises(ValueError, match="2 tasks"):
        small().probability(pictures(1, 3), TASKS)
