from __future__ import annotations

import torch

from wovr.functional.matching import match_look_alikes, place_in_slots

LOOKS = ["gripper", "cube", "ball", "cube"]


def test_look_alikes_come_back_in_the_order_that_fits_best() -> None:
    true = torch.randn(5, 4, 3)
    read = true + 0.01 * torch.randn(5, 4, 3)
    swapped = read.clone()
    swapped[2:, [1, 3]] = read[2:, [3, 1]]
    torch.testing.assert_close(match_look_alikes(swapped, true, LOOKS), read)


def test_others_stay_where_they_are_however_wrong() -> None:
    true = torch.randn(3, 4, 3)
    read = true.clone()
    read[:, [0, 2]] = true[:, [2, 0]]
    torch.testing.assert_close(match_look_alikes(read, true, LOOKS), read)


def test_a_scene_with_fewer_of_a_look_takes_the_one_that_fits() -> None:
    true = place_in_slots(torch.zeros(2, 2, 3), [0, 1], 4)
    read = torch.zeros(2, 4, 3)
    read[:, 1] = 5.0
    matched = match_look_alikes(read, true, LOOKS)
    assert matched[:, 1].eq(0).all()
    assert matched[:, 3].eq(5).all()


def test_gradients_reach_what_was_read() -> None:
    read = torch.randn(2, 4, 3, requires_grad=True)
    match_look_alikes(read, torch.randn(2, 4, 3), LOOKS).sum().backward()
    assert read.grad is not None
    assert read.grad.eq(1).all()
