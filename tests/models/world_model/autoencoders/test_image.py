"""diffusers' `AutoencoderKL`, frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from tests.models.world_model.autoencoders.small import clips
from wovr.errors import UserError
from wovr.models.world_model.autoencoders.image import ImageAutoencoder, pretrained_image


def small(**changes: Any) -> ImageAutoencoder:
    torch.manual_seed(0)
    autoencoder = ImageAutoencoder(**{"widths": [8, 8], "blocks": 1, "norm_groups": 4} | changes).eval()
    autoencoder.latent_norm.set(torch.linspace(-1, 1, 16), torch.linspace(0.5, 2, 16))
    return autoencoder


@torch.no_grad()
def test_every_frame_is_encoded_and_decoded_alone_by_diffusers() -> None:
    autoencoder, frames = small(), clips()
    latents = autoencoder.encode(frames)
    assert latents.shape == (2, 16, 3, 16, 16)
    norm = autoencoder.latent_norm
    for t in range(9):
        group, slot = (0, 3) if t == 0 else ((t + 3) // 4, (t - 1) % 4)
        channels = slice(4 * slot, 4 * slot + 4)
        mean = autoencoder.vae.encode(frames[:, :, t]).latent_dist.mean
        expected = (mean - norm.mean[channels, None, None]) / norm.std[channels, None, None]
        torch.testing.assert_close(latents[:, channels, group], expected, atol=1e-5, rtol=1e-4)
        decoded = autoencoder.vae.decode(mean).sample.clamp(-1, 1)
        torch.testing.assert_close(autoencoder.decode(latents)[:, :, t], decoded, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_first_frame_is_that_of_four_equal_ones() -> None:
    autoencoder, frame = small(), clips(length=1)[:, :, 0]
    still = frame[:, :, None].expand(-1, -1, 4, -1, -1)
    torch.testing.assert_close(autoencoder.encode_first(frame), autoencoder.encode_group(still))


def test_released_weights_in_diffusers_layout(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, block_out_channels=[8, 8],
        layers_per_block=1, norm_num_groups=4, scaling_factor=0.13025,
    )  # type: ignore[arg-type]  # fmt: skip
    theirs.save_pretrained(tmp_path / "vae")
    ours = pretrained_image(str(tmp_path))
    frames = clips(length=1)
    with torch.no_grad():
        mean = theirs.eval().encode(frames[:, :, 0]).latent_dist.mean
        torch.testing.assert_close(ours.encode(frames)[:, :4, 0], 0.13025 * mean)
    assert "tmp" not in str(ours.init_args)
    with pytest.raises(UserError, match="no such folder"):
        pretrained_image(str(tmp_path / "nothing"))


def test_full_size() -> None:
    with torch.device("meta"):
        autoencoder = ImageAutoencoder()
    assert autoencoder.spatial_stride == 8
    assert autoencoder.latent_channels == 16
    assert round(sum(parameter.numel() for parameter in autoencoder.parameters()) / 1e6) == 84


def test_bad_input() -> None:
    with pytest.raises(UserError, match="multiples of 4"):
        small(widths=[6])
    with pytest.raises(UserError, match="takes sides that are multiples of 2"):
        small().encode_group(torch.zeros(1, 3, 4, 9, 8))
    with pytest.raises(UserError, match="takes sides that are multiples of 2"):
        small().encode_first(torch.zeros(1, 3, 9, 8))
