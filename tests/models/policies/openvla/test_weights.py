"""A released checkpoint's folder: shards, statistics, tokenizer; and from there to a success rate."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.models.policies.openvla.tiny import STATISTICS, VISION, needs_openvla, release, save_released, tokenizer_text
from tests.models.policies.small import observe
from wovr.cli import main
from wovr.errors import UserError
from wovr.models.policies.loading import load_policy

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "openvla-tiny"
    save_released(folder)
    return folder


@pytest.fixture
def copied(tmp_path: Path, released: Path) -> Path:
    """A folder to spoil."""
    folder = tmp_path / "openvla"
    folder.mkdir()
    for file in released.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@needs_openvla
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_weight_of_every_shard_is_loaded(tmp_path: Path, dtype: str) -> None:
    saved = save_released(tmp_path)
    policy = release(tmp_path, dtype=dtype)
    loaded = {name.replace(".gamma", ".scale_factor"): value for name, value in policy.state_dict().items()}
    assert loaded.keys() == saved.keys()
    for name, value in saved.items():
        assert torch.equal(loaded[name], value.to(getattr(torch, dtype))), name
    assert (policy.image_size, policy.bins, policy.vocabulary) == (28, 256, 320)
    trained = {name for name, parameter in policy.named_parameters() if not parameter.requires_grad}
    assert {name.split(".")[2] for name in trained} == {"blocks", "norm", "attn_pool"}  # what comes after the features
    assert policy.act(observe(2, (20, 20))).log_probs.isfinite().all()


@needs_openvla
def test_one_file_without_an_index(tmp_path: Path, released: Path) -> None:
    save_released(tmp_path, shards=1)
    (tmp_path / "model-00001-of-00001.safetensors").rename(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").unlink()
    observation = observe(1, (28, 28))
    with torch.no_grad():
        one, other = (release(folder)(observation.image, observation.instruction) for folder in (tmp_path, released))
    assert torch.equal(one, other)


@needs_openvla
def test_actions_are_in_the_data_sets_units(released: Path) -> None:
    observation = observe(4, (28, 28))
    policies = [release(released, dataset=name) for name in ("toy_no_noops", "elsewhere", None)]
    chosen = [policy.act(observation, temperature=0) for policy in policies]
    assert torch.equal(chosen[0].tokens, chosen[2].tokens)
    plain, statistics = chosen[2].actions.numpy(), STATISTICS["toy_no_noops"]["action"]
    low, high = np.array(statistics["q01"]), np.array(statistics["q99"])
    expected = np.where(statistics["mask"], 0.5 * (plain + 1) * (high - low) + low, plain)
    np.testing.assert_allclose(chosen[0].actions.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(chosen[1].actions.numpy(), 0.5 * (plain + 1), atol=1e-5)  # of config.json


@needs_openvla
def test_a_sentencepiece_tokenizer_reads_as_the_json_one(tmp_path: Path) -> None:
    import sentencepiece

    from wovr.models.policies.openvla.language import Prompts, read_tokenizer

    sentences = tmp_path / "sentences.txt"
    sentences.write_text(
        "In: What action should the robot take to open the drawer?\nOut: put the cup on the plate\n" * 20
    )
    sentencepiece.SentencePieceTrainer.train(
        **{"input": str(sentences), "model_prefix": str(tmp_path / "tokenizer"), "vocab_size": 330},
        **{"model_type": "bpe", "byte_fallback": True, "hard_vocab_limit": False, "minloglevel": 2},
        **{"remove_extra_whitespaces": False, "normalization_rule_name": "identity"},
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    prompts = Prompts(read_tokenizer(str(tmp_path)), 400)
    text = "In: What action should the robot take to open the cup?\nOut:"
    assert prompts("Open the CUP") == [1, *processor.encode(text), processor.piece_to_id("▁")]


@needs_openvla
def test_a_folder_that_lacks_something(copied: Path) -> None:
    def spoilt(message: str, **arguments: object) -> None:
        with pytest.raises(UserError, match=message):
            release(copied, **arguments)

    spoilt("dataset_statistics.json: no statistics for the data set 'bridge'; it has elsewhere, toy", dataset="bridge")
    spoilt("weight '.*pos_embed' is .*, the policy's .*; leave image_size", image_size=42)
    spoilt("unexpected weights.*|lacks .* weights", vision=[{**VISION[0], "depth": 4}, VISION[1]])
    index = copied / "model.safetensors.index.json"
    shard = copied / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:1000])
    spoilt("model-00002-of-00003.safetensors: damaged")
    shard.unlink()
    spoilt("model-00002-of-00003.safetensors: no such file")
    listed = json.loads(index.read_text())
    listed["weight_map"] = {k: v for k, v in listed["weight_map"].items() if v != shard.name}
    index.write_text(json.dumps(listed))
    spoilt(r"openvla: lacks \d+ weights, e.g. 'language_model")
    for file in copied.glob("model*"):
        file.unlink()
    spoilt("openvla: no weights; put the safetensors files")
    (copied / "pytorch_model.bin").write_bytes(b"x")
    spoilt("only pickled weights, which are never loaded")
    (copied / "tokenizer.json").unlink()
    spoilt("neither tokenizer.json nor tokenizer.model here")
    (copied / "config.json").write_text("{}")
    spoilt("config.json: has no key 'text_config'")
    (copied / "config.json").unlink()
    spoilt("no config.json here; give the folder of a downloaded checkpoint")


@needs_openvla
def test_weights_that_have_no_place(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_released(tmp_path, shards=1)
    index = tmp_path / "model.safetensors.index.json"
    index.unlink()
    weights = load_file(tmp_path / "model-00001-of-00001.safetensors")
    weights["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(weights, tmp_path / "model.safetensors")
    assert release(tmp_path).image_size == 28  # what older versions stored and newer ones compute
    weights["vision_backbone.featurizer.blocks.0.scale.weight"] = torch.ones(4)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"1 unexpected weights, e.g. 'vision_backbone.*scale.weight'; .*without FiLM"):
        release(tmp_path)


@needs_openvla
def test_from_a_released_checkpoint_to_a_success_rate(
    tmp_path: Path, copied: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    collect = (
        "collect --policy expert --suite spatial --tasks 0 --episodes 1 --env_args.size 32 --out demos --workers 1"
    )
    assert main(collect.split()) == 0, capfd.readouterr().err
    tiny = yaml.safe_load((ROOT / "conf" / "paper" / "bc_openvla.yaml").read_text())
    tiny["model"]["init_args"] |= {"lr": 0.003, "warmup_steps": 1, "shift": 1}
    tiny["model"]["init_args"]["policy"]["init_args"] |= {
        **{"folder": str(copied), "vision": VISION, "action_dim": 4, "dtype": "float32", "lora_rank": 0},
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny))
    words = "fit --config tiny.yaml --data.folder demos --data.batch_size 4 --trainer.accelerator cpu --out bc"
    assert main([*words.split(), "--trainer.max_steps", "12"]) == 0, capfd.readouterr().err
    assert main([*words.split(), *["--trainer.max_steps", "1", "--model.lr", "0", "--out", "as_it_is"]]) == 0
    weights, before = (
        one.state_dict() for one in (load_policy(Path("as_it_is/checkpoints/last.ckpt")), release(copied))
    )
    assert all(torch.equal(weights[name], before[name]) for name in before)
    metrics = json.loads(Path("bc/metrics.json").read_text())["metrics"]
    assert metrics["train/loss"] < 0.97 * np.log(256)
    for file in copied.iterdir():
        os.remove(file)  # the checkpoint needs it no more
    policy = load_policy(Path("bc/checkpoints/last.ckpt"))
    assert policy.init_args["tokenizer"] == tokenizer_text()
    chosen = policy.act(observe(2, (32, 32)))
    found = policy.log_prob(observe(2, (32, 32)), chosen.tokens)
    assert torch.equal(found.log_probs, chosen.log_probs)
    capfd.readouterr()
    evaluate = "evaluate --policy bc/checkpoints/last.ckpt --env tabletop --env_args.size 32 --suite spatial --tasks 0"
    assert main([*evaluate.split(), "--episodes", "2", "--workers", "1", "--out", "sr"]) == 0, capfd.readouterr().err
    rate = json.loads(Path("sr/metrics.json").read_text())["sr"]["all"]
    assert rate["episodes"] == 2
    assert rate["success_rate"] == rate["successes"] / 2
    assert main(["fit", "--config", "tiny.yaml", "--data.folder", "demos", "--out", "other"]) == 2
    assert "openvla: no config.json here; give the folder of a downloaded checkpoint" in capfd.readouterr().err
