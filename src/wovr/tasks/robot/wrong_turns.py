"""Coming back from a wrong guess: windows whose memory the network imagined under a course that was not the true one.

In imagination the touch of a closing hand is guessed, and may be guessed wrong: the picture then shows a cube in the
hand, and the hand goes on as if it were empty. No real episode holds such a thing, so a network that has only seen real
ones leaves the cube in pieces. Here it makes the wrong turn itself, in the chunk before a window, and is trained to
draw what really came after.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wovr.data.training.world_model import WorldModelBatch
from wovr.models.robot.touch import Courses
from wovr.models.world_model.context import Context, EncodedWindow
from wovr.models.world_model.model import WorldModel

APART = 0.5
"""How far from the truth the wrong course ends at least and the right one at most, in spreads of the numbers."""


def wrong_course(courses: Courses, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The course that ends farther from the truth, and whether it is wrong while the other is right.

    Args:
        courses: Of B chunks.
        truth: (B, K, N) float32, normalised.

    Returns:
        (B, K, N) float32 and (B,) bool.
    """
    off = (courses.values[:, :, -1] - truth[:, None, -1]).abs().mean(-1)  # (B, 2)
    second = (off[:, 1] > off[:, 0])[:, None, None]
    wrong = torch.where(second, courses.values[:, 1], courses.values[:, 0])
    return wrong, (off.amax(1) > APART) & (off.amin(1) < APART)


@torch.no_grad()
def take_wrong_turns(model: WorldModel, batch: WorldModelBatch, window: EncodedWindow, share: float) -> EncodedWindow:
    """The window with imagined memory where the chunk before it could have gone the other way.

    Args:
        model: With a robot model that has `touch` numbers.
        batch: Its memory reaches back a chunk and the model's memory.
        window: The batch, encoded.
        share: Of the windows that could have gone the other way, those that do, on average; by torch's generator.
    """
    robot = model.robot
    assert robot is not None
    slots, until = model.memory_slots, model.memory_slots + model.chunk
    begin, frame = batch.proprio[:, slots - 1], batch.frames[:, slots]  # a chunk before the window's start
    actions = batch.actions[:, slots:until]
    states = robot.foresee(begin, actions)
    truth = robot.normalise(batch.proprio[:, slots:until])[..., robot.touch]
    states[:, 1:, robot.touch], possible = wrong_course(robot.courses(states, actions, frame), truth)
    possible &= batch.start >= model.chunk
    turns = possible & (torch.rand(len(possible), device=possible.device) < share)
    if not turns.any():
        return window
    # All windows, not only those that turn: batches of ever new sizes would be compiled anew.
    earlier = torch.where(batch.known[:, :slots, None], batch.actions[:, :slots], model.neutral)
    before = model.encode_context(
        batch.frames[:, 0], batch.frames[:, 1 : 1 + slots], earlier, batch.start - model.chunk, begin
    )
    noise = torch.randn(window.new.shape, device=window.new.device)
    _, imagined = model.imagine(before, actions, noise, states=states)
    told = model.robot_states(imagined, window.actions, batch.proprio[:, until:])
    assert told is not None
    assert window.states is not None

    def mixed(turned: Tensor, straight: Tensor) -> Tensor:
        return torch.where(turns.view(-1, *[1] * (straight.ndim - 1)), turned, straight)

    context = {name: mixed(getattr(imagined, name), value) for name, value in vars(window.context).items()}
    return EncodedWindow(Context(**context), window.new, window.actions, mixed(told, window.states))
