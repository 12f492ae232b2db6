from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml

from tests.models.world_model.tiny_world import (
    CausalAutoencoder,
    linear_world,
    pictures,
    random_actions,
    tiny_backbone,
    tiny_world,
)
from wovr.errors import UserError
from wovr.functional import flow
from wovr.functional.images import frames_to_float
from wovr.models.checkpoint import KEY, load_network, record
from wovr.models.robot.conditioning import RobotConditioning
from wovr.models.robot.model import RobotModel
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.backbones.wan import WanBackbone
from wovr.models.world_model.conditioning import Inputs
from wovr.models.world_model.context import Context, beside, channels_beside, noise_memory, token_positions
from wovr.models.world_model.model import WorldModel

CONF = Path(__file__).resolve().parents[3] / "conf"


def context_of(model: WorldModel, batch: int = 2, seed: int = 0) -> Context:
    return model.encode_context(
        pictures(batch, seed=seed), pictures(batch, 4, seed=seed + 1), random_actions(batch, 4, seed=seed)
    )


def noise_of(model: WorldModel, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, *model.latent_shape((16, 16)), generator=torch.Generator().manual_seed(3))


def test_the_velocity_of_a_data_prediction_is_that_of_the_path_to_it() -> None:
    model = tiny_world()
    context, noise, actions = context_of(model), noise_of(model), random_actions(2, 8)
    sigma = torch.tensor([0.3, 0.9])
    predicted = model.predict(noise, sigma, context, actions)
    velocity = model.velocity(noise, sigma, context, actions)
    torch.testing.assert_close(flow.clean_from_velocity(noise, velocity, sigma), predicted, atol=1e-5, rtol=1e-4)
    plain = linear_world()
    assert torch.equal(plain.velocity(noise, sigma, context, actions), plain.predict(noise, sigma, context, actions))


def test_the_sampler_against_a_loop_written_out() -> None:
    model = linear_world()
    context, noise, actions = context_of(model), noise_of(model), random_actions(2, 8)
    x = noise.clone()
    with torch.no_grad():
        for sigma, following in ((1.0, 0.5), (0.5, 0.2), (0.2, 0.0)):
            latents = torch.cat([context.latents, x], dim=2)
            time = torch.tensor([0, 0, sigma, sigma]).expand(2, -1)
            neutral = torch.tensor([0.0, 0.0, -1.0]).expand(2, 4, -1)
            v = model.backbone(latents, time, torch.cat([neutral, context.actions, actions], dim=1))
            x = x - (sigma - following) * v
    torch.testing.assert_close(model.sample_chunk(context, actions, noise, [1.0, 0.5, 0.2]), x)
    assert not torch.allclose(model.sample_chunk(context, actions, noise), x, atol=1e-3)
    assert model.sigmas == pytest.approx([1, 0.952, 0.882, 0.769, 0.556], abs=5e-4)


def test_one_step_of_a_data_prediction_is_the_prediction() -> None:
    model = tiny_world()
    context, noise, actions = context_of(model), noise_of(model), random_actions(2, 8)
    sampled = model.sample_chunk(context, actions, noise, [1.0])
    torch.testing.assert_close(sampled, model.predict(noise, torch.ones(2), context, actions), atol=1e-5, rtol=1e-4)


def test_it_starts_as_copy_the_last_frame() -> None:
    model = tiny_world(alive=False)
    context = context_of(model)
    frames = model.decode_chunk(context, model.sample_chunk(context, random_actions(2, 8), noise_of(model)))
    last = context.memory[:, -1:].expand(-1, 8, -1, -1, -1)
    assert (frames.int() - last.int()).abs().max() <= 255 * 0.1
    assert (frames.int() - last.int()).abs().float().mean() < 255 * 0.04


def test_windows_and_contexts_agree() -> None:
    for model in (tiny_world(), linear_world(autoencoder=CausalAutoencoder())):
        frames, actions = pictures(2, 13), random_actions(2, 12)
        known = torch.ones(2, 12, dtype=torch.bool)
        known[0, :2] = False
        window = model.encode_window(frames, actions, known, torch.tensor([1, 30]))
        filled = torch.where(known[..., None], actions, torch.tensor([0.0, 0.0, -1.0]))
        context = model.encode_context(frames[:, 0], frames[:, 1:5], filled[:, :4], torch.tensor([1, 30]))
        for name, value in vars(context).items():
            torch.testing.assert_close(getattr(window.context, name), value)
        assert torch.equal(window.actions, filled[:, 4:])
        # The target is what the new frames are encoded to behind this very context.
        torch.testing.assert_close(
            torch.cat([window.context.latents, window.new], dim=2), model.autoencoder.encode(frames_to_float(frames))
        )
        assert torch.equal(model.decode_chunk(context, window.new), frames[:, 5:])


def test_at_the_start_the_first_frame_is_repeated() -> None:
    model = tiny_world()
    reference = pictures(2)
    context = model.encode_context(reference)
    assert torch.equal(context.memory, reference[:, None].expand(-1, 4, -1, -1, -1))
    assert torch.equal(context.actions, torch.tensor([0.0, 0.0, -1.0]).expand(2, 4, -1))
    assert torch.equal(context.latents[:, :, 0], context.latents[:, :, 1])
    assert context.age.tolist() == [0, 0]
    short = model.encode_context(reference, pictures(2, 2, seed=5), random_actions(2, 2))
    assert torch.equal(short.memory[:, 0], short.memory[:, 2])
    assert short.actions[:, :2, 2].tolist() == [[-1, -1]] * 2


def test_noise_is_put_on_the_memory_alone() -> None:
    model = tiny_world()
    context = context_of(model)
    noise = torch.randn_like(context.latents[:, :, 1:])
    sigma = torch.tensor([0.25, 0.0])
    noisy = noise_memory(context, sigma, noise)
    assert torch.equal(noisy.latents[:, :, 0], context.latents[:, :, 0])
    torch.testing.assert_close(noisy.latents[0, :, 1:], 0.75 * context.latents[0, :, 1:] + 0.25 * noise[0])
    assert torch.equal(noisy.latents[1], context.latents[1])


def test_only_a_model_that_is_told_knows_the_level() -> None:
    for told in (False, True):
        model = tiny_world(told=told)
        context, noise, actions = context_of(model), noise_of(model), random_actions(2, 8)
        plain = model.predict(noise, torch.ones(2), context, actions)
        context.sigma = torch.tensor([0.0, 0.2])
        other = model.predict(noise, torch.ones(2), context, actions)
        assert torch.equal(other[0], plain[0])
        assert torch.equal(other[1], plain[1]) != told


def changed(model: WorldModel, change: str) -> bool:
    """Whether changing a part of the context changes what is imagined."""
    context, noise, actions = context_of(model), noise_of(model), random_actions(2, 8)
    answer = model.sample_chunk(context, actions, noise, [1.0])
    if change == "reference":
        other = model.encode_context(pictures(2, seed=9), context.memory, context.actions, context.age)
    elif change == "age":
        other = model.encode_context(context.reference, context.memory, context.actions, context.age - 10**6 + 40)
    else:
        memory = context.memory.clone()
        memory[:, int(change)] = 255 - memory[:, int(change)]
        other = model.encode_context(context.reference, memory, context.actions, context.age)
    return not torch.allclose(model.sample_chunk(other, actions, noise, [1.0]), answer, atol=1e-6)


def test_ablations_change_what_is_seen() -> None:
    whole = tiny_world()
    assert changed(whole, "reference")
    assert changed(whole, "0")
    assert not changed(whole, "age")
    without = tiny_world(reference=False)
    assert not changed(without, "reference")
    assert changed(without, "0")
    without = linear_world(reference=False)  # no head that looks at the memory
    assert not changed(without, "reference")
    assert changed(without, "2")
    one = tiny_world(memory=1)
    assert changed(one, "reference")
    assert not changed(one, "0")
    assert not changed(one, "2")
    assert changed(one, "3")
    gap = tiny_world(reference_gap=16)
    assert changed(gap, "age")


def test_a_context_shown_as_channels() -> None:
    latents = PatchAutoencoder().latent_channels
    whole = tiny_world(context="channels")
    assert whole.backbone.in_channels == 3 * latents + 4 * 3 + 2
    assert changed(whole, "reference")
    assert changed(whole, "0")
    # Without a reference, and in the order that the docstring gives.
    without = tiny_world(context="channels", reference=False)
    assert without.backbone.in_channels == 2 * latents + 4 * 3 + 2
    assert not changed(without, "reference")
    noisy, shown, actions = torch.randn(2, 5, 2, 3, 4), torch.randn(2, 5, 2, 3, 4), torch.randn(2, 4, 3)
    parts = beside(shown, actions)
    both = torch.cat([noisy, *(part.expand(-1, -1, 2, -1, -1) for part in parts)], dim=1)
    assert both.shape[1] == 5 + channels_beside(5, 2, 4, 3)
    for b, n, row, column in ((0, 0, 0, 0), (1, 1, 2, 3), (0, 1, 1, 2)):
        place = [-1 + row, -1 + 2 * column / 3]
        written_out = [*noisy[b, :, n, row, column], *shown[b, :, 0, row, column], *shown[b, :, 1, row, column]]
        expected = torch.tensor([*written_out, *actions[b].flatten(), *place])
        torch.testing.assert_close(both[b, :, n, row, column], expected)


def test_sums_of_actions_are_given_beside_them() -> None:
    """The chunk's actions are added up from its beginning; the same for one action early and one late."""
    for backbone in ({"adaln": False}, {"cross": False}):
        model = tiny_world(backbone={"cumulative": True, **backbone})
        embedder = model.backbone.transformer.condition_embedder
        part = embedder.action_tokens or embedder.action_embedder
        context, actions = context_of(model), random_actions(2, 8, seed=5)
        with patch.object(part[0], "forward", wraps=part[0].forward) as layer:
            model.predict(noise_of(model), torch.ones(2), context, actions)
        given = layer.call_args.args[0].unflatten(-1, (-1, 6)).flatten(1, -2)  # (B, frames, 2 A)
        torch.testing.assert_close(given[:, -8:, :3], actions)
        torch.testing.assert_close(given[:, -8:, 3:], actions.cumsum(1) / 4)
        assert not given[:, :-8, 3:].any()


def test_without_a_reference_a_causal_autoencoder_gets_the_memory_s_first_frame() -> None:
    model = linear_world(autoencoder=CausalAutoencoder(), reference=False)
    assert not changed(model, "reference")
    context = context_of(model)
    expected = model.autoencoder.encode(frames_to_float(torch.cat([context.memory[:, :1], context.memory], dim=1)))
    torch.testing.assert_close(context.latents, expected)


def test_the_reference_stands_at_its_real_distance() -> None:
    model = tiny_world(reference_gap=16)
    context = context_of(model, batch=5)
    context.age = torch.tensor([0.0, 4.0, 10.0, 63.0, 500.0])
    position = token_positions(context.age, model.memory_latents, model.new_latents, model.reference_gap)
    assert position is not None
    # The last memory frame is age / 4 latent frames from the reference, at least one and at most 16.
    assert position[:, 1].tolist() == [1, 1, 2.5, 15.75, 16]
    assert position[:, 0].tolist() == [0] * 5
    torch.testing.assert_close(position[:, 1:] - position[:, 1:2], torch.arange(3.0).expand(5, -1))


def test_a_longer_memory() -> None:
    model = tiny_world(memory=8)
    context = model.encode_context(pictures(2), pictures(2, 8, seed=1), random_actions(2, 8))
    assert context.latents.shape[2] == 3
    assert model.sample_chunk(context, random_actions(2, 8), noise_of(model)).shape == (2, 768, 2, 2, 2)


def test_history_as_latents_or_as_frames() -> None:
    for autoencoder in (PatchAutoencoder(8), CausalAutoencoder()):
        by_latents = linear_world(autoencoder=autoencoder, history="latents")
        by_frames = linear_world(autoencoder=autoencoder, history="frames")
        context, actions = context_of(by_latents), random_actions(2, 8)
        latents = by_latents.sample_chunk(context, actions, noise_of(by_latents))
        frames = by_latents.decode_chunk(context, latents)
        carried = by_latents.advance(context, actions, latents, frames, Inputs())
        encoded = by_frames.advance(context, actions, latents, frames, Inputs())
        torch.testing.assert_close(carried.latents[:, :, 1:], latents[:, :, -1:])
        expected = by_frames.encode_context(context.reference, frames[:, -4:], actions[:, -4:])
        torch.testing.assert_close(encoded.latents, expected.latents)
        for following in (carried, encoded):
            assert torch.equal(following.memory, frames[:, -4:])
            assert torch.equal(following.actions, actions[:, -4:])
            assert torch.equal(following.age, context.age + 8)


@pytest.mark.parametrize("name", ["wm", "wm_small"])
def test_the_configurations_fit_together(name: str) -> None:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    numbers = config["model"]["init_args"]["world_model"]["init_args"]
    autoencoder = PatchAutoencoder(**numbers.pop("autoencoder")["init_args"])
    with torch.device("meta"):
        backbone = WanBackbone(**numbers.pop("backbone")["init_args"])
        if "conditioning" in numbers:  # one that `wovr fit --config conf/robot.yaml` makes
            told = numbers.pop("conditioning")["init_args"] | {"robot": RobotModel()}
            numbers["conditioning"] = RobotConditioning(**told)
        else:
            numbers["action_dim"] = 4
        model = WorldModel(autoencoder, backbone, **numbers)
    size = {"wm": (64, 64), "wm_small": (128, 128)}[name]
    assert backbone.tokens_of(autoencoder.latent_size(size)) == {"wm": 128, "wm_small": 256}[name]
    assert model.memory_slots == model.memory == 4


def test_the_header_of_the_tiny_configuration_says_what_to_set_without_proprioception() -> None:
    text = (CONF / "wm.yaml").read_text()
    numbers = yaml.safe_load(text)["model"]["init_args"]["world_model"]["init_args"]
    said = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert (
        "For episodes without proprioception: conditioning and augmentations null, head copy, head_hidden 768, and the "
        "backbone's cumulative true."
    ) in said
    numbers |= {"conditioning": None, "head": "copy", "head_hidden": 768}
    autoencoder = PatchAutoencoder(**numbers.pop("autoencoder")["init_args"])
    with torch.device("meta"):
        backbone = WanBackbone(**numbers.pop("backbone")["init_args"] | {"cumulative": True})
        model = WorldModel(autoencoder, backbone, action_dim=4, **numbers)
    assert (model.action_dim, backbone.action_dim, backbone.in_channels, backbone.out_channels) == (4, 4, 2322, 768)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    model = tiny_world(told=True, noisy_context=[0.0, 0.2], sigmas=[1.0, 0.4])
    state = {f"world_model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, KEY: record({"world_model": model}, {})}, tmp_path / "world.ckpt")
    again = load_network(tmp_path / "world.ckpt", WorldModel)
    assert (again.told, again.noisy_context, again.sigmas) == (True, (0.0, 0.2), [1.0, 0.4])
    context, noise, actions = context_of(model), noise_of(model), random_actions(2, 8)
    assert torch.equal(again.sample_chunk(context, actions, noise), model.sample_chunk(context, actions, noise))


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    torch.save({"state_dict": state, KEY: record({"backbone": backbone}, {})}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="holds backbone, not a world_model"):
        load_network(tmp_path / "other.ckpt", WorldModel)


def test_the_autoencoder_is_frozen() -> None:
    model = linear_world(autoencoder=CausalAutoencoder())
    model.train()
    assert not model.autoencoder.training
    assert model.backbone.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunk": 6}, "chunk is 6; give a multiple of 4"),
        ({"memory": 6}, "memory is 6; give 1 to 4, or a multiple of 4"),
        ({"memory": 2, "history": "latents"}, "set history to frames"),
        ({"reference_gap": 1}, "reference_gap is 1; give a number above 1"),
        ({"noisy_context": [0.3, 0.1]}, "noisy_context is"),
        ({"noisy_context": 1.0}, "noisy_context is"),
        ({"shift": 0.0}, "shift is"),
        ({"sigmas": [0.9, 0.5]}, "numbers from 1"),
        ({"neutral_action": [0.0, 0.0]}, "neutral_action has 2 numbers, an action 3"),
        ({"prediction": "velocity"}, "use prediction data and PatchAutoencoder"),
        ({"autoencoder": CausalAutoencoder()}, "head copy with prediction data and CausalAutoencoder"),
        (
            {"backbone": {"in_channels": 48}},
            "the backbone's in_channels is 48, .* make it 768; set backbone.init_args.in_channels to null",
        ),
        (
            {"backbone": {"out_channels": 768}},
            "out_channels is 768, .* make it 1280; set backbone",
        ),
        ({"backbone": {"action_dim": 4}}, "action_dim is 4, .* make it 3; set backbone.init_args.action_dim to null"),
        ({"backbone": {"latent_frames": 4}, "chunk": 12}, "latent_frames is 4, .* make it 5"),
        ({"action_dim": None}, "action_dim is null; give the dimensions of an action"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_world(**arguments)
