"""What an imagined environment is made of, and whether its parts belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from wovr.data.store.dataset import check_trained_repeat
from wovr.envs.imagined.starts import StartPool
from wovr.errors import UserError, check_least
from wovr.models.checkpoint import check_image_size, data_record
from wovr.models.policies.base import Policy
from wovr.models.reward import SuccessClassifier, load_classifier
from wovr.models.trust.model import Trust
from wovr.models.world_model.loading import load_world_model
from wovr.models.world_model.model import WorldModel


class Judge(Protocol):
    """Says which frames are successful: `wovr.models.reward.SuccessClassifier`, or an oracle in its place."""

    @property
    def window(self) -> int:
        """Frames it looks at, the last of which is judged."""

    @property
    def threshold(self) -> float:
        """Probability from which on a frame counts as successful."""

    @property
    def consecutive(self) -> int:
        """Successful frames in a row that make a success."""

    @property
    def tasks(self) -> Sequence[tuple[str, int]]:
        """(suite, index) of the tasks it knows."""

    def probability(self, frames: Tensor, tasks: Sequence[tuple[str, int]]) -> Tensor:
        """(N, L, H, W, 3) uint8 -> (N, L - window + 1) float32, of the frames window - 1, ..., L - 1."""


def check_parts(
    world_model: WorldModel,
    classifier: Judge,
    starts: StartPool,
    names: tuple[str, str] = ("the world model", "the success classifier"),
) -> None:
    """Check that a world model, a classifier and start states belong together.

    Args:
        world_model: Imagines.
        classifier: Judges.
        starts: Where rollouts begin.
        names: What to call the first two in messages: their paths, where they have one.

    Raises:
        UserError: Other action dimensions, pictures that the autoencoder cannot take, or tasks that cannot be judged.
    """
    if world_model.action_dim != starts.action_dim:
        raise UserError(
            f"{names[0]}: takes actions of {world_model.action_dim} dimensions, those of the start states have "
            f"{starts.action_dim}",
            "give episodes of the robot it was trained on",
        )
    world_model.latent_shape(starts.image_size)
    unknown = [(task.suite, task.index) for task in starts.tasks if (task.suite, task.index) not in classifier.tasks]
    if unknown:
        suite, index = unknown[0]
        raise UserError(
            f"{names[1]}: was not trained for task {suite}/{index}, which there are start states for",
            "train one on episodes of all tasks, or choose start states of its tasks",
        )


def check_chunk(policy: Policy, chunk: int, checkpoint: str) -> None:
    """Compare a policy's chunk with that of the world model it is to act in.

    Args:
        policy: The policy.
        chunk: Actions that the world model imagines at once.
        checkpoint: Of the policy, for messages.

    Raises:
        UserError: They differ.
    """
    if policy.chunk != chunk:
        raise UserError(
            f"{checkpoint}: the policy's chunk is {policy.chunk} actions, the world model's {chunk}",
            "use models with chunks of one length",
        )


def check_value(value: Judge | None, cut_after: int | None, classifier: Judge) -> None:
    """Check that a cut has a value function, and that this one knows what the classifier knows.

    Raises:
        UserError: A cut without a value function, or before the first action; a window longer than the classifier's
            (frames before that are not kept), or tasks it was not trained for.
    """
    if value is None:
        if cut_after is not None:
            raise UserError("a cut_after without a value function", "give both, or neither")
        return
    check_least("cut_after", cut_after)
    if value.window > classifier.window:
        raise UserError(
            f"the value function looks at {value.window} frames, the success classifier at {classifier.window}",
            "train the value function with a window as long as the classifier's, or shorter",
        )
    unknown = [task for task in classifier.tasks if task not in value.tasks]
    if unknown:
        suite, index = unknown[0]
        raise UserError(
            f"the value function was not trained for task {suite}/{index}, the success classifier was",
            "train both on the same episodes",
        )


def check_trust(trust: Trust | None, threshold: float | None, world_model: WorldModel) -> None:
    """Check that a threshold has a trust, and that this one was made for the world model's chunks.

    Raises:
        UserError: A threshold without a trust, or out of its range; other actions, or chunks of another length.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"trust_threshold is {threshold}", "give a number from 0 to 1")
    if trust is None:
        if threshold is not None:
            raise UserError("a trust_threshold without a trust", "give both, or neither")
        return
    for what, own, other in (
        ("actions of {} dimensions", trust.action_dim, world_model.action_dim),
        ("chunks of {} actions", trust.chunk, world_model.chunk),
    ):
        if own != other:
            raise UserError(
                f"the trust was learned on {what.format(own)}, the world model has {what.format(other)}",
                "fit one on episodes that this world model imagined: wovr fit --config conf/trust.yaml",
            )


def load_value(value: Path, starts: StartPool) -> SuccessClassifier:
    """Load a value function.

    Raises:
        UserError: A checkpoint that cannot be loaded, one of something else, or that was trained on pictures or motions
            unlike those of the start states.
    """
    found = load_classifier(value, "outcome")
    check_trained(value, starts)
    return found


def check_trained(path: Path, starts: StartPool) -> None:
    """Compare what a network was trained on with the start states that it is to go on from.

    Raises:
        UserError: Pictures of another size, or actions that were executed another number of times.
    """
    check_image_size(path, starts.image_size, "those of the start states are")
    check_trained_repeat(path, data_record(path), "the episodes it is to start from", starts.action_repeat)


def load_parts(world_model: Path, reward: Path, starts: StartPool) -> tuple[WorldModel, SuccessClassifier]:
    """Load world model and success classifier, and check them against the start states.

    Args:
        world_model: Checkpoint of the one.
        reward: Checkpoint of the other.
        starts: Where rollouts begin.

    Raises:
        UserError: A checkpoint that cannot be loaded, parts that do not fit each other, or that were trained on
            pictures or motions unlike those of the start states.
    """
    model, classifier = load_world_model(world_model), load_classifier(reward)
    for path in (world_model, reward):
        check_trained(path, starts)
    check_parts(model, classifier, starts, (str(world_model), str(reward)))
    return model, classifier
