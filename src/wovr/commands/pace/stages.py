"""The stages of a chain: what YAML declares of them, checked, repeated by rounds, put in order, made into commands.

Its variables are no interpolation of jsonargparse's or OmegaConf's: {stage:NAME} is a folder and a need at once, means
another stage in every round, and is filled in twice, with folders for the command and without for what stands for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wovr.commands.config_files import find_config, read_config_file
from wovr.commands.pace.proprioception import PROPRIO, for_episodes
from wovr.errors import UserError, check_least

KEYS = (
    *("name", "command", "config", "args", "needs", "title", "counts", "seconds"),
    *("alone", "launch", "each_round", *PROPRIO),
)
"""What a stage may declare."""

COUNTS = ("budget", "evaluation", "baseline")
"""What the real episodes of a stage may count as."""

OWN = ("out", "suite", "seed", "round", "stage", "previous")
"""Variables that the chain gives a value to."""

_VARIABLE = re.compile(r"\{([a-z_]+)(?::([^{}]*))?\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Stage:
    """One command of the chain.

    Attributes:
        name: Its name, which is that of its folder too; from the second round on with the round's number.
        command: Words after `wovr`, e.g. `fit`; variables are filled in.
        config: YAML file of the command; None for none.
        args: Flag without dashes -> value; variables in strings are filled in, lists and mappings become JSON.
        needs: Stages that have to be finished before, those named by variables among them.
        title: How the report calls it.
        counts: What its real episodes count as: `budget`, `evaluation` (apart), or `baseline`, a run beside the chain
            that is held to the budget on its own.
        seconds: What it took somebody; a guess of what is left of the chain is made from it. None for unknown.
        alone: Nothing else runs while it does, and all cores are its own.
        launch: The chain's launcher may be put in front of it.
        round: 1, 2, ...
    """

    name: str
    command: str
    config: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    title: str = ""
    counts: str = "budget"
    seconds: float | None = None
    alone: bool = False
    launch: bool = True
    round: int = 1

    @property
    def verb(self) -> str:
        """The first word after `wovr`."""
        return self.command.split()[0]

    def option(self, name: str, default: Any = None) -> Any:
        """An option as the command will see it, as far as YAML says: from `args`, else from the config file."""
        if name in self.args:
            return self.args[name]
        return read_config(self, self.config).get(name, default) if self.config else default


@dataclass(frozen=True)
class Surroundings:
    """What variables stand for.

    Attributes:
        out: Folder of the chain.
        suite: Suite.
        seed: Seed.
    """

    out: Path
    suite: str
    seed: int

    def folder(self, stage: str) -> Path:
        """The folder of a stage."""
        return self.out / stage

    def words(self, stage: Stage) -> list[str]:
        """The words after `wovr` that run a stage."""
        return _words(stage, str(self.out), lambda name: str(self.folder(name)), self)

    def identity(self, stage: Stage) -> list[str]:
        """The same without the place of the folders, so that a chain that was moved is still the same chain."""
        return _words(stage, "{out}", lambda name: f"{{stage:{name}}}", self)


def read_stages(
    declared: Sequence[Mapping[str, Any]],
    rounds: int = 1,
    first_round: Mapping[str, str] | None = None,
    variables: Mapping[str, Any] | None = None,
    proprio: bool = True,
) -> list[Stage]:
    """The stages of a chain, in an order in which each comes after what it needs, else as declared.

    Args:
        declared: What YAML says of each; see KEYS.
        rounds: How often the stages with `each_round: true` are repeated; 0 leaves them out. From a stage of a round
            `{stage:NAME}` is the one of its own round and `{previous:NAME}` the one of the round before; from others
            `{stage:NAME}` is that of the last round.
        first_round: What `{previous:NAME}` stands for in the first round.
        variables: What `{NAME}` stands for: by itself in place of a value the very value (null: the flag is left out),
            in a text its text.
        proprio: Whether the episodes hold proprioception, see PROPRIO.

    Raises:
        UserError: An unknown key, a value of the wrong kind, a name that comes twice, an unknown name in `needs` or in
            a variable, an unknown variable or one whose name is taken, stages that need each other, a config file that
            does not exist.
    """
    check_least("rounds", rounds, 0)
    if not declared:
        raise UserError("stages: the chain has none", "declare some, as conf/pace/tabletop.yaml does")
    check_variables(variables or {})
    for number, entry in enumerate(declared, 1):
        _check(entry, number)
    declared = [for_episodes(entry, proprio) for entry in declared if proprio or not entry.get("needs_proprio")]
    declared = [_with_variables(entry, variables or {}) for entry in declared if rounds or not entry.get("each_round")]
    repeated = {entry["name"] for entry in declared if entry.get("each_round")}
    once = [entry["name"] for entry in declared]
    for name in once:
        if once.count(name) > 1:
            raise UserError(f"stages: '{name}' is declared twice", "give each stage a name of its own")
    references = References(set(once), repeated, rounds, dict(first_round or {}))
    before: list[Stage] = []
    last = max((number for number, entry in enumerate(declared) if entry["name"] in repeated), default=-1)
    blocks = [declared[: last + 1]] if last >= 0 else []
    for number in range(1, max(1, rounds) + 1):
        for entry in blocks[0] if blocks else declared:
            if number == 1 or entry["name"] in repeated:
                before.append(references.stage(entry, number))
    if blocks:
        before += [references.stage(entry, rounds) for entry in declared[last + 1 :]]
    names = [stage.name for stage in before]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"stages: round {rounds} makes a second '{name}'", "rename the stage declared so")
    for stage in before:
        if stage.config is not None:
            read_config(stage, stage.config)
    return _in_order(before)


@dataclass(frozen=True)
class References:
    """Turns names of stages as declared into those of a round.

    Attributes:
        names: All declared.
        repeated: Those of every round.
        rounds: Number of rounds.
        first: Stands for the previous round's stages in the first.
    """

    names: set[str]
    repeated: set[str]
    rounds: int
    first: Mapping[str, str]

    def stage(self, entry: Mapping[str, Any], number: int) -> Stage:
        """The stage that is declared so, in a round."""
        name = str(entry["name"])
        own = number if name in self.repeated else self.rounds
        found: list[str] = []

        def rename(text: str) -> str:
            return _VARIABLE.sub(lambda match: self._variable(match, name, own, found), text)

        args = _map_strings(dict(entry.get("args") or {}), rename)
        command = rename(str(entry["command"]))
        config = str(entry["config"]) if entry.get("config") else None
        needs = [self._resolve(need, name, own, "needs") for need in entry.get("needs") or ()]
        return Stage(
            name=numbered(name, number) if name in self.repeated else name,
            command=command,
            config=config,
            args=args,
            needs=tuple(dict.fromkeys([*needs, *found])),
            title=str(entry.get("title") or name) + (f", round {number}" if number > 1 else ""),
            counts=str(entry.get("counts") or COUNTS[0]),
            seconds=entry.get("seconds"),
            alone=bool(entry.get("alone")),
            launch=entry.get("launch") is not False,
            round=number if name in self.repeated else 1,
        )

    def _variable(self, match: re.Match[str], stage: str, number: int, found: list[str]) -> str:
        """A variable with the names of its round; those that stay the same for all stages are filled in later."""
        kind, name = match.group(1), match.group(2)
        if kind == "round" and name is None:
            return str(number)
        if kind in ("out", "suite", "seed") and name is None:
            return match.group(0)
        if kind == "stage" and name is not None:
            found.append(self._resolve(name, stage, number, f"{{stage:{name}}}"))
        elif kind == "previous" and name is not None:
            found.append(self._previous(name, stage, number))
        else:
            raise UserError(
                f"stage '{stage}': unknown variable {match.group(0)}",
                "there are {out}, {suite}, {seed}, {round}, {stage:NAME}, {previous:NAME} and those under variables",
            )
        return f"{{stage:{found[-1]}}}"

    def _resolve(self, name: Any, stage: str, number: int, where: str) -> str:
        if name not in self.names:
            raise UserError(
                f"stage '{stage}': {where} names '{name}'", f"the stages are {', '.join(sorted(self.names))}"
            )
        return numbered(name, number) if name in self.repeated else str(name)

    def _previous(self, name: str, stage: str, number: int) -> str:
        if name not in self.repeated or stage not in self.repeated:
            raise UserError(
                f"stage '{stage}': {{previous:{name}}} is of no round", "both stages have to say each_round: true"
            )
        if number > 1:
            return numbered(name, number - 1)
        if name not in self.first:
            raise UserError(
                f"stage '{stage}': {{previous:{name}}} in the first round", f"say under first_round what {name} is then"
            )
        return self._resolve(self.first[name], stage, number, f"first_round.{name}")


def numbered(name: str, number: int) -> str:
    """A stage's name in a round: the first has none."""
    return name if number == 1 else f"{name}_{number}"


def choose_stages(stages: Sequence[Stage], first: str | None, last: str | None) -> list[Stage]:
    """The stages from one to another, both included.

    Raises:
        UserError: There is none of that name, or the last comes before the first.
    """
    names = [stage.name for stage in stages]
    for flag, name in (("--from", first), ("--until", last)):
        if name is not None and name not in names:
            raise UserError(f"{flag} {name}: no such stage", f"the stages are {', '.join(names)}")
    start = names.index(first) if first is not None else 0
    end = names.index(last) if last is not None else len(names) - 1
    if end < start:
        raise UserError(f"--until {last} comes before --from {first}", "exchange the two")
    return list(stages[start : end + 1])


def read_config(stage: Stage, path: str) -> dict[str, Any]:
    """What a stage's YAML says.

    Raises:
        UserError: It does not exist or is no mapping.
    """
    try:
        return read_config_file(find_config(path))
    except UserError as error:
        raise UserError(f"stage '{stage.name}': config {error}") from error


def _check(entry: Any, number: int) -> None:
    """Check what one entry of `stages` says by itself."""
    if not isinstance(entry, Mapping) or "name" not in entry or "command" not in entry:
        raise UserError(
            f"stages: entry {number} is no mapping with name and command", "write - {name: x, command: fit}"
        )
    name, where = str(entry["name"]), f"stage '{entry['name']}'"
    unknown = [key for key in entry if key not in KEYS]
    if unknown:
        raise UserError(f"{where}: unknown key '{unknown[0]}'", f"the keys are {', '.join(KEYS)}")
    if not _NAME.fullmatch(name):
        raise UserError(f"{where}: cannot be the name of a folder", "use letters, digits, - and _")
    for key in ("name", "command", "config", "title"):
        if not isinstance(entry.get(key, ""), str | None):
            raise UserError(f"{where}: {key} is {entry[key]!r}, no text", "write it in quotes")
    if not str(entry["command"]).split():
        raise UserError(f"{where}: the command is empty", "name a verb, e.g. fit")
    if not isinstance(entry.get("args") or {}, Mapping):
        raise UserError(f"{where}: args is no mapping", "write args: {flag: value}, without dashes")
    if "out" in (entry.get("args") or {}):
        raise UserError(f"{where}: args names out", "leave it out: every stage has the folder of its name")
    if not isinstance(entry.get("needs") or [], list):
        raise UserError(f"{where}: needs is no list", "write needs: [NAME, NAME]")
    if (entry.get("counts") or COUNTS[0]) not in COUNTS:
        raise UserError(f"{where}: counts is '{entry['counts']}'", f"give one of {', '.join(COUNTS)}")
    if not isinstance(entry.get("seconds") or 0, int | float):
        raise UserError(f"{where}: seconds is '{entry['seconds']}'", "give a number")
    if not isinstance(entry.get("without_proprio") or {}, Mapping):
        raise UserError(f"{where}: without_proprio is no mapping", "write without_proprio: {flag: value}, as args")
    for flag in ("alone", "launch", "each_round", "needs_proprio"):
        if not isinstance(entry.get(flag) or False, bool):
            raise UserError(f"{where}: {flag} is '{entry[flag]}'", "give true or false")


def check_variables(variables: Mapping[str, Any]) -> None:
    """Check the names of variables.

    Raises:
        UserError: A name that the chain has itself, or that cannot stand in braces.
    """
    for name in variables:
        if name in OWN:
            raise UserError(f"variables: '{name}' is the chain's own", "choose another name")
        if not re.fullmatch("[a-z_]+", str(name)):
            raise UserError(f"variables: '{name}' cannot stand in braces", "use small letters and _")


def _with_variables(entry: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """A declared stage with its user's variables filled in, in command and args."""

    def fill(text: str) -> Any:
        whole = _VARIABLE.fullmatch(text)
        if whole and whole.group(2) is None and whole.group(1) in variables:
            return variables[whole.group(1)]
        return _VARIABLE.sub(
            lambda match: (
                _text(variables[match.group(1)])
                if match.group(2) is None and match.group(1) in variables
                else match.group(0)
            ),
            text,
        )

    args = {key: _map_strings(value, fill) for key, value in (entry.get("args") or {}).items()}
    present = {key: value for key, value in args.items() if value is not None or entry["args"][key] is None}
    return {**entry, "command": str(fill(entry["command"])), "args": present}


def _in_order(stages: Sequence[Stage]) -> list[Stage]:
    """Each after what it needs; of those that could come next, the one that was declared first."""
    left, placed = list(stages), dict[str, Stage]()
    while left:
        ready = next((stage for stage in left if all(need in placed for need in stage.needs)), None)
        if ready is None:
            names = ", ".join(stage.name for stage in left)
            raise UserError(f"stages: these need each other in a circle or wait for it: {names}", "break the circle")
        placed[ready.name] = ready
        left.remove(ready)
    return list(placed.values())


def _words(stage: Stage, out: str, folder: Callable[[str], str], given: Surroundings) -> list[str]:
    values = {"out": out, "suite": given.suite, "seed": str(given.seed)}

    def fill(text: str) -> str:
        return _VARIABLE.sub(
            lambda match: folder(match.group(2)) if match.group(1) == "stage" else values[match.group(1)], text
        )

    words = [fill(word) for word in stage.command.split()]
    if stage.config is not None:
        words += ["--config", stage.config]
    for flag, value in stage.args.items():
        text = _text(_map_strings(value, fill))
        words += [f"--{flag}={text}"] if text.startswith("-") else [f"--{flag}", text]
    return [*words, "--out", folder(stage.name)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    return value
