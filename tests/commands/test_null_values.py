"""`null` on the command line: taken wherever a file may hold it, refused in both where a value is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from wovr.cli import main
from wovr.commands.fit import FitCLI
from wovr.commands.rl import RlCLI
from wovr.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI's args")

CONF = Path(__file__).resolve().parents[2] / "conf"
WORLD = "model.init_args.world_model.init_args"

TAKEN = [
    ("robot.yaml", "model.init_args.network.init_args.touch"),  # a list
    ("wm.yaml", "model.init_args.huber_scale"),  # a list, one level up
    ("wm.yaml", f"{WORLD}.conditioning"),  # a class that has a function among its arguments
    ("wm.yaml", f"{WORLD}.sigmas"),  # a list, two levels down
    ("wm.yaml", f"{WORLD}.head_hidden"),  # a number
    ("wm.yaml", f"{WORLD}.backbone.init_args.out_channels"),  # three levels down
    ("wm.yaml", "trainer.callbacks"),  # a list of classes
    ("paper/bc_openvla.yaml", "model.init_args.policy.init_args.folder"),  # a path
    ("paper/bc_openvla.yaml", "model.init_args.policy.init_args.language"),  # a mapping
    ("reward.yaml", "model.init_args.ema_decay"),
    ("rl.yaml", "model.part_lr"),  # a mapping of an option without class_path
    ("rl.yaml", "cut_after"),
    ("rl.yaml", "eval_env"),  # a name: null, not the word null
]


ROBOT = f"{WORLD}.conditioning.init_args.robot"


def parsed(file: str, *words: str) -> dict[str, Any]:
    """What `wovr fit` or `wovr rl` makes of a file and more words, without building anything."""

    class Parse(RlCLI if file.startswith("rl") else FitCLI):  # type: ignore[misc]
        def before_instantiate_classes(self) -> None: ...
        def instantiate_classes(self) -> None: ...

    needed = ["--policy", "p", "--suite", "s"] if file.startswith("rl") else ["--data.folder", "d"]
    cli = Parse(["--config", str(CONF / file), "--out", "o", *needed, *words])
    options = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))
    options.pop("config", None)
    return options


def found(options: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        options = options[part]
    return options


def overlay(tmp_path: Path, key: str, value: Any = None) -> str:
    for part in reversed(key.split(".")):
        value = {part: value}
    (tmp_path / "over.yaml").write_text(yaml.safe_dump(value))
    return str(tmp_path / "over.yaml")


@pytest.mark.parametrize(("file", "key"), TAKEN)
def test_null_is_taken_as_from_a_file(file: str, key: str, tmp_path: Path) -> None:
    from_file = parsed(file, "--config", overlay(tmp_path, key))
    from_line = parsed(file, f"--{key}", "null")
    assert found(from_line, key) is None
    assert from_line == from_file
    short = key.replace("init_args.", "")
    assert parsed(file, f"--{short}=null") == from_file


def test_null_inside_a_list_or_mapping_is_null() -> None:
    key = "model.init_args.policy.init_args.language"
    text = '{name: null, title: "it\'s \\"so\\"", depth: 2}'
    language = found(parsed("paper/bc_openvla.yaml", f"--{key}", text), key)
    assert language == {"name": None, "title": 'it\'s "so"', "depth": 2}


def test_other_values_stay_what_they_were() -> None:
    options = parsed(
        "wm.yaml",
        f"--{WORLD}.sigmas",
        "[1.0, 0.5]",
        f"--{ROBOT}.init_args.checkpoint",
        "none.ckpt",
    )
    assert found(options, f"{WORLD}.sigmas") == [1.0, 0.5]
    assert found(options, f"{ROBOT}.init_args.checkpoint") == "none.ckpt"
    assert found(options, f"{ROBOT}.class_path") == "wovr.models.robot.loading.load_robot_model"


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("robot.yaml", "model.init_args.lr"),
        ("wm.yaml", f"{WORLD}.memory"),
        ("wm.yaml", "data.init_args.batch_size"),
        ("rl.yaml", "groups"),
        ("rl.yaml", "model.lr"),
        ("bc.yaml", "save_every_n_steps"),
    ],
)
def test_null_is_refused_where_a_value_is_needed(file: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{key} is null, and needs a value"):
        parsed(file, "--config", overlay(tmp_path, key))


def test_null_from_a_file_for_a_plain_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "--policy random --suite spatial --out o --episodes 1"
    assert main(["collect", *words.split(), "--config", overlay(tmp_path, "num_envs")]) == 2
    assert "num_envs is null, and needs a value" in capsys.readouterr().err
    (tmp_path / "d").mkdir()
    assert main(["data", "inspect", "--config", overlay(tmp_path, "rows"), "d"]) == 2
    assert "rows is null, and needs a value" in capsys.readouterr().err
