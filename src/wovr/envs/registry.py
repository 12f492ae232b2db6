"""Names of environments: the embedded ones by name, anybody's own by import path."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from wovr.envs.action_repeat import ARGUMENT, RepeatedActions, check_times
from wovr.envs.base import SimulatorEnv
from wovr.envs.simulators.rendering import explain_opengl
from wovr.errors import UserError, choose_from
from wovr.importing import import_named
from wovr.types import TaskInfo

ENVIRONMENTS: dict[str, str] = {
    "tabletop": "wovr.envs.simulators.tabletop.env:TabletopEnv",
    "metaworld": "wovr.envs.simulators.metaworld.env:MetaWorldEnv",
    "libero": "wovr.envs.simulators.libero.env:LiberoEnv",
    "gym": "wovr.envs.simulators.gym:GymEnv",
}
"""Name -> import path of a SimulatorEnv."""


def simulator_class(name: str) -> type[SimulatorEnv]:
    """The class behind a name or an import path `package.module:Class`.

    Raises:
        UserError: Unknown name, no such module or class, or a module that fails while it is imported.
    """
    check_name(name)
    path = ENVIRONMENTS.get(name, name)
    try:
        found = import_named(path, f"environment '{name}'", _install_hint(name))
    except UserError as error:
        if error.__cause__ is not None and (explained := explain_opengl(error.__cause__)) is not None:
            raise explained from error.__cause__
        raise
    if not (isinstance(found, type) and issubclass(found, SimulatorEnv)):
        raise UserError(f"environment '{name}' is no SimulatorEnv", "derive it from wovr.envs.base.SimulatorEnv")
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise UserError(f"environment '{name}' does not define {lacking}", "see wovr.envs.base.SimulatorEnv")
    return found


def check_name(name: str) -> None:
    """Refuse a name that cannot be an environment's, without importing anything.

    Raises:
        UserError: It is neither one of ENVIRONMENTS nor an import path.
    """
    if name not in ENVIRONMENTS and ":" not in name:
        raise UserError(
            f"unknown environment '{name}'",
            choose_from(name, ENVIRONMENTS, ", or give an import path like my_robot:FrankaEnv"),
        )


def make_simulator(name: str, arguments: Mapping[str, Any]) -> SimulatorEnv:
    """One simulator of a named class.

    Args:
        name: Environment.
        arguments: Of its class; and `action_repeat`, times that each action is executed, for every class.

    Raises:
        UserError: Unknown name, arguments the class does not take, or actions that cannot be repeated.
    """
    found = simulator_class(name)
    times = check_times(name, arguments.get(ARGUMENT, 1))
    arguments = {label: value for label, value in arguments.items() if label != ARGUMENT}
    try:
        inspect.signature(found).bind(**arguments)
    except TypeError as error:
        raise UserError(f"environment '{name}': {error}", "see the class's arguments for --env_args") from error
    env = found(**arguments)
    return env if times == 1 else RepeatedActions(env, times)


def select_tasks(name: str, suite: str, tasks: str = "") -> list[TaskInfo]:
    """The chosen tasks of a suite; imports the environment's class, so for a simulator worker only.

    Args:
        name: Environment.
        suite: Suite name.
        tasks: Comma list of task indices or names; empty for all.

    Raises:
        UserError: Unknown environment, suite or task.
    """
    return choose_tasks(simulator_class(name).suites(), name, suite, tasks)


def choose_tasks(suites: Mapping[str, Sequence[TaskInfo]], name: str, suite: str, tasks: str = "") -> list[TaskInfo]:
    """`select_tasks` where the suites are known, e.g. from `WorkerVectorEnv.suites`."""
    if suite not in suites:
        raise UserError(f"environment '{name}' has no suite '{suite}'", choose_from(suite, suites))
    known = suites[suite]
    if not tasks:
        return list(known)
    chosen = [_find_task(word.strip(), known, suite) for word in tasks.split(",")]
    if len(set(chosen)) < len(chosen):
        raise UserError(f"--tasks {tasks} names a task twice", "name each once")
    return chosen


def _find_task(word: str, known: Sequence[TaskInfo], suite: str) -> TaskInfo:
    for task in known:
        if word in (str(task.index), task.name):
            return task
    names = ", ".join(f"{task.index} {task.name}" for task in known)
    raise UserError(f"suite '{suite}' has no task '{word}'", f"choose from: {names}")


def _install_hint(name: str) -> str:
    if name in ("metaworld", "libero"):
        return f"install it with: pip install 'wovr[{name}]'"
    return "install the package or check the import path"
