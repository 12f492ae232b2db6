from __future__ import annotations

import warnings
from pathlib import Path

import lpips
import pytest
import torch
from torch import Tensor

from tests.metrics.painted import noisy, painted_batch
from wovr.errors import UserError
from wovr.metrics.frames.optical_flow import FarnebackFlow, RAFTFlow
from wovr.metrics.frames.perceptual import (
    LPIPS,
    FeatureDistance,
    FloLPIPS,
    IDMDistance,
    LPIPSDistance,
    flow_weighted_mean,
)
from wovr.models.probes.inverse_dynamics import InverseDynamics


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, lpips.LPIPS]:
    """A file like torchvision's with random convolutions, and the package's own network with the same."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls torchvision in an outdated way
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    trunk = network.net.state_dict()
    weights = {f"features.{name.split('.', 1)[1]}": tensor for name, tensor in trunk.items()}
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(weights | {"classifier.1.weight": torch.zeros(2, 2)}, path)
    return path, network


@pytest.fixture(scope="module")
def idm() -> IDMDistance:
    torch.manual_seed(0)
    return IDMDistance(InverseDynamics(2, window=3, keypoints=4, channels=[8, 16], width=8, size=16).eval())


def test_lpips_is_what_the_package_says(alexnet: tuple[Path, lpips.LPIPS]) -> None:
    path, package = alexnet
    frames = torch.randint(0, 256, (2, 3, 64, 64, 3), dtype=torch.uint8)
    found = LPIPS("lpips", [2], LPIPSDistance(path)).measure(frames[0], frames[1], (frames[0], frames[1]))
    one, other = frames.movedim(-1, 2).float() / 127.5 - 1
    torch.testing.assert_close(found, package(one, other).flatten().detach(), rtol=1e-4, atol=1e-5)


def test_pictures_too_small_for_it_are_refused(alexnet: tuple[Path, lpips.LPIPS]) -> None:
    distance = LPIPSDistance(alexnet[0])
    assert len(distance(torch.zeros(1, 3, 63, 63), torch.zeros(1, 3, 63, 63))) == 5
    with pytest.raises(UserError, match="lpips: pictures of 48 x 64, AlexNet takes 63 x 63 or more"):
        distance(torch.zeros(1, 3, 48, 64), torch.zeros(1, 3, 48, 64))


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"has no weight 'features\.\d+\.weight' of shape"):
        LPIPSDistance(tmp_path / "other.pth")
    (tmp_path / "other.pth").write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot be read as weights"):
        LPIPSDistance(tmp_path / "other.pth")


def test_the_stand_in_is_zero_for_a_perfect_model_and_grows_with_noise(idm: IDMDistance) -> None:
    batch = painted_batch((8, 8))
    values = []
    for amount in (0, 10, 40, 160):
        metric = LPIPS("lpips[idm]", [8], idm)
        metric.update(batch.with_imagined(noisy(batch.real, amount), None))
        values.append(metric.compute()["lpips[idm]"].by_horizon[8])
    assert values[0] == 0
    assert values == sorted(values)
    assert values[3] <= 4


class TwoMaps(FeatureDistance):
    """A layer of the pictures' own size and one of a quarter: squared differences of the grey values."""

    def forward(self, one: Tensor, other: Tensor) -> list[Tensor]:
        difference = (one - other).square().mean(1)
        return [difference, difference.unflatten(1, (-1, 4)).unflatten(3, (-1, 4)).mean((2, 4))]


def test_wrong_motion_weighs_more() -> None:
    values = torch.zeros(1, 8, 8)
    values[0, :, 4:] = 1.0  # all of the error is on the right
    wrong_there, wrong_elsewhere = torch.zeros(2, 1, 2, 16, 16)
    wrong_there[0, 0, :, 8:] = 3.0
    wrong_elsewhere[0, 1, :, :8] = -3.0
    assert flow_weighted_mean(values, wrong_there).item() == pytest.approx(1)
    assert flow_weighted_mean(values, wrong_elsewhere).item() == pytest.approx(0)
    assert flow_weighted_mean(values, torch.zeros(1, 2, 16, 16)).item() == pytest.approx(0.5), "all places alike"


def test_flolpips_weighs_each_layer_by_the_difference_of_the_flows() -> None:
    def flow(first: Tensor, second: Tensor) -> Tensor:
        return (second.float() - first.float()).mean(-1)[:, None].expand(-1, 2, -1, -1)

    batch = painted_batch((4,))
    imagined = noisy(batch.real, 50)
    metric = FloLPIPS("flolpips", [4], TwoMaps(), flow)
    metric.update(batch.with_imagined(imagined, None))
    expected = []
    for t in (1, 2, 3):
        difference = sum(
            sign * (video[0, t].float() - video[0, t - 1].float()).mean(-1)
            for sign, video in ((1, imagined), (-1, batch.real))
        )
        weight = difference.abs()
        error = ((imagined[0, t].float() - batch.real[0, t].float()) / 127.5).square().mean(-1)
        coarse = torch.nn.functional.interpolate(difference[None, None], (4, 4), mode="bilinear", align_corners=False)[
            0, 0
        ].abs()
        blocks = error.unflatten(0, (-1, 4)).unflatten(2, (-1, 4)).mean((1, 3))
        expected.append((error * weight / weight.sum()).sum() + (blocks * coarse / coarse.sum()).sum())
    assert metric.compute()["flolpips"].by_horizon[4] == pytest.approx(float(sum(expected) / 3), rel=1e-4)


def test_flolpips_with_farneback_is_zero_for_a_perfect_model_and_grows_with_noise() -> None:
    batch = painted_batch((6,))
    values = []
    for amount in (0, 20, 80):
        metric = FloLPIPS("flolpips[farneback]", [6], TwoMaps(), FarnebackFlow())
        metric.update(batch.with_imagined(noisy(batch.real, amount), None))
        values.append(metric.compute()["flolpips[farneback]"].by_horizon[6])
    assert values[0] == 0
    assert values[0] < values[1] < values[2]


def test_raft_takes_torchvisions_weights_and_small_pictures(tmp_path: Path) -> None:
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(0)
    network = raft_large(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    flow = RAFTFlow(tmp_path / "raft.pth", updates=1)
    frames = torch.randint(0, 256, (2, 1, 64, 80, 3), dtype=torch.uint8)
    images = [
        torch.nn.functional.interpolate(frame.movedim(-1, 1).float() / 127.5 - 1, (128, 160), mode="bilinear")
        for frame in frames
    ]
    with torch.no_grad():
        found = flow(frames[0], frames[1])
        enlarged = network(*images, num_flow_updates=1)[-1]
    # Twice the size, so twice the pixels that everything moves by.
    torch.testing.assert_close(found, torch.nn.functional.interpolate(enlarged, (64, 80), mode="bilinear") / 2)
