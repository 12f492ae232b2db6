"""Checkpoints from before the rooms were moved load to the same bits: one of every kind, in half precision.

`answers.json` holds what the version that wrote them said: the fingerprint of each, in single precision, a digest
of the whole state it loads, and what it answers to inputs drawn from a seed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.policies.small import observe
from tests.models.world_model.tiny_world import pictures
from wovr.models.checkpoint import (
    KEY,
    Network,
    fingerprint_of,
    load_network,
    network_fingerprint,
    networks_fingerprint,
    record,
)
from wovr.models.policies.base import Policy
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.probes.state_probe import StateProbe
from wovr.models.rebuilding import NETWORKS
from wovr.models.reward import SuccessClassifier
from wovr.models.robot.model import RobotModel
from wovr.models.world_model.autoencoders.base import Autoencoder
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination
from wovr.renames import RENAMES, WORLD_MODEL, first_names, first_weight, old_names, present_names

FOLDER = Path(__file__).parent / "old_checkpoints"
KINDS: dict[str, type[Any]] = {
    "autoencoder": Autoencoder,
    "grpo": Policy,
    "inverse_dynamics": InverseDynamics,
    "policy": Policy,
    "reward": SuccessClassifier,
    "robot_model": RobotModel,
    "state_probe": StateProbe,
    "value": SuccessClassifier,
    "world_model": WorldModel,
    "world_model_latent": WorldModel,
    "world_model_robot": WorldModel,
}
ANSWERS: dict[str, dict[str, Any]] = json.loads((FOLDER / "answers.json").read_text())


def digest(network: Network) -> str:
    """SHA-256 of every weight and buffer, with names of before, types and shapes."""
    found = hashlib.sha256()
    class_path = WORLD_MODEL if isinstance(network, WorldModel) else ""
    for name, value in sorted((first_weight(class_path, name), value) for name, value in network.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


@torch.no_grad()
def answer(network: Any) -> torch.Tensor:
    """What a network says of inputs drawn from a seed."""
    draw = torch.Generator().manual_seed(5)
    actions = torch.rand(2, 8, 4, generator=draw) * 2 - 1
    if isinstance(network, Policy):
        observation = observe(2, (16, 16))
        return network(observation.image, observation.instruction)
    if isinstance(network, WorldModel):
        imagination = Imagination(network)
        told = {"proprio": torch.rand(2, 4, generator=draw)} if network.conditioning.told_dim else {}
        imagination.start(pictures(2), seeds=[3, 4], signals=told)
        return torch.cat([imagination.step(actions), imagination.step(-actions)]).float()
    if isinstance(network, Autoencoder):
        frames = torch.rand(2, 3, 5, 16, 16, generator=draw) * 2 - 1
        latents = network.encode(frames)
        return torch.cat([latents.flatten(), network.decode(latents, frames[:, :, 0]).flatten()])
    if isinstance(network, RobotModel):
        return network.states(torch.rand(2, 4, generator=draw), actions, pictures(2))
    if isinstance(network, SuccessClassifier):
        return network.probability(pictures(2, 9), list(network.tasks)[:1] * 2)
    return network.read(pictures(6) if isinstance(network, StateProbe) else pictures(2, 6))


def told(path: Path) -> dict[str, Any]:
    """What stands in `answers.json` of a checkpoint."""
    network = load_network(path, KINDS[path.stem])
    torch.manual_seed(1)
    said = answer(network).flatten().double()
    return {
        "fingerprint": networks_fingerprint(path),
        "state": digest(network),
        "values": len(said),
        "sum": said.sum().item(),
        "some": said[:: max(1, len(said) // 16)].tolist(),
    }


@pytest.mark.parametrize("name", KINDS)
def test_an_old_checkpoint_loads_to_the_same_bits(name: str) -> None:
    now, before = told(FOLDER / f"{name}.ckpt"), ANSWERS[name]
    for exact in ("fingerprint", "state", "values"):
        assert now[exact] == before[exact]
    # The last digits of a sum depend on the machine.
    np.testing.assert_allclose(now["some"], before["some"], rtol=1e-4, atol=1e-5)
    assert now["sum"] == pytest.approx(before["sum"], rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_what_was_made_from_it_is_still_known(name: str, tmp_path: Path) -> None:
    """The network in memory has the fingerprint of the file that names parts of it as they were called."""
    checkpoint = torch.load(FOLDER / f"{name}.ckpt", weights_only=True)
    whole = {
        key: value.float() if value.is_floating_point() else value for key, value in checkpoint["state_dict"].items()
    }
    torch.save(checkpoint | {"state_dict": whole}, tmp_path / "old.ckpt")
    network = load_network(tmp_path / "old.ckpt", KINDS[name])
    assert fingerprint_of(network) == network_fingerprint(tmp_path / "old.ckpt", KINDS[name])
    again = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": again, KEY: record({"network": network}, {})}, tmp_path / "new.ckpt")
    assert network_fingerprint(tmp_path / "new.ckpt", KINDS[name]) == fingerprint_of(network)


def class_paths(value: Any) -> set[str]:
    """Class paths in the record of a checkpoint."""
    inner = set().union(*map(class_paths, value.values())) if isinstance(value, dict) else set()
    return inner | ({value["class_path"]} if isinstance(value, dict) and "class_path" in value else set())


def test_they_name_classes_by_their_old_names() -> None:
    named: set[str] = set()
    for name in KINDS:
        named |= class_paths(torch.load(FOLDER / f"{name}.ckpt", weights_only=True)[KEY]["networks"])
    assert {present_names(name) for name in named} <= NETWORKS
    assert old_names(sorted(named)) == sorted(named & RENAMES.keys())


@pytest.mark.parametrize("name", RENAMES)
def test_every_old_name_leads_to_what_there_is(name: str) -> None:
    module, _, attribute = RENAMES[name].rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    assert f"{found.__module__}.{found.__qualname__}" == RENAMES[name]
    assert RENAMES[name] not in RENAMES, "name the present place at once"


def test_first_names_are_the_oldest() -> None:
    for old, new in RENAMES.items():
        assert first_names({"class_path": new, "init_args": [1, None]}) == first_names(
            {"class_path": old, "init_args": [1, None]}
        )
    assert first_names("no class") == "no class"
