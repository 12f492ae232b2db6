from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.metrics.painted import noisy, painted_batch
from wovr.errors import UserError
from wovr.metrics.catalogue import METRICS, Instruments, make_metric
from wovr.models.checkpoint import KEY, record
from wovr.models.probes.inverse_dynamics import InverseDynamics


@pytest.fixture(scope="module")
def idm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained inverse-dynamics network."""
    torch.manual_seed(0)
    network = InverseDynamics(2, window=3, keypoints=2, channels=[8, 8], width=6, size=16)
    path = tmp_path_factory.mktemp("idm") / "idm.ckpt"
    weights = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": weights, KEY: record({"network": network}, {})}, path)
    return path


@pytest.mark.parametrize(
    ("name", "weights"), [("fvd", "i3d"), ("fid", "inception"), ("lpips", "alexnet"), ("flolpips", "alexnet")]
)
def test_missing_weights_are_a_line_that_says_what_to_fetch_and_names_the_stand_in(
    name: str, weights: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        make_metric(name, [20], Instruments(tmp_path))
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/")
    assert f"fetch it with: wovr weights fetch {weights}, or measure the stand-in {name}[idm]" in line
    assert f"{name}[idm]" in METRICS
    assert "\n" not in line


@pytest.mark.parametrize("name", [name for name in METRICS if name.endswith("[idm]") or name == "action_following"])
def test_stand_ins_need_a_network_and_say_which(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs an inverse-dynamics network; give --idm CKPT, trained with: wovr fit"):
        make_metric(name, [20], Instruments(tmp_path))


def test_state_error_needs_a_probe(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="state_error needs a state probe; give --probe CKPT"):
        make_metric("state_error", [20], Instruments(tmp_path))


def test_every_stand_in_carries_its_name_into_the_scores(idm: Path, tmp_path: Path) -> None:
    instruments = Instruments(tmp_path, idm)
    batch = painted_batch((9, 9))
    batch.imagined = noisy(batch.real, 30)
    for name in ("lpips[idm]", "fid[idm]", "fvd[idm]"):
        metric = make_metric(name, [9], instruments)
        metric.update(batch)
        assert list(metric.compute()) == [name]
    metric = make_metric("flolpips[idm]", [9], instruments)
    metric.update(batch)
    assert list(metric.compute()) == ["flolpips[idm,farneback]"]
    assert "for RAFT: wovr weights fetch raft" in metric.notes[0]


def test_networks_are_loaded_once(idm: Path, tmp_path: Path) -> None:
    instruments = Instruments(tmp_path, idm)
    one, other = (make_metric("fvd[idm]", [9], instruments) for _ in range(2))
    assert one.network is other.network


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown metric 'fdv'; choose from: psnr, ssim"):
        make_metric("fdv", [9], Instruments(tmp_path))


def test_policy_shift_needs_a_policy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="policy_shift needs a policy; give --policy CKPT"):
        make_metric("policy_shift", [20], Instruments(tmp_path))
