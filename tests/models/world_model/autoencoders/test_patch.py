from __future__ import annotations

import pytest
import torch

from tests.models.world_model.autoencoders.small import clips
from wovr.errors import UserError
from wovr.functional.images import frames_to_float, frames_to_uint8
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder


@pytest.mark.parametrize("patch", [1, 4, 8, 16])
def test_inverse_is_exact(patch: int) -> None:
    autoencoder, frames = PatchAutoencoder(patch).eval(), clips(2, 13)
    assert torch.equal(autoencoder.decode(autoencoder.encode(frames)), frames)
    latents = autoencoder.encode_group(frames[:, :, 1:5])
    assert torch.equal(autoencoder.encode_group(autoencoder.decode_group(latents)), latents)


def test_every_byte_survives() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).expand(1, 5, 16, 16, 3)
    autoencoder = PatchAutoencoder(8)
    assert torch.equal(frames_to_uint8(autoencoder(frames_to_float(pixels))), pixels)


def test_channels_are_frame_row_column_colour() -> None:
    autoencoder, frames = PatchAutoencoder(8), clips(2, 5)
    latents = autoencoder.encode(frames)[:, :, 1].unflatten(1, autoencoder.channel_shape)  # (B, 4, p, p, 3, h, w)
    for frame, row, column, colour, y, x in ((0, 0, 0, 0, 0, 0), (3, 5, 2, 1, 3, 1), (1, 7, 7, 2, 2, 3)):
        expected = frames[:, colour, 1 + frame, 8 * y + row, 8 * x + column]
        assert torch.equal(latents[:, frame, row, column, colour, y, x], expected)


def test_it_has_no_weights_and_no_use_for_a_reference() -> None:
    autoencoder = PatchAutoencoder(8)
    assert autoencoder.state_dict() == {}
    assert (autoencoder.latent_channels, autoencoder.spatial_stride) == (768, 8)
    assert autoencoder.groupwise
    assert not autoencoder.uses_reference
    assert not autoencoder.worth_caching


def test_pixels_are_clipped_in_evaluation_only() -> None:
    latents = torch.full((1, 12, 2, 2), 1.5)
    assert PatchAutoencoder(1).eval().decode_group(latents).max() == 1
    assert PatchAutoencoder(1).train().decode_group(latents).max() == 1.5


def test_a_patch_without_pixels_is_refused() -> None:
    with pytest.raises(UserError, match="patch is 0"):
        PatchAutoencoder(0)
