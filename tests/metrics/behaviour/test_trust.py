"""Scores of trusts that are known: against the counting of pairs, tables made by hand, thresholds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from wovr.metrics.behaviour.trust import JudgedRollout, score_trust, threshold_that_keeps


def judged(imagined: bool, real: bool, trust: list[float], wrong: list[bool]) -> JudgedRollout:
    values = np.array(trust, np.float32)
    return JudgedRollout(imagined, real, values, {"told": 2 - values, "blind": np.zeros_like(values)}, np.array(wrong))


def pairs_in_order(scores: list[float], targets: list[bool]) -> float:
    """Of all pairs of a target and another, those in which the target has the higher score; ties count a half."""
    hit = [s for s, target in zip(scores, targets, strict=True) if target]
    other = [s for s, target in zip(scores, targets, strict=True) if not target]
    return sum((a > b) + 0.5 * (a == b) for a, b in product(hit, other)) / (len(hit) * len(other))


def some(count: int = 60, seed: int = 0) -> list[JudgedRollout]:
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        trust = random.random(random.integers(1, 5)).round(2)
        found.append(
            judged(random.random() < 0.6, random.random() < 0.5, trust.tolist(), random.random(len(trust)) > trust)
        )
    return found


def test_areas_are_those_of_pairs() -> None:
    rollouts = some()
    values = score_trust(rollouts)
    succeeded = [one for one in rollouts if one.imagined]
    expected = pairs_in_order([1 - float(one.trust.min()) for one in succeeded], [not one.real for one in succeeded])
    for name in ("distrust", "told"):
        found = values["signals"][name]["false_success"]
        assert found["value"] == pytest.approx(expected, abs=1e-5)
        assert found["low"] <= found["value"] <= found["high"]
    chunks = [(1 - float(t), bool(w)) for one in rollouts for t, w in zip(one.trust, one.wrong, strict=True)]
    expected = pairs_in_order([score for score, _ in chunks], [wrong for _, wrong in chunks])
    assert values["signals"]["distrust"]["wrong_chunk"]["value"] == pytest.approx(expected, abs=1e-5)
    assert values["signals"]["blind"]["wrong_chunk"]["value"] == pytest.approx(0.5)
    assert (values["rollouts"], values["chunks"]) == (60, len(chunks))


def test_trust_that_knows() -> None:
    rollouts = [judged(True, real, [0.95, 0.95 if real else 0.05], [False, not real]) for real in [True, False] * 10]
    values = score_trust(rollouts)
    assert values["signals"]["distrust"]["false_success"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert values["signals"]["distrust"]["wrong_chunk"]["value"] == 1.0
    assert values["calibration_error"] == pytest.approx(0.05, abs=1e-6)  # 0.95 that always is right, 0.05 that never is
    assert [row["frames"] for row in values["calibration"]] == [10, 0, 0, 0, 0, 0, 0, 0, 0, 30]
    acting = values["acting"]
    assert acting["threshold"] == pytest.approx(0.95)
    assert acting["kept"] == {"true_successes": 1.0, "false_successes": 0.0, "rollouts": 0.5}
    assert acting["false_share"]["value"] == 0.0
    assert acting["without"]["value"] == 0.5
    assert acting["without"]["low"] < 0.5 < acting["without"]["high"]
    assert acting["difference"]["value"] == -0.5


def test_the_least_trusted_chunk_decides() -> None:
    rollouts = [judged(True, True, [0.5 + i / 100, 0.99], [False, False]) for i in range(10)]
    rollouts += [judged(True, False, [0.99, 0.52, 0.99], [False, True, True]) for _ in range(5)]
    acting = score_trust(rollouts, keep=0.7)["acting"]
    assert acting["threshold"] == pytest.approx(0.53)  # seven of ten reach it
    assert acting["kept"]["true_successes"] == pytest.approx(0.7)
    assert acting["kept"]["false_successes"] == 0.0


@pytest.mark.parametrize(("share", "threshold"), [(1.0, 0.1), (0.75, 0.2), (0.7, 0.2), (0.5, 0.3), (0.01, 0.4)])
def test_a_threshold_keeps_at_least_its_share(share: float, threshold: float) -> None:
    assert threshold_that_keeps(np.array([0.3, 0.1, 0.4, 0.2]), share) == threshold


def test_what_is_not_defined_is_none() -> None:
    values = score_trust([judged(False, True, [0.5], [False]), judged(True, False, [0.5], [False])])
    assert values["signals"]["distrust"]["false_success"] == {"value": None, "low": None, "high": None}
    assert values["signals"]["distrust"]["wrong_chunk"]["value"] is None
    assert values["acting"]["threshold"] is None
    assert score_trust([judged(False, False, [0.5], [True])])["acting"]["threshold"] is None
