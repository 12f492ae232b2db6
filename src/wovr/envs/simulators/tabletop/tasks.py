"""The tabletop's four suites of ten tasks: what stands where, what the instruction says, what counts as success.

The suites mirror LIBERO's. `spatial`: the same objects in every task, the instruction names one of two identical cubes
by its place. `object`: the instruction names one of several objects. `goal`: one scene, ten goals. `long`: two or three
subgoals in one episode, in the scene of `goal`.

A task has a fixed layout; its numbered initial states jitter the objects and the gripper around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wovr.envs.simulators.tabletop.scene import CABINET_HEIGHT, TABLE_HALF, Fixture, Thing
from wovr.types import MAX_FRAMES, TaskInfo

NUM_INIT_STATES = 1000
"""Numbered initial states of every task."""

HORIZON = 64
"""Actions of an episode in `spatial`, `object` and `goal`: 6.4 s, 8 chunks; the expert needs about 35."""

LONG_HORIZON = MAX_FRAMES - 1
"""Actions of an episode in `long`: as many as an episode may hold."""


@dataclass(frozen=True)
class Goal:
    """One subgoal, a predicate on the simulator's state.

    Attributes:
        kind: `on` (a pad, another object, or the cabinet), `in` (the bin or the drawer), `edge` (pushed onto the white
            strip) or `open` (the drawer).
        thing: Body name of the object; empty for `open`.
        target: Body name of the place.
    """

    kind: str
    thing: str
    target: str


@dataclass(frozen=True)
class Placement:
    """Where an object starts: centre on the table (x, y) and the height of what it stands on, metres."""

    thing: Thing
    x: float
    y: float
    support: float = 0.0


@dataclass(frozen=True)
class Task:
    """Layout, instruction and goals of one task."""

    name: str
    instruction: str
    placements: tuple[Placement, ...]
    fixtures: tuple[Fixture, ...]
    goals: tuple[Goal, ...]
    horizon: int = HORIZON


# --------------------------------------------------------------------------------------------------------------------
# spatial: two red cubes, a blue cylinder, a yellow block, a cabinet and a green pad stand in every scene.

_TARGET = Thing("red", "cube", "_1")
_OTHER = Thing("red", "cube", "_2")
_CYLINDER = Thing("blue", "cylinder")
_BLOCK = Thing("yellow", "block")
_BLOCK_TOP = 0.024


@dataclass(frozen=True)
class _Place:
    """One way to say where the target stands; positions (x, y) of target, distractor and landmarks."""

    name: str
    words: str
    target: tuple[float, float]
    other: tuple[float, float]
    cylinder: tuple[float, float]
    block: tuple[float, float]
    cabinet: tuple[float, float]
    pad: tuple[float, float]
    support: float = 0.0


_PLACES = (
    _Place(
        "next_to_cylinder",
        "next to the blue cylinder",
        (-0.03, -0.10),
        (0.02, 0.03),
        (-0.14, -0.10),
        (0.14, 0.08),
        (-0.11, 0.10),
        (0.13, -0.09),
    ),
    _Place(
        "next_to_pad",
        "next to the green pad",
        (0.01, -0.10),
        (-0.13, 0.08),
        (-0.14, -0.03),
        (-0.02, 0.07),
        (0.12, 0.10),
        (0.12, -0.10),
    ),
    _Place(
        "next_to_block",
        "next to the yellow block",
        (0.15, -0.02),
        (-0.16, 0.09),
        (-0.16, -0.01),
        (0.015, -0.03),
        (-0.03, 0.11),
        (-0.11, -0.10),
    ),
    _Place(
        "next_to_cabinet",
        "next to the cabinet",
        (0.045, 0.10),
        (0.00, -0.08),
        (0.14, 0.00),
        (-0.13, -0.10),
        (-0.11, 0.10),
        (0.13, -0.10),
    ),
    _Place(
        "on_block",
        "on the yellow block",
        (0.10, -0.09),
        (-0.14, 0.00),
        (0.02, 0.02),
        (0.10, -0.09),
        (0.12, 0.11),
        (-0.08, -0.10),
        _BLOCK_TOP,
    ),
    _Place(
        "on_cabinet",
        "on top of the cabinet",
        (-0.11, 0.10),
        (0.13, -0.03),
        (0.02, -0.10),
        (0.06, 0.10),
        (-0.11, 0.10),
        (-0.10, -0.08),
        CABINET_HEIGHT,
    ),
    _Place(
        "centre",
        "at the centre of the table",
        (0.00, -0.01),
        (-0.15, -0.02),
        (0.15, 0.05),
        (-0.13, -0.11),
        (0.06, 0.12),
        (0.11, -0.10),
    ),
    _Place(
        "between",
        "between the blue cylinder and the yellow block",
        (-0.025, -0.02),
        (0.08, -0.125),
        (-0.15, -0.02),
        (0.11, -0.02),
        (-0.08, 0.115),
        (-0.09, -0.11),
    ),
    _Place(
        "in_front_of_cabinet",
        "in front of the cabinet",
        (0.10, -0.025),
        (-0.12, 0.09),
        (-0.14, -0.02),
        (0.10, -0.12),
        (0.10, 0.11),
        (-0.05, -0.10),
    ),
    _Place(
        "behind_cylinder",
        "behind the blue cylinder",
        (-0.10, 0.02),
        (0.09, -0.02),
        (-0.10, -0.06),
        (0.00, 0.11),
        (0.13, 0.11),
        (0.06, -0.11),
    ),
)


def _spatial(place: _Place) -> Task:
    return Task(
        name=place.name,
        instruction=f"pick up the red cube {place.words} and place it on the green pad",
        placements=(
            Placement(_TARGET, *place.target, place.support),
            Placement(_OTHER, *place.other),
            Placement(_CYLINDER, *place.cylinder),
            Placement(_BLOCK, *place.block),
        ),
        fixtures=(Fixture("cabinet", place.cabinet), Fixture("pad", place.pad, "green")),
        goals=(Goal("on", _TARGET.name, "green_pad"),),
    )


# --------------------------------------------------------------------------------------------------------------------
# object: one of four objects goes into the bin.

_OBJECTS = (
    Thing("red", "cube"),
    Thing("blue", "cube"),
    Thing("green", "cube"),
    Thing("yellow", "cube"),
    Thing("red", "cylinder"),
    Thing("green", "cylinder"),
    Thing("blue", "cylinder"),
    Thing("purple", "cylinder"),
    Thing("orange", "ball"),
    Thing("purple", "ball"),
)
_SPOTS = ((-0.15, 0.08), (-0.03, 0.08), (-0.15, -0.03), (-0.03, -0.03), (-0.09, -0.12))
_BIN = Fixture("bin", (0.125, 0.03))


def _object(index: int) -> Task:
    # The target's spot and its three companions differ from task to task; strides coprime to ten give every object
    # each role equally often.
    things = [_OBJECTS[(index + step) % 10] for step in (0, 3, 7, 9)]
    spots = [_SPOTS[(2 * index + step) % 5] for step in range(4)]
    target = things[0]
    return Task(
        name=f"{target.name}_in_bin",
        instruction=f"pick up the {target.words} and place it in the bin",
        placements=tuple(Placement(thing, *spot) for thing, spot in zip(things, spots, strict=True)),
        fixtures=(_BIN,),
        goals=(Goal("in", target.name, "bin"),),
    )


# --------------------------------------------------------------------------------------------------------------------
# goal and long: one scene.

_CUBE = Thing("red", "cube")
_SCENE = (
    Fixture("cabinet", (-0.13, 0.10)),
    Fixture("bin", (0.135, 0.085)),
    Fixture("pad", (0.14, -0.075), "green"),
    Fixture("pad", (0.005, 0.105), "yellow"),
    Fixture("edge", (0.0, -TABLE_HALF[1] + 0.025)),
)
_SCENE_THINGS = (Placement(_CUBE, 0.015, -0.02), Placement(_CYLINDER, -0.075, -0.10))

_CUBE_ON_GREEN = Goal("on", "red_cube", "green_pad")
_CUBE_ON_YELLOW = Goal("on", "red_cube", "yellow_pad")
_CUBE_IN_BIN = Goal("in", "red_cube", "bin")
_CUBE_IN_DRAWER = Goal("in", "red_cube", "drawer")
_CUBE_ON_CABINET = Goal("on", "red_cube", "cabinet")
_CUBE_ON_CYLINDER = Goal("on", "red_cube", "blue_cylinder")
_CYLINDER_ON_GREEN = Goal("on", "blue_cylinder", "green_pad")
_CYLINDER_ON_YELLOW = Goal("on", "blue_cylinder", "yellow_pad")
_CYLINDER_IN_BIN = Goal("in", "blue_cylinder", "bin")
_CYLINDER_IN_DRAWER = Goal("in", "blue_cylinder", "drawer")
_OPEN = Goal("open", "", "drawer")
_PUSH = Goal("edge", "blue_cylinder", "edge")

_GOALS: tuple[tuple[str, str, tuple[Goal, ...]], ...] = (
    ("cube_on_green_pad", "put the red cube on the green pad", (_CUBE_ON_GREEN,)),
    ("cube_on_yellow_pad", "put the red cube on the yellow pad", (_CUBE_ON_YELLOW,)),
    ("cube_in_bin", "put the red cube in the bin", (_CUBE_IN_BIN,)),
    ("cylinder_on_green_pad", "put the blue cylinder on the green pad", (_CYLINDER_ON_GREEN,)),
    ("cylinder_on_yellow_pad", "put the blue cylinder on the yellow pad", (_CYLINDER_ON_YELLOW,)),
    ("cylinder_in_bin", "put the blue cylinder in the bin", (_CYLINDER_IN_BIN,)),
    ("open_drawer", "open the drawer", (_OPEN,)),
    ("cube_on_cabinet", "put the red cube on top of the cabinet", (_CUBE_ON_CABINET,)),
    ("push_cylinder_to_edge", "push the blue cylinder to the front edge of the table", (_PUSH,)),
    ("cube_on_cylinder", "stack the red cube on the blue cylinder", (_CUBE_ON_CYLINDER,)),
)

_LONG: tuple[tuple[str, str, tuple[Goal, ...]], ...] = (
    (
        "cube_green_cylinder_bin",
        "put the red cube on the green pad and the blue cylinder in the bin",
        (_CUBE_ON_GREEN, _CYLINDER_IN_BIN),
    ),
    (
        "cube_yellow_cylinder_green",
        "put the red cube on the yellow pad and the blue cylinder on the green pad",
        (_CUBE_ON_YELLOW, _CYLINDER_ON_GREEN),
    ),
    ("open_cube_in_drawer", "open the drawer and put the red cube in it", (_OPEN, _CUBE_IN_DRAWER)),
    ("open_cylinder_in_drawer", "open the drawer and put the blue cylinder in it", (_OPEN, _CYLINDER_IN_DRAWER)),
    ("both_in_bin", "put both the red cube and the blue cylinder in the bin", (_CUBE_IN_BIN, _CYLINDER_IN_BIN)),
    (
        "tower_on_green",
        "put the blue cylinder on the green pad and stack the red cube on it",
        (_CYLINDER_ON_GREEN, _CUBE_ON_CYLINDER),
    ),
    ("open_cube_green", "open the drawer and put the red cube on the green pad", (_OPEN, _CUBE_ON_GREEN)),
    (
        "cube_cabinet_cylinder_green",
        "put the red cube on top of the cabinet and the blue cylinder on the green pad",
        (_CUBE_ON_CABINET, _CYLINDER_ON_GREEN),
    ),
    (
        "open_cube_drawer_cylinder_yellow",
        "open the drawer, put the red cube in it and put the blue cylinder on the yellow pad",
        (_OPEN, _CUBE_IN_DRAWER, _CYLINDER_ON_YELLOW),
    ),
    (
        "cube_green_cylinder_yellow_open",
        "put the red cube on the green pad, put the blue cylinder on the yellow pad and open the drawer",
        (_CUBE_ON_GREEN, _CYLINDER_ON_YELLOW, _OPEN),
    ),
)

TASKS: Mapping[str, tuple[Task, ...]] = {
    "spatial": tuple(map(_spatial, _PLACES)),
    "object": tuple(map(_object, range(10))),
    "goal": tuple(Task(name, words, _SCENE_THINGS, _SCENE, goals) for name, words, goals in _GOALS),
    "long": tuple(Task(name, words, _SCENE_THINGS, _SCENE, goals, LONG_HORIZON) for name, words, goals in _LONG),
}
"""Suite -> its ten tasks."""

SUITES: Mapping[str, tuple[TaskInfo, ...]] = {
    suite: tuple(
        TaskInfo(suite, index, task.name, task.instruction, task.horizon, NUM_INIT_STATES)
        for index, task in enumerate(tasks)
    )
    for suite, tasks in TASKS.items()
}
"""The same as the environment protocol tells it."""
