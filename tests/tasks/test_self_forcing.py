from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.models.tiny_world import linear_world, pictures, random_actions, tiny_world
from wovr.data.world_model_data import WorldModelBatch
from wovr.functional import flow
from wovr.models.imagination import Imagination
from wovr.tasks.self_forcing import OwnMemory

KEYS = ["a", "b", "c"]


def batch_of(frames: torch.Tensor, actions: torch.Tensor, start: int, keys: list[str]) -> WorldModelBatch:
    """Windows that begin at one frame of three episodes."""
    places = [0, *range(start - 3, start + 9)]
    return WorldModelBatch(
        frames=frames[:, places],
        actions=actions[:, start - 4 : start + 8],
        known=torch.ones(3, 12, dtype=torch.bool),
        start=torch.full((3,), start),
        keys=keys,
        proprio=torch.zeros(3, 9, 0),
    )


@pytest.mark.parametrize("world", [tiny_world(), linear_world(), tiny_world(history="latents"), tiny_world(memory=3)])
def test_memories_are_those_of_a_rollout(world: Any) -> None:
    """What is kept of a training step at noise level 1 is the state of a rollout with a sampler of one step."""
    frames, actions = pictures(3, 29), random_actions(3, 28)
    first, second = batch_of(frames, actions, 8, KEYS), batch_of(frames, actions, 16, ["a", "other", "c"])
    noise = torch.randn(3, *world.latent_shape((16, 16)))

    imagination = Imagination(world, sigmas=[1.0])
    imagination.start(first.frames[:, 0], first.frames[:, 1:5], first.actions[:, :4], age=first.start)
    imagination.step(first.actions[:, 4:], noise)
    rolled = vars(imagination.snapshot().context)

    def window(batch: WorldModelBatch) -> Any:
        return world.encode_window(batch.frames, batch.actions, batch.known, batch.start)

    own = OwnMemory(world)
    begun, share = own.put_in(first, window(first))
    assert share == 0
    with torch.no_grad():
        sigma = torch.ones(3)
        clean = world.predict(noise, sigma, begun.context, begun.actions)
    if world.prediction == "velocity":
        clean = flow.clean_from_velocity(noise, clean, sigma)
    own.keep(first, begun, clean)
    mixed, share = own.put_in(second, window(second))
    assert share == pytest.approx(2 / 3)
    for name, value in vars(mixed.context).items():
        torch.testing.assert_close(value[[0, 2]], rolled[name][[0, 2]].to(value.dtype), atol=1e-5, rtol=1e-5)
        assert torch.equal(value[1], vars(window(second).context)[name][1])
    assert torch.equal(mixed.new, window(second).new)
    assert not torch.equal(mixed.context.memory[0], second.frames[0, 1:5])

    # Another start of the same episode, and what follows a checkpoint, begin from real frames.
    assert own.put_in(replace(second, start=second.start + 1), window(second))[1] == 0
    own.forget()
    assert own.put_in(second, window(second))[1] == 0
