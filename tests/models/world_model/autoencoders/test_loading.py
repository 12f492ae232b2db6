from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.policies.small import small_policy
from tests.models.world_model.autoencoders.small import clips, small_grouped, small_wan
from wovr.errors import UserError
from wovr.models.checkpoint import KEY, Network, fingerprint_of, record
from wovr.models.world_model.autoencoders.loading import autoencoder_fingerprint, check_autoencoder, load_autoencoder
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder


def save(path: Path, network: Network) -> Path:
    state = {f"net.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, KEY: record({"net": network}, {})}, path)
    return path


MAKERS = {"patch": lambda: PatchAutoencoder(4), "grouped": small_grouped, "wan": small_wan}


@pytest.mark.parametrize("name", MAKERS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    autoencoder = MAKERS[name]().eval()
    if hasattr(autoencoder, "latent_norm"):
        autoencoder.latent_norm.update(torch.randn(4, autoencoder.latent_channels, 2, 2) * 3)
    path = save(tmp_path / "a.ckpt", autoencoder)
    loaded = load_autoencoder(path)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded.encode(clips(1, 5)), autoencoder.encode(clips(1, 5)))
    assert autoencoder_fingerprint(path) == fingerprint_of(autoencoder) == fingerprint_of(loaded)
    check_autoencoder(loaded, autoencoder_fingerprint(path), "x")


def test_another_autoencoder_is_noticed(tmp_path: Path) -> None:
    one, other = small_grouped(), small_grouped(seed=1)
    fingerprints = {fingerprint_of(a) for a in (one, other, small_grouped(widths=[16]), PatchAutoencoder(4))}
    assert len(fingerprints) == 4
    before = fingerprint_of(one)
    one.latent_norm.set(torch.ones(6), torch.ones(6))
    assert fingerprint_of(one) != before
    with pytest.raises(UserError, match=rf"wm\.ckpt: made with autoencoder {before}, this Grouped"):
        check_autoencoder(one, before, "wm.ckpt")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds policy, not a autoencoder"):
        load_autoencoder(save(tmp_path / "p.ckpt", small_policy()))
