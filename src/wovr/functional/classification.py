"""How good a success classifier is: of frames, and of episodes after the rule of consecutive frames.

Precision, recall, average precision and calibration error are those of torchmetrics. Where one is not defined (a
precision without anything called successful, a recall without any success) it is None, not 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_precision,
    binary_precision_recall_curve,
    binary_recall,
)

from wovr.functional.success import consecutive_success

CALIBRATION_BINS = 15
"""Equal ranges of probability that the calibration error compares, torchmetrics' default."""

_LEAST = 1e-6
"""Lowest threshold that is chosen: at 0 every frame would be a success."""


@dataclass(frozen=True)
class JudgedEpisode:
    """What a classifier says of an episode, beside the truth.

    Attributes:
        suite: Suite name.
        task: Index of the task in its suite.
        key: The episode's key.
        probability: (n,) float32, probability of success of every frame that ends a window.
        success: (n,) bool, the truth about the same frames.
        succeeded: The episode holds a successful frame, whether or not a window ends there.
    """

    suite: str
    task: int
    key: str
    probability: np.ndarray
    success: np.ndarray
    succeeded: bool

    def called(self, threshold: float, consecutive: int) -> bool:
        """Whether the classifier calls the episode a success: `consecutive` frames in a row from `threshold` on."""
        run = np.zeros(1, np.int64)
        return bool(consecutive_success(self.probability[None], threshold, consecutive, run).success.any())


@dataclass(frozen=True)
class Scores:
    """Frame scores and episode scores; None where one is not defined.

    Attributes:
        frames: Frames judged.
        positives: Frames that are successful.
        precision: Share of the frames called successful that are.
        recall: Share of the successful frames that are called so.
        average_precision: Area under the curve of precision over recall.
        calibration_error: Expected calibration error (L1): how far probabilities lie from observed frequencies.
        episodes: Episodes judged.
        succeeded: Episodes that succeeded.
        called: Episodes called successful.
        episode_precision: Share of the episodes called successful that succeeded.
        episode_recall: Share of the episodes that succeeded that are called so.
        episode_accuracy: Share of the episodes that are called what they are.
    """

    frames: int
    positives: int
    precision: float | None
    recall: float | None
    average_precision: float | None
    calibration_error: float | None
    episodes: int
    succeeded: int
    called: int
    episode_precision: float | None
    episode_recall: float | None
    episode_accuracy: float | None


@dataclass(frozen=True)
class CalibrationBin:
    """A range of probabilities, beside how often frames there are successful.

    Attributes:
        low: Where the range begins.
        high: Where it ends; the last range includes it.
        frames: Frames whose probability lies there.
        probability: Their mean probability; None without frames.
        frequency: Share of them that are successful; None without frames.
    """

    low: float
    high: float
    frames: int
    probability: float | None
    frequency: float | None


def area_under_roc(score: Tensor, target: Tensor) -> float:
    """Area under the receiver operating characteristic: the chance that a target has the higher score, ties a half.

    Args:
        score: (M,) float.
        target: (M,) bool.

    Returns:
        In [0, 1]; NaN where one class only is there, or a score is.
    """
    if score.isnan().any() or target.all() or not target.any():
        return math.nan
    return float(binary_auroc(score, target.long()))


def pooled(episodes: Sequence[JudgedEpisode]) -> tuple[Tensor, Tensor]:
    """Probabilities and truth of all frames: (M,) float32 and (M,) int64 in {0, 1}; empty without episodes."""
    probability = np.concatenate([np.empty(0, np.float32), *(episode.probability for episode in episodes)])
    success = np.concatenate([np.empty(0, bool), *(episode.success for episode in episodes)])
    return torch.from_numpy(probability.astype(np.float32)), torch.from_numpy(success.astype(np.int64))


def score(episodes: Sequence[JudgedEpisode], threshold: float, consecutive: int) -> Scores:
    """Score a classifier.

    Args:
        episodes: What it said.
        threshold: Probability from which a frame counts as successful.
        consecutive: Frames in a row that make an episode's success.
    """
    probability, success = pooled(episodes)
    above = (probability >= threshold).to(torch.int64)  # at the threshold counts, which torchmetrics sees otherwise
    positives, called_frames = int(success.sum()), int(above.sum())
    true = np.array([episode.succeeded for episode in episodes], bool)
    called = np.array([episode.called(threshold, consecutive) for episode in episodes], bool)
    right = int((true & called).sum())
    return Scores(
        frames=len(success),
        positives=positives,
        precision=float(binary_precision(above, success)) if called_frames else None,
        recall=float(binary_recall(above, success)) if positives else None,
        average_precision=min(1.0, float(binary_average_precision(probability, success))) if positives else None,
        calibration_error=(
            float(binary_calibration_error(probability, success, n_bins=CALIBRATION_BINS)) if len(success) else None
        ),
        episodes=len(episodes),
        succeeded=int(true.sum()),
        called=int(called.sum()),
        episode_precision=right / int(called.sum()) if called.any() else None,
        episode_recall=right / int(true.sum()) if true.any() else None,
        episode_accuracy=float((true == called).mean()) if len(episodes) else None,
    )


def best_threshold(probability: Tensor, success: Tensor) -> float:
    """The threshold with the best F1, as far from the next lower probability as from its own.

    Args:
        probability: (M,) float32.
        success: (M,) int64 in {0, 1}, both of them present.

    Returns:
        A number in (0, 1].

    Raises:
        ValueError: One class only.
    """
    if not 0 < int(success.sum()) < len(success):
        raise ValueError("frames of both classes are needed to choose a threshold")
    precision, recall, thresholds = binary_precision_recall_curve(probability, success)
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    best = int(f1[:-1].argmax())  # the last point of the curve has no threshold
    chosen = float(thresholds[best])
    # Whatever lies between two probabilities separates the frames at hand alike: the middle is the safest.
    below = probability[probability < chosen]
    middle = (chosen + float(below.max())) / 2 if len(below) else chosen
    return max(middle, _LEAST)


def precision_at_recall(probability: Tensor, success: Tensor, points: int = 101) -> list[float]:
    """The precision-recall curve at evenly spread recalls: the best precision with at least that recall.

    Args:
        probability: (M,) float32.
        success: (M,) int64 in {0, 1}.
        points: Recalls, from 0 to 1.

    Returns:
        A precision for each; empty when no frame is successful.
    """
    if not int(success.sum()):
        return []
    precision, recall, _ = binary_precision_recall_curve(probability, success)
    # The curve's last point, precision 1 at recall 0, belongs to no threshold: it counts for nothing here.
    precision, recall = precision[:-1], recall[:-1]
    return [float(precision[recall >= point - 1e-6].max()) for point in np.linspace(0, 1, points).tolist()]


def calibration_table(probability: Tensor, success: Tensor, bins: int = 10) -> list[CalibrationBin]:
    """Probabilities beside observed frequencies, in equal ranges of probability.

    Args:
        probability: (M,) float32 in [0, 1].
        success: (M,) int64 in {0, 1}.
        bins: Number of ranges.
    """
    where = (probability.double() * bins).long().clamp(0, bins - 1).numpy()
    table = []
    for index in range(bins):
        here = where == index
        count = int(here.sum())
        table.append(
            CalibrationBin(
                low=index / bins,
                high=(index + 1) / bins,
                frames=count,
                probability=float(probability.numpy()[here].mean()) if count else None,
                frequency=float(success.numpy()[here].mean()) if count else None,
            )
        )
    return table
