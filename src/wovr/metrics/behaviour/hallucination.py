"""Does imagined success happen? Imagined rollouts against the same actions in reality (paper, sections 4.2 and 5.2)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from wovr.functional.classification import area_under_roc
from wovr.metrics.rollouts import as_one


@dataclass
class HallucinationScores:
    """Success imagined against success real; NaN where there is nothing to divide by.

    Attributes:
        true_success: Rollouts that succeed in both.
        false_success: That succeed in imagination only: hallucinated success.
        false_failure: That succeed in reality only.
        true_failure: That fail in both.
        false_success_rate: Of the imagined successes, the share that is false; 1 - precision.
        false_success_of_failures: Of the real failures, the share that is imagined to succeed.
        precision: Of the imagined successes, the share that is real.
        recall: Of the real successes, the share that is imagined too.
        agreement: Share of rollouts with the same outcome in both.
        confidence_auroc: How well a low probability of success tells false successes among the imagined ones: the
            chance that a false one has the lower probability of a false and a true one. 0.5 is chance.
        spread_auroc: The same for a large spread of that probability over several noises.
    """

    true_success: int
    false_success: int
    false_failure: int
    true_failure: int
    false_success_rate: float
    false_success_of_failures: float
    precision: float
    recall: float
    agreement: float
    confidence_auroc: float
    spread_auroc: float

    def as_json(self) -> dict[str, Any]:
        """The values by name, None in place of NaN, which JSON lacks."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


class Hallucination(Metric):
    """Counts rollouts by imagined and real success."""

    full_state_update = False
    imagined: list[Tensor]
    real: list[Tensor]
    confidence: list[Tensor]
    spread: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("imagined", "real", "confidence", "spread"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self, imagined: Tensor, real: Tensor, confidence: Tensor | None = None, spread: Tensor | None = None
    ) -> None:
        """Count rollouts in.

        Args:
            imagined: (N,) bool, the rollout was imagined to succeed.
            real: (N,) bool, the same actions from the same state succeed in reality.
            confidence: (N,) float in [0, 1], the largest probability of success in the rollout; None where unknown.
            spread: (N,) float, standard deviation of that probability over several noises; None where unknown.

        Raises:
            ValueError: Other shapes or types.
        """
        unknown = torch.full(imagined.shape, torch.nan, device=imagined.device)
        confidence = unknown if confidence is None else confidence.float()
        spread = unknown if spread is None else spread.float()
        for name, values in (("imagined", imagined), ("real", real), ("confidence", confidence), ("spread", spread)):
            if values.ndim != 1 or values.shape != imagined.shape:
                raise ValueError(f"{name} has shape {tuple(values.shape)}, imagined {tuple(imagined.shape)}")
            if name in ("imagined", "real") and values.dtype != torch.bool:
                raise ValueError(f"{name} has type {values.dtype}, booleans are needed")
            getattr(self, name).append(values)

    def compute(self) -> HallucinationScores:
        """See HallucinationScores."""
        imagined, real = as_one(self.imagined), as_one(self.real)
        both, only_imagined = int((imagined & real).sum()), int((imagined & ~real).sum())
        only_real, neither = int((~imagined & real).sum()), int((~imagined & ~real).sum())
        false = ~real[imagined]
        return HallucinationScores(
            true_success=both,
            false_success=only_imagined,
            false_failure=only_real,
            true_failure=neither,
            false_success_rate=_share(only_imagined, both + only_imagined),
            false_success_of_failures=_share(only_imagined, only_imagined + neither),
            precision=_share(both, both + only_imagined),
            recall=_share(both, both + only_real),
            agreement=_share(both + neither, len(imagined)),
            confidence_auroc=area_under_roc(1 - as_one(self.confidence)[imagined], false),
            spread_auroc=area_under_roc(as_one(self.spread)[imagined], false),
        )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
