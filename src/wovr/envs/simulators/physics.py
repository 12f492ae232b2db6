"""MuJoCo's state as one array, out of a simulation and back into it bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np


def read_physics(model: Any, data: Any, signature: int | None = None) -> np.ndarray:
    """The state of a simulation.

    Args:
        model: MuJoCo's model.
        data: Its data.
        signature: Sum of the parts wanted (`mujoco.mjtState`); None for all that integration needs.

    Returns:
        (S,) float64.
    """
    import mujoco

    parts = mujoco.mjtState.mjSTATE_INTEGRATION if signature is None else signature
    state = np.empty(mujoco.mj_stateSize(model, parts))
    mujoco.mj_getState(model, data, state, parts)
    return state


def set_physics(model: Any, data: Any, state: np.ndarray, signature: int | None = None) -> None:
    """Set a state and derive positions from it, without moving the solver's warm start.

    Args:
        model: MuJoCo's model.
        data: Its data.
        state: (S,) float64 from `read_physics`.
        signature: As there.
    """
    import mujoco

    parts = mujoco.mjtState.mjSTATE_INTEGRATION if signature is None else signature
    mujoco.mj_setState(model, data, state, parts)
    mujoco.mj_forward(model, data)
    mujoco.mj_setState(model, data, state, parts)
