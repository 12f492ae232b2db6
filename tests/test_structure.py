"""The rules that keep the house in order: one-way imports, file sizes, what simulator workers import, no unpickling."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.util import resolve_name
from pathlib import Path

import pytest

import wovr

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src" / "wovr").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))

ROOMS = [
    "allocation",
    "printing",
    "errors",
    "processes",
    "failures",
    "importing",
    "types",
    "renames",
    "runs",
    "functional",
    "models",
    "data",
    "metrics",
    "envs",
    "tasks",
    "callbacks",
    "serve",
    "commands",
    "cli",
    "__main__",
]
"""From the ground up: a room imports itself and those before it in this list."""

TORCH_FREE = (
    *(
        "wovr.types",
        "wovr.errors",
        "wovr.failures",
        "wovr.importing",
        "wovr.printing",
        "wovr.renames",
        "wovr.runs",
        "wovr.cli",
        "wovr.envs",
    ),
    *(f"wovr.data.{name}" for name in ("store", "keyframes", "inspection", "pictures")),
    *("wovr.metrics.networks.weights", "wovr.commands.weights"),
)
"""What has to work without torch: whatever a simulator worker imports, the store, the table of verbs, weights."""

TORCH_FILES = tuple(
    f"wovr.envs.{name}"
    for name in (
        *("cut_simulators", "actors.policy"),
        *(f"imagined.{name}" for name in ("env", "parts", "open_starts")),
    )
)
"""Modules below TORCH_FREE that may import it, in the parent process only: a policy that acts, imagination."""


def module_name(path: Path) -> str:
    """`src/wovr/envs/base.py` -> `wovr.envs.base`; a package's `__init__.py` -> the package."""
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path, source: str | None = None) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a file imports, inside functions too; `from a import b` gives `a.b`."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text() if source is None else source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def wrong_way_imports(path: Path, source: str | None = None) -> list[str]:
    """Imports of a file that point down in ROOMS, or at the interface, which is for others.

    The interface itself imports nothing when it is imported (test_interface.py): what it does is for type checkers.
    """
    if path == ROOT / "src/wovr/__init__.py":
        return []
    here = module_name(path).split(".")[1:2]
    height = ROOMS.index(here[0]) if here else -1
    wrong = []
    for line, imported in imported_modules(path, source):
        first, _, rest = imported.partition(".")
        room = rest.split(".")[0]
        if first == "wovr" and (room in wovr.__all__ or (room in ROOMS and ROOMS.index(room) > height)):
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {imported}")
    return wrong


def import_graph(paths: Iterable[Path]) -> dict[str, set[str]]:
    """Module -> modules of the same files that it imports: inside functions and for type checkers too."""
    known = {module_name(path) for path in paths}
    graph: dict[str, set[str]] = {}
    for path in paths:
        here = graph[module_name(path)] = set()
        for _, name in imported_modules(path):
            while name and name not in known:
                name = name.rpartition(".")[0]  # `from a.b import thing` gives `a.b.thing`
            if name and module_name(path) != "wovr":  # whose names are had lazily
                here.add(name)
    return graph


def circles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Groups of modules each of which leads to every other one, each group sorted."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        found, waiting = set[str](), [start]
        while waiting:
            below = set(graph.get(waiting.pop(), ())) - found
            found |= below
            waiting += below
        reached[start] = found
    groups = {tuple(sorted(b for b in graph if b in reached[a] and a in reached[b])) for a in graph if a in reached[a]}
    return [list(group) for group in sorted(groups)]


def torch_free_modules() -> list[str]:
    """Every module that has to work without torch."""
    names = [module_name(path) for path in SOURCES]
    return [name for name in names if f"{name}.".startswith(tuple(f"{free}." for free in TORCH_FREE))]


def test_every_file_stands_in_a_room() -> None:
    rooms = {module_name(path).split(".")[1] for path in SOURCES if module_name(path) != "wovr"}
    assert rooms <= set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    assert wrong_way_imports(path) == []


@pytest.mark.parametrize(
    "source",
    [
        "import wovr.tasks.cloning",
        "from wovr.commands import collect",
        "from wovr import tasks",
        "from wovr import EpisodeStore",
        "from ..tasks import cloning",
        "def late() -> None:\n    from wovr.cli import main",
    ],
)
def test_a_wrong_way_import_is_noticed(source: str) -> None:
    assert len(wrong_way_imports(ROOT / "src/wovr/envs/base.py", source)) == 1


def test_no_files_import_each_other_in_a_circle() -> None:
    found = circles(import_graph(SOURCES))
    assert found == [], "\n".join(" <-> ".join(group) for group in found)


def test_a_circle_is_noticed() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"f"}}
    assert circles(graph) == [["a", "b", "c"], ["f"]]


def test_modules_of_the_simulator_side_never_import_torch() -> None:
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'lightning', 'diffusers'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    names = [name for name in torch_free_modules() if name not in TORCH_FILES]
    result = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr.splitlines()[-1]
    assert {free for free in TORCH_FREE if free not in names} == set(), "a module of the list is gone"


LONG = 400
"""Lines that most subjects take less than."""

LONG_FILES = {
    "src/wovr/models/world_model/model.py": "one network: what it is made of, what it is told, how a chunk is sampled",
    "src/wovr/envs/imagined/env.py": "one environment: its rows, what they are at a moment, how a chunk moves them on",
    "src/wovr/tasks/grpo/training.py": "one task: its arguments, an update from rollouts to steps, what it reports",
    "src/wovr/data/store/members.py": "one format: each member of a sample, how it is written, read and bounded",
    "src/wovr/envs/workers/vector.py": "one environment: its rows in several processes, asked and put together again",
    "src/wovr/models/checkpoint.py": "one record: how it is written, read, checked, and made into networks again",
}
"""File -> why its subject is one. A file is cut where a subject ends, not where a line is counted."""


@pytest.mark.parametrize("path", SOURCES + TESTS + BENCHMARKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_holds_one_subject_and_is_named_by_it(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}
    name, lines = str(path.relative_to(ROOT)), len(path.read_text().splitlines())
    if lines > LONG:
        assert name in LONG_FILES, f"{lines} lines: cut it where a subject ends, or say in LONG_FILES why it is one"


def test_reasons_stand_for_files_that_are_long() -> None:
    for name, reason in LONG_FILES.items():
        assert len((ROOT / name).read_text().splitlines()) > LONG, f"{name} needs no reason any more"
        assert len(reason.split()) > 3


PICKLERS = {"pickle", "cloudpickle", "dill", "shelve", "joblib"}


def unpickling(source: str) -> list[str]:
    """Calls and imports by which something read from disk could run code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name.split(".")[0] in PICKLERS]
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if call == "torch.load" and keywords.get("weights_only") != "True":
            found.append(f"{call} without weights_only=True")
        if call.endswith("load_from_checkpoint") and keywords.get("weights_only") != "True":
            found.append(f"{call} without weights_only=True")
        if keywords.get("allow_pickle", "False") != "False":
            found.append(f"{call} with allow_pickle")
        if call in {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec"}:
            found.append(call)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_nothing_is_unpickled(path: Path) -> None:
    assert unpickling(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "Task.load_from_checkpoint(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
    ],
)
def test_unpickling_is_noticed(source: str) -> None:
    assert len(unpickling(source)) == 1


ROBOT_FOLDERS = ("models/robot", "tasks/robot")
GENERAL = (
    "models/world_model",
    "tasks/world_model",
    "tasks/base.py",
    "data/training",
    "envs/imagined/env",
    "callbacks",
)
OBSERVED = ("envs/imagined/env", "data/training/demonstrations.py")
"""Of those, what gives a policy its observations, of which proprioception may be a part."""


def test_the_general_path_knows_no_robot() -> None:
    """What one robot needs is a plug-in: only its own rooms import it, and the rest has no word of it."""
    package = ROOT / "src" / "wovr"
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        if not name.startswith(ROBOT_FOLDERS):
            assert not re.search(r"(?:from|import) wovr\.(?:models|tasks)\.robot\b", path.read_text()), name
        if name.startswith(GENERAL):
            robot = r"(?i)\bfingers?\b|\btouch\w*|\bgripper\b(?! open)"
            words = re.findall(robot + ("" if name.startswith(OBSERVED) else r"|\bproprio\w*"), path.read_text())
            assert not words, f"{name}: {words}"
