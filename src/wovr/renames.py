"""Names of before, and what they are now: earlier checkpoints and folders name classes, arguments and weights so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMES: dict[str, str] = {
    f"wovr.{old}": f"wovr.{new}"
    for old, new in {
        "data.modules.DemonstrationData": "data.training.demonstrations.DemonstrationData",
        "data.reward_data.RewardData": "data.training.reward.RewardData",
        "data.sequences.SequenceData": "data.training.sequences.SequenceData",
        "data.world_model_data.WorldModelData": "data.training.world_model.WorldModelData",
        "models.autoencoders.grouped.GroupedAutoencoder": "models.world_model.autoencoders.grouped.GroupedAutoencoder",
        "models.autoencoders.loading.load_autoencoder": "models.world_model.autoencoders.loading.load_autoencoder",
        "models.autoencoders.patch.PatchAutoencoder": "models.world_model.autoencoders.patch.PatchAutoencoder",
        "models.autoencoders.wan.WanAutoencoder": "models.world_model.autoencoders.wan.WanAutoencoder",
        "models.autoencoders.wan.pretrained_wan": "models.world_model.autoencoders.wan.pretrained_wan",
        "models.backbones.wan.WanBackbone": "models.world_model.backbones.wan.WanBackbone",
        "models.inverse_dynamics.InverseDynamics": "models.probes.inverse_dynamics.InverseDynamics",
        "models.policies.openvla.OpenVLAOFT": "models.policies.openvla.policy.OpenVLAOFT",
        "models.robot_loading.load_robot_model": "models.robot.loading.load_robot_model",
        "models.robot_model.RobotModel": "models.robot.model.RobotModel",
        "models.state_probe.StateProbe": "models.probes.state_probe.StateProbe",
        "models.world_model.WorldModel": "models.world_model.model.WorldModel",
        "tasks.behaviour_cloning.BehaviourCloning": "tasks.behaviour_cloning.BehaviourCloningTraining",
        "tasks.grpo.GRPOTraining": "tasks.grpo.training.GRPOTraining",
        "tasks.inverse_dynamics.ReadingActions": "tasks.probes.inverse_dynamics.InverseDynamicsTraining",
        "tasks.robot_model.RobotFitting": "tasks.robot.training.RobotModelTraining",
        "tasks.state_probe.ProbingState": "tasks.probes.state_probe.StateProbeTraining",
        "tasks.world_model.WorldModelTraining": "tasks.world_model.training.WorldModelTraining",
    }.items()
}
"""Old class path -> present one. Where a class has had several names, the oldest stands first."""

_FIRST: dict[str, str] = {}
for _old, _new in RENAMES.items():
    _FIRST.setdefault(_new, _old)


def present_names(value: Any) -> Any:
    """A copy of nested lists and dictionaries in which texts that are old class paths are the present ones."""
    return _replaced(value, RENAMES)


def first_names(value: Any) -> Any:
    """The same with the names that classes had first, so that a digest of it does not change when a class moves."""
    return _replaced(_replaced(value, RENAMES), _FIRST)


def old_names(value: Any) -> list[str]:
    """Old class paths among the texts of nested lists and dictionaries."""
    if isinstance(value, dict):
        return [name for item in value.values() for name in old_names(item)]
    if isinstance(value, list | tuple):
        return [name for item in value for name in old_names(item)]
    return [value] if isinstance(value, str) and value in RENAMES else []


WORLD_MODEL = "wovr.models.world_model.model.WorldModel"
ROBOT = "wovr.models.robot.conditioning.RobotConditioning"
WEIGHTS: dict[str, dict[str, str]] = {
    WORLD_MODEL: {"robot.": "conditioning.robot.", "follow_head.": "conditioning.head."},
}
"""Of a class, by its present path: how names of weights began before -> how they begin."""


def present_arguments(described: Mapping[str, Any]) -> dict[str, Any]:
    """A class path and arguments, of before or present -> present ones.

    Before there was a conditioning, a world model had the arguments `robot` and head `follow`.
    """
    found = dict(described, class_path=RENAMES.get(described["class_path"], described["class_path"]))
    arguments = dict(found["init_args"])
    if found["class_path"] == WORLD_MODEL and "robot" in arguments and "conditioning" not in arguments:
        robot, follow = arguments.pop("robot"), arguments.get("head") == "follow"
        hidden = arguments.get("head_hidden") if follow else None
        if follow:
            arguments |= {"head": "linear", "head_hidden": None}
        conditioning = {"class_path": ROBOT, "init_args": {"robot": robot, "follow_hidden": hidden}}
        arguments |= {"conditioning": None if robot is None else conditioning, "action_dim": None}
    return found | {"init_args": arguments}


def first_arguments(described: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse, so that a digest does not change: of what could not be said before, the present arguments."""
    found = present_arguments(described)
    arguments = dict(found["init_args"])
    if found["class_path"] == WORLD_MODEL and arguments.get("action_dim") is None:
        conditioning = arguments.get("conditioning")
        if conditioning is None or conditioning["class_path"] == ROBOT:
            del arguments["conditioning"], arguments["action_dim"]
            told = {"robot": None, "follow_hidden": None} if conditioning is None else conditioning["init_args"]
            arguments["robot"] = told["robot"]
            if told["follow_hidden"] is not None:
                arguments |= {"head": "follow", "head_hidden": told["follow_hidden"]}
    for argument, nothing in LATER.get(found["class_path"], {}).items():
        if argument in arguments and arguments[argument] == nothing:
            del arguments[argument]
    return first_names(found | {"init_args": arguments})


LATER: dict[str, dict[str, Any]] = {
    WORLD_MODEL: {"sampling_noise": 0.0},
    "wovr.models.policies.tiny_vla.TinyVLA": {"proprio_dim": 0},
    "wovr.models.policies.openvla.policy.OpenVLAOFT": {"proprio_dim": 0},
}
"""Class -> arguments that it did not have at first, with the value that changes nothing: a digest leaves it out."""


def present_weight(class_path: str, name: str) -> str:
    """A weight's name, of before or present -> the present one."""
    return _begun(name, WEIGHTS.get(class_path, {}))


def first_weight(class_path: str, name: str) -> str:
    """The reverse."""
    return _begun(name, {new: old for old, new in WEIGHTS.get(class_path, {}).items()})


def _begun(name: str, beginnings: Mapping[str, str]) -> str:
    for old, new in beginnings.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _replaced(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value
