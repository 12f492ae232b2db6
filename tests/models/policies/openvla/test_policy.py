"""OpenVLA-OFT: numbers, decoding against transformers' own forward pass, act, log_prob, training, adapters."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

from tests.extras import needs
from tests.models.policies.openvla.tiny import LANGUAGE, needs_openvla, release, save_released, tiny, tokenizer_text
from tests.models.policies.small import SENTENCES, observe
from wovr.data.training.demonstrations import DemonstrationBatch
from wovr.errors import UserError
from wovr.models.checkpoint import _build, record
from wovr.models.policies.loading import load_policy
from wovr.models.policies.openvla.vision import CROP_AREA, fit_picture
from wovr.tasks.behaviour_cloning import BehaviourCloningTraining

needs_lora = needs("lora")


def block(prefix: str, width: int, hidden: int, scale: bool) -> dict[str, tuple[int, ...]]:
    """A vision transformer's block in the released checkpoints."""
    named = {
        **{"norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,)},
        **{"attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,)},
        **{"attn.proj.weight": (width, width), "attn.proj.bias": (width,)},
        **{"mlp.fc1.weight": (hidden, width), "mlp.fc1.bias": (hidden,)},
        **{"mlp.fc2.weight": (width, hidden), "mlp.fc2.bias": (width,)},
        **({"ls1.scale_factor": (width,), "ls2.scale_factor": (width,)} if scale else {}),
    }
    return {f"{prefix}.{name}": shape for name, shape in named.items()}


def released_layout() -> dict[str, tuple[int, ...]]:
    """Every weight of openvla-7b by name: shape."""
    dino, siglip, words = "vision_backbone.featurizer", "vision_backbone.fused_featurizer", "language_model"
    layout: dict[str, tuple[int, ...]] = {
        **{f"{dino}.cls_token": (1, 1, 1024), f"{dino}.reg_token": (1, 4, 1024), f"{dino}.pos_embed": (1, 256, 1024)},
        **{f"{dino}.patch_embed.proj.weight": (1024, 3, 14, 14), f"{dino}.patch_embed.proj.bias": (1024,)},
        **{f"{dino}.norm.weight": (1024,), f"{dino}.norm.bias": (1024,)},
        **{f"{siglip}.pos_embed": (1, 256, 1152), f"{siglip}.patch_embed.proj.weight": (1152, 3, 14, 14)},
        **{f"{siglip}.patch_embed.proj.bias": (1152,)},
        **{f"{siglip}.norm.weight": (1152,), f"{siglip}.norm.bias": (1152,)},
        **{f"{siglip}.attn_pool.latent": (1, 1, 1152)},
        **{f"{siglip}.attn_pool.q.weight": (1152, 1152), f"{siglip}.attn_pool.q.bias": (1152,)},
        **{f"{siglip}.attn_pool.kv.weight": (2304, 1152), f"{siglip}.attn_pool.kv.bias": (2304,)},
        **{f"{siglip}.attn_pool.proj.weight": (1152, 1152), f"{siglip}.attn_pool.proj.bias": (1152,)},
        **{f"{siglip}.attn_pool.norm.weight": (1152,), f"{siglip}.attn_pool.norm.bias": (1152,)},
        **{f"{siglip}.attn_pool.mlp.fc1.weight": (4304, 1152), f"{siglip}.attn_pool.mlp.fc1.bias": (4304,)},
        **{f"{siglip}.attn_pool.mlp.fc2.weight": (1152, 4304), f"{siglip}.attn_pool.mlp.fc2.bias": (1152,)},
        **{"projector.fc1.weight": (8704, 2176), "projector.fc1.bias": (8704,)},
        **{"projector.fc2.weight": (4096, 8704), "projector.fc2.bias": (4096,)},
        **{"projector.fc3.weight": (4096, 4096), "projector.fc3.bias": (4096,)},
        **{f"{words}.model.embed_tokens.weight": (32064, 4096), f"{words}.lm_head.weight": (32064, 4096)},
        f"{words}.model.norm.weight": (4096,),
    }
    for i in range(24):
        layout |= block(f"{dino}.blocks.{i}", 1024, 4096, scale=True)
    for i in range(27):
        layout |= block(f"{siglip}.blocks.{i}", 1152, 4304, scale=False)
    for i in range(32):
        layer = f"{words}.model.layers.{i}"
        layout |= {f"{layer}.self_attn.{name}_proj.weight": (4096, 4096) for name in "qkvo"}
        layout |= {f"{layer}.mlp.{name}_proj.weight": (11008, 4096) for name in ("gate", "up")}
        layout |= {f"{layer}.mlp.down_proj.weight": (4096, 11008)}
        layout |= {f"{layer}.{name}_layernorm.weight": (4096,) for name in ("input", "post_attention")}
    return layout


def batch_for(num: int) -> DemonstrationBatch:
    observation = observe(num, (20, 20))
    actions = torch.rand(num, 4, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.ones(num, 4, dtype=torch.bool)
    return DemonstrationBatch(torch.from_numpy(observation.image), list(observation.instruction), actions, mask)


@needs_openvla
def test_the_full_shape_has_the_released_weights() -> None:
    from wovr.models.policies.openvla.policy import OpenVLAOFT
    from wovr.models.policies.openvla.weights import released_name

    with torch.device("meta"):
        policy = OpenVLAOFT(tokenizer=tokenizer_text())
    found = {released_name(name): tuple(value.shape) for name, value in policy.state_dict().items()}
    assert found == released_layout()
    assert len(found) == 982
    assert sum(parameter.numel() for parameter in policy.parameters()) == 7_541_237_184
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.bfloat16}


@needs_openvla
def test_parallel_decoding_equals_one_pass_of_transformers_own_llama() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    policy = tiny()
    observation = observe(1, (28, 28))
    [sentence] = observation.instruction
    llama = LlamaForCausalLM(LlamaConfig(**policy.init_args["language"], attn_implementation="eager")).eval()
    llama.load_state_dict(policy.language_model.state_dict())
    picture = torch.from_numpy(observation.image).permute(0, 3, 1, 2) / 127.5 - 1
    patches = policy.projector(policy.vision_backbone(fit_picture(picture, 28, True)))  # (1, 4, D)
    words = policy.prompts(sentence)
    embed = llama.model.embed_tokens
    zero = torch.zeros(1, 12, 32)
    row = torch.cat([embed(torch.tensor([[1]])), patches, embed(torch.tensor([words[1:]])), zero], dim=1)
    row = torch.cat([row, embed(torch.tensor([[2]]))], dim=1)
    everything = torch.zeros(1, 1, row.shape[1], row.shape[1])  # added to the scores: nothing is hidden
    logits = llama(inputs_embeds=row, attention_mask=everything).logits
    first = 4 + len(words) - 1  # the last token of the prompt
    reference = logits[0, first : first + 12, 64:320].flip(-1).unflatten(0, (4, 3))
    with torch.no_grad():
        torch.testing.assert_close(policy.logits(picture, [sentence])[0], reference, atol=1e-5, rtol=1e-4)
    causal = llama(inputs_embeds=row).logits[0, first : first + 12, 64:320].flip(-1).unflatten(0, (4, 3))
    assert not torch.allclose(causal, reference, atol=1e-4)


@needs_openvla
def test_the_prompt_is_the_released_one() -> None:
    prompts = tiny().prompts
    letters = {number: text for text, number in prompts._tokenizer.get_vocab().items()}
    tokens = [letters[number] for number in prompts("Open the drawer")]
    assert "".join(tokens) == "<s>▁In:▁What▁action▁should▁the▁robot▁take▁to▁open▁the▁drawer?\nOut:▁"


@needs_openvla
@pytest.mark.parametrize("arguments", [{}, {"dtype": "bfloat16"}], ids=["float32", "bfloat16"])
def test_log_prob_of_sampled_tokens_is_their_sampled_log_probability(arguments: dict) -> None:
    policy = tiny(**arguments)
    observation = observe(5, (20, 20))
    chosen = policy.act(observation, temperature=1.6)
    assert chosen.actions.shape == chosen.tokens.shape == (5, 4, 3)
    assert chosen.actions.abs().max() <= 1
    assert len(chosen.tokens.unique()) > 20
    again = policy.log_prob(observation, chosen.tokens, temperature=1.6)
    assert torch.equal(again.log_probs, chosen.log_probs)
    assert again.log_probs.requires_grad
    assert (policy(observation.image, observation.instruction).exp().sum(-1) - 1).abs().max() < 1e-5


@needs_openvla
def test_what_stands_beside_it_in_a_batch_does_not_matter() -> None:
    policy = tiny()
    observation = observe(3, (28, 28))
    assert len({len(policy.prompts(sentence)) for sentence in observation.instruction}) == 3
    with torch.no_grad():
        together = policy(observation.image, observation.instruction)
        for row in range(3):
            alone = policy(observation.image[row : row + 1], SENTENCES[row : row + 1])
            torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-4


@needs_openvla
@pytest.mark.parametrize("lora_rank", [0, pytest.param(4, marks=needs_lora.marks)])
def test_one_step_of_behaviour_cloning_lowers_the_loss(lora_rank: int) -> None:
    module = BehaviourCloningTraining(tiny(lora_rank=lora_rank), smoothing=0.0, shift=0)
    module.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    losses = []
    for _ in range(2):
        loss = module.training_step(batch_for(4), 0)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]
    without = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@needs_openvla
def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for again in (False, True):
        policy = tiny(gradient_checkpointing=again)
        observation = observe(2, (28, 28))
        policy(observation.image, observation.instruction)[..., 7].sum().backward()
        gradients.append({name: p.grad for name, p in policy.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) > 60
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@needs_openvla
@needs_lora
def test_adapters_begin_as_nothing_and_are_all_that_is_trained() -> None:
    plain, adapted = tiny(), tiny(lora_rank=4)
    observation = observe(2, (28, 28))
    with torch.no_grad():
        torch.testing.assert_close(
            adapted(observation.image, observation.instruction), plain(observation.image, observation.instruction)
        )
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in trained)
    half = tiny(lora_rank=4, dtype="bfloat16")
    types = {"lora_" in name: parameter.dtype for name, parameter in half.named_parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}
    chosen = half.act(observation)
    assert torch.equal(half.log_prob(observation, chosen.tokens).log_probs, chosen.log_probs)
    parts = (
        "vision_backbone.featurizer.blocks.0.attn.qkv",
        "projector.fc1",
        "language_model.model.layers.1.mlp.up_proj",
    )
    assert {f"{part}.lora_A.default.weight" for part in parts} <= trained
    assert not any("lm_head" in name for name in trained)


@needs_openvla
@pytest.mark.parametrize("lora_rank", [0, pytest.param(4, marks=needs_lora.marks)])
def test_a_checkpoint_rebuilds_it_with_nothing_else_at_hand(lora_rank: int, tmp_path) -> None:
    policy = tiny(lora_rank=lora_rank)
    described = record({"policy": policy}, {})["networks"]["policy"]
    torch.save(described, tmp_path / "record.pt")
    rebuilt = _build(torch.load(tmp_path / "record.pt", weights_only=True), tmp_path, "policy")
    rebuilt.load_state_dict(policy.state_dict())
    observation = observe(2, (28, 28))
    with torch.no_grad():
        assert torch.equal(
            rebuilt(observation.image, observation.instruction), policy(observation.image, observation.instruction)
        )
    copy.deepcopy(policy)  # GRPO's reference


@needs_openvla
@pytest.mark.parametrize("lora_rank", [0, pytest.param(4, marks=needs_lora.marks)])
def test_proprioception_is_one_more_feature_through_oft_s_projector(lora_rank: int, tmp_path: Path) -> None:
    policy = tiny(lora_rank=lora_rank, proprio_dim=8, dtype="bfloat16")
    weights = policy.state_dict()
    width = LANGUAGE["hidden_size"]
    names = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    shapes = [tuple(weights[f"proprio_projector.{name}"].shape) for name in names]
    assert shapes == [(width, 8), (width,), (width, width), (width,)]
    # Both stay exact beside weights in half precision, and the projector is trained beside adapters.
    assert {weights[name].dtype for name in weights if "proprio" in name} == {torch.float32}
    assert all(weight.requires_grad for weight in policy.proprio_projector.parameters())
    policy.fit_proprio(torch.zeros(8), torch.ones(8))
    observation = observe(2, (28, 28))
    seen: list[int] = []
    handle = policy.language_model.model.layers[0].register_forward_hook(lambda m, a, out: seen.append(out.shape[1]))
    with torch.no_grad():
        says = [policy(observation.image, observation.instruction, proprio=torch.full((2, 8), v)) for v in (0.0, 2.0)]
        assert not torch.equal(*says)
        tiny_one = tiny()
        handle.remove()
        tiny_one.language_model.model.layers[0].register_forward_hook(lambda m, a, out: seen.append(out.shape[1]))
        tiny_one(observation.image, observation.instruction)
    assert seen[0] == seen[1] == seen[2] + 1
    checkpoint = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    torch.save({"state_dict": checkpoint, "wovr": record({"policy": policy}, {})}, tmp_path / "p.ckpt")
    again = load_policy(tmp_path / "p.ckpt")
    assert {name: value.dtype for name, value in again.state_dict().items()} == {k: v.dtype for k, v in weights.items()}
    with torch.no_grad():
        assert torch.equal(again(observation.image, observation.instruction, proprio=torch.full((2, 8), 2.0)), says[1])


@needs_openvla
def test_a_released_checkpoint_gets_a_projector_of_its_own(tmp_path: Path) -> None:
    save_released(tmp_path / "released")
    policy = release(tmp_path / "released", proprio_dim=5)
    assert policy.proprio_projector.fc1.weight.any()
    assert not policy.proprio_spread.any()  # no demonstrations so far


def test_the_crop_is_tensorflows_crop_and_resize() -> None:
    size = 15
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = fit_picture(image, size, True)
    # crop_and_resize: row i of the box [y1, y2] is at y1 * (H - 1) + i * (y2 - y1) * (H - 1) / (size - 1)
    margin = (1 - CROP_AREA**0.5) / 2
    places = [margin * (size - 1) + i * (1 - 2 * margin) for i in range(size)]
    for i in (0, 4, 14):
        for j in (1, 9):
            (y, x), top, left = (places[i], places[j]), int(places[i]), int(places[j])
            corners = image[0, :, top : top + 2, left : left + 2]
            rows = torch.tensor([1 - (y - top), y - top])
            columns = torch.tensor([1 - (x - left), x - left])
            torch.testing.assert_close(found[0, :, i, j], torch.einsum("cyx,y,x->c", corners, rows, columns))
    assert torch.equal(fit_picture(image, size, False), image)
    assert fit_picture(image, 28, True).shape == (1, 3, 28, 28)


@needs_openvla
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokenizer": None}, "tokenizer and folder are both null"),
        ({"tokenizer": "{}"}, "the tokenizer is not readable"),
        ({"image_size": 30}, "image_size is 30.*patches of 14.*give a multiple of 14"),
        ({"dataset": "bridge_orig"}, "dataset is 'bridge_orig' and folder null"),
        ({"lora_alpha": 3.0}, "lora_rank is 0, lora_alpha 3.0; give a rank above 0"),
        ({"vocabulary": 200}, "vocabulary is 200, bins 256"),
        ({"vocabulary": 500}, "vocabulary is 500"),
        ({"timm_models": ["vit_nothing", "vit_so400m_patch14_siglip_224"]}, "knows no 'vit_nothing'"),
        ({"statistics": {"q01": [0.0], "q99": [1.0], "mask": [True]}}, "statistics are of 1 dimensions"),
        ({"language": {"vocab_size": 384, "hidden_size": 30, "num_attention_heads": 4}}, "language: "),
        (
            {"language": {**LANGUAGE, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}},
            "rotary positions of the kind 'linear'",
        ),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**arguments)


@needs_openvla
def test_pictures_that_are_not_square() -> None:
    with pytest.raises(UserError, match=r"images are 16 x 24, OpenVLA takes square ones"):
        tiny().act(observe(1, (16, 24)))


@needs_openvla
@pytest.mark.parametrize("package", ["timm", "transformers", "tokenizers"])
def test_a_missing_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tokenizer_text()
    monkeypatch.setitem(sys.modules, package, None)
    from wovr.models.policies.openvla.policy import OpenVLAOFT

    with pytest.raises(UserError, match=rf"package {package}; pip install 'wovr\[openvla\]'"):
        OpenVLAOFT(tokenizer=text)
