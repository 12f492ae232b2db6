from __future__ import annotations

import numpy as np
import torch

from tests.models.world_model.tiny_world import random_actions
from wovr.models.robot.touch import FINEST, REACH, SCALE, SIDE, Courses, TouchHead, blemished


def head(numbers: int = 2, chunk: int = 8) -> TouchHead:
    torch.manual_seed(0)
    return TouchHead(numbers, action_dim=3, proprio_dim=5, chunk=chunk, width=4, hidden=16).eval()


def inputs(batch: int, size: int = 64, chunk: int = 8) -> tuple[torch.Tensor, ...]:
    """Frame, states, places, actions."""
    generator = torch.Generator().manual_seed(1)
    frame = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=generator)
    states = torch.randn(batch, 1 + chunk, 5, generator=generator)
    places = torch.rand(batch, 1 + chunk, 2, generator=generator) - 0.5
    return frame, states, places, random_actions(batch, chunk)


def test_the_likelihood_is_that_of_a_mixture() -> None:
    """Against torch's own distributions, constants of the Laplace distribution left out; one number and one step."""
    generator = torch.Generator().manual_seed(2)
    courses = Courses(torch.randn(5, generator=generator), torch.randn(5, 2, 1, 1, generator=generator))
    truth = torch.randn(5, 1, 1, generator=generator)
    share = torch.sigmoid(courses.logit)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.stack([share, 1 - share], dim=1)),
        torch.distributions.Laplace(courses.values[:, :, 0, 0], SCALE),
    )
    expected = -mixture.log_prob(truth[:, 0, 0]) - np.log(2 * SCALE)
    torch.testing.assert_close(courses.negative_log_likelihood(truth), expected)


def test_a_course_is_off_by_its_mean_error() -> None:
    certain = Courses(torch.tensor([50.0]), torch.stack([torch.zeros(1, 4, 2), torch.ones(1, 4, 2)], dim=1))
    truth = torch.tensor([0.1, 0.3] * 4).view(1, 4, 2)
    torch.testing.assert_close(certain.negative_log_likelihood(truth), torch.tensor([0.2 / SCALE]))


def test_the_likelier_course() -> None:
    values = torch.randn(3, 2, 4, 2)
    found = Courses(torch.tensor([2.0, -1.0, -30.0]), values).likelier()
    assert torch.equal(found, torch.stack([values[0, 0], values[1, 1], values[2, 1]]))


def test_crops_are_cut_out_where_the_hand_is() -> None:
    """Against the mean of the four pixels around each point, weighted by how near they are."""
    touch, (frame, *_) = head(), inputs(2)
    step = 2 * REACH / (SIDE - 1)
    points = (torch.arange(64) + 0.5) * 2 / 64 - 1
    row, column = 30, 21
    places = torch.tensor([[points[column], points[row]]]).repeat(2, 3, 1)
    found = touch._crops(frame, places)
    assert found.shape == (2, 9, SIDE, SIDE)
    picture = frame.double() / 127.5 - 1
    for y in (0, 9, SIDE - 1):
        for x in (0, 13, SIDE - 1):
            at = np.array([row - REACH * 32 + y * step * 32, column - REACH * 32 + x * step * 32])
            low = np.floor(at).astype(int)
            rest = at - low
            expected = sum(
                abs(1 - i - rest[0]) * abs(1 - j - rest[1]) * picture[:, low[0] + i, low[1] + j]
                for i in (0, 1)
                for j in (0, 1)
            )
            for moment in range(3):
                torch.testing.assert_close(
                    found[:, 3 * moment : 3 * moment + 3, y, x].double(), expected, atol=1e-3, rtol=0
                )


def test_large_pictures_look_like_small_ones() -> None:
    frame, _, places, _ = inputs(2)
    large = frame.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert large.shape[1] > FINEST
    torch.testing.assert_close(head()._crops(large, places), head()._crops(frame, places), atol=1e-5, rtol=0)


def test_what_the_guess_depends_on() -> None:
    touch, given = head(), inputs(3)
    found = touch(*given)
    assert (found.logit.shape, found.values.shape) == ((3,), (3, 2, 8, 2))
    assert torch.equal(touch(*given).values, found.values)
    for index in range(4):
        changed = list(given)
        changed[index] = changed[index].flip(0)
        assert not torch.allclose(touch(*changed).values[0], found.values[0], atol=1e-5)


def test_other_chunks() -> None:
    found = head(numbers=1, chunk=4)(*inputs(2, chunk=4))
    assert found.values.shape == (2, 2, 4, 1)
    assert (found.values[:, 0].mean() - found.values[:, 1].mean()).item() > 0.5  # the two begin apart


def test_blemishes_are_drawn_anew_for_every_picture() -> None:
    crops = torch.zeros(4, 3, 8, 8)
    torch.manual_seed(0)
    first = blemished(crops)
    torch.manual_seed(0)
    assert torch.equal(blemished(crops), first)
    assert not torch.equal(blemished(crops), first)
    assert first.mean((1, 2, 3)).unique().numel() == 4
    assert 0 < first.std() < 0.5
    edge = torch.zeros(64, 1, 8, 8)
    edge[..., 4:] = 1
    slope = (blemished(edge)[..., 4] - blemished(edge)[..., 3]).mean()
    assert 0.4 < slope < 0.9  # blurred, by half of it on average
