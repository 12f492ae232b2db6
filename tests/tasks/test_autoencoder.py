from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import alexnet

from tests.data.synthetic import write_dataset
from tests.models.world_model.autoencoders.small import clips, small_grouped, small_wan
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore
from wovr.data.training.world_model import WorldModelBatch
from wovr.errors import UserError
from wovr.functional.images import frames_to_float, frames_to_uint8
from wovr.metrics.networks import weights as metric_weights
from wovr.models.world_model.autoencoders.base import Autoencoder
from wovr.models.world_model.autoencoders.grouped import GroupedAutoencoder
from wovr.models.world_model.autoencoders.loading import load_autoencoder
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.tasks import autoencoder as task
from wovr.tasks.autoencoder import AutoencoderTraining

CONFIG = Path(__file__).resolve().parents[2] / "conf" / "ae.yaml"

Fit = Callable[..., int]


def make_batch(count: int = 4, length: int = 9, size: int = 32) -> WorldModelBatch:
    frames = frames_to_uint8(clips(count, length, size))
    nothing = torch.zeros(count, length - 1, 4)
    return WorldModelBatch(
        frames,
        nothing,
        nothing[..., 0] > 0,
        torch.zeros(count),
        [""] * count,
        torch.zeros(count, length - 1, 0),
        length - 5,
    )


def quiet(autoencoder: Autoencoder, **options: Any) -> AutoencoderTraining:
    module = AutoencoderTraining(autoencoder, **options)
    module.logged = {}  # type: ignore[assignment]
    module.log_dict = lambda metrics, **kwargs: module.logged.update(metrics)  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize(("loss", "moving_weight"), [("mse", 0.0), ("mse", 3.0), ("l1", 0.5)])
def test_loss_is_the_weighted_error_of_groups_and_first_frames(loss: str, moving_weight: float) -> None:
    autoencoder, batch = small_grouped().train(), make_batch()
    module = quiet(autoencoder, loss=loss, moving_weight=moving_weight, first_fraction=0.3)  # 2 of 4
    found = module.training_step(batch, 0)

    autoencoder.latent_norm.set(torch.zeros(6), torch.ones(6))
    frames = frames_to_float(batch.frames)
    total, count = 0.0, 0
    for i in range(4):
        reference = frames[i : i + 1, :, 0]
        still = reference[:, :, None].expand(-1, -1, 4, -1, -1)
        parts = [(frames[i : i + 1, :, 1:5], reference), (frames[i : i + 1, :, 5:], reference)]
        for target, shown in [*parts, *([(still, None)] if i < 2 else [])]:
            output = autoencoder.decode_group(autoencoder.encode_group(target), shown)
            error = (output - target).abs()
            weight = 1 + moving_weight * (target - reference[:, :, None]).abs().max(1, keepdim=True).values
            total += (weight * (error if loss == "l1" else error**2)).sum().item()
            count += target.numel()
    assert found.item() == pytest.approx(total / count, rel=1e-4)


def test_quality_is_in_decibels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels that moved are decoded wrong by 0.02, all others by 0.2, whatever the network would say."""
    module, batch = quiet(small_grouped()), make_batch()
    frames = frames_to_float(batch.frames)
    groups = torch.stack([frames[:, :, 1:5], frames[:, :, 5:]], 1).flatten(0, 1)  # (B * 2, 3, 4, H, W)
    difference = (groups - frames[:, :, :1].repeat_interleave(2, 0)).abs().amax(1, keepdim=True)
    decoded = groups - torch.where(difference > 0.15, 0.02, 0.2) * groups.sign()  # stays inside [-1, 1]

    def decode(latents: Tensor, reference: Tensor | None) -> Tensor:
        return decoded[:1] if reference is None else decoded

    monkeypatch.setattr(module.autoencoder, "decode_group", decode)
    module.validation_step(batch, 0)
    assert module.logged["val/moved_psnr"].item() == pytest.approx(40, abs=0.01)  # 20 log10(2 / 0.02)
    per_group = 10 * torch.log10(4 / (decoded - groups).square().flatten(1).mean(1))
    assert module.logged["val/psnr"].item() == pytest.approx(per_group.mean().item(), abs=0.001)


def test_statistics_follow_the_latents_in_training_only() -> None:
    autoencoder, batch = small_grouped(), make_batch()
    module = quiet(autoencoder)
    frames = frames_to_float(batch.frames)
    raw = autoencoder.encode(frames)
    module.eval().validation_step(batch, 0)
    assert autoencoder.latent_norm.batches == 0
    module.train().training_step(batch, 0).backward()
    latents = torch.cat([raw[:, :, 1:].transpose(1, 2).flatten(0, 1), raw[:1, :, 0]])  # groups, and one first frame
    torch.testing.assert_close(autoencoder.latent_norm.mean, latents.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(autoencoder.latent_norm.std, latents.std((0, 2, 3), correction=0), atol=1e-4, rtol=1e-3)


def test_noise_is_on_the_latents_in_training_only() -> None:
    batch = make_batch()

    def loss(noise: float, training: bool) -> Tensor:
        module = quiet(small_grouped(), latent_noise=noise)
        module.autoencoder.fit_linear_path(frames_to_float(batch.frames)[:, :, 1:5])
        return module.train(training)._step(batch, "val")[0]

    assert loss(1.0, True) > 1.2 * loss(0.0, True)
    assert loss(1.0, False) == loss(0.0, False)


def test_an_autoencoder_that_looks_back_in_time_is_trained_on_whole_clips() -> None:
    autoencoder, batch = small_wan(), make_batch(2)
    module = quiet(autoencoder, moving_weight=0.0)
    loss = module.training_step(batch, 0)
    loss.backward()
    autoencoder.latent_norm.set(torch.zeros(4), torch.ones(4))
    frames = frames_to_float(batch.frames)
    assert loss.item() == pytest.approx((autoencoder(frames) - frames).square().mean().item(), rel=1e-4)
    assert all(parameter.grad is not None for parameter in autoencoder.parameters())


def test_perceptual_term(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kept = {f"features.{name}": value for name, value in alexnet().features.state_dict().items()}
    torch.save(kept, tmp_path / "alex.pth")
    monkeypatch.setattr(task, "checked_weights", lambda *arguments: tmp_path / "alex.pth")
    batch = make_batch(2, 5, 64)
    plain = quiet(small_grouped())
    module = quiet(small_grouped(), perceptual_weight=0.5)
    assert plain.state_dict().keys() == module.state_dict().keys()
    before = plain.training_step(batch, 0)
    after = module.training_step(batch, 0)
    assert module.logged["train/lpips"] > 0
    torch.testing.assert_close(after, before + 0.5 * module.logged["train/lpips"])
    (after - before.detach()).backward()
    assert module.autoencoder.encoder[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: PatchAutoencoder(8), {}, "PatchAutoencoder has no weights to train"),
        (small_grouped, {"moving_weight": -1.0}, "moving_weight is -1"),
        (small_grouped, {"latent_noise": float("nan")}, "latent_noise is nan"),
        (small_grouped, {"first_fraction": 0.0}, "first_fraction is 0"),
        (small_grouped, {"perceptual_weight": 1.0}, r"alexnet-owt-7be5be79\.pth: missing .*perceptual_weight 0"),
    ],
)
def test_bad_options(
    make: Callable[[], Autoencoder], options: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(metric_weights.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match=message):
        AutoencoderTraining(make(), **options)


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """`fit(out, *flags)` runs the verb with conf/ae.yaml made small, and returns the exit status."""
    monkeypatch.chdir(tmp_path)
    write_dataset(Path("data"), shards=2, episodes=4, num_frames=14)
    small = {
        "model.autoencoder.init_args.latent_channels": 8, "model.autoencoder.init_args.widths": [16, 16],
        "model.warmup_steps": 2, "data.val_fraction": 0.25, "data.val_windows": 4, "trainer.max_steps": 12,
        "trainer.val_check_interval": 6, "trainer.log_every_n_steps": 1, "trainer.accelerator": "cpu",
        "save_every_n_steps": 4,
    }  # fmt: skip

    def run(out: str, *flags: str) -> int:
        options = [f"--{name}={value}" for name, value in small.items()]
        return main(["fit", "--config", str(CONFIG), "--data.folder=data", "--out", out, *options, *flags])

    return run


def test_the_configuration_trains_an_autoencoder(fit: Fit) -> None:
    assert fit("run") == 0
    metrics = json.loads(Path("run/metrics.json").read_text())["metrics"]
    assert metrics["val/psnr"] > 15
    autoencoder = load_autoencoder(Path("run/checkpoints/last.ckpt"))
    assert isinstance(autoencoder, GroupedAutoencoder)
    assert autoencoder.latent_norm.batches == 12
    frames = frames_to_float(torch.from_numpy(EpisodeStore("data").frames(0, 0, 13))[None])
    with torch.no_grad():
        latents = autoencoder.encode(frames)
        assert 0.5 < latents.std() < 2
        error = (autoencoder.decode(latents, frames[:, :, 0]) - frames).square().mean()
    assert 10 * torch.log10(4 / error) > 15
    # From another checkpoint, through a function that stands where a class would; it is not started anew.
    flags = (
        "--model.autoencoder",
        "wovr.models.world_model.autoencoders.loading.load_autoencoder",
        "--trainer.max_steps",
        "1",
    )
    assert fit("more", *flags, "--model.autoencoder.init_args.checkpoint", "run/checkpoints/last.ckpt") == 0
    again = load_autoencoder(Path("more/checkpoints/last.ckpt"))
    assert again.init_args == autoencoder.init_args
    assert again.latent_norm.batches == 13


class Killed(Exception):
    """Stands for the end of the process."""


def test_stopping_and_going_on_is_the_same_as_never_stopping(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit("straight") == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        step = AutoencoderTraining.training_step

        def die(module: AutoencoderTraining, batch: WorldModelBatch, batch_idx: int) -> Tensor:
            if module.global_step == 6:
                raise Killed
            return step(module, batch, batch_idx)

        patch.setattr(AutoencoderTraining, "training_step", die)
        fit("stopped")
    assert not Path("stopped/DONE").exists()
    assert fit("stopped") == 0
    one, other = (load_autoencoder(Path(run, "checkpoints/last.ckpt")) for run in ("straight", "stopped"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_pictures_that_do_not_fit_are_refused(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("run", "--model.autoencoder.init_args.widths=[8, 8, 8, 8, 8]") == 2
    assert "images are 32 x 32, GroupedAutoencoder takes sides that are multiples of 64" in capsys.readouterr().err
