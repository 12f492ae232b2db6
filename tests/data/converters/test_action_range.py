"""Raw actions into [-1, 1] and back."""

from __future__ import annotations

import numpy as np
import pytest

from wovr.data.converters.action_range import ActionRange


def raw(seed: int = 0, rows: int = 200) -> np.ndarray:
    """(rows, 3) float32: large, small, and one that never moves."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, 3)) * [300.0, 0.01, 0.0] + [0.0, 5.0, 2.0]).astype(np.float32)


@pytest.mark.parametrize("kind", ["auto", "range"])
def test_the_range_is_used_whole_and_inverts(kind: str) -> None:
    actions = raw()
    found = ActionRange.of(kind, [actions[:50], actions[50:]])
    scaled = found.apply(actions)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.min(0), [-1, -1, 0])
    np.testing.assert_allclose(scaled.max(0), [1, 1, 0])
    np.testing.assert_allclose(found.invert(scaled), actions, rtol=1e-6, atol=1e-4)
    assert found.clipped(actions) == 0
    again = ActionRange.from_json(found.to_json())
    np.testing.assert_array_equal(again.apply(actions), scaled)


def test_quantiles_clip_and_count() -> None:
    actions = raw()
    found = ActionRange.of("quantile", [actions])
    low, high = np.quantile(actions.astype(np.float64), [0.01, 0.99], axis=0)
    outside = ((actions < low) | (actions > high))[:, :2].any(1)
    assert found.clipped(actions) == outside.sum() > 0
    assert np.abs(found.apply(actions)).max() == 1.0
    inside = found.invert(found.apply(actions))[~outside]
    np.testing.assert_allclose(inside, actions[~outside], rtol=1e-6, atol=1e-4)


def test_what_lies_in_range_stays_bit_for_bit() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (50, 7)).astype(np.float32)
    found = ActionRange.of("auto", [actions])
    assert found.kind == "none"
    np.testing.assert_array_equal(found.invert(found.apply(actions)), actions)


@pytest.mark.parametrize(
    "value", [{}, {"kind": "range", "low": [1.0], "high": [0.0]}, {"kind": "x", "low": [], "high": []}]
)
def test_a_damaged_range_is_refused(value: dict) -> None:
    with pytest.raises(ValueError, match="action_range"):
        ActionRange.from_json(value)
