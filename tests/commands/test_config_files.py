"""What may stand in a YAML, and what is refused with its line, before anything obeys it."""

from __future__ import annotations

from pathlib import Path

import pytest

from wovr.cli import main
from wovr.commands.config_files import (
    config_name,
    find_config,
    flag_values,
    known_configs,
    packaged_configs,
    read_config_file,
)
from wovr.errors import UserError
from wovr.renames import RENAMES

ROOT = Path(__file__).resolve().parents[2]

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "holds no options"),
    "comment": (b"# nothing\n", "holds no options"),
    "list": (b"- a\n- b\n", "no mapping of options"),
    "text": (b"hello\n", "no mapping of options"),
    "broken": (b"suite: [1, 2\n  foo: : bar\n", "line 2: not valid YAML"),
    "twice": (b"suite: spatial\nseed: 1\nsuite: object\n", "line 3: the key 'suite' stands in line 1 already"),
    "twice_inside": (b"env_args:\n  size: 1\n  size: 2\n", "line 3: the key 'size' stands in line 2 already"),
    "deep": (b"suite: " + b"[" * 3000 + b"]" * 3000, "not valid YAML"),
    "rather_deep": (b"suite: " + b"[" * 100 + b"]" * 100, "more than 64 levels"),
    "bomb": (BOMB.encode(), "more than 100,000 values"),
    "itself": (b"suite: &a [*a]\n", "a value that holds itself"),
    "latin": (b"suite: k\xfcche\n", "no UTF-8 text: invalid start byte at byte 8"),
    "utf16": ("suite: x\n".encode("utf-16"), "no UTF-8 text"),
    "nul": (b"suite: spa\x00tial\n", "not valid YAML"),
    "number": (b"1: 2\n", "the key 1 is no name"),
    "documents": (b"suite: a\n---\nsuite: b\n", "not valid YAML"),
    "tag": (b"suite: !!python/object/apply:os.mkdir [obeyed]\n", "could not determine a constructor for the tag"),
    "name": (b"suite: !!python/name:os.system\n", "could not determine a constructor for the tag"),
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_bytes(BAD[request.param][0])
    return request.param


@pytest.mark.parametrize("config", BAD, indirect=True)
@pytest.mark.parametrize(
    "words", ["fit --out o --config mine.yaml", "collect --config=mine.yaml", "pace --config mine.yaml"]
)
def test_it_is_refused_in_one_line_with_file_and_reason(
    config: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("wovr: error: mine.yaml")
    assert shown.count("\n") == 1
    assert BAD[config][1] in shown
    assert not (tmp_path / "obeyed").exists()


@pytest.mark.parametrize("verb", ["fit", "rl", "evaluate", "pace"])
def test_a_folder_is_refused(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--config", str(tmp_path)]) == 2
    assert "is a folder; name a YAML file in it" in capsys.readouterr().err


def test_what_is_fine_is_read(tmp_path: Path) -> None:
    file = tmp_path / "fine.yaml"
    file.write_bytes("\ufeffbase: &base {size: 1}\nother: *base\nname: küche\nnone: null\n".encode())
    assert read_config_file(file) == {"base": {"size": 1}, "other": {"size": 1}, "name": "küche", "none": None}
    with pytest.raises(UserError, match=r"none\.yaml: no such file"):
        read_config_file(tmp_path / "none.yaml")


def test_a_class_that_has_moved_is_named_by_its_new_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RENAMES, "wovr.old.Place", "wovr.new.Place")
    (tmp_path / "mine.yaml").write_text("model:\n  class_path: wovr.old.Place\n")
    assert main(["fit", "--config", str(tmp_path / "mine.yaml"), "--out", "o"]) == 2
    assert capsys.readouterr().err.endswith("mine.yaml: wovr.old.Place has moved; write wovr.new.Place\n")
    assert main(["fit", "--model=wovr.old.Place", "--out", "o"]) == 2
    assert capsys.readouterr().err == "wovr: error: --model wovr.old.Place has moved; write wovr.new.Place\n"


@pytest.mark.parametrize("file", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda file: file.name)
def test_every_file_of_ours_is_fine(file: Path) -> None:
    assert read_config_file(file)


def test_a_configuration_is_found_by_name_in_the_working_folder_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = packaged_configs()
    for name in ("wm", "wm.yaml", "conf/wm.yaml", "conf/wm"):
        assert find_config(name) == packaged / "wm.yaml"
    assert find_config("ablations/rl_whole") == find_config("conf/ablations/rl_whole.yaml")
    Path("wm").mkdir()  # a folder is no configuration
    assert find_config("wm") == packaged / "wm.yaml"
    Path("conf").mkdir()
    Path("conf/wm.yaml").write_text("seed_everything: 1\n")
    for name in ("wm", "wm.yaml", "conf/wm.yaml"):
        assert find_config(name) == Path("conf/wm.yaml")
    Path("wm.yaml").write_text("seed_everything: 2\n")
    assert find_config("wm") == Path("wm.yaml")
    assert find_config("conf/wm.yaml") == Path("wm.yaml").with_name("conf") / "wm.yaml"


def test_the_packaged_configurations_are_those_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [config_name(path) for path in (ROOT / "conf").rglob("*.yaml")]
    assert sorted(names) == sorted(known_configs())
    assert {"wm", "pace/tabletop"} <= set(names)


@pytest.mark.parametrize("words", ["fit --config mw", "fit --config=conf/mw.yaml", "pace --config pace/tablestop"])
def test_a_name_that_is_none_is_answered_with_those_there_are(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{'tablestop' if 'pace' in words else 'mw'}" in error
    assert "no such file; " in error
    assert "choose from: ae, bc, " in error
    assert ("did you mean pace/tabletop?" in error) == ("pace" in words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("fit --config bc --data.folder d --out o", "class_path: wovr.models.policies.tiny_vla.TinyVLA"),
        ("rl --config=conf/rl.yaml --policy p --suite s --out o", "cut_after: 32"),
    ],
)
def test_a_verb_takes_a_name_in_any_folder(
    words: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*words.split(), "--print_config"])
    assert ended.value.code == 0
    assert line in capsys.readouterr().out


def test_flags_and_values_are_read_in_either_way() -> None:
    words = ["collect", "--suite", "goal", "--init_states=-10:", "-c", "bc", "--env_args.path=a=b", "--debug"]
    assert list(flag_values(words)) == [
        ("--suite", "goal"),
        ("--init_states", "-10:"),
        ("-c", "bc"),
        ("--env_args.path", "a=b"),
        ("--debug", ""),
    ]
