"""What a world model is assembled from has to fit together: numbers, heads, and the backbone's channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from wovr.errors import UserError
from wovr.functional import flow
from wovr.models.robot.follow_head import FollowHead
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.context import channels_beside
from wovr.models.world_model.heads import CopyHead

if TYPE_CHECKING:
    from wovr.models.world_model.model import WorldModel


def check_numbers(model: WorldModel, noisy_context: list[float], neutral: list[float]) -> None:
    """Refuse arguments that are out of their range or contradict each other.

    Raises:
        UserError: Which, and what to give.
    """

    def refuse(problem: str, remedy: str) -> None:
        raise UserError(f"world_model: {problem}", remedy)

    robot = model.robot
    if robot is not None and robot.action_dim != model.action_dim:
        refuse(
            f"the robot model's actions have {robot.action_dim} dimensions and its proprioception {robot.proprio_dim}, "
            f"the backbone's action_dim is {model.backbone.action_dim}",
            f"set backbone.init_args.action_dim to {robot.action_dim + 2 * robot.proprio_dim}",
        )
    if robot is not None and robot.touch and robot.chunk != model.chunk:
        refuse(
            f"chunk is {model.chunk}, the robot model's {robot.chunk}",
            "fit a robot model with data.chunk and the network's chunk as here",
        )
    if model.chunk < FRAMES_PER_LATENT or model.chunk % FRAMES_PER_LATENT:
        refuse(f"chunk is {model.chunk}", f"give a multiple of {FRAMES_PER_LATENT}")
    if model.memory < 1 or (model.memory > FRAMES_PER_LATENT and model.memory % FRAMES_PER_LATENT):
        refuse(f"memory is {model.memory}", f"give 1 to {FRAMES_PER_LATENT}, or a multiple of {FRAMES_PER_LATENT}")
    if model.memory != model.memory_slots and model.history == "latents":
        refuse(f"history is latents and memory {model.memory}", "set history to frames: latents hold four frames")
    if model.reference_gap is not None and (not model.reference or model.reference_gap <= model.memory_latents):
        refuse(
            f"reference_gap is {model.reference_gap}",
            f"give a number above {model.memory_latents}, with reference true, or null",
        )
    if model.context == "channels" and (model.told or model.reference_gap is not None):
        refuse("told and reference_gap need context tokens", "set told to false and reference_gap to null")
    if len(noisy_context) != 2 or not 0 <= noisy_context[0] <= noisy_context[1] < 1:
        refuse(f"noisy_context is {noisy_context}", "give a number, or [lowest, highest], in [0, 1)")
    if model.shift <= 0:
        refuse(f"shift is {model.shift}", "give a number above 0")
    try:
        flow.check_sigmas(model.sigmas)
    except ValueError as error:
        refuse(str(error), "set sigmas to null for five")
    if len(neutral) != model.action_dim:
        refuse(
            f"neutral_action has {len(neutral)} numbers, an action {model.action_dim}",
            "give as many numbers as the backbone's action_dim",
        )


def make_copy_head(model: WorldModel, hidden: int | None) -> CopyHead:
    """The head `copy`.

    Raises:
        UserError: It cannot be had with the rest.
    """
    if model.prediction != "data" or not isinstance(model.autoencoder, PatchAutoencoder):
        raise UserError(
            f"head copy with prediction {model.prediction} and {type(model.autoencoder).__name__}",
            "it blends pixels: use prediction data and PatchAutoencoder, or head linear",
        )
    return CopyHead(model.autoencoder, model.reference, hidden)


def make_follow_head(model: WorldModel, hidden: int | None) -> FollowHead:
    """The head `follow`.

    Raises:
        UserError: It cannot be had with the rest.
    """
    if (
        model.prediction != "data"
        or not isinstance(model.autoencoder, PatchAutoencoder)
        or model.context != "channels"
        or model.robot is None
        or hidden is None
    ):
        raise UserError(
            "head follow needs prediction data, PatchAutoencoder, context channels, a robot model and head_hidden",
            "set them, or use head copy",
        )
    return FollowHead(model.autoencoder, model.reference, model.robot.proprio_dim, hidden)


def check_backbone(model: WorldModel) -> None:
    """Compare the backbone's channels and clip with what the rest makes them.

    Raises:
        UserError: Which number to set.
    """
    channels = model.autoencoder.latent_channels
    shown = int(model.reference) + model.memory_latents
    as_channels = model.context == "channels"
    more = channels_beside(channels, shown, model.memory_slots, model.action_dim) if as_channels else 0
    head = model.follow_head if model.copy_head is None else model.copy_head
    if model.follow_head is not None:
        more += model.follow_head.channels_beside
    needed = {
        "in_channels": channels + more,
        "out_channels": channels if head is None else head.channels,
        "latent_frames": model.new_latents + (0 if as_channels else shown),
    }
    for name, number in needed.items():
        found = getattr(model.backbone, name)
        if found != number:
            raise UserError(
                f"the backbone's {name} is {found}, head, reference, context, memory and chunk make it {number}",
                f"set backbone.init_args.{name} to {number}",
            )


def check_compiler(device: torch.device) -> None:
    """For a CPU torch.compile writes C++.

    Raises:
        UserError: There is no compiler for it.
    """
    if device.type == "cpu":
        from torch._inductor import cpp_builder, exc

        try:
            cpp_builder.get_cpp_compiler()
        except exc.InvalidCxxCompiler as error:
            raise UserError("there is no C++ compiler, which torch.compile needs", "install g++") from error
