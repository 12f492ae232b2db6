"""Training a world model that is told what the robot itself is going to do."""

from __future__ import annotations

import torch

from tests.models.tiny_world import following_world, pictures, random_actions, tiny_robot
from wovr.tasks.world_model import WorldModelTraining


def test_training_tells_the_truth_of_what_touch_decides() -> None:
    """The loss is that of the window with the true numbers told, whatever the guess."""
    world = following_world(robot=tiny_robot(touch=[3, 4]))
    task = WorldModelTraining(world)
    known = torch.ones(3, 12, dtype=torch.bool)
    frames, actions, start = pictures(3, 13), random_actions(3, 12), torch.tensor([8, 8, 8])
    proprio = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(3))
    window = world.encode_window(frames, actions, known, start, proprio=proprio)
    torch.manual_seed(4)
    draw = task.draw(window)
    losses = task.losses(window, draw)
    context = world.noise_memory(window.context, draw.memory_sigma, draw.memory_noise)
    level = draw.sigma.view(-1, 1, 1, 1, 1)
    noisy = (1 - level) * window.new + level * draw.noise
    for told, same in ((window.states, True), (world.robot_states(window.context, window.actions), False)):
        error = (world.predict(noisy, draw.sigma, context, window.actions, told) - window.new) / level.clamp(min=0.3)
        assert torch.allclose(losses, (error**2).flatten(1).mean(1), rtol=1e-6, atol=0) == same
