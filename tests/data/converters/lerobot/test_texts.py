"""What an episode of a LeRobotDataset is told: from every field in which the format's writers keep it, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.converters.foreign import CAMERA, INSTRUCTIONS, needs, write_lerobot
from tests.data.converters.lerobot.files import change_info, episode, line, pairs, write_dataset_2, write_lines
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore

TEXT = {"dtype": "string", "shape": [1], "names": None}


def metas(source: Path, *words: str) -> list[Any]:
    out = source.parent / f"out{len(list(source.parent.iterdir()))}"
    assert main(["data", "convert", str(source), "--out", str(out), "--success", "last", *words]) == 0
    return [entry.meta for entry in EpisodeStore(out).entries]


def declare(source: Path, **features: Any) -> None:
    known = json.loads((source / "meta/info.json").read_text())["features"]
    change_info(source, features={**known, **features})


def test_a_task_that_changes_is_refused_with_the_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = {**episode(12, task_index=[0] * 5 + [1] * 7), "tasks": ["reach", "lift"]}
    found = line(capsys, write_dataset_2(tmp_path / "src", [episode(6), one]))
    assert "episode 1: the instruction changes at frame 5, from 'reach' to 'lift'" in found
    assert "--changing split" in found


def test_an_episode_is_split_where_its_task_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = {**episode(12, task_index=[0] * 5 + [1] * 6 + [0]), "tasks": ["reach", "lift"]}
    source = write_dataset_2(tmp_path / "src", [episode(6), one])
    found = metas(source, "--changing", "split")
    assert "1 episodes split where their instruction changes" in capsys.readouterr().out
    assert [(meta.task, meta.instruction) for meta in found] == [(0, "reach"), (0, "reach"), (1, "lift")]
    steps = [*range(5), *range(11)]  # the last row is told another thing and has no frame after it
    assert pairs(tmp_path / "out1") == [(t, t) for t in steps]
    store = EpisodeStore(tmp_path / "out1")
    assert [entry.num_frames for entry in store.entries] == [6, 6, 7]


def test_each_episode_has_its_own_task(tmp_path: Path) -> None:
    lift = {**episode(6, task_index=[1] * 6), "tasks": ["lift"]}
    found = metas(write_dataset_2(tmp_path / "src", [episode(6), lift]))
    assert [(meta.task, meta.instruction) for meta in found] == [(0, "reach"), (1, "lift")]


def test_subtasks_are_kept_beside_the_task(tmp_path: Path) -> None:
    pyarrow, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    source = write_lerobot(tmp_path / "src")
    path = source / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(path)
    steps = table.column("frame_index").to_pylist()
    parquet.write_table(table.append_column("subtask_index", [[int(step >= 4) for step in steps]]), path)
    subtasks = {"subtask_index": [0, 1], "__index_level_0__": ["approach", "grasp"]}  # as pandas writes an index
    parquet.write_table(pyarrow.table(subtasks), source / "meta/subtasks.parquet")
    declare(source, subtask_index={"dtype": "int64", "shape": [1], "names": None})
    for number, meta in enumerate(metas(source, "--camera", CAMERA)):
        assert meta.instruction == INSTRUCTIONS[number % 2]
        assert meta.extra["subtasks"] == [[0, "approach"], [4, "grasp"]]


def test_texts_in_time_are_kept_with_their_frames(tmp_path: Path) -> None:
    def said(style: str, content: str, **more: Any) -> dict[str, Any]:
        return {"role": "assistant", "content": content, "style": style, **more}

    stays = [said("subtask", "approach", timestamp=0.0), said("subtask", "grasp", timestamp=0.4)]
    events = [[said("vqa", "where?")] if step == 3 else [] for step in range(6)]
    columns = {"language_persistent": [stays] * 6, "language_events": events}
    source = write_dataset_2(tmp_path / "src", [episode(6, **columns)])
    declare(source, **{key: {"dtype": "language", "shape": [1], "names": None} for key in columns})
    assert metas(source)[0].extra["language"] == [
        [0, "subtask", "assistant", "approach"],
        [3, "vqa", "assistant", "where?"],
        [4, "subtask", "assistant", "grasp"],
    ]


def with_sentences(folder: Path, sentences: list[str | None], **columns: Any) -> Path:
    source = write_dataset_2(folder, [episode(len(sentences), language_instruction=sentences, **columns)])
    declare(source, language_instruction=TEXT)
    return source


def test_two_fields_that_differ_are_refused_until_one_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = with_sentences(tmp_path / "src", ["open the drawer"] * 6)
    found = line(capsys, source)
    assert "task_index says 'reach', language_instruction something else" in found
    assert "--instruction task_index or language_instruction" in found
    for field, text in (("task_index", "reach"), ("language_instruction", "open the drawer"), ("tasks", "reach")):
        assert metas(source, "--instruction", field)[0].instruction == text
    assert "--instruction is 'nothing'" in line(capsys, source, "--instruction", "nothing")


def test_an_empty_task_leaves_it_to_the_sentence(tmp_path: Path) -> None:
    source = with_sentences(tmp_path / "src", ["open the drawer"] * 6)
    write_lines(source / "meta/tasks.jsonl", [{"task_index": 0, "task": ""}])
    write_lines(source / "meta/episodes.jsonl", [{"episode_index": 0, "tasks": [""], "length": 6}])
    (meta,) = metas(source)
    assert (meta.instruction, meta.task) == ("open the drawer", 1)


def test_a_column_of_indices_may_name_the_task(tmp_path: Path) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6, **{"annotation.human.task_description": [1] * 6})])
    assert metas(source, "--instruction", "annotation.human.task_description")[0].instruction == "lift"


def test_the_list_of_episodes_is_held_against_the_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    write_lines(source / "meta/tasks.jsonl", [{"task_index": 0, "task": "reech"}])
    assert "task_index says 'reech', tasks of the list of episodes something else" in line(capsys, source)


@pytest.mark.parametrize("text", ["one\u2028two", "a\x85b", "a\x0bb\x0cc", "a\x1cb\x1db\x1e", 'tab\tquote"end'])
def test_lines_end_at_line_feeds_only(text: str, tmp_path: Path) -> None:
    source = write_dataset_2(tmp_path / "src", [{**episode(6), "tasks": [text]}])
    write_lines(source / "meta/tasks.jsonl", [{"task_index": 0, "task": text}, {"task_index": 1, "task": "lift"}])
    assert metas(source)[0].instruction == text


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"task_index": 0}], "no text 'task'"),
        ([{"task_index": 0, "task": 5}], "no text 'task'"),
        ([{"task_index": "0", "task": "a"}], "task_index: '0' is not a whole number"),
        ([{"task_index": float("nan"), "task": "a"}], "task_index: nan is not a whole number"),
        ([{"task_index": 0, "task": "a"}, {"task_index": 0, "task": "b"}], "task 0 twice"),
        (["reach"], "line 1: not a JSON object"),
    ],
)
def test_a_damaged_list_of_tasks_is_one_line(
    lines: list, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_dataset_2(tmp_path / "src", [episode(6)])
    write_lines(source / "meta/tasks.jsonl", lines)
    assert said in line(capsys, source)
