from __future__ import annotations

import pytest
import torch

from tests.models.world_model.autoencoders.small import clips, small_grouped, small_wan
from wovr.errors import UserError
from wovr.models.world_model.autoencoders.base import Autoencoder, LatentNorm
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder


@pytest.fixture(params=[lambda: PatchAutoencoder(8), small_grouped, small_wan], ids=["patch", "grouped", "wan"])
def autoencoder(request: pytest.FixtureRequest) -> Autoencoder:
    return request.param()


@torch.no_grad()
def test_shapes_are_those_of_the_contract(autoencoder: Autoencoder) -> None:
    for length in (1, 5, 13):
        frames = clips(1, length)
        latents = autoencoder.encode(frames)
        assert latents.shape == (1, autoencoder.latent_channels, 1 + length // 4, *autoencoder.latent_size((32, 32)))
        decoded = autoencoder.decode(latents)
        assert decoded.shape == frames.shape
        assert decoded.abs().max() <= 1
        torch.testing.assert_close(autoencoder(frames), decoded)


@pytest.mark.parametrize("length", [4, 8, 12])
def test_only_a_first_frame_and_groups_of_four_are_taken(autoencoder: Autoencoder, length: int) -> None:
    with pytest.raises(UserError, match=f"a clip of {length} frames.*; use {length - 3} or {length + 1} frames"):
        autoencoder.encode(torch.zeros(1, 3, length, 32, 32))


def test_sides_must_be_multiples_of_the_stride(autoencoder: Autoencoder) -> None:
    with pytest.raises(UserError, match=r"images are 32 x 36, .* multiples of 8"):
        autoencoder.encode(torch.zeros(1, 3, 5, 32, 36))


def test_latents_of_another_autoencoder_are_refused(autoencoder: Autoencoder) -> None:
    with pytest.raises(UserError, match=r"latents have 5 channels.*; use the autoencoder that made them"):
        autoencoder.decode(torch.zeros(1, 5, 2, 4, 4))


@torch.no_grad()
def test_groupwise_latents_depend_on_their_own_frames_alone(autoencoder: Autoencoder) -> None:
    frames = clips(2, 13)
    changed = frames.clone()
    changed[:, :, 5:9] = torch.rand_like(changed[:, :, 5:9])  # the second group
    before, after = autoencoder.encode(frames), autoencoder.encode(changed)
    same = (before == after).all(dim=(0, 1, 3, 4)).tolist() if autoencoder.groupwise else None
    if not autoencoder.groupwise:
        assert not torch.equal(before[:, :, 3], after[:, :, 3])
        for method, argument in (
            (autoencoder.encode_first, frames[:, :, 0]),
            (autoencoder.encode_group, frames[:, :, 1:5]),
            (autoencoder.decode_group, before[:, :, 1]),
        ):
            with pytest.raises(UserError, match=f"WanAutoencoder has no {method.__name__}"):
                method(argument)
        return
    assert same == [True, True, False, True]
    torch.testing.assert_close(autoencoder.encode_first(frames[:, :, 0]), before[:, :, 0])
    torch.testing.assert_close(autoencoder.encode_group(frames[:, :, 9:]), before[:, :, 3])
    decoded = autoencoder.decode(before, frames[:, :, 0])
    torch.testing.assert_close(autoencoder.decode_group(before[:, :, 3], frames[:, :, 0]), decoded[:, :, 9:])


def test_running_statistics_are_the_mean_over_batches() -> None:
    torch.manual_seed(0)
    norm = LatentNorm(3)
    batches = torch.randn(40, 8, 3, 5, 5) * torch.tensor([1.0, 4.0, 0.1])[:, None, None] + 2
    for batch in batches:
        norm.update(batch)
    numbers = batches.transpose(1, 2).transpose(0, 1).flatten(1)  # (3, all)
    torch.testing.assert_close(norm.mean, numbers.mean(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(norm.std, numbers.std(1), atol=0, rtol=1e-2)
    normalised = norm.normalise(batches.flatten(0, 1))
    torch.testing.assert_close(normalised.std(dim=(0, 2, 3)), torch.ones(3), atol=0.02, rtol=0)
    torch.testing.assert_close(norm.denormalise(normalised), batches.flatten(0, 1))


def test_running_statistics_follow_a_moving_encoder() -> None:
    norm = LatentNorm(1, horizon=10)
    for step in range(100):
        norm.update(torch.tensor([[-1.0], [1.0]]) * (1 if step < 40 else 3))
    assert norm.std.item() == pytest.approx(3, rel=0.01)


def test_a_channel_that_never_changes_does_not_blow_up() -> None:
    norm = LatentNorm(1)
    norm.update(torch.full((4, 1, 2, 2), 5.0))
    assert norm.normalise(torch.full((1, 1), 5.0)).item() == 0


def test_statistics_may_change_between_forward_and_backward() -> None:
    norm, latents = LatentNorm(2), torch.randn(4, 2, requires_grad=True)
    out = norm.normalise(latents).square().sum()
    norm.update(latents)
    out.backward()
    torch.testing.assert_close(latents.grad, 2 * latents.detach())


def test_a_channel_that_was_constant_in_training_is_not_blown_up_later() -> None:
    norm = LatentNorm(2)
    latents = torch.zeros(4, 2, 3, 8, 8)
    latents[:, 1] = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        norm.update(latents)
    assert norm.normalise(latents + 0.1)[:, 0].abs().max() < 11
