"""Metrics of imagined rollouts by their names on the command line.

A name with `[idm]` is a stand-in: features of an inverse-dynamics network trained on real episodes in place of those of
a network whose weights are not part of the package. Stand-ins have their names in every table and file; they say which
of two world models is better on the same episodes, and nothing beside numbers from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from torch import nn

from wovr.errors import UserError
from wovr.metrics.behaviour.action_following import ActionFollowing
from wovr.metrics.behaviour.policy_shift import PolicyShift
from wovr.metrics.behaviour.state_error import StateError
from wovr.metrics.frames.frechet import FrechetRolloutDistance
from wovr.metrics.frames.optical_flow import FarnebackFlow, RAFTFlow
from wovr.metrics.frames.perceptual import LPIPS, FeatureDistance, FloLPIPS, IDMDistance, LPIPSDistance
from wovr.metrics.frames.permanence import Permanence
from wovr.metrics.frames.pixels import PSNR, SSIM
from wovr.metrics.networks.features import I3DClips, IDMFrames, IDMWindows, InceptionFrames
from wovr.metrics.networks.weights import checked_weights, has_weights
from wovr.metrics.rollouts import RolloutMetric
from wovr.models.checkpoint import load_network
from wovr.models.policies.base import Policy
from wovr.models.policies.loading import load_policy
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.probes.state_probe import StateProbe

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class Instruments:
    """What metrics measure with.

    Attributes:
        weights: Folder of weights, see `wovr.metrics.networks.weights`.
        idm: Checkpoint of an inverse-dynamics network, or None.
        probe: Checkpoint of a state probe, or None.
        policy: Checkpoint of a policy, or None.
        networks: What has been loaded so far; metrics share it.
    """

    weights: Path
    idm: Path | None = None
    probe: Path | None = None
    policy: Path | None = None
    networks: dict[str, nn.Module] = field(default_factory=dict)

    def once(self, key: str, make: Callable[[], ModuleT]) -> ModuleT:
        """A network by name; made at the first use."""
        if key not in self.networks:
            self.networks[key] = make()
        return cast(ModuleT, self.networks[key])

    def idm_network(self, metric: str) -> InverseDynamics:
        """The inverse-dynamics network.

        Raises:
            UserError: None was given, or it cannot be loaded.
        """
        if self.idm is None:
            raise UserError(
                f"{metric} needs an inverse-dynamics network",
                "give --idm CKPT, trained with: wovr fit --config conf/idm.yaml",
            )
        path = self.idm
        return self.once("idm", lambda: load_network(path, InverseDynamics))

    def state_probe(self, metric: str) -> StateProbe:
        """The state probe.

        Raises:
            UserError: None was given, or it cannot be loaded.
        """
        if self.probe is None:
            raise UserError(
                f"{metric} needs a state probe",
                "give --probe CKPT, trained with: wovr fit --config conf/state_probe.yaml",
            )
        path = self.probe
        return self.once("probe", lambda: load_network(path, StateProbe))

    def the_policy(self, metric: str) -> Policy:
        """The policy.

        Raises:
            UserError: None was given, or it cannot be loaded.
        """
        if self.policy is None:
            raise UserError(f"{metric} needs a policy", "give --policy CKPT, the one that is to act in imagination")
        path = self.policy
        found = self.once("policy", lambda: load_policy(path))
        if found.proprio_dim:
            raise UserError(f"{metric} shows pictures only, {path} takes proprioception too", "leave it out")
        return found

    def file(self, name: str, metric: str) -> Path:
        """The weights of a metric that has a stand-in.

        Raises:
            UserError: They are missing or wrong.
        """
        return checked_weights(name, self.weights, f"or measure the stand-in {metric}[idm]")


def _lpips(instruments: Instruments, name: str) -> FeatureDistance:
    if name.endswith("[idm]"):
        return IDMDistance(instruments.idm_network(name))
    return instruments.once("alexnet", lambda: LPIPSDistance(instruments.file("alexnet", name)))


def _flolpips(name: str, horizons: Sequence[int], instruments: Instruments) -> RolloutMetric:
    distance = _lpips(instruments, name)
    if has_weights("raft", instruments.weights):
        raft = instruments.once("raft", lambda: RAFTFlow(checked_weights("raft", instruments.weights)))
        return FloLPIPS(name, horizons, distance, raft)
    named = name.replace("[idm]", "[idm,farneback]") if "[" in name else f"{name}[farneback]"
    metric = FloLPIPS(named, horizons, distance, FarnebackFlow())
    metric.notes = [f"{named}: optical flow by Farnebäck's method; for RAFT: wovr weights fetch raft"]
    return metric


METRICS: dict[str, Callable[[str, Sequence[int], Instruments], RolloutMetric]] = {
    "psnr": lambda name, horizons, instruments: PSNR(horizons),
    "ssim": lambda name, horizons, instruments: SSIM(horizons),
    "lpips": lambda name, horizons, instruments: LPIPS(name, horizons, _lpips(instruments, name)),
    "lpips[idm]": lambda name, horizons, instruments: LPIPS(name, horizons, _lpips(instruments, name)),
    "flolpips": _flolpips,
    "flolpips[idm]": _flolpips,
    "fid": lambda name, horizons, instruments: FrechetRolloutDistance(
        name, horizons, instruments.once("inception", lambda: InceptionFrames(instruments.file("inception", name)))
    ),
    "fid[idm]": lambda name, horizons, instruments: FrechetRolloutDistance(
        name, horizons, instruments.once(name, lambda: IDMFrames(instruments.idm_network(name)))
    ),
    "fvd": lambda name, horizons, instruments: FrechetRolloutDistance(
        name, horizons, instruments.once("i3d", lambda: I3DClips(instruments.file("i3d", name)))
    ),
    "fvd[idm]": lambda name, horizons, instruments: FrechetRolloutDistance(
        name, horizons, instruments.once(name, lambda: IDMWindows(instruments.idm_network(name)))
    ),
    "action_following": lambda name, horizons, instruments: ActionFollowing(horizons, instruments.idm_network(name)),
    "permanence": lambda name, horizons, instruments: Permanence(horizons),
    "policy_shift": lambda name, horizons, instruments: PolicyShift(horizons, instruments.the_policy(name)),
    "state_error": lambda name, horizons, instruments: StateError(horizons, instruments.state_probe(name)),
}
"""Name -> how it is made, from its name, the horizons and the instruments."""


def make_metric(name: str, horizons: Sequence[int], instruments: Instruments) -> RolloutMetric:
    """A metric by name, in evaluation mode.

    Args:
        name: Key of METRICS.
        horizons: Horizons to report.
        instruments: What it may measure with.

    Raises:
        UserError: Unknown name, missing weights or networks, or a horizon it cannot measure.
    """
    if name not in METRICS:
        raise UserError(f"unknown metric '{name}'", f"choose from: {', '.join(METRICS)}")
    return METRICS[name](name, horizons, instruments).eval().requires_grad_(False)
