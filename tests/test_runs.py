"""Atomic writes, JSON files, fingerprints and the DONE marker."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wovr.errors import UserError
from wovr.runs import RunFolder, atomic_write, file_sha256, fingerprint, only_run, read_json, write_json


def test_a_write_appears_whole_and_leaves_no_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.bin"
    with atomic_write(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    assert os.listdir(path.parent) == ["x.bin"]


def test_an_error_inside_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    script = (
        "import os, pathlib, signal, sys\n"
        "from wovr.runs import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -9
    assert path.read_bytes() == b"old"
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == ["x.bin"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, ["No space left on device", "free some space"]),
        (errno.EDQUOT, ["quota exceeded", "free some of your quota"]),
        (errno.EROFS, ["Read-only file system", "writable disk"]),
        (errno.EIO, ["Input/output error", "what was already written is kept"]),
    ],
)
def test_a_full_or_broken_disk_is_one_line_and_keeps_the_old_file(
    code: int, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError) as error, atomic_write(path) as file:
        file.write(b"new")
    assert all(word in str(error.value) for word in [str(path), *words])
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(UserError, match="taken"), atomic_write(tmp_path / "taken" / "x.bin") as file:
        file.write(b"new")


def test_json_round_trip_has_the_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None], "a": "ü"})
    write_json(tmp_path / "b.json", {"a": "ü", "b": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"a": "ü", "b": [1, 2.5, None]}
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": }'])
def test_broken_json_names_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.json: not valid JSON"):
        read_json(path)


def test_missing_json_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.json: no such file"):
        read_json(tmp_path / "absent.json")


def test_fingerprint_depends_on_the_values_only() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint([])) == 16


def test_file_sha256_agrees_with_hashlib(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_run_is_done_for_the_inputs_it_was_finished_with(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", {"seed": 1, "sizes": (1, 2)})
    assert not run.is_done()
    run.start()
    assert not run.is_done()
    run.finish(success_rate=0.5)
    assert run.is_done()
    assert RunFolder(tmp_path / "run", {"seed": 1, "sizes": [1, 2]}).is_done()
    assert not RunFolder(tmp_path / "run", {"seed": 2, "sizes": (1, 2)}).is_done()
    assert read_json(run.marker)["success_rate"] == 0.5
    run.start()
    assert not run.is_done(), "a run that is started again is no longer done"


def test_a_folder_is_filled_by_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with only_run(folder) as descriptor:
        with (
            pytest.raises(UserError, match=r"new: another `wovr` command, .* wait for it to end"),
            only_run(folder, 0.1),
        ):
            pass
        assert (folder / ".lock").exists()  # whoever was refused has not taken it away
        inherited = os.dup(descriptor)
    with only_run(tmp_path / "other"):
        pass
    assert not folder.exists()  # nothing was written
    os.close(inherited)


def test_who_inherits_the_lock_keeps_others_out(tmp_path: Path) -> None:
    """As a stage does whose chain was killed."""
    script = (
        "import os, pathlib, signal, subprocess, sys\n"
        "from wovr.runs import only_run\n"
        "with only_run(pathlib.Path(sys.argv[1])) as lock:\n"
        "    stage = subprocess.Popen(['sleep', '60'], pass_fds=[lock], stdout=subprocess.DEVNULL)\n"
        "    print(stage.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=False, stdout=subprocess.PIPE, timeout=60
    )
    assert killed.returncode == -9
    with pytest.raises(UserError, match="or one that it started"), only_run(tmp_path, 0.1):
        pass
    os.kill(int(killed.stdout), 9)
    with only_run(tmp_path, 20.0):
        (tmp_path / "result").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_lock_is_handed_on_and_never_held_twice(tmp_path: Path) -> None:
    """Many who wait while the file is removed and made anew: no two of them are ever inside."""
    script = (
        "import os, pathlib, sys\n"
        "from wovr.runs import only_run\n"
        "for _ in range(40):\n"
        "    with only_run(pathlib.Path(sys.argv[1]), 60.0):\n"
        "        inside = os.open(sys.argv[1] + '/inside', os.O_CREAT | os.O_EXCL)\n"
        "        os.close(inside); os.unlink(sys.argv[1] + '/inside')\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "x")]) for _ in range(4)]
    assert [other.wait(120) for other in others] == [0, 0, 0, 0]
    assert not (tmp_path / "x" / ".lock").exists()


def test_the_first_process_locks_for_all_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with only_run(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with only_run(tmp_path, 0.0) as descriptor:
            assert descriptor is None


def test_a_finished_result_of_other_inputs_is_left_alone(tmp_path: Path) -> None:
    RunFolder(tmp_path, {"seed": 0, "suite": "x"}).finish()
    RunFolder(tmp_path, {"seed": 0, "suite": "x"}).refuse_others()
    with pytest.raises(UserError, match="holds a finished result of other inputs: seed was 0 and is 1; choose another"):
        RunFolder(tmp_path, {"seed": 1, "suite": "x"}).refuse_others()


def begun(folder: Path, **inputs: object) -> RunFolder:
    return RunFolder(folder, {"seed": 0, "env": {"size": 16}} | inputs, begun="verb.json")


def test_a_folder_that_was_begun_with_other_inputs_is_left_alone(tmp_path: Path) -> None:
    begun(tmp_path).start()
    begun(tmp_path, seed=1).refuse_others()  # nothing was made yet
    (tmp_path / "a.tar").touch()
    begun(tmp_path).refuse_others()
    with pytest.raises(UserError, match=r"was begun with other inputs: env\.size was 16 and is 32; give the same"):
        begun(tmp_path, env={"size": 32}).refuse_others()
    with pytest.raises(UserError, match=r"seed was 0 and is 1, x0 was None and is 0 and 1 more; give the same"):
        begun(tmp_path, env={}, seed=1, x0=0, x1=1).refuse_others()
    begun(tmp_path).finish()
    with pytest.raises(UserError, match="holds a finished result of other inputs: seed was 0 and is 1; choose another"):
        begun(tmp_path, seed=1).refuse_others()


def test_inputs_that_are_renewed_are_told_and_new_ones_have_a_default(tmp_path: Path) -> None:
    begun(tmp_path, source="x").start()
    (tmp_path / "a.tar").touch()
    assert begun(tmp_path, source="y").refuse_others(["source"]) == ["source"]
    assert begun(tmp_path, source="x", new=3).refuse_others(["source"], {"new": 3, "gone": 4}) == []
    with pytest.raises(UserError, match="other inputs: seed was 0 and is 1; give"):
        begun(tmp_path, source="y", seed=1).refuse_others(["source"])


def test_what_somebody_else_has_put_there_is_left_alone(tmp_path: Path) -> None:
    for ours in ("stage.json", "stage.log", ".lock", ".left-over.tmp"):
        (tmp_path / ours).touch()
    begun(tmp_path).refuse_others()
    (tmp_path / "mine").touch()
    with pytest.raises(UserError, match="not empty, and not begun by this command"):
        begun(tmp_path).refuse_others()
    (tmp_path / "verb.json").write_text("[1]")
    with pytest.raises(UserError, match=r"verb\.json: not a list of inputs"):
        begun(tmp_path).refuse_others()
