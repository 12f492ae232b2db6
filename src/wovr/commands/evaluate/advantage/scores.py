"""The numbers of `wovr evaluate --metrics advantage`, and its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wovr.commands.evaluate.advantage.recipes import RECIPES, Returns
from wovr.commands.terminal import episode_progress
from wovr.envs.actors.base import Actor
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.continuations import Beginning
from wovr.metrics.behaviour.advantage import return_scores, truth_scores
from wovr.tasks.grpo.gradient_noise import GradientSums, group_gradients


def score_returns(
    beginnings: Sequence[Beginning],
    outcomes: Mapping[int, np.ndarray],
    returns: Mapping[int, Mapping[str, Returns]],
    group_size: int,
    actor: Actor,
    seed: int,
    ratio: str = "token",
) -> list[dict[str, Any]]:
    """Hold the returns of every recipe against the truth, and measure the noise of their gradients.

    Args:
        beginnings: N * G rollouts, group after group.
        outcomes: n -> (N * G, C) float, how continuations end.
        returns: n -> recipe -> returns.
        group_size: Rollouts of a group, G.
        actor: Who acted; only a checkpoint has a gradient.
        seed: Of the bootstrap.
        ratio: Whose gradient, see GRPOTraining.

    Returns:
        JSON values, an entry a number of chunks: `chunks`; `truth`, see TruthScores; `recipes`, name -> ReturnScores
        and `noise_scale`, in rollouts.

    Raises:
        UserError: A gradient that is not finite.
    """

    def grouped(rows: np.ndarray) -> np.ndarray:
        """(N * G, ...) -> (N, G, ...)."""
        return rows.reshape(-1, group_size, *rows.shape[1:])

    found = []
    updates = sum(len(recipes) for recipes in returns.values()) * (len(beginnings) // group_size)
    with episode_progress("gradients", updates if isinstance(actor, PolicyActor) else 0, "groups") as advance:
        for chunks, ends in outcomes.items():
            over = [beginning.outcome(chunks * actor.chunk) is not None for beginning in beginnings]
            recipes: dict[str, Any] = {}
            for name, recipe in returns[chunks].items():
                recipes[name] = asdict(return_scores(grouped(recipe.returns), grouped(ends), seed))
                gradients = GradientSums(len(beginnings) // group_size)
                if isinstance(actor, PolicyActor):
                    single, lengths = grouped(recipe.single), grouped(recipe.lengths)
                    for group, gradient in group_gradients(
                        *(actor.policy, beginnings, single, lengths, actor.temperature, advance),
                        coherence=actor.coherence,
                        ratio=ratio,
                    ):
                        gradients.add(group, gradient)
                    recipes[name]["noise_scale"] = _noise_scale(gradients, group_size, seed)
                else:
                    recipes[name]["noise_scale"] = _no_scale("only the policy of a checkpoint has a gradient")
            truth = asdict(truth_scores(grouped(ends), grouped(np.array(over)), seed))
            found.append({"chunks": chunks, "truth": truth, "recipes": recipes})
    return found


def _noise_scale(gradients: GradientSums, group_size: int, seed: int) -> dict[str, Any]:
    """JSON values of a noise scale, in rollouts: those of a group come together."""
    measured = gradients.scale()
    if measured.scale is None:
        reason = "no group has a gradient" if measured.noise == 0 else "|G|^2 is estimated as not above 0"
        return _no_scale(reason) | {"signal": measured.signal, "noise": measured.noise}
    interval = gradients.interval(seed)
    # Above an end that is infinite there are resamples without any signal; JSON has no infinity.
    low, high = (None if math.isinf(end) else group_size * end for end in (interval.low, interval.high))
    note = "without an upper bound: |G|^2 may be 0" if high is None else None
    scale = {"value": group_size * measured.scale, "low": low, "high": high}
    return scale | {"signal": measured.signal, "noise": measured.noise, "note": note}


def _no_scale(note: str) -> dict[str, Any]:
    return {"value": None, "low": None, "high": None, "signal": None, "noise": None, "note": note}


def advantage_table(values: Mapping[str, Any]) -> RenderableType:
    """What the command wrote under `advantage`, as tables.

    Args:
        values: The values.
    """
    truth = Table(
        *("chunks", "success rate", "have ended", "spread in a group", "split half", "ceiling"),
        title=f"the truth: {values['continuations']} continuations of each rollout, {values['group_size']} rollouts a "
        f"group, {values['groups']} groups, {values['from_keyframes']} from keyframes; 95 % bootstrap intervals",
    )
    names = ("success_rate", "settled", "spread", "split_half", "ceiling")
    for entry in values["chunks"]:
        truth.add_row(str(entry["chunks"]), *(_cell(entry["truth"][name]) for name in names))
    table = Table(
        *("chunks", "return", "rank correlation", "over groups", "pairs ordered rightly", "groups with signal"),
        "noise scale, rollouts",
        title="what GRPO could take for the return",
    )
    notes: dict[str, None] = {}
    for entry in values["chunks"]:
        for name in (name for name in RECIPES if name in entry["recipes"]):
            scores = entry["recipes"][name]
            cells = [_cell(scores[key]) for key in ("rank_correlation", "pairwise", "groups_with_signal")]
            cells.insert(1, str(scores["rank_correlation"]["groups"]))
            table.add_row(str(entry["chunks"]), name, *cells, _scale_cell(scores["noise_scale"]))
            if scores["noise_scale"]["value"] is None:
                notes[f"{name} after {entry['chunks']}: no noise scale, {scores['noise_scale']['note']}"] = None
        table.add_section()
    return Group(truth, table, *(Text(note) for note in (*notes, *values.get("notes", ()))))


def _cell(score: Mapping[str, float | None]) -> str:
    if score["value"] is None:
        return "-"
    interval = "" if score["low"] is None else f" ({score['low']:.2f} - {score['high']:.2f})"
    return f"{score['value']:.2f}{interval}"


def _scale_cell(scale: Mapping[str, Any]) -> str:
    if scale["value"] is None:
        return "-"
    low, high = ("∞" if scale[end] is None else f"{scale[end]:,.0f}" for end in ("low", "high"))
    return f"{scale['value']:,.0f} ({low} - {high})"
