"""Where things lie unless somebody says otherwise, what makes them, and where else they are looked for.

`data/NAME` and `runs/NAME/checkpoints/last.ckpt`: configurations and defaults name their inputs so, and a run of
`conf/NAME.yaml` goes to `runs/NAME` unless it is told another folder. An input that is named so is taken from, in this
order:

1. what the command line says, which is never exchanged for anything else;
2. what a run that goes on was begun with;
3. that very place in the working folder;
4. the newest finished chain of `wovr pace` below runs/ (`make demo` makes runs/demo/SUITE): what trains takes what the
   chain made first (the cloned policy and what was learned from its episodes), what measures what it made last. Of the
   suite that the command line names, where it names one;
5. for what only shows and makes nothing (`wovr play`): the shipped weights, in weights/tabletop.

Each command says what it took. What is nowhere is an error that says which command makes it. Torch-free.
"""

from __future__ import annotations

import re
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wovr.commands.config_files import config_name, flag_values
from wovr.commands.pace.folders import CHAIN_FILE, read_record
from wovr.errors import UserError
from wovr.runs import is_first_process, read_json

RUNS = Path("runs")
"""Where runs and chains lie."""

LAST = "checkpoints/last.ckpt"
"""The checkpoint of a run."""

_OWN = ("out", "config")
"""Options that name what a command makes, or reads in another way."""

SHIPPED = Path("weights/tabletop")
"""Where `wovr weights pack` puts the networks of a chain, and `wovr weights pull` those of others."""

WHOLE_CHAIN = "wovr pace"
"""What makes everything."""

Words = Sequence[str]


@dataclass(frozen=True)
class Place:
    """Something that one command makes and others need.

    Attributes:
        path: Where it lies.
        command: What makes it.
        is_of: Whether a stage of a chain makes the same, by its words.
        needs: Paths of the places that the command needs.
    """

    path: str
    command: str
    is_of: Callable[[Words], bool]
    needs: tuple[str, ...] = ()

    @property
    def inside(self) -> str:
        """Its path in the folder of the run or stage that made it; empty where it is the folder."""
        return LAST if self.path.endswith(LAST) else ""

    def is_there(self) -> bool:
        """Whether it is there; a folder that was begun counts, so that whoever reads it says what is wrong with it."""
        path = Path(self.path)
        return path.is_file() if self.inside else path.is_dir() and any(path.iterdir())


def _option(words: Words, name: str) -> str | None:
    """The value of a flag; None without it."""
    return next((value for flag, value in flag_values(words) if flag == f"--{name}"), None)


def _run(name: str, *needs: str, verb: str = "fit") -> Place:
    """What `wovr fit` (or another verb) makes of conf/NAME.yaml."""
    command = f"wovr {verb}" + ("" if verb == name else f" --config conf/{name}.yaml")

    def is_of(words: Words) -> bool:
        config = _option(words, "config")
        return words[:1] == [verb] and config is not None and config_name(Path(config)).rpartition("/")[2] == name

    return Place(f"runs/{name}/{LAST}", command, is_of, needs)


def _episodes(words: Words, *actors: str) -> bool:
    """Whether a stage collects episodes, of one of these actors or, without any, of a checkpoint."""
    policy = _option(words, "policy")
    return words[:1] == ["collect"] and (policy in actors if actors else policy not in ("expert", "random"))


DEMOS, BASE, KEYFRAMES, HELD_OUT = "data/demos", "data/base", "data/keyframes", "data/held_out"
WHOLE = "data/imagined_whole"
POLICY, ROBOT, WORLD_MODEL, REWARD, VALUE, TRUST, RL, IDM, STATE_PROBE = (
    f"runs/{name}/{LAST}" for name in ("bc", "robot", "wm", "reward", "value", "trust", "rl", "idm", "state_probe")
)

PLACES: dict[str, Place] = {
    place.path: place
    for place in (
        Place(
            DEMOS,
            "wovr collect --policy expert --suite spatial --episodes 70",
            lambda words: _episodes(words, "expert"),
        ),
        _run("bc", DEMOS),
        Place(BASE, "wovr collect --episodes 1500", _episodes, (POLICY,)),
        _run("robot", BASE),
        _run("wm", BASE, ROBOT),
        _run("reward", BASE),
        _run("value", BASE),
        Place(
            WHOLE,
            f"wovr data imagine {BASE} --out {WHOLE}",
            lambda words: list(words[:2]) == ["data", "imagine"] and _option(words, "restart") in (None, "0"),
            (BASE, WORLD_MODEL),
        ),
        _run("trust", BASE, WHOLE, REWARD),
        Place(
            KEYFRAMES, f"wovr data keyframes {BASE}", lambda words: list(words[:2]) == ["data", "keyframes"], (BASE,)
        ),
        _run("rl", POLICY, BASE, WORLD_MODEL, REWARD, VALUE, verb="rl"),
        # Of a chain's, those that its world model was measured with; see `Chain.made`.
        Place(
            HELD_OUT, f"wovr collect --episodes 40 --init_states=-10: --out {HELD_OUT}", lambda words: False, (POLICY,)
        ),
        _run("idm", BASE),
        _run("state_probe", BASE),
        _run("ae", BASE),
    )
}
"""By path, each after what it needs."""


SHIPPED_NAMES: dict[str, str] = {
    POLICY: "policy.ckpt",
    RL: "policy_improved.ckpt",
    ROBOT: "robot.ckpt",
    WORLD_MODEL: "world_model.ckpt",
    REWARD: "reward.ckpt",
    VALUE: "value.ckpt",
    BASE: "episodes",
}
"""Place -> what stands for it in a folder of shipped weights."""


@dataclass(frozen=True)
class Chain:
    """A finished chain.

    Attributes:
        folder: Its folder.
        suite: The suite it is of.
        finished: When, in seconds since 1970.
        stages: Stage -> the words of its command, folders of stages in them as {stage:NAME}; in their order.
    """

    folder: Path
    suite: str
    finished: float
    stages: Mapping[str, Words]

    def made(self, place: Place, last: bool) -> Path | None:
        """Where it made the same as lies in a place: the first that it made or the last; None for nowhere."""
        if place.path == HELD_OUT:
            measuring = [words for words in self.stages.values() if words[:1] == ["evaluate"]]
            measured = [_option(words, "data") for words in measuring if _option(words, "world_model")]
            names = [name for data in measured for name in self.stages if data == f"{{stage:{name}}}"]
        else:
            names = [name for name, words in self.stages.items() if place.is_of(words)]
        paths = [self.folder / name / place.inside for name in names]
        paths = [path for path in paths if path.exists()]
        return (paths[-1] if last else paths[0]) if paths else None

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.finished))
        return f"the chain {self.folder} of {when}"


def finished_chains(suite: str | None = None) -> list[Chain]:
    """The finished chains below runs/, the newest first.

    Args:
        suite: Only those of this suite; None for any.
    """
    records = [record for pattern in ("*", "*/*") for record in RUNS.glob(f"{pattern}/{CHAIN_FILE}")]
    chains = [chain for record in records if (chain := _read_chain(record.parent)) is not None]
    wanted = [chain for chain in chains if suite is None or chain.suite == suite]
    return sorted(wanted, key=lambda chain: chain.finished, reverse=True)


def _read_chain(folder: Path) -> Chain | None:
    """The chain in a folder; None where it is not finished, or its records cannot be read."""
    report = folder / "metrics.json"
    try:
        values = read_json(report)
        names = [str(stage["stage"]) for stage in values["stages"] if stage["finished"]]
        if len(names) < len(values["stages"]) or any("/" in name or name.startswith(".") for name in names):
            return None
        stages = {name: read_record(folder / name)["inputs"]["command"] for name in names}
        return Chain(folder, str(values["suite"]), report.stat().st_mtime, stages)
    except (UserError, KeyError, TypeError):
        return None


@dataclass
class Finder:
    """Finds what the options of a command name by its place.

    Args:
        args: The words of the command line, which decide what was given by hand.
        last: Take the last that a chain made instead of the first: for measuring.
        begun: Options of the run that is gone on with, nested as those that are looked through.
        shipped: Take shipped weights where there is nothing of one's own.
        optional: Options whose inputs may be nowhere: such a one is left out of its list.
    """

    args: Sequence[str] = ()
    last: bool = False
    begun: Any = None
    shipped: bool = False
    optional: Sequence[str] = ()
    _told: set[str] = field(default_factory=set)

    def fill_in(self, options: Any) -> Any:
        """The same options with every place in them replaced by where it was found.

        Args:
            options: Nested dictionaries and namespaces (which are changed as they are), lists, texts and paths; a text
                may be a comma list.

        Raises:
            UserError: Something is nowhere.
        """
        return self._fill_in(options, self.begun)

    def _fill_in(self, value: Any, begun: Any, optional: bool = False) -> Any:
        if isinstance(value, str | Path):
            return type(value)(self._find_all(str(value), begun, optional)) if value else value
        if isinstance(value, list | tuple):
            others = begun if isinstance(begun, list) and len(begun) == len(value) else [None] * len(value)
            return type(value)(self._fill_in(item, other) for item, other in zip(value, others, strict=True))
        there = begun if isinstance(begun, Mapping) else {}
        if isinstance(value, Mapping):
            return {name: self._fill_in(item, there.get(name), name in self.optional) for name, item in value.items()}
        if isinstance(value, Namespace):
            for name, item in vars(value).items():
                if name not in _OWN:
                    setattr(value, name, self._fill_in(item, there.get(name), name in self.optional))
        return value

    def _find_all(self, paths: str, begun: Any, optional: bool = False) -> str:
        """`find` for a comma list, of which the run that is gone on with may have taken others."""
        if not any(path in PLACES for path in paths.split(",")):
            return paths
        another = isinstance(begun, str) and begun != paths and not self._given(paths)
        if another and all(Path(path).exists() for path in begun.split(",")):
            return self._tell(paths, begun, "as when this run was begun")
        found = [self._find(path, optional) for path in paths.split(",")]
        return ",".join(path for path in found if path is not None)

    def find(self, path: str) -> str:
        """Where the thing is that lies in a place; another path is returned as it is.

        Raises:
            UserError: It is nowhere.
        """
        found = self._find(path)
        assert found is not None
        return found

    def _find(self, path: str, optional: bool = False) -> str | None:
        """The same; None for what is optional and nowhere."""
        place = PLACES.get(path)
        if place is None:
            return path
        if self._given(path):
            if not place.is_there():
                raise UserError(f"{path}: missing", f"make it with: {place.command}")
            return path
        if place.is_there():
            return self._tell(path, path)
        for chain in self._chains():
            if (found := chain.made(place, self.last)) is not None:
                return self._tell(path, str(found), f"of {chain}")
        shipped = SHIPPED / SHIPPED_NAMES[path] if self.shipped and path in SHIPPED_NAMES else None
        if shipped is not None and shipped.exists():
            return self._tell(path, str(shipped), "shipped")
        if optional:
            return None
        first = self._first_to_make(place)
        begin = "make it" if first is place else "begin"
        raise UserError(
            f"{path}: missing, and no finished chain below {RUNS}/ has made one",
            f"{begin} with: {first.command} (or everything with: {WHOLE_CHAIN})",
        )

    def _first_to_make(self, place: Place) -> Place:
        """The first of the places that have to be made for this one, by a command that has all it needs."""
        for need in place.needs:
            there = PLACES[need].is_there() or any(chain.made(PLACES[need], self.last) for chain in self._chains())
            if not there:
                return self._first_to_make(PLACES[need])
        return place

    def _chains(self) -> list[Chain]:
        return finished_chains(_option(self.args, "suite"))

    def _given(self, path: str) -> bool:
        """Whether the command line names a path."""
        return any(re.search(rf"(?<![\w./-]){re.escape(path)}(?![\w./-])", word) for word in self.args)

    def _tell(self, place: str, path: str, why: str = "") -> str:
        """Say once what was taken; returns it."""
        line = f"taking {path}" + (f" for {place}, {why}" if why else "")
        if line not in self._told and is_first_process():
            print(line)
        self._told.add(line)
        return path
