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
from wovr.errors import UserError
from wovr.models.robot.conditioning import RobotConditioning
from wovr.models.robot.touch import Courses
from wovr.models.world_model.conditioning import Frame
from wovr.models.world_model.context import EncodedWindow
from wovr.models.world_model.model import WorldModel
from wovr.tasks.world_model.augmentation import WindowAugmentation

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


class WrongTurns(WindowAugmentation):
    """Gives windows an imagined memory where the chunk before them could have gone the other way.

    Needs a world model with `RobotConditioning`. Where its robot model has no `touch` numbers no chunk could have gone
    another way, and windows stay as they are.

    Args:
        share: Of the windows that could have gone the other way, those that do, on average.
    """

    imagines = True

    def __init__(self, share: float = 0.5) -> None:
        if not 0 <= share <= 1:
            raise UserError(f"the share of WrongTurns is {share}", "give a number in [0, 1]")
        self.share = share

    def reach(self, model: WorldModel, cached: bool) -> int:
        """The chunk before, where there is something to guess."""
        conditioning = model.conditioning
        if not isinstance(conditioning, RobotConditioning) or cached:
            raise UserError(
                "WrongTurns need a world model with a robot model, and no latents cached",
                "take it out of augmentations, or give one, and cache_latents false",
            )
        return model.chunk if conditioning.robot.touch else 0

    @torch.no_grad()
    def __call__(self, model: WorldModel, batch: WorldModelBatch, window: EncodedWindow) -> EncodedWindow:
        """See `WindowAugmentation`; the batch's memory reaches back a chunk and the model's memory."""
        conditioning = model.conditioning
        assert isinstance(conditioning, RobotConditioning)
        robot, proprio = conditioning.robot, batch.signals["proprio"]
        if not robot.touch:
            return window
        slots, until = model.memory_slots, model.memory_slots + model.chunk
        begin, frame = proprio[:, slots - 1], batch.frames[:, slots]  # a chunk before the window's start
        actions = batch.actions[:, slots:until]
        states = robot.foresee(begin, actions)
        truth = robot.normalise(proprio[:, slots:until])[..., robot.touch]
        states[:, 1:, robot.touch], possible = wrong_course(robot.courses(states, actions, frame), truth)
        possible &= batch.start >= model.chunk
        turns = possible & (torch.rand(len(possible), device=possible.device) < self.share)
        if not turns.any():
            return window
        # All windows, not only those that turn: batches of ever new sizes would be compiled anew.
        earlier = torch.where(batch.known[:, :slots, None], batch.actions[:, :slots], model.neutral)
        before = model.encode_context(
            batch.frames[:, 0], batch.frames[:, 1 : 1 + slots], earlier, batch.start - model.chunk, {"proprio": begin}
        )
        told = conditioning.inputs_of(states, Frame(before.memory[:, -1], before.latents[:, :, -1]))
        height, width = batch.frames.shape[2:4]
        noise = torch.randn(len(batch.frames), *model.noise_shape((height, width)), device=window.new.device)
        _, imagined = model.imagine(before, actions, noise, inputs=told)

        def mixed(straight: Tensor, turned: Tensor) -> Tensor:
            return torch.where(turns.view(-1, *[1] * (straight.ndim - 1)), turned, straight)

        # What is true after the chunk is true whatever the network has drawn before it.
        imagined.state = window.context.state | imagined.state
        return EncodedWindow(window.context.map(mixed, imagined), window.new, window.actions)
