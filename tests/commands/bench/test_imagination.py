"""`wovr bench imagination`, through the real command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from tests.commands.point_world import write_checkpoint
from tests.envs.test_rollout import make_policy, save_policy
from tests.models.world_model.tiny_world import CausalAutoencoder, linear_world, robot_of, tiny_world
from wovr.cli import main
from wovr.commands.bench.imagination import count_flops, make_world_model, matmul_rate, random_inputs
from wovr.errors import UserError
from wovr.models.checkpoint import KEY, record
from wovr.models.robot.model import RobotModel

QUICK = ("--seconds", "0.01", "--device", "cpu", "--size", "16")


def rows(printed: str) -> list[list[str]]:
    """Cells of the table's rows."""
    cells = [[cell.strip() for cell in line.strip("│\n ").split("│")] for line in printed.splitlines() if "│" in line]
    return [row for row in cells if len(row) == 11]


def test_it_measures_every_batch_and_number_of_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = write_checkpoint(tmp_path / "wm.ckpt", tiny_world(history="latents"))
    policy = save_policy(tmp_path / "policy.ckpt", make_policy(action_dim=3))
    words = ("--batches", "1,3", "--steps", "1,4", "--policy", str(policy))
    assert main(["bench", "imagination", "--world_model", str(world), *words, *QUICK]) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"matmul of (fp32|bf16): [\d,]+ GFLOP/s", printed)) == 2
    found = rows(printed)
    assert [row[:3] for row in found] == [[p, b, s] for p in ("fp32", "bf16") for b in "13" for s in "14"]
    for row in found:
        numbers = [float(cell.replace(",", "").rstrip("%")) for cell in row[1:]]
        batch, _, rate, denoise, decode, encode, choosing, _, share, ratio = numbers
        assert rate == pytest.approx(8000 * batch / (denoise + decode + encode + choosing), rel=0.25)  # of rounded ms
        assert choosing > 0
        assert share < 120
        assert ratio > 0.3


def test_operations_are_counted_once() -> None:
    """Against a count by hand: two for each weight of a linear layer and position, and attention's two products."""
    tokens, new, width = 16, 8, 24  # 4 latent frames of 2 x 2; in the last block only the new ones ask
    embedding = 2 * 768 * width * tokens  # the patches', which is not called as a module
    attention = 2 * (2 * 2 * new * tokens * width)  # to all tokens, and to 16 actions
    model = linear_world(backbone={"layers": 1})
    found = count_flops(model, (16, 16))
    context, actions, noise = random_inputs(model, 1, (16, 16))
    counted = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal counted
        assert isinstance(module, nn.Linear | nn.Conv3d)
        counted += 2 * module.weight.numel() * (output.numel() // module.weight.shape[0])

    hooks = [m.register_forward_hook(count) for m in model.backbone.modules() if isinstance(m, nn.Linear | nn.Conv3d)]
    with torch.no_grad():
        model.velocity(noise, noise.new_ones(1), context, actions)
    for hook in hooks:
        hook.remove()
    assert found == counted + embedding + attention


def test_a_model_that_must_encode_again_and_one_without_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = write_checkpoint(tmp_path / "wm.ckpt", linear_world(autoencoder=CausalAutoencoder(), memory=2))
    one = ("--batches", "2", "--steps", "1", "--precision", "fp32")
    assert main(["bench", "imagination", "--world_model", str(world), *one, *QUICK]) == 0
    (row,) = rows(capsys.readouterr().out)
    assert row[7] == row[10] == "-"  # no policy; two frames of memory cannot be carried over as latents
    described = (
        Path("conf/wm.yaml").read_text().replace("head_dim: 48", "head_dim: 12").replace("layers: 5", "layers: 1")
    )
    (tmp_path / "wm.yaml").write_text(described)
    assert len(make_world_model(tmp_path / "wm.yaml", torch.device("cpu")).backbone.state_dict()) > 0
    assert main(["bench", "imagination", "--world_model", str(tmp_path / "wm.yaml"), *one, *QUICK]) == 0
    assert float(rows(capsys.readouterr().out)[0][10]) > 0.3


def test_a_robot_model_that_was_not_fitted_yet(tmp_path: Path) -> None:
    """One stands in for it; a checkpoint that is there is used."""
    described = yaml.safe_load(Path("conf/wm.yaml").read_text())
    world = described["model"]["init_args"]["world_model"]["init_args"]
    world["backbone"]["init_args"] |= {"head_dim": 12, "layers": 1}
    for checkpoint in (tmp_path / "none.ckpt", write_robot(tmp_path / "robot.ckpt")):
        world["conditioning"]["init_args"]["robot"]["init_args"]["checkpoint"] = str(checkpoint)
        (tmp_path / "wm.yaml").write_text(yaml.safe_dump(described))
        model = make_world_model(tmp_path / "wm.yaml", torch.device("cpu"))
        assert robot_of(model).mean.tolist() == ([2.0] * 8 if checkpoint.exists() else [0.0] * 8)
        context, actions, noise = random_inputs(model, 1, (16, 16))
        assert model.velocity(noise, torch.ones(1), context, actions).isfinite().all()
    world["conditioning"]["init_args"]["robot"]["init_args"]["checkpoint"] = str(tmp_path / "none.ckpt")
    world["backbone"]["init_args"]["action_dim"] = 7
    (tmp_path / "wm.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(UserError, match=r"make it 20; set backbone\.init_args\.action_dim to null"):
        make_world_model(tmp_path / "wm.yaml", torch.device("cpu"))


def write_robot(path: Path) -> Path:
    """A checkpoint of a robot model whose mean is 2."""
    robot = RobotModel()
    robot.mean.fill_(2.0)
    robot.spread.fill_(1.0)
    weights = {f"robot.{name}": value for name, value in robot.state_dict().items()}
    torch.save({"state_dict": weights, KEY: record({"robot": robot}, {})}, path)
    return path


def test_the_ceiling_is_that_of_a_large_product() -> None:
    rate = matmul_rate(torch.float32, torch.device("cpu"), 0.05)
    assert 1e8 < rate < 1e14


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--batches", "0"), "--batches is '0'; give numbers from 1 on"),
        (("--steps", "few"), "--steps is 'few'; give numbers separated by commas"),
        (("--precision", "fp8"), "--precision is 'fp8'; give fp32, bf16 or both"),
        (("--seconds", "0"), "--seconds 0.0; give a time above 0"),
        (("--size", "20"), "images are 20 x 20"),
        (("--device", "tpu"), "--device is 'tpu'"),
        (("--world_model", "conf/none.yaml"), "conf/none.yaml: no such file"),
        (("--world_model", "conf/bc.yaml"), "conf/bc.yaml: has no key model.init_args.world_model"),
    ],
)
def test_bad_arguments(words: tuple[str, ...], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = write_checkpoint(tmp_path / "wm.ckpt", tiny_world())
    assert main(["bench", "imagination", "--world_model", str(world), *words]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert len(error.splitlines()) == 1


def test_a_policy_of_another_robot_and_a_yaml_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = write_checkpoint(tmp_path / "wm.ckpt", tiny_world())
    policy = save_policy(tmp_path / "policy.ckpt", make_policy(action_dim=2))
    assert main(["bench", "imagination", "--world_model", str(world), "--policy", str(policy), "--size", "16"]) == 2
    assert "the policy's actions have 2 dimensions" in capsys.readouterr().err
    path = tmp_path / "wm.yaml"
    path.write_text("model: {init_args: {world_model: {class_path: wovr.models.nothing.Nothing}}}")
    with pytest.raises(UserError, match=r"model\.init_args\.world_model: "):
        make_world_model(path, torch.device("cpu"))
