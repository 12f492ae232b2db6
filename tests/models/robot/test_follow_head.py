from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wovr.models.robot.follow_head import (
    ASIDE,
    COARSE,
    COARSE_WIDTH,
    FINE,
    FINE_WIDTH,
    FOLLOW_BIAS,
    KEYS,
    OFFSETS,
    FollowHead,
    HandCues,
)
from wovr.models.robot.model import RobotModel
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.heads import COPY_BIAS

PATCH, ROWS, COLUMNS = 4, 2, 3  # pictures of 8 x 12 pixels: not square
HEIGHT, WIDTH = PATCH * ROWS, PATCH * COLUMNS
BATCH, CHUNK, PROPRIO = 2, 8, 4


def robot_of(depth: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> RobotModel:
    """Column and row in [-1, 1] are the first two numbers of the state (over the depth)."""
    robot = RobotModel(3, PROPRIO, width=8)
    with torch.no_grad():
        robot.camera.copy_(torch.eye(2, 4))
        robot.depth.copy_(torch.tensor(depth))
    return robot


def head_of(reference: bool = True) -> FollowHead:
    torch.manual_seed(0)
    return FollowHead(PatchAutoencoder(PATCH), reference, PROPRIO, hidden=10, features=6)


def groups(seed: int = 0) -> Tensor:
    """(B, 3, 4, H, W) float in [-1, 1]: four frames of noise."""
    return torch.rand(BATCH, 3, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def states_at(columns: Tensor, rows: Tensor) -> Tensor:
    """States (B, T, P) of a hand that is seen at (B, T) pixels from the upper left corner; the rest is 0."""
    states = torch.zeros(*columns.shape, PROPRIO)
    states[..., 0], states[..., 1] = columns / (WIDTH / 2) - 1, rows / (HEIGHT / 2) - 1
    return states


def random_states(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.6 * torch.randn(BATCH, 1 + CHUNK, PROPRIO, generator=generator)


def pictures_of(patches: Tensor) -> Tensor:
    """(B, K, h, w, p, p, 3) -> (B, K, 3, H, W), pixel by pixel."""
    pictures = torch.zeros(*patches.shape[:2], 3, HEIGHT, WIDTH)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            pictures[..., y, x] = patches[:, :, y // PATCH, x // PATCH, y % PATCH, x % PATCH]
    return pictures


def aside_of(frames: Tensor, by: int) -> Tensor:
    """(B, 3, 4, H, W) -> (B, 3, H, W), the last of them moved to the right, pixel by pixel; the border goes on."""
    moved = torch.zeros(BATCH, 3, HEIGHT, WIDTH)
    for x in range(WIDTH):
        moved[..., x] = frames[:, :, -1, :, min(max(x - by, 0), WIDTH - 1)]
    return moved


def test_a_shift_by_whole_pixels_shifts_the_last_frame() -> None:
    frames = groups()
    across, down = torch.randint(-4, 5, (BATCH, CHUNK)), torch.randint(-3, 4, (BATCH, CHUNK))
    begin = torch.tensor([[5.25, 3.5], [8.0, 2.75]])
    columns = begin[:, :1] + torch.nn.functional.pad(across, (1, 0))
    rows = begin[:, 1:] + torch.nn.functional.pad(down, (1, 0))
    last = PatchAutoencoder(PATCH).encode_group(frames)
    found = pictures_of(head_of().cues(robot_of(), states_at(columns, rows), last).followed)
    for b in range(BATCH):
        for k in range(CHUNK):
            dx, dy = int(across[b, k]), int(down[b, k])
            for y in range(HEIGHT):
                for x in range(WIDTH):
                    source = min(max(y - dy, 0), HEIGHT - 1), min(max(x - dx, 0), WIDTH - 1)  # the border goes on
                    expected = frames[b, :, -1, source[0], source[1]]
                    torch.testing.assert_close(found[b, k, :, y, x], expected, atol=2e-5, rtol=0)


def test_a_hand_that_comes_nearer_grows() -> None:
    """Against bilinear sampling written out."""
    robot, states = robot_of((0.0, 0.1, 0.3)), random_states()
    frames = groups()
    last = PatchAutoencoder(PATCH).encode_group(frames)
    found = pictures_of(head_of().cues(robot, states, last).followed)

    def hand(state: Tensor) -> tuple[float, float, float]:
        depth = max(0.3, 1 + 0.1 * state[1].item() + 0.3 * state[2].item())
        return (state[0].item() / depth + 1) * WIDTH / 2, (state[1].item() / depth + 1) * HEIGHT / 2, depth

    for b, k, y, x in [(0, 0, 3, 4), (0, 3, 7, 11), (1, 5, 0, 0), (1, 7, 4, 6), (0, 6, 2, 9), (1, 2, 6, 1)]:
        (x0, y0, d0), (x1, y1, d1) = hand(states[b, 0]), hand(states[b, 1 + k])
        sx = min(max(x0 + (x + 0.5 - x1) * d1 / d0 - 0.5, 0), WIDTH - 1)
        sy = min(max(y0 + (y + 0.5 - y1) * d1 / d0 - 0.5, 0), HEIGHT - 1)
        left, top = min(math.floor(sx), WIDTH - 2), min(math.floor(sy), HEIGHT - 2)
        fx, fy = sx - left, sy - top
        at = frames[b, :, -1]
        upper = (1 - fx) * at[:, top, left] + fx * at[:, top, left + 1]
        lower = (1 - fx) * at[:, top + 1, left] + fx * at[:, top + 1, left + 1]
        torch.testing.assert_close(found[b, k, :, y, x], (1 - fy) * upper + fy * lower, atol=1e-4, rtol=1e-4)


def test_patches_are_laid_out_as_the_autoencoder_has_them() -> None:
    head, autoencoder = head_of(), PatchAutoencoder(PATCH).eval()
    frames = groups()
    latent = autoencoder.encode_group(frames)
    patches = head._patches(latent)
    assert torch.equal(pictures_of(patches[:, None])[:, 0], frames[:, :, -1])
    many = torch.rand(BATCH, CHUNK, ROWS, COLUMNS, PATCH, PATCH, 3) * 2 - 1
    latents = head._latents(many)
    assert latents.shape == (BATCH, autoencoder.latent_channels, CHUNK // 4, ROWS, COLUMNS)
    decoded = torch.cat([autoencoder.decode_group(group) for group in latents.unbind(2)], dim=2)
    assert torch.equal(decoded.transpose(1, 2), pictures_of(many))


@pytest.mark.parametrize("reference", [True, False])
def test_where_nothing_is_drawn_the_biases_blend(reference: bool) -> None:
    head, autoencoder = head_of(reference), PatchAutoencoder(PATCH).eval()
    for silent in (head.draw.weight, head.vote.weight):
        torch.nn.init.zeros_(silent)
    first, frames = groups(1), groups(2)
    of_reference, last = autoencoder.encode_group(first), autoencoder.encode_group(frames)
    cues = head.cues(robot_of(), random_states(), last)
    answer = torch.randn(BATCH, head.channels, CHUNK // 4, ROWS, COLUMNS)
    blend = head(answer, cues, of_reference, last)
    assert blend.dtype == torch.float32
    found = torch.cat([autoencoder.decode_group(group) for group in blend.unbind(2)], dim=2).transpose(1, 2)
    shares = [math.exp(bias) for bias in (0, COPY_BIAS, FOLLOW_BIAS, 0, 0, 0)[: 5 + reference]]
    expected = shares[1] * frames[:, None, :, -1] + shares[2] * pictures_of(cues.followed)
    if reference:
        expected = expected + shares[-3] * first[:, None, :, -1]
    for place, by in ((-2, ASIDE), (-1, -ASIDE)):
        expected = expected + shares[place] * aside_of(frames, by)[:, None]
    torch.testing.assert_close(found, expected / sum(shares), atol=1e-5, rtol=1e-4)


def test_colours_of_a_pixel_vote_for_its_sources() -> None:
    """Against the sums written out, at some pixels; no patch says anything but how the votes are gated."""
    head, autoencoder = head_of(), PatchAutoencoder(PATCH).eval()
    generator = torch.Generator().manual_seed(3)
    torch.nn.init.zeros_(head.draw.weight)
    with torch.no_grad():
        head.draw.bias[-2 * KEYS :] = torch.randn(2 * KEYS, generator=generator)
        head.vote.weight.normal_(generator=generator)
    first, frames = groups(1), groups(2)
    last = autoencoder.encode_group(frames)
    cues = head.cues(robot_of(), random_states(), last)
    answer = torch.randn(BATCH, head.channels, CHUNK // 4, ROWS, COLUMNS)
    blend = head(answer, cues, autoencoder.encode_group(first), last)
    found = torch.cat([autoencoder.decode_group(group) for group in blend.unbind(2)], dim=2).transpose(1, 2)
    followed = pictures_of(cues.followed)
    scale, shift = head.draw.bias.detach()[-2 * KEYS :].split(KEYS)
    for b, k, y, x in [(0, 0, 3, 4), (0, 3, 7, 11), (1, 5, 0, 0), (1, 7, 4, 6)]:
        still = [frames[b, :, -1, y, x], followed[b, k, :, y, x], first[b, :, -1, y, x]]
        colours = torch.stack([*still, *(aside_of(frames, by)[b, :, y, x] for by in (ASIDE, -ASIDE))])
        gated = []
        for key in range(KEYS):
            seen = head.key.bias[key].item() + sum(
                head.key.weight[key, 3 * s + c].item() * colours[s, c].item() for s in range(5) for c in range(3)
            )
            value = seen * (1 + scale[key].item()) + shift[key].item()
            gated.append(value / (1 + math.exp(-value)))
        biases = [0, COPY_BIAS, FOLLOW_BIAS, 0, 0, 0]
        logits = [
            bias + sum(w * g for w, g in zip(head.vote.weight[s].tolist(), gated, strict=True))
            for s, bias in enumerate(biases)
        ]
        weights = torch.tensor(logits).softmax(0)
        expected = sum(weight * colour for weight, colour in zip(weights[1:], colours, strict=True))
        torch.testing.assert_close(found[b, k, :, y, x], expected, atol=1e-4, rtol=1e-3)


def test_a_frame_is_drawn_from_its_own_features_and_patch() -> None:
    head, autoencoder = head_of(), PatchAutoencoder(PATCH).eval()
    last = autoencoder.encode_group(groups())
    cues = head.cues(robot_of(), random_states(), last)
    answer = torch.randn(BATCH, head.channels, CHUNK // 4, ROWS, COLUMNS)
    assert head.channels == 4 * 6
    other = answer.clone()
    other[1, 2 * 6 : 3 * 6, 1, 0, 2] += 1  # the third frame of the second group: frame 6
    changed = (head(answer, cues, last, last) - head(other, cues, last, last)).abs() > 1e-7
    frames = torch.cat([autoencoder.decode_group(group.float()) for group in changed.unbind(2)], dim=2)
    assert frames[1, :, 6, :PATCH, 2 * PATCH :].any()
    frames[1, :, 6, :PATCH, 2 * PATCH :] = 0
    assert not frames.any()


def test_offsets_move_with_the_hand() -> None:
    head, last = head_of(), PatchAutoencoder(PATCH).encode_group(groups())
    columns, rows = torch.full((BATCH, 1 + CHUNK), 3.3), torch.full((BATCH, 1 + CHUNK), 2.6)
    here = head.cues(robot_of(), states_at(columns, rows), last).offsets
    right = head.cues(robot_of(), states_at(columns + PATCH, rows), last).offsets
    below = head.cues(robot_of(), states_at(columns, rows + PATCH), last).offsets
    assert here.shape == (BATCH, 1 + CHUNK, ROWS, COLUMNS, OFFSETS)
    torch.testing.assert_close(right[:, :, :, 1:], here[:, :, :, :-1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(below[:, :, 1:], here[:, :, :-1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(right, here, atol=0.1)


def test_offsets_are_bumps_on_a_grid() -> None:
    head, last = head_of(), PatchAutoencoder(PATCH).encode_group(groups())
    column, row = 7.4, 1.7
    offsets = head.cues(robot_of(), states_at(torch.tensor([[column, 0]]), torch.tensor([[row, 0]])), last[:1]).offsets

    def bump(offset: float, centre: Tensor, width: float) -> float:
        return math.exp(-((offset - centre.item()) ** 2) / (2 * width**2))

    for i in range(ROWS):
        for j in range(COLUMNS):
            across, down = j + 0.5 - column / PATCH, i + 0.5 - row / PATCH
            grid = [bump(down, r, COARSE_WIDTH) * bump(across, c, COARSE_WIDTH) for r in COARSE for c in COARSE]
            lines = [bump(offset, at, FINE_WIDTH) for offset in (across, down) for at in FINE]
            torch.testing.assert_close(offsets[0, 0, i, j], torch.tensor(grid + lines), atol=1e-4, rtol=1e-4)


def test_cues_as_channels() -> None:
    head, autoencoder = head_of(), PatchAutoencoder(PATCH)
    cues = head.cues(robot_of(), random_states(), autoencoder.encode_group(groups()))
    after, before, followed = head.cue_channels(cues)
    grid = len(COARSE) ** 2
    assert after.shape == (BATCH, 4 * grid, CHUNK // 4, ROWS, COLUMNS)
    assert before.shape == (BATCH, grid, 1, ROWS, COLUMNS)
    assert followed.shape == (BATCH, autoencoder.latent_channels, CHUNK // 4, ROWS, COLUMNS)
    assert head.channels_beside == 5 * grid + autoencoder.latent_channels
    for n in range(CHUNK // 4):
        for frame in range(4):
            expected = cues.offsets[:, 1 + 4 * n + frame, :, :, :grid].permute(0, 3, 1, 2)
            assert torch.equal(after[:, frame * grid : (frame + 1) * grid, n], expected)
        assert torch.equal(before[:, :, 0], cues.offsets[:, 0, :, :, :grid].permute(0, 3, 1, 2))
        frames = pictures_of(cues.followed)[:, 4 * n : 4 * n + 4].transpose(1, 2)
        assert torch.equal(followed[:, :, n], autoencoder.encode_group(frames))


def test_gradients_reach_the_backbone() -> None:
    head, last = head_of(), PatchAutoencoder(PATCH).encode_group(groups())
    cues: HandCues = head.cues(robot_of().requires_grad_(False), random_states(), last)
    answer = torch.zeros(BATCH, head.channels, CHUNK // 4, ROWS, COLUMNS, requires_grad=True)
    head(answer, cues, last, last).square().sum().backward()
    assert answer.grad is not None
    assert answer.grad.any()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())
