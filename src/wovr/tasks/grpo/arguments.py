"""The ranges of GRPO's arguments, told before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wovr.errors import UserError


def check_ranges(given: Mapping[str, Any]) -> None:
    """Check the arguments of GRPOTraining.

    Raises:
        UserError: A number out of its range.
    """
    for name, least in (("epochs", 1), ("minibatches", 1), ("micro_batch", 1), ("warmup_steps", 0), ("first_steps", 1)):
        if given[name] is not None and given[name] < least:
            raise UserError(f"model.{name} is {given[name]}", f"give {least} or more")
    if not given["coherence"] >= 0:
        raise UserError(f"model.coherence is {given['coherence']}", "give 0 or more")
    for name in ("lr", "gradient_clip_val", "temperature", "discount", "reward_coefficient", "clip_high"):
        if not given[name] > 0:
            raise UserError(f"model.{name} is {given[name]}", "give a number above 0")
    for name, most in (("discount", 1), ("clip_low", 1)):
        if not 0 < given[name] <= most:
            raise UserError(f"model.{name} is {given[name]}", f"give a number above 0, at most {most}")
    if given["dual_clip"] is not None and not given["dual_clip"] > 1 + given["clip_high"]:
        raise UserError(
            f"model.dual_clip is {given['dual_clip']}",
            f"give more than 1 + clip_high, {1 + given['clip_high']:g}, or null",
        )
    if not 0 <= given["final_lr_fraction"] <= 1:
        raise UserError(f"model.final_lr_fraction is {given['final_lr_fraction']}", "give a number from 0 to 1")
    if given["gae_lambda"] is not None and not 0 <= given["gae_lambda"] <= 1:
        raise UserError(f"model.gae_lambda is {given['gae_lambda']}", "give a number from 0 to 1, or null")
    if given["gae_lambda"] is not None and given["advantage_scale"] != "none":
        raise UserError("model.gae_lambda with advantage_scale std", "leave one of them out")
    bounds = given["success_filter"]
    if bounds is not None and not 0 <= bounds[0] <= bounds[1] <= 1:
        raise UserError(f"model.success_filter is {list(bounds)}", "give two rates such as [0.1, 0.9]")
