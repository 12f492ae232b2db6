from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands.point_world import write_checkpoint
from tests.models.trust.toys import small_critic, small_reader, small_trust
from tests.models.world_model.tiny_world import pictures
from wovr.errors import UserError
from wovr.models.checkpoint import network_fingerprint
from wovr.models.trust.chunk import SeenChunk
from wovr.models.trust.critic import chunk_pictures, error_of_psnr, frame_error, psnr_of_error
from wovr.models.trust.loading import load_inverse_dynamics, load_trust
from wovr.models.trust.model import Trust
from wovr.models.trust.signals import ActionsReadBack, ExpectedError, Judgement

ROWS = 3


def some_chunk(probability: torch.Tensor | None = None) -> SeenChunk:
    frames = torch.stack([pictures(8, seed=row) for row in range(ROWS)])
    first = torch.stack([pictures(seed=10 + row) for row in range(ROWS)])
    before = torch.stack([pictures(seed=20 + row) for row in range(ROWS)])
    actions = torch.rand(ROWS, 8, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return SeenChunk(first, before, frames, actions, torch.rand(ROWS, 8) if probability is None else probability)


def test_the_error_of_frames_is_that_of_psnr() -> None:
    imagined, real = pictures(2, seed=0), pictures(2, seed=1)
    square = ((imagined.numpy().astype(float) - real.numpy()) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(frame_error(imagined, real), np.sqrt(square), rtol=1e-5)
    psnr = 10 * np.log10(255**2 / square[0])
    assert psnr_of_error(float(np.sqrt(square[0]))) == pytest.approx(psnr)
    assert error_of_psnr(psnr) == pytest.approx(np.sqrt(square[0]))


def test_a_critic_sees_four_pictures_and_the_actions() -> None:
    chunk, critic = some_chunk(), small_critic()
    seen = chunk_pictures(chunk.reference, chunk.before, chunk.frames)
    expected = [chunk.reference, chunk.before, chunk.frames[:, 3], chunk.frames[:, 7]]
    torch.testing.assert_close(seen.unflatten(-1, (4, 3)).movedim(3, 0), torch.stack(expected))
    parts = (chunk.reference, chunk.before, chunk.frames)
    torch.manual_seed(3)  # what the actions do to blocks is neutral at the start
    for name, weight in critic.named_parameters():
        if "film" in name:
            torch.nn.init.normal_(weight, std=0.5)
    found = critic.read(*parts, chunk.actions)
    assert found.shape == (ROWS,)
    alone = critic.read(*(part[1:2] for part in parts), chunk.actions[1:2])
    torch.testing.assert_close(found[1:2], alone, rtol=1e-4, atol=1e-5)
    assert (critic.read(*parts, -chunk.actions) - found).abs().min() > 1e-4


def test_actions_are_read_in_units_of_what_real_frames_give() -> None:
    chunk, network = some_chunk(), small_reader()
    signal = ActionsReadBack(network)
    whole = torch.cat([chunk.before[:, None], chunk.frames], dim=1)
    error = (network.read(whole) - chunk.actions).numpy()
    np.testing.assert_allclose(signal.read(chunk)[:, 0], np.sqrt((error**2).mean((1, 2))), rtol=1e-5)
    signal.set_unit(torch.from_numpy(error[:2]))
    unit = np.sqrt((error[:2] ** 2).mean((0, 1)))
    np.testing.assert_allclose(signal.read(chunk)[:, 0], np.sqrt(((error / unit) ** 2).mean((1, 2))), rtol=1e-5)
    np.testing.assert_allclose(signal.read(chunk)[:2, 0].square().mean(), 1, rtol=1e-5)


def test_a_judgement_is_unsure_near_a_half() -> None:
    probability = torch.tensor([[0.0] * 4 + [0.5] * 4, [0.0, 0.2, 0.6, 1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.8] * 4])
    assert Judgement().read(some_chunk(probability))[:, 0].tolist() == pytest.approx([1.0, 0.0, 0.4])
    with pytest.raises(ValueError, match="no success classifier"):
        Judgement().read(SeenChunk(*(torch.zeros(1, 8, 4, 4, 3) for _ in range(3)), torch.zeros(1, 8, 3)))


def test_trust_adds_its_signals_up() -> None:
    chunk, trust = some_chunk(), small_trust()
    assert trust.names == ["critic", "action_error", "doubt"]
    assert trust.reading is not None
    parts = [ExpectedError(trust.critic), trust.reading, Judgement()]
    signals = torch.cat([part.read(chunk) for part in parts], dim=1)
    torch.testing.assert_close(trust.read(chunk), signals)
    expected = [1 / (1 + np.exp(sum(row) - 2.5)) for row in signals.tolist()]
    assert trust(chunk).tolist() == pytest.approx(expected, rel=1e-4)
    assert Trust(small_critic(), judgement=False).names == ["critic"]


def test_calibration_finds_how_often_a_chunk_is_right() -> None:
    trust = Trust(small_critic(), small_reader())
    random = np.random.default_rng(0)
    signals = random.normal([3.0, 0.5, 0.1], [0.4, 0.2, 0.01], (4000, 3))
    likely = 1 / (1 + np.exp(2 * (signals[:, 0] - 3) / 0.4 + (signals[:, 1] - 0.5) / 0.2 - 1))
    right = random.random(4000) < likely
    trust.calibrate(torch.from_numpy(signals).float(), torch.from_numpy(right))
    found = trust.trust(torch.from_numpy(signals).float())
    assert np.abs(found.numpy() - likely).mean() < 0.02
    assert trust.weight[0] > trust.weight[1] > trust.weight[2] >= 0
    worse = torch.from_numpy(signals).float() + torch.tensor([0.4, 0.0, 0.0])
    assert (trust.trust(worse) < found).all()
    with pytest.raises(ValueError, match="needed"):
        trust.calibrate(torch.zeros(3, 3), torch.ones(3, dtype=torch.bool))


def test_a_checkpoint_gives_it_back(tmp_path: Path) -> None:
    trust, chunk = small_trust(), some_chunk()
    path = write_checkpoint(tmp_path / "trust.ckpt", trust)
    again = load_trust(path, (16, 16))
    torch.testing.assert_close(again(chunk), trust(chunk))
    before = network_fingerprint(path, Trust)
    trust.bias.fill_(0.5)
    assert network_fingerprint(write_checkpoint(path, trust), Trust) != before  # what it was calibrated to counts
    reader = load_inverse_dynamics(str(write_checkpoint(tmp_path / "idm.ckpt", small_reader())))
    assert Trust(small_critic(), reader).names == ["critic", "action_error", "doubt"]
    with pytest.raises(UserError, match=r"idm.ckpt: holds inverse_dynamics, not a trust"):
        load_trust(tmp_path / "idm.ckpt", (16, 16))


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="read actions of 2 dimensions, the critic sees those of 3"):
        Trust(small_critic(), small_reader(2))
    with pytest.raises(ValueError, match="look at 4 frames, a chunk has 2"):
        Trust(small_critic(chunk=2), small_reader(window=4))
    with pytest.raises(ValueError, match="right_psnr is 0"):
        Trust(small_critic(), right_psnr=0)
    with pytest.raises(ValueError, match="two or more multiples of 8"):
        small_critic(channels=[4, 8])
