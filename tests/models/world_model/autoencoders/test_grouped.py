from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import pixel_unshuffle

from tests.models.world_model.autoencoders.small import clips, small_grouped
from wovr.errors import UserError
from wovr.models.world_model.autoencoders.grouped import GroupedAutoencoder


def groups(count: int = 24, size: int = 32) -> torch.Tensor:
    """(count, 3, 4, size, size), groups of several scenes."""
    return clips(count // 4, 16, size).unflatten(2, (4, 4)).transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize(
    ("widths", "patch", "stride"), [([16, 24], 4, 8), ([16, 16, 16], 4, 16), ([16], 8, 8), ([8, 8, 8], 2, 8)]
)
def test_stride_follows_from_patch_and_grids(widths: list[int], patch: int, stride: int) -> None:
    autoencoder = GroupedAutoencoder(5, patch, widths)
    assert autoencoder.spatial_stride == stride
    assert autoencoder.encode_group(torch.zeros(1, 3, 4, 32, 48)).shape == (1, 5, 32 // stride, 48 // stride)


@torch.no_grad()
def test_linear_path_is_the_principal_components_of_the_data() -> None:
    autoencoder, frames = small_grouped(latent_channels=7), groups()
    for parameter in (*autoencoder.encoder[-1].parameters(), *autoencoder.head[-1].parameters()):
        parameter.zero_()  # the convolutions add nothing
    autoencoder.fit_linear_path(frames)
    latents = autoencoder.encode_group(frames)
    decoded = autoencoder.train().decode_group(latents)

    patches = pixel_unshuffle(frames.flatten(1, 2), 8).permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    centred = patches - patches.mean(0)
    _, singular, _ = np.linalg.svd(centred, full_matrices=False)
    error = (singular[7:] ** 2).sum() / centred.size  # Eckart and Young
    assert (decoded - frames).square().mean().item() == pytest.approx(error, rel=1e-4)
    numbers = latents.transpose(0, 1).flatten(1)
    torch.testing.assert_close(numbers @ numbers.T / numbers.shape[1], torch.eye(7), atol=1e-3, rtol=0)


@torch.no_grad()
def test_linear_path_bears_with_fewer_components_than_channels() -> None:
    autoencoder, frames = small_grouped(latent_channels=20, patch=1, widths=[8]), groups(8, 16)
    autoencoder.fit_linear_path(frames)  # 12 numbers in a pixel of a group, 20 channels
    assert autoencoder.encode_group(frames).isfinite().all()
    still = torch.zeros(2, 3, 4, 16, 16)
    autoencoder.fit_linear_path(still)
    assert (autoencoder.linear_out.weight.abs().max() * autoencoder.linear_in.weight.abs().max()).item() <= 1.01


def test_decoder_copies_from_the_reference() -> None:
    autoencoder = small_grouped()
    latents, reference = torch.randn(2, 6, 4, 4), clips(2, 1)[:, :, 0]
    with torch.no_grad():
        autoencoder.head[-1].bias[12 * 16 :] = 20  # what the gate says
    copied = autoencoder.decode_group(latents, reference)
    torch.testing.assert_close(copied, reference[:, :, None].expand_as(copied), atol=1e-4, rtol=0)
    assert not torch.allclose(autoencoder.decode_group(latents), copied, atol=0.1)
    blind = small_grouped(decoder_reference=False)
    assert blind.uses_reference is False
    assert torch.equal(blind.decode_group(latents, reference), blind.decode_group(latents))


def test_without_a_reference_the_decoded_first_frame_takes_its_place() -> None:
    autoencoder, frames = small_grouped(), clips(2, 9)
    latents = autoencoder.encode(frames)
    decoded = autoencoder.decode(latents)
    first = autoencoder.decode_group(latents[:, :, 0])[:, :, -1]
    torch.testing.assert_close(decoded[:, :, 0], first)
    torch.testing.assert_close(decoded[:, :, 5:], autoencoder.decode_group(latents[:, :, 2], first))


@pytest.mark.parametrize("decoder_reference", [True, False])
def test_twenty_steps_make_it_better(decoder_reference: bool) -> None:
    autoencoder, frames = small_grouped(decoder_reference=decoder_reference).train(), groups()
    reference = frames[:, :, 0].roll(1, 0)
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=2e-3)
    errors = []
    for _ in range(21):
        error = (autoencoder.decode_group(autoencoder.encode_group(frames), reference) - frames).square().mean()
        errors.append(error.item())
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert errors[-1] < 0.7 * errors[0]
    parameters = dict(autoencoder.named_parameters())
    assert [name for name, parameter in parameters.items() if parameter.grad is None] == []


@torch.no_grad()
def test_bfloat16_is_close() -> None:
    autoencoder, frames = small_grouped(), clips(1, 5)
    exact = autoencoder(frames)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = autoencoder(frames)
    assert (mixed.float() - exact).abs().max() < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": []}, "widths is"),
        ({"widths": [16, 20]}, "multiples of 8"),
        ({"latent_channels": 0}, "latent_channels is 0"),
        ({"patch": 0}, "patch 0"),
    ],
)
def test_shapes_that_make_no_network_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_grouped(**changes)
