"""Robot models out of checkpoints."""

from __future__ import annotations

from pathlib import Path

from wovr.models.checkpoint import load_network
from wovr.models.robot.model import RobotModel


def load_robot_model(checkpoint: Path) -> RobotModel:
    """Rebuild a robot model from a checkpoint of `wovr fit --config conf/robot.yaml`.

    In a YAML it stands where a class would: `class_path: wovr.models.robot.loading.load_robot_model`, with the
    checkpoint in `init_args`. A world model that was given it needs the checkpoint no more.

    Args:
        checkpoint: The file, e.g. runs/robot/checkpoints/last.ckpt.

    Raises:
        UserError: No such file, no checkpoint, one of another kind, pickled objects in it, weights that do not fit.
    """
    return load_network(Path(checkpoint), RobotModel)
