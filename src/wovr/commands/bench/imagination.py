"""`wovr bench imagination`: imagined frames a second, where the time goes, and how near the denoiser is to the ceiling.

The ceiling is the rate of a large matrix product of the same type in the same run; the denoiser's own operations are
counted by torch (matrix products, convolutions and attention).
"""

from __future__ import annotations

import importlib
import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_type_hints

import numpy as np
import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentError, ArgumentParser
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from wovr.commands.arguments import choose_device
from wovr.commands.config_files import find_config
from wovr.commands.places import WORLD_MODEL
from wovr.commands.terminal import table_console
from wovr.errors import UserError, check_least
from wovr.functional.flow import sampling_sigmas
from wovr.models.checkpoint import data_record
from wovr.models.policies.base import Policy
from wovr.models.policies.loading import load_policy
from wovr.models.world_model.context import Context
from wovr.models.world_model.loading import load_world_model
from wovr.models.world_model.model import WorldModel
from wovr.types import Observation

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

_ACTION_DIM = 4
"""Numbers of an action of a world model whose YAML leaves them to the episodes."""


def bench_imagination(
    world_model: str = WORLD_MODEL,
    policy: str = "",
    batches: str = "1,16,64",
    steps: str = "1,2,5",
    precision: str = "fp32,bf16",
    size: int = 0,
    seconds: float = 1.0,
    compile: bool = False,
    device: str = "auto",
) -> None:
    """Imagined frames a second by batch size and sampling steps, and the parts of a chunk.

    A chunk is denoising, decoding, encoding the next chunk's context, and (with --policy) choosing actions. The last
    column says how much faster chunks are when the context is carried over as latents (the world model's `history`)
    instead of being encoded again from decoded frames.

    Args:
        world_model: Checkpoint of a world model; or the YAML of its training (conf/wm.yaml), for random weights.
        policy: Checkpoint of a policy; empty to leave it out.
        batches: Comma list of batch sizes.
        steps: Comma list of sampling steps.
        precision: Comma list: fp32, bf16.
        size: Height and width of the pictures; 0 for what a checkpoint was trained on, or 64.
        seconds: How long to measure each part.
        compile: Let torch.compile make faster code of the denoiser.
        device: Where to compute: auto, cpu, cuda.
    """
    if seconds <= 0:
        raise UserError(f"--seconds {seconds}", "give a time above 0")
    check_least("--size", size, 0)
    counts = {"batches": _counts("batches", batches), "steps": _counts("steps", steps)}
    precisions = [word.strip() for word in precision.split(",")]
    for word in precisions:
        if word not in _DTYPES:
            raise UserError(f"--precision is '{precision}'", "give fp32, bf16 or both")
    place = choose_device(device)
    path = Path(world_model)
    path = find_config(world_model) if path.suffix in (".yaml", ".yml") else path
    model = make_world_model(path, place) if path.suffix in (".yaml", ".yml") else load_world_model(path)
    trained = None if path.suffix in (".yaml", ".yml") else data_record(path).get("image_size")
    height, width = (size, size) if size else trained or (64, 64)
    model.latent_shape((height, width))
    actor = load_policy(Path(policy)).to(place) if policy else None
    if actor is not None and actor.action_dim != model.action_dim:
        raise UserError(
            f"{policy}: the policy's actions have {actor.action_dim} dimensions, those of {path} {model.action_dim}",
            "give a policy of the same robot",
        )
    model = model.to(place).eval()
    flops = count_flops(model, (height, width))
    if compile:
        model.compile_parts(place)
    parameters = sum(parameter.numel() for parameter in model.backbone.parameters())
    print(
        f"{path}: {parameters:,} parameters in the backbone, {height} x {width}, chunks of {model.chunk}, "
        f"{flops / 1e9:.2f} GFLOP a rollout and step, {place}, {torch.get_num_threads()} threads"
    )
    table = Table("precision", title="imagination")
    headings = ("batch", "steps", "frames/s", "denoise ms", "decode ms", "encode ms", "policy ms")
    for heading in (*headings, "denoiser GFLOP/s", "of matmul", "latents : frames"):
        table.add_column(heading, justify="right")
    for word in precisions:
        ceiling = matmul_rate(_DTYPES[word], place, seconds)
        print(f"matmul of {word}: {ceiling / 1e9:,.0f} GFLOP/s")
        bench = _Bench(model, actor, (height, width), word, place, seconds)
        for batch in counts["batches"]:
            for chunk in bench.chunks(batch, counts["steps"]):
                reached = flops * batch * chunk.steps / chunk.denoise
                table.add_row(
                    *(word, str(batch), str(chunk.steps), f"{batch * model.chunk / chunk.total(model.history):,.1f}"),
                    *(f"{1000 * part:.1f}" for part in (chunk.denoise, chunk.decode, chunk.encode[model.history])),
                    "-" if actor is None else f"{1000 * chunk.policy:.1f}",
                    *(f"{reached / 1e9:,.0f}", f"{reached / ceiling:.0%}"),
                    f"{chunk.total('frames') / chunk.total('latents'):.2f}" if "latents" in chunk.encode else "-",
                )
        table.add_section()
    table_console().print(table)


@dataclass(frozen=True)
class ChunkTimes:
    """Seconds of one chunk's parts for a whole batch.

    Attributes:
        steps: Sampling steps.
        denoise: Of all of them.
        decode: Latents to frames.
        encode: What was imagined to the next chunk's context, by `history`; `latents` where that can be.
        policy: Choosing actions; 0 without a policy.
    """

    steps: int
    denoise: float
    decode: float
    encode: dict[str, float]
    policy: float

    def total(self, history: str) -> float:
        """Seconds of a chunk."""
        return self.denoise + self.decode + self.encode[history] + self.policy


class _Bench:
    """Times the parts of a chunk in one precision."""

    def __init__(
        self,
        model: WorldModel,
        policy: Policy | None,
        image_size: tuple[int, int],
        precision: str,
        device: torch.device,
        seconds: float,
    ) -> None:
        self.model, self.policy, self.image_size = model, policy, image_size
        self.precision, self.device, self.seconds = precision, device, seconds

    @torch.inference_mode()
    def chunks(self, batch: int, steps: Sequence[int]) -> list[ChunkTimes]:
        """The times of a batch size, for each number of steps."""
        model, parts = self.model, {}
        context, actions, noise = random_inputs(model, batch, self.image_size)
        with self._autocast():
            inputs = model.inputs(context, actions)  # once a chunk: what follows times it with denoising
            latents = model.sample_chunk(context, actions, noise, [1.0], inputs)
            frames = model.decode_chunk(context, latents)
            decode = self._time(lambda: model.decode_chunk(context, latents))
            history = model.history
            kinds = ["frames", "latents"] if model.memory == model.memory_slots else ["frames"]
            try:
                for kind in kinds:
                    model.history = kind  # type: ignore[assignment]
                    parts[kind] = self._time(lambda: model.advance(context, actions, latents, frames, inputs))
            finally:
                model.history = history
            denoise = []
            for count in steps:
                sigmas = sampling_sigmas(count, model.shift)
                denoise.append(self._time(partial(model.sample_chunk, context, actions, noise, sigmas)))
        policy = 0.0
        if self.policy is not None:
            proprio = np.zeros((batch, self.policy.proprio_dim), np.float32)
            observation = Observation(frames[:, -1].cpu().numpy(), ["pick up the red cube"] * batch, proprio)
            act = self.policy.act
            policy = self._time(lambda: act(observation))
        return [ChunkTimes(n, spent, decode, parts, policy) for n, spent in zip(steps, denoise, strict=True)]

    def _autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self.precision == "fp32" else torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _time(self, function: Callable[[], object]) -> float:
        return seconds_of(function, self.device, self.seconds)


def make_world_model(path: Path, device: torch.device) -> WorldModel:
    """A world model with random weights from the YAML of its training, made on the device.

    Networks in it that come from checkpoints that are not there yet are made with random weights too, and actions of
    which nobody says how many dimensions they have are of four.

    Raises:
        UserError: No such file, none that describes a world model, or parts that do not fit together.
    """
    try:
        described = yaml.safe_load(path.read_text())["model"]["init_args"]["world_model"]
    except OSError as error:
        raise UserError(f"{path}: no such file", "give a checkpoint, or a YAML like conf/wm.yaml") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: has no key model.init_args.world_model", "give the YAML of a world model's training"
        ) from error
    described = _stand_in(described)
    arguments = described.get("init_args") if isinstance(described, dict) else None
    if isinstance(arguments, dict) and not arguments.get("conditioning") and not arguments.get("action_dim"):
        arguments["action_dim"] = _ACTION_DIM
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--world_model", type=WorldModel)
    try:
        with device:  # a GPU draws five billion random weights in seconds
            made: Any = parser.instantiate_classes(parser.parse_object({"world_model": described}))
    except ArgumentError as error:
        raise UserError(f"{path}: model.init_args.world_model: {error}", "see conf/wm.yaml") from error
    world: WorldModel = made.world_model
    return world


def _stand_in(described: Any) -> Any:
    """A description in which a network stands wherever one was to be loaded from a checkpoint that is not there."""
    if isinstance(described, list):
        return [_stand_in(item) for item in described]
    if not isinstance(described, dict):
        return described
    checkpoint = (described.get("init_args") or {}).get("checkpoint")
    if checkpoint is None or Path(checkpoint).exists():
        return {key: _stand_in(value) for key, value in described.items()}
    module, _, name = str(described["class_path"]).rpartition(".")
    network = get_type_hints(getattr(importlib.import_module(module), name))["return"]
    if inspect.isabstract(network):
        return described
    return {"class_path": f"{network.__module__}.{network.__qualname__}"}


def random_inputs(
    model: WorldModel, batch: int, image_size: tuple[int, int]
) -> tuple[Context, torch.Tensor, torch.Tensor]:
    """The context of random pictures, (B, K, A) actions and (B, *noise_shape) noise, on the model's device."""
    device, generator = model.neutral.device, torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (batch, *image_size, 3), generator=generator, dtype=torch.uint8)
    actions = torch.rand(batch, model.chunk, model.action_dim, generator=generator) * 2 - 1
    noise = torch.randn(batch, *model.noise_shape(image_size), generator=generator)
    context = model.encode_context(pictures.to(device), signals=model.conditioning.example(batch))
    return context, actions.to(device), noise.to(device)


@torch.no_grad()
def count_flops(model: WorldModel, image_size: tuple[int, int]) -> int:
    """Operations of one sampling step of one rollout: two for each multiplication with addition."""
    context, actions, noise = random_inputs(model, 1, image_size)
    # Attention as plain matrix products, which are counted on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.velocity(noise[:, :, : model.new_latents], noise.new_ones(1), context, actions)
    return int(counter.get_total_flops())


def matmul_rate(dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    """Operations a second of a large matrix product: the best of its repetitions."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(_times(lambda: left @ right, device, seconds))


def seconds_of(function: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median seconds of a call, over as many calls as fit."""
    return median(_times(function, device, seconds))


def _times(function: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    """Seconds of each of several calls, one at least; the first one, which warms up, is not among them."""
    found: list[float] = []
    for number in range(1_000_000):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number:
            found.append(time.perf_counter() - started)
        if sum(found) >= seconds:
            break
    return found


def _counts(flag: str, text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(f"--{flag} is '{text}'", "give numbers separated by commas") from error
    if min(found) < 1:
        raise UserError(f"--{flag} is '{text}'", "give numbers from 1 on")
    return found
