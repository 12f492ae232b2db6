from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule

from tests.data.synthetic import write_dataset
from tests.models.world_model.tiny_world import linear_world, pictures, random_actions, tiny_world
from wovr.cli import main
from wovr.functional.flow import bell_weight
from wovr.functional.images import frames_to_float
from wovr.models.checkpoint import KEY, load_network
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination
from wovr.tasks.world_model.training import NoiseDraw, WorldModelTraining

BACKBONE = {
    "class_path": "wovr.models.world_model.backbones.wan.WanBackbone",
    "init_args": {
        "in_channels": 768, "out_channels": 1280, "action_dim": 4, "patch": 1, "heads": 2, "head_dim": 12, "layers": 2,
        "ffn_dim": 48, "frequencies": 16,
    },
}  # fmt: skip
WORLD = {
    "class_path": "wovr.models.world_model.model.WorldModel",
    "init_args": {
        "autoencoder": {"class_path": "wovr.models.world_model.autoencoders.patch.PatchAutoencoder"},
        "backbone": BACKBONE,
        "prediction": "data",
        "head": "copy",
        "noisy_context": [0.0, 0.2],
    },
}
CONFIG: dict[str, Any] = {
    "save_every_n_steps": 2,
    "model": {
        "class_path": "wovr.tasks.world_model.training.WorldModelTraining",
        "init_args": {
            "world_model": WORLD,
            "warmup_steps": 2,
            "ema_decay": 0.5,
            "augmentations": [{"class_path": "wovr.tasks.robot.ghosting.Ghosting", "init_args": {"share": 0.5}}],
            "huber_scale": [1.0, 0.1],
        },
    },
    "data": {
        "class_path": "wovr.data.training.world_model.WorldModelData",
        "init_args": {"batch_size": 4, "val_fraction": 0.25, "val_windows": 8, "start_fraction": 0.2},
    },
    "trainer": {
        "accelerator": "cpu", "max_steps": 8, "val_check_interval": 4, "check_val_every_n_epoch": None,
        "log_every_n_steps": 1, "gradient_clip_val": 1.0,
    },
}  # fmt: skip

Fit = Callable[..., int]


def draw_of(batch: int, channels: int = 768) -> NoiseDraw:
    generator = torch.Generator().manual_seed(7)
    return NoiseDraw(
        sigma=torch.tensor([0.1, 0.5, 0.95])[:batch],
        noise=torch.randn(batch, channels, 2, 2, 2, generator=generator),
        memory_sigma=torch.tensor([0.0, 0.1, 0.2])[:batch],
        memory_noise=torch.randn(batch, channels, 1, 2, 2, generator=generator),
    )


@pytest.mark.parametrize("prediction", ["velocity", "data"])
@pytest.mark.parametrize(
    ("weighting", "huber_scale"), [("uniform", None), ("bell", None), ("uniform", 0.5), ("bell", 2.0)]
)
def test_the_loss_is_equation_7(prediction: str, weighting: Any, huber_scale: float | None) -> None:
    """Against the equation in numpy, one window at a time; the backbone's answer alone is taken from the model."""
    world = linear_world(prediction=prediction)
    floor = 0.3 if prediction == "data" else None
    task = WorldModelTraining(world, weighting=weighting, sigma_floor=floor)
    frames, actions = pictures(3, 13), random_actions(3, 12)
    known = torch.ones(3, 12, dtype=torch.bool)
    window = world.encode_window(frames, actions, known, torch.tensor([8, 8, 8]))
    draw = draw_of(3)
    losses = task.losses(window, draw, huber_scale)
    clean = world.autoencoder.encode(frames_to_float(frames)).numpy()  # [reference, memory, new, new]
    for b in range(3):
        sigma, noise = draw.sigma[b].item(), draw.noise[b].numpy()
        level = draw.memory_sigma[b].item()
        memory = (1 - level) * clean[b, :, 1:2] + level * draw.memory_noise[b].numpy()
        noisy = (1 - sigma) * clean[b, :, 2:] + sigma * noise
        shown = torch.from_numpy(np.concatenate([clean[b, :, :1], memory, noisy], axis=1)[None]).float()
        neutral = torch.tensor([0.0, 0.0, -1.0]).expand(1, 4, -1)
        time = torch.tensor([[0.0, 0.0, sigma, sigma]])
        with torch.no_grad():
            answer = world.backbone(shown, time, torch.cat([neutral, actions[b : b + 1]], dim=1))[0].numpy()
        velocity = answer if prediction == "velocity" else (noisy - answer) / sigma
        error = velocity - (noise - clean[b, :, 2:])
        if prediction == "data":
            error = error * sigma / max(sigma, 0.3)  # the floor
        if huber_scale is None:
            expected = np.mean(error**2)
        else:
            expected = np.mean(2 * huber_scale**2 * (np.hypot(error / huber_scale, 1) - 1))
        if weighting == "bell":
            expected *= bell_weight(draw.sigma[b], 5.0).item()
        assert losses[b].item() == pytest.approx(expected, rel=2e-4)


def test_training_goes_from_squares_to_sizes_and_validation_counts_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    task = WorldModelTraining(tiny_world(), huber_scale=[2.0, 0.5])
    task._trainer = SimpleNamespace(estimated_stepping_batches=100)  # type: ignore[assignment]
    scales = [task.huber_scale_at(step) for step in (0, 50, 100, 101)]
    assert scales == pytest.approx([2.0, 1.0, 0.5, 0.5])
    assert WorldModelTraining(tiny_world()).huber_scale_at(7) is None
    used: list[float | None] = []

    def losses(window: Any, draw: Any, huber_scale: float | None = None) -> torch.Tensor:
        used.append(huber_scale)
        return torch.ones(2)

    monkeypatch.setattr(task, "losses", losses)
    monkeypatch.setattr(task, "_encode", lambda batch: None)
    monkeypatch.setattr(task, "draw", lambda *args: SimpleNamespace(sigma=torch.tensor([0.2, 0.8])))
    for name in ("log", "log_metrics"):
        monkeypatch.setattr(task, name, lambda *args, **words: None)
    monkeypatch.setattr(WorldModelTraining, "global_step", 50)
    task.training_step(None, 0)  # type: ignore[arg-type]
    task.validation_step(None, 0)  # type: ignore[arg-type]
    assert used == [pytest.approx(1.0), None]


def test_levels_are_uniform_before_the_shift_and_spread_over_a_batch() -> None:
    world = tiny_world(noisy_context=[0.1, 0.3])
    task = WorldModelTraining(world)
    window = world.encode_window(
        pictures(8, 13), random_actions(8, 12), torch.ones(8, 12, dtype=torch.bool), torch.zeros(8)
    )
    torch.manual_seed(0)
    draws = [task.draw(window) for _ in range(300)]
    sigma = torch.stack([draw.sigma for draw in draws])
    before = sigma / (5 - 4 * sigma)
    assert torch.equal((before * 8).floor().sort(dim=1).values, torch.arange(8.0).expand(300, -1))
    assert (before.mean(0) - 0.5).abs().max() < 0.06  # no place of the batch has levels of its own
    memory = torch.stack([draw.memory_sigma for draw in draws])
    assert 0.1 <= memory.min() < 0.102
    assert 0.298 < memory.max() <= 0.3


def test_a_share_of_pure_noise() -> None:
    task = WorldModelTraining(tiny_world())
    torch.manual_seed(0)
    window = SimpleNamespace(new=torch.zeros(400, 1), context=SimpleNamespace(latents=torch.zeros(400, 1, 2, 1, 1)))
    sigma = task.draw(window, 0.75).sigma  # type: ignore[arg-type]
    assert 0.65 < (sigma == 1).float().mean() < 0.85
    assert sigma.min() < 0.5


def test_one_clip_is_learnt_by_heart() -> None:
    world = tiny_world(alive=False, noisy_context=0.1, backbone={"heads": 4, "ffn_dim": 96})
    task = WorldModelTraining(world)
    x, y = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="xy")
    moving = [((x - 2 - i) ** 2 + (y - 8) ** 2 < 9).byte() * 200 for i in range(13)]
    frames = torch.stack(moving)[None, ..., None].expand(1, -1, -1, -1, 3).contiguous()
    actions, known = random_actions(1, 12), torch.ones(1, 12, dtype=torch.bool)
    window = world.encode_window(*(v.expand(8, *v.shape[1:]) for v in (frames, actions, known)), torch.full((8,), 4))
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(world.backbone.parameters(), lr=3e-3)
    world.train()
    first = None
    for _ in range(120):
        loss = task.losses(window, task.draw(window)).mean()
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * first
    imagination = Imagination(world)
    imagination.start(frames[:, 0], frames[:, 1:5], actions[:, :4])
    error = (imagination.step(actions[:, 4:]).float() - frames[:, 5:].float()) / 255
    copied = (frames[:, 4:5].float() - frames[:, 5:].float()) / 255
    assert -10 * error.square().mean().log10() > 10 - 10 * copied.square().mean().log10()  # 10 dB above copying


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("episodes"), shards=1, episodes=8, num_frames=14, size=(16, 16))


@pytest.fixture
def fit(tmp_path: Path, episodes: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """`fit(out, *flags)` runs the verb in an empty working folder and returns the exit status."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(out: str, *flags: str) -> int:
        return main(["fit", "--config", "tiny.yaml", f"--data.folder={episodes}", "--out", out, *flags])

    return run


def checkpoint(out: str) -> dict[str, Any]:
    return torch.load(Path(out) / "checkpoints" / "last.ckpt", weights_only=True)


def test_a_run_leaves_averaged_weights_and_says_so(
    fit: Fit, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "backbone.transformer.proj_out.weight"
    after: list[torch.Tensor] = []  # each step
    monkeypatch.setattr(
        WorldModelTraining,
        "on_train_batch_end",
        lambda self, *_: after.append(self.world_model.state_dict()[name].clone()),
    )
    assert fit("run") == 0
    assert "warn" not in capfd.readouterr().err.lower()
    saved = checkpoint("run")
    assert saved[KEY]["weights"] == "averaged"
    assert len(saved[KEY]["data"]["held_out"]) == 2

    average = after[0]
    for count, weights in enumerate(after[1:], start=1):
        average = torch.lerp(average, weights, 1 - min(0.5, (1 + count) / (20 + count)))
    world = load_network(Path("run/checkpoints/last.ckpt"), WorldModel)
    torch.testing.assert_close(world.state_dict()[name], average)
    assert not torch.allclose(average, after[-1])
    assert (world.prediction, world.training) == ("data", False)

    metrics = json.loads(Path("run/metrics.json").read_text())["metrics"]
    assert {"train/loss", "train/gradient_norm", "val/loss", "val/loss_noise_1", "val/loss_noise_4"} <= metrics.keys()
    assert np.isfinite(list(metrics.values())).all()


def test_cached_latents_train_the_same_model(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    grouped = {"class_path": "wovr.models.world_model.autoencoders.grouped.GroupedAutoencoder",
               "init_args": {"latent_channels": 8, "patch": 4, "widths": [8, 8]}}  # fmt: skip
    world = {
        **{"prediction": "velocity", "head": "linear", "autoencoder": grouped},
        "backbone": {**BACKBONE, "init_args": {**BACKBONE["init_args"], "in_channels": 8, "out_channels": 8}},
    }
    config = {**CONFIG, "model": {**CONFIG["model"], "init_args": {"world_model": {**WORLD, "init_args": world}}}}
    Path("grouped.yaml").write_text(yaml.safe_dump(config))
    used: list[bool] = []
    encode = WorldModel.encode_window

    def spy(self: WorldModel, *arguments: Any) -> Any:
        used.append(arguments[4] is not None)
        return encode(self, *arguments)

    monkeypatch.setattr(WorldModel, "encode_window", spy)
    flags = ["--config", "grouped.yaml", "--trainer.max_steps", "2", "--trainer.val_check_interval", "2"]
    assert fit("as_they_come", *flags) == 0
    assert not any(used)
    used.clear()
    assert fit("cached", *flags, "--model.init_args.cache_latents", "true") == 0
    assert all(used)
    one, other = checkpoint("as_they_come")["state_dict"], checkpoint("cached")["state_dict"]
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=1e-4, rtol=1e-2)  # latents are kept in float16


class Killed(Exception):
    """Stands for the end of the process."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    def die(self: LightningModule, optimizer: Any) -> None:
        if self.global_step == step:
            raise Killed

    monkeypatch.setattr(WorldModelTraining, "on_before_optimizer_step", die)


MUON = ("--model.init_args.muon_lr", "1e-3", "--model.init_args.pure_noise_share", "0.5")


@pytest.mark.parametrize("flags", [(), MUON])
def test_a_killed_run_resumes_as_if_it_had_never_stopped(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    assert fit("whole", *flags) == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 5)
        fit("killed", *flags)
    assert checkpoint("killed")["global_step"] == 4
    assert fit("killed", *flags) == 0
    one, other = checkpoint("whole"), checkpoint("killed")
    for key in ("state_dict", "current_model_state"):
        assert one[key].keys() == other[key].keys()
        assert all(torch.equal(value, other[key][name]) for name, value in one[key].items())
    metrics = [json.loads(Path(out, "metrics.json").read_text())["metrics"] for out in ("whole", "killed")]
    assert metrics[0] == metrics[1]


def test_a_refit_begins_with_the_weights_of_the_first(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit("first", "--trainer.max_steps", "3", "--model.init_args.ema_decay", "null") == 0
    assert checkpoint("first")[KEY]["weights"] == "last"
    begun: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(WorldModelTraining, "on_train_start", lambda self: begun.append(self.world_model.state_dict()))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 0)
        fit("refit", "--init_from", "first/checkpoints/last.ckpt")
    first = checkpoint("first")["state_dict"]
    assert all(torch.equal(value, first[f"world_model.{name}"]) for name, value in begun[0].items())


def test_compiling_leaves_names_and_numbers_alone(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without inductor, which takes a minute: what is tested is what we do with torch.compile.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    compiled: list[Any] = []
    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: (compiled.append(self), original(self)))
    flags = ["--trainer.max_steps", "1", "--data.val_fraction", "0"]
    assert fit("plain", *flags) == 0
    assert not compiled
    assert fit("compiled", *flags, "--model.init_args.compile", "true") == 0
    assert [type(part).__name__ for part in compiled] == ["WanBlock", "WanBlock", "CopyHead"]
    one, other = checkpoint("plain")["state_dict"], checkpoint("compiled")["state_dict"]
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.chunk", "4"], "chunk is 8 in the model and 4 in the data; set data.chunk to 8"),
        (["--data.memory", "8"], "memory is 4 in the model and 8 in the data; set data.memory to 4"),
        (["--data.chunk", "13", "--data.skip_short", "true"], "chunk is 8 in the model and 13 in the data"),
        (["--data.chunk", "14"], "14 frames, a window needs 15"),
        (["--model.init_args.sigma_floor", "0"], "sigma_floor is 0.0 with prediction data"),
        (["--model.init_args.huber_scale", "[1, 0]"], "huber_scale is [1.0, 0.0]; give [first, last] above 0, falling"),
        (
            ["--model.init_args.huber_scale", "[0.1, 1]"],
            "huber_scale is [0.1, 1.0]; give [first, last] above 0, falling",
        ),
        (["--model.init_args.huber_scale", "[1]"], "huber_scale is [1.0]; give [first, last] above 0, falling"),
        (["--model.init_args.ema_decay", "1"], "ema_decay is 1.0"),
        (["--model.init_args.pretrained", "nowhere"], "nowhere: no config.json"),
        (
            ["--model.init_args.world_model.init_args.backbone.init_args.out_channels", "768"],
            "set backbone.init_args.out_channels to null",
        ),
        (
            ["--model.init_args.world_model.init_args.backbone.init_args.action_dim", "7"],
            "the backbone's action_dim is 7, the other parts of the world model make it 4",
        ),
        (["--model.init_args.world_model.init_args.backbone.init_args.patch", "4"], "latent frames are 2 x 2"),
        (
            ["--model.init_args.cache_latents", "true"],
            "latents of PatchAutoencoder are not cached: they are the pixels",
        ),
        (["--init_from", "nowhere.ckpt"], "nowhere.ckpt: no such file"),
    ],
)
def test_options_that_do_not_fit_together(
    fit: Fit, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("run", *flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_compiler_is_needed(fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from torch._inductor import cpp_builder, exc

    def none() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    assert fit("run", "--model.init_args.compile", "true") == 2
    assert "there is no C++ compiler, which torch.compile needs; install g++" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = WorldModelTraining.losses

    def spoilt(self: WorldModelTraining, *arguments: Any) -> torch.Tensor:
        return losses(self, *arguments) * (float("nan") if self.global_step == 5 else 1)

    monkeypatch.setattr(WorldModelTraining, "losses", spoilt)
    assert fit("run") == 2
    assert "the loss is nan at step 5; " in capsys.readouterr().err
    kept = checkpoint("run")
    assert kept["global_step"] == 4
    assert all(value.isfinite().all() for value in kept["state_dict"].values())
