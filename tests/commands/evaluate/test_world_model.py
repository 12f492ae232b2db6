"""`wovr evaluate --world_model` and `wovr weights`, through the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.commands.point_world import write_checkpoint, write_idm, write_point_dataset
from tests.models.world_model.tiny_world import pictures, tiny_world
from wovr.cli import main
from wovr.commands.evaluate.world_model import ImaginedRollouts
from wovr.data.store.reader import EpisodeStore
from wovr.metrics.networks.weights import WEIGHTS
from wovr.models.checkpoint import KEY, record
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.world_model.rollout import Imagination


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out episodes, a tiny world model and an inverse-dynamics network."""
    folder = tmp_path_factory.mktemp("world")
    write_point_dataset(folder / "data")
    write_checkpoint(folder / "wm.ckpt", tiny_world(action_dim=2))
    write_idm(folder / "idm.ckpt")
    return folder


def evaluate(folder: Path, out: Path, *words: str, data: str = "data", world_model: str = "wm.ckpt") -> int:
    return main(
        [
            "evaluate",
            "--world_model",
            ",".join(str(folder / path) for path in world_model.split(",")),
            "--data",
            str(folder / data),
            "--out",
            str(out),
            *words,
        ]
    )


def test_it_measures_prints_and_remembers(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "--metrics",
        "psnr,fvd[idm],fps",
        "--horizons",
        "3,12",
        "--idm",
        str(folder / "idm.ckpt"),
        "--device",
        "cpu",
    )
    assert evaluate(folder, tmp_path, *words) == 0
    printed = capsys.readouterr().out
    assert "first frame copied" in printed
    assert "fvd[idm] ↓" in printed
    assert "clips for 8 dimensions: compare it within this table only" in printed
    values = json.loads((tmp_path / "metrics.json").read_text())
    psnr = values["world_model"]["rows"]["world model"]["psnr"]["by_horizon"]
    assert set(psnr) == {"3", "12"}
    assert values["inputs"]["horizons"] == [3, 12]
    before = (tmp_path / "metrics.json").stat().st_mtime_ns
    assert evaluate(folder, tmp_path, *words) == 0
    again = capsys.readouterr().out
    assert again == f"{tmp_path} is complete\n{printed}"
    assert (tmp_path / "metrics.json").stat().st_mtime_ns == before
    assert evaluate(folder, tmp_path, *words, "--seed", "1") == 2
    assert "holds a finished result of other inputs: seed was 0 and is 1" in capsys.readouterr().err
    assert (tmp_path / "metrics.json").stat().st_mtime_ns == before
    assert evaluate(folder, tmp_path / "other", *words, "--seed", "1") == 0
    other = json.loads((tmp_path / "other" / "metrics.json").read_text())
    assert other["world_model"]["rows"]["world model"]["psnr"]["by_horizon"] != psnr, "other noise"
    copied = [one["world_model"]["rows"]["first frame copied"]["psnr"] for one in (values, other)]
    assert copied[0] == copied[1]
    found = list((tmp_path / "tensorboard").glob("events*"))
    assert len(found) == 2  # of all numbers, and by horizon and frame; a second measurement takes their place


def test_rollouts_are_whole_chunks_of_the_imagination() -> None:
    model = tiny_world()
    maker = ImaginedRollouts(Imagination(model))
    reference = pictures(2)
    actions = torch.rand(2, 11, model.action_dim) * 2 - 1
    frames = maker(reference, {}, actions, [3, 4])
    assert frames.shape == (2, 11, 16, 16, 3)
    imagination = Imagination(model)
    imagination.start(reference, seeds=[3, 4])
    first = imagination.step(actions[:, :8])
    rest = torch.cat([actions[:, 8:], actions[:, -1:].expand(-1, 5, -1)], dim=1)
    torch.testing.assert_close(frames, torch.cat([first, imagination.step(rest)[:, :3]], dim=1))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--metrics", "psnr,sharpness"), "unknown metric 'sharpness'; choose from, to measure "),
        (("--metrics", "fvd", "--horizons", "16"), "horizon 16 is longer than every episode used, the longest has 12"),
        (("--metrics", "fvd", "--horizons", "12"), "http://127.0.0.1:9/i3d: cannot be fetched: "),
        (("--metrics", "fvd", "--horizons", "12"), "i3d_torchscript.pt; or measure the stand-in fvd[idm]"),
        (("--metrics", "lpips[idm]", "--horizons", "9"), "runs/idm/checkpoints/last.ckpt: missing, "),
        (("--metrics", "state_error", "--horizons", "9"), "runs/state_probe/checkpoints/last.ckpt: missing, "),
        (("--horizons", "1,9"), "--horizons is '1,9'; give numbers from 2 on"),
        (("--horizons", "many"), "--horizons is 'many'; give numbers separated by commas"),
        (("--idm", "none.ckpt"), "none.ckpt: no such file"),
        (("--batch_size", "0"), "--batch_size is 0; give 1 or more"),
        (("--device", "tpu"), "--device is 'tpu'; give auto, cpu or cuda"),
        (("--precision", "fp8"), "precision is fp8; give fp32 or bf16"),
        (("--sweet", "9"), "see: wovr evaluate --help"),
    ],
)
def test_what_cannot_be_measured_is_a_line(
    words: tuple[str, ...],
    line: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WOVR_WEIGHTS", str(tmp_path / "no weights"))
    monkeypatch.setitem(WEIGHTS, "i3d", replace(WEIGHTS["i3d"], url="http://127.0.0.1:9/i3d"))  # nobody answers there
    monkeypatch.chdir(folder)
    horizons = () if "--horizons" in words else ("--horizons", "9")
    assert evaluate(folder, tmp_path / "out", *horizons, *words) == 2
    error = capsys.readouterr().err
    assert line in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_other_checkpoints_and_episodes_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(folder, tmp_path, "--horizons", "9", world_model="idm.ckpt") == 2
    assert "holds inverse_dynamics, not a world_model" in capsys.readouterr().err
    write_checkpoint(tmp_path / "other.ckpt", tiny_world())
    assert evaluate(tmp_path, tmp_path, "--horizons", "9", data=str(folder / "data"), world_model="other.ckpt") == 2
    assert "takes actions of 3 dimensions, those of" in capsys.readouterr().err
    model = tiny_world(action_dim=2)
    weights = {f"network.{name}": tensor for name, tensor in model.state_dict().items()}
    described = record({"network": model}, {"image_size": [32, 32]})
    torch.save({"state_dict": weights, KEY: described}, tmp_path / "large.ckpt")
    assert evaluate(tmp_path, tmp_path, "--horizons", "9", data=str(folder / "data"), world_model="large.ckpt") == 2
    assert "was trained on pictures of 32 x 32, those of" in capsys.readouterr().err
    assert evaluate(folder, tmp_path, "--horizons", "9", data="nowhere") == 2
    assert "no such folder" in capsys.readouterr().err


def test_an_instrument_of_another_robot_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    other = InverseDynamics(5, window=3, keypoints=2, channels=[8, 8], width=6, size=16)
    idm = write_checkpoint(tmp_path / "other.ckpt", other)
    words = ("--horizons", "9", "--metrics", "action_following", "--idm", str(idm))
    assert evaluate(folder, tmp_path / "out", *words) == 2
    assert "reads actions of 5 dimensions, those of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_episodes_that_were_trained_on_are_pointed_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_world(action_dim=2)
    weights = {f"network.{name}": tensor for name, tensor in model.state_dict().items()}
    data = {"fingerprint": EpisodeStore(folder / "data").fingerprint}
    torch.save({"state_dict": weights, KEY: record({"network": model}, data)}, tmp_path / "seen.ckpt")
    out = tmp_path / "out"
    assert (
        evaluate(
            tmp_path, out, "--horizons", "9", "--metrics", "psnr", data=str(folder / "data"), world_model="seen.ckpt"
        )
        == 0
    )
    assert "world model: trained on these same episodes, which are not held out" in capsys.readouterr().out


def test_help_of_both_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    # Each says, before the options, how to ask for the others.
    for words, option in (
        (["--help"], "--suite"),
        (["--help"], "wovr evaluate --help --metrics NAME"),
        (["--help"], "fvd (weights i3d)"),
        (["--help", "--world_model", "x"], "--horizons"),
        (["--help", "--metrics", "fvd"], "--horizons"),
        (["--metrics=hallucination", "--help"], "--uncertainty_seeds"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["evaluate", *words])
        assert end.value.code == 0
        assert option in " ".join(capsys.readouterr().out.split())


def test_several_are_compared_in_one_table_and_one_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = []
    for name, seed in (("near", 0), ("far", 1)):
        path = tmp_path / "runs" / name / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        write_checkpoint(path, tiny_world(seed, action_dim=2, **({"sigmas": 2} if name == "far" else {})))
        content = torch.load(path, weights_only=True)
        if name == "near":
            content |= {"callbacks": {"Timer": {"time_elapsed": {"train": 1234.5}}}, "global_step": 77}
        torch.save(content, path)
        models.append(str(path))
    words = ("--metrics", "psnr,ssim", "--horizons", "3,12", "--device", "cpu", "--videos", "1")
    out = tmp_path / "compared"
    assert evaluate(folder, out, *words, world_model=",".join(models)) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("near", "far", "1,234 s", "frames/s", "psnr ↑", "first frame copied"))
    found = json.loads((out / "metrics.json").read_text())["world_models"]
    compared = {values["name"]: values for values in found}
    assert list(compared) == ["near", "far"]
    assert (compared["near"]["trained_seconds"], compared["near"]["trained_steps"]) == (1234.5, 77)
    assert compared["far"]["trained_seconds"] is None
    assert (compared["near"]["steps"], compared["far"]["steps"]) == (5, 2)
    model = tiny_world(action_dim=2)
    assert compared["near"]["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    for name, path in zip(compared, models, strict=True):
        alone = tmp_path / f"alone_{name}"
        assert evaluate(folder, alone, *words, world_model=path) == 0
        values = json.loads((alone / "metrics.json").read_text())["world_model"]
        for score in ("psnr", "ssim"):
            assert compared[name]["rows"]["world model"][score] == values["rows"]["world model"][score]
        assert compared[name]["rows"]["world model"]["fps"]["by_horizon"]["3"] > 0
        assert len(list((out / name / "videos").iterdir())) == 1
    capsys.readouterr()
    assert evaluate(folder, out, *words, world_model=",".join(models)) == 0
    again = capsys.readouterr().out
    assert again.startswith(f"{out} is complete\n")
    assert again.splitlines()[1:] == printed[printed.index(again.splitlines()[1]) :].splitlines()


def test_world_models_that_cannot_be_compared(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wm.ckpt").write_bytes((folder / "wm.ckpt").read_bytes())
    both = f"wm.ckpt,{tmp_path / 'wm.ckpt'}"
    assert evaluate(folder, tmp_path / "out", world_model=both) == 2
    assert "which would both be called 'wm'; compare checkpoints of runs" in capsys.readouterr().err
    write_checkpoint(tmp_path / "other.ckpt", tiny_world(action_dim=3))
    both = f"wm.ckpt,{tmp_path / 'other.ckpt'}"
    assert evaluate(folder, tmp_path / "out", world_model=both) == 2
    assert "takes actions of 3 dimensions" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
