from __future__ import annotations

import pytest
import torch

from wovr.models.probes.state_probe import StateProbe


def small(looks: tuple[str, ...] = ("gripper", "cube", "cube")) -> StateProbe:
    torch.manual_seed(0)
    return StateProbe(looks, maps=2, channels=[8, 16], width=4, size=16).eval()


def test_it_reads_a_position_for_every_point_whatever_the_size() -> None:
    assert small().read(torch.zeros(5, 16, 16, 3, dtype=torch.uint8)).shape == (5, 3, 3)
    assert small().read(torch.zeros(2, 48, 24, 3, dtype=torch.uint8)).shape == (2, 3, 3)


def test_a_point_is_read_through_its_own_maps() -> None:
    network = small()
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        before = network(images)
        network.encoder.score.weight[2:4] += 1.0  # the maps of the second point
        network.head[1] += 1.0
        after = network(images)
    torch.testing.assert_close(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_no_points_are_refused() -> None:
    with pytest.raises(ValueError, match="looks is empty"):
        StateProbe([])
