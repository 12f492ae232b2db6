"""What a world model is assembled from has to fit together: its numbers, and those its backbone follows from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from wovr.errors import UserError
from wovr.functional import flow
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT
from wovr.models.world_model.backbones.base import Backbone
from wovr.models.world_model.conditioning import Conditioning
from wovr.models.world_model.context import channels_beside

if TYPE_CHECKING:
    from wovr.models.world_model.model import WorldModel


def check_numbers(model: WorldModel, noisy_context: list[float], neutral: list[float]) -> None:
    """Refuse arguments that are out of their range or contradict each other.

    Raises:
        UserError: Which, and what to give.
    """

    def refuse(problem: str, remedy: str) -> None:
        raise UserError(f"world_model: {problem}", remedy)

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
            "give as many numbers as action_dim",
        )


def choose_action_dim(given: int | None, conditioning: Conditioning, backbone: Backbone) -> int:
    """Dimensions of an action: what was given, or what a part was made for.

    Raises:
        UserError: Nobody says.
    """
    if given is not None:
        return given
    if conditioning.action_dim is not None:
        return conditioning.action_dim
    if backbone.given["action_dim"] is None:
        raise UserError("world_model: action_dim is null", "give the dimensions of an action")
    return backbone.given["action_dim"] - conditioning.told_dim


def backbone_numbers(model: WorldModel) -> dict[str, int]:
    """What the parts of a world model make its backbone's channels, actions and clip."""
    channels, conditioning = model.autoencoder.latent_channels, model.conditioning
    shown = int(model.reference) + model.memory_latents
    as_channels = model.context == "channels"
    more = channels_beside(channels, shown, model.memory_slots, model.action_dim) if as_channels else 0
    answer = channels if model.copy_head is None else model.copy_head.channels
    return {
        "in_channels": channels + more + conditioning.shown_channels,
        "out_channels": answer if conditioning.answer_channels is None else conditioning.answer_channels,
        "action_dim": model.action_dim + conditioning.told_dim,
        "latent_frames": model.new_latents + (0 if as_channels else shown),
    }


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
