from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wovr.models.checkpoint import KEY, load_network, record
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.probes.keypoints import KeypointEncoder, network_images


def small(window: int = 3) -> InverseDynamics:
    torch.manual_seed(0)
    return InverseDynamics(2, window=window, keypoints=4, channels=[8, 16], width=8, size=16).eval()


def frames(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 16, 16, 3), dtype=torch.uint8)


def test_an_action_is_the_mean_of_what_the_windows_that_hold_it_say() -> None:
    network, videos = small(window=4), frames(2, 7)
    found = network.read(videos)
    for t in range(6):
        said = []
        for start in range(max(0, t - 2), min(t, 3) + 1):
            with torch.no_grad():
                reading = network(network_images(videos[:, start : start + 4]))
            said.append(reading.actions[:, 0, t - start])
        torch.testing.assert_close(found[:, t], torch.stack(said).mean(0))


def test_a_window_knows_nothing_of_the_frames_outside() -> None:
    network, videos = small(), frames(1, 8)
    changed = videos.clone()
    changed[:, 5:] = frames(1, 3)
    with torch.no_grad():
        one, other = (network(network_images(video)) for video in (videos, changed))
    torch.testing.assert_close(one.actions[:, :3], other.actions[:, :3])
    assert not torch.allclose(one.actions[:, 3], other.actions[:, 3])


def test_it_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    network = small()
    weights = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": weights, KEY: record({"network": network}, {})}, tmp_path / "idm.ckpt")
    loaded = load_network(tmp_path / "idm.ckpt", InverseDynamics)
    videos = frames(1, 5)
    torch.testing.assert_close(loaded.read(videos), network.read(videos))


def test_keypoints_follow_what_moves() -> None:
    encoder = KeypointEncoder(1, [8, 8], 32)
    torch.manual_seed(0)
    with torch.no_grad():
        # One keypoint on the brightness that the convolutions let through.
        for layer in encoder.layers:
            convolution = layer[0]
            convolution.weight.fill_(0.1)
            convolution.bias.zero_()
            layer[1] = torch.nn.Identity()
        encoder.score.weight.fill_(1.0)
        picture = -torch.ones(2, 3, 32, 32)
        picture[0, :, 4:10, 20:26] = 1
        picture[1, :, 18:24, 6:12] = 1
        places = encoder(picture).places[:, 0]
    assert places[0, 0] < -0.2 < 0.2 < places[0, 1], "up and to the right"
    assert places[1, 1] < -0.2 < 0.1 < places[1, 0], "down and to the left"


def test_pictures_of_another_size_are_resized() -> None:
    network = small()
    assert network.read(torch.zeros(1, 4, 40, 24, 3, dtype=torch.uint8)).shape == (1, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 1}, "window is 1"),
        ({"channels": [8]}, "at least two multiples of 8"),
        ({"channels": [8, 12]}, "at least two multiples of 8"),
        ({"size": 18}, "a multiple of 4"),
    ],
)
def test_wrong_numbers_are_said(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InverseDynamics(2, **arguments)  # type: ignore[arg-type]
