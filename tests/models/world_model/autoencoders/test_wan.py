from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.world_model.autoencoders.small import clips, small_wan
from wovr.errors import UserError
from wovr.models.world_model.autoencoders.wan import WanAutoencoder, pretrained_wan


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A pipeline folder in diffusers' layout with a tiny autoencoder that has statistics."""
    vae = small_wan(seed=3).vae
    vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[2.0, 1.0, 0.5, 3.0])
    vae.save_pretrained(tmp_path / "wan" / "vae")
    return tmp_path / "wan"


def test_the_default_is_the_shape_of_wan_22() -> None:
    with torch.device("meta"):
        autoencoder = WanAutoencoder()
    assert sum(parameter.numel() for parameter in autoencoder.parameters()) == pytest.approx(705e6, rel=0.02)
    assert (autoencoder.spatial_stride, autoencoder.latent_channels) == (16, 48)
    assert autoencoder.latent_size((256, 256)) == (16, 16)


@torch.no_grad()
def test_the_network_below_drops_frames_in_silence_and_ours_does_not() -> None:
    autoencoder, frames = small_wan(), clips(1, 12)
    vae = autoencoder.vae
    assert vae.decode(vae.encode(frames).latent_dist.mode()).sample.shape[2] == 9
    with pytest.raises(UserError, match=r"a clip of 12 frames.*; use 9 or 13 frames"):
        autoencoder.encode(frames)


@torch.no_grad()
def test_later_frames_do_not_change_earlier_latents() -> None:
    autoencoder, frames = small_wan(), clips(1, 9)
    torch.testing.assert_close(autoencoder.encode(frames[:, :, :5]), autoencoder.encode(frames)[:, :, :2])


@torch.no_grad()
def test_released_weights_come_with_their_statistics(released: Path) -> None:
    frames = clips(1, 5)
    for folder in (released, released / "vae"):
        autoencoder = pretrained_wan(str(folder))
        raw = autoencoder.vae.encode(frames).latent_dist.mode()
        mean, std = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([2.0, 1.0, 0.5, 3.0])
        expected = (raw - mean[:, None, None, None]) / std[:, None, None, None]
        torch.testing.assert_close(autoencoder.encode(frames), expected)
        torch.testing.assert_close(autoencoder.decode(expected), autoencoder.vae.decode(raw).sample)
    again = small_wan(seed=4, **autoencoder.init_args)  # a checkpoint needs numbers only to make it again
    again.load_state_dict(autoencoder.state_dict())
    torch.testing.assert_close(again.encode(frames), autoencoder.encode(frames))


def test_folders_that_hold_something_else_are_refused(released: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        pretrained_wan(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"holds no config\.json"):
        pretrained_wan(str(tmp_path))
    weights = released / "vae" / "diffusion_pytorch_model.safetensors"
    whole = load_file(weights)
    save_file({name: whole[name] for name in sorted(whole)[1:]}, weights)
    with pytest.raises(UserError, match=r"1 weights are missing, unexpected or of another shape, e\.g\. 'decoder"):
        pretrained_wan(str(released))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        pretrained_wan(str(released))
    weights.unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        pretrained_wan(str(released))


def test_statistics_must_fit(released: Path) -> None:
    config = released / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"latents_std": [1.0, 0.0, 1.0, 1.0]}))
    with pytest.raises(UserError, match="latents_mean and latents_std are not 4 numbers each"):
        pretrained_wan(str(released))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim_mult": [1, 1, 2]}, "make its last two numbers equal"),
        ({"temporal_downsample": [False, True]}, "give 2 values of which two are true"),
        ({"temporal_downsample": [True, True, False]}, "3 numbers in dim_mult; give 2 values"),
    ],
)
def test_shapes_that_make_no_network_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_wan(**changes)


@pytest.mark.parametrize("changes", [{"base_dim": 1 << 16}, {"z_dim": 1 << 26}, {"num_res_blocks": 100_000}])
def test_a_configuration_larger_than_its_weights_is_refused_before_it_is_built(released: Path, changes: dict) -> None:
    path = released / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match="cannot be loaded: its arguments make a network larger than the weights"):
        pretrained_wan(str(released))
