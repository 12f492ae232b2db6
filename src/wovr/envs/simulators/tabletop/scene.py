"""The tabletop's MJCF: a Cartesian two-finger gripper, a table, objects, pads, a bin, a cabinet with a drawer.

Axes: x to the camera's right, y away from the camera, z up; the table's top is z = 0. Lengths in metres.

What decides success must be visible at 64 x 64 pixels (1.6 pixels a centimetre), which fixes the sizes: objects 5 cm
across, fingers that open to 9.6 cm, an oblique camera, plain contrasting colours. Shadows are switched off (software
rendering pays dearly for them), so a bar that runs on the table below the gripper stands in for one: the distance
between gripper and bar is the gripper's height, which one picture alone could not tell from its depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OBJECT_HALF = 0.025
"""Half the extent of every object, metres: cubes, cylinders (radius and half height) and balls (radius)."""

OPEN_HALF = 0.048
"""Half the distance between the fingers when open, metres."""

TABLE_HALF = (0.22, 0.17)
"""Half the table's extent along x and y, metres."""

WORKSPACE_LOW = (-0.19, -0.145, 0.012)
WORKSPACE_HIGH = (0.19, 0.155, 0.20)
"""Where the fingertips may be commanded, metres."""

PAD_HALF = 0.048
BIN_HALF = 0.062
BIN_WALL = 0.04
CABINET_HALF = (0.07, 0.055)
CABINET_HEIGHT = 0.075
DRAWER_TRAVEL = 0.09
DRAWER_HALF = (0.058, 0.05)
"""Sizes of the fixtures, metres: inner half extents of pad, bin and drawer; heights of walls and cabinet."""

EDGE_WIDTH = 0.05
"""Width of the white strip along an edge of the table, metres."""

COLOURS: Mapping[str, str] = {
    "red": ".85 .10 .10 1",
    "green": ".10 .62 .18 1",
    "blue": ".10 .25 .85 1",
    "yellow": ".95 .80 .05 1",
    "purple": ".52 .12 .68 1",
    "orange": ".98 .45 .05 1",
    "white": ".97 .97 .97 1",
}


@dataclass(frozen=True)
class Thing:
    """A movable object.

    Attributes:
        name: Name of the body, `colour_shape`.
        colour: Key of COLOURS.
        shape: `cube`, `cylinder`, `ball` or `block` (a low, wide box).
    """

    colour: str
    shape: str
    label: str = ""

    @property
    def name(self) -> str:
        """Name of the body in the model."""
        return f"{self.colour}_{self.shape}{self.label}"

    @property
    def words(self) -> str:
        """How an instruction calls it."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Fixture:
    """Something that stays where it is.

    Attributes:
        kind: `pad`, `bin`, `cabinet` or `edge`.
        position: Centre on the table (x, y), metres.
        colour: Key of COLOURS, for pads.
    """

    kind: str
    position: tuple[float, float]
    colour: str = "white"

    @property
    def name(self) -> str:
        """Name of the body in the model."""
        return f"{self.colour}_pad" if self.kind == "pad" else self.kind


HEADER = """
<mujoco model="tabletop">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="0.004" integrator="implicitfast" cone="elliptic" impratio="3"/>
  <size memory="4M"/>
  <visual>
    <headlight ambient=".45 .45 .45" diffuse=".45 .45 .45" specular="0 0 0"/>
    <map znear=".05" zfar="10"/>
  </visual>
  <default>
    <geom condim="4" friction="1 .01 .001" solref=".01 1" rgba=".5 .5 .5 1"/>
    <default class="visual"><geom contype="0" conaffinity="0" group="1" mass="0"/></default>
    <default class="finger"><geom friction="1.3 .02 .001" condim="4" rgba=".12 .12 .14 1"/></default>
  </default>
  <worldbody>
    <light directional="true" pos="0 -.3 1.2" dir=".1 .35 -1" diffuse=".4 .4 .4" specular="0 0 0" castshadow="false"/>
    <geom name="floor" type="plane" size="2 2 .1" pos="0 0 -.25" rgba=".30 .33 .38 1"/>
    <geom name="table" type="box" size="{table_x} {table_y} .02" pos="0 0 -.02" rgba=".80 .77 .72 1"/>
    <camera name="front" pos="0 -.43 .53" xyaxes="1 0 0 0 .747 .665" fovy="37"/>
    <body name="carriage">
      <inertial pos="0 0 0" mass=".4" diaginertia=".001 .001 .001"/>
      <joint name="x" type="slide" axis="1 0 0" damping="30"/>
      <joint name="y" type="slide" axis="0 1 0" damping="30"/>
      <geom class="visual" type="box" size=".075 .008 .0004" pos="0 0 .0012" rgba=".35 .33 .32 1"/>
      <body name="hand" gravcomp="1">
        <inertial pos="0 0 .1" mass=".4" diaginertia=".001 .001 .001"/>
        <joint name="z" type="slide" axis="0 0 1" damping="30"/>
        <geom class="visual" type="box" size=".060 .016 .010" pos="0 0 .102" rgba=".55 .57 .62 1"/>
        <geom class="visual" type="cylinder" size=".012 .03" pos="0 0 .14" rgba=".45 .47 .52 1"/>
        <body name="left_finger" gravcomp="1">
          <inertial pos="0 0 .05" mass=".06" diaginertia=".0001 .0001 .0001"/>
          <joint name="left_finger" type="slide" axis="-1 0 0" range="0 {open}" damping="25" armature=".05"/>
          <geom name="left_finger" class="finger" type="box" size=".006 .013 .05" pos="-.006 0 .042"/>
        </body>
        <body name="right_finger" gravcomp="1">
          <inertial pos="0 0 .05" mass=".06" diaginertia=".0001 .0001 .0001"/>
          <joint name="right_finger" type="slide" axis="1 0 0" range="0 {open}" damping="25" armature=".05"/>
          <geom name="right_finger" class="finger" type="box" size=".006 .013 .05" pos=".006 0 .042"/>
        </body>
      </body>
    </body>
"""

FOOTER = """
  </worldbody>
  <contact><exclude body1="left_finger" body2="right_finger"/>{drawer_runs_free}</contact>
  <actuator>
    <position name="x" joint="x" kp="900" forcerange="-25 25"/>
    <position name="y" joint="y" kp="900" forcerange="-25 25"/>
    <position name="z" joint="z" kp="900" forcerange="-25 25"/>
    <position name="left_finger" joint="left_finger" kp="250" forcerange="-6 6"/>
    <position name="right_finger" joint="right_finger" kp="250" forcerange="-6 6"/>
  </actuator>
</mujoco>
"""


def scene_xml(things: Sequence[Thing], fixtures: Sequence[Fixture]) -> str:
    """The MJCF of one task's scene.

    Args:
        things: Movable objects; object i has the free joint `name`, so its position is set in `qpos`.
        fixtures: Fixed parts.

    Returns:
        MJCF text.
    """
    header = HEADER.format(table_x=TABLE_HALF[0], table_y=TABLE_HALF[1], open=OPEN_HALF)
    has_drawer = any(fixture.kind == "cabinet" for fixture in fixtures)
    footer = FOOTER.format(drawer_runs_free='<exclude body1="cabinet" body2="drawer"/>' if has_drawer else "")
    return header + "".join(map(_fixture_xml, fixtures)) + "".join(map(_thing_xml, things)) + footer


def thing_half_height(thing: Thing) -> float:
    """Half the height of an object that stands on the table, metres."""
    return 0.012 if thing.shape == "block" else OBJECT_HALF


def _thing_xml(thing: Thing) -> str:
    half, height = OBJECT_HALF, thing_half_height(thing)
    geom = {
        "cube": f'type="box" size="{half} {half} {half}"',
        "cylinder": f'type="cylinder" size="{half} {half}"',
        # A ball must come to rest, hence rolling friction (condim 6).
        "ball": f'type="sphere" size="{half}" condim="6" friction="1 .02 .004"',
        "block": f'type="box" size=".042 .036 {height}"',
    }[thing.shape]
    mass = 0.25 if thing.shape == "block" else 0.08
    return (
        f'    <body name="{thing.name}"><freejoint name="{thing.name}"/>'
        f'<geom name="{thing.name}" {geom} mass="{mass}" rgba="{COLOURS[thing.colour]}"/></body>\n'
    )


def _fixture_xml(fixture: Fixture) -> str:
    x, y = fixture.position
    if fixture.kind == "pad":
        return (
            f'    <body name="{fixture.name}" pos="{x} {y} 0"><geom class="visual" type="box" '
            f'size="{PAD_HALF} {PAD_HALF} .0005" pos="0 0 .0006" rgba="{COLOURS[fixture.colour]}"/></body>\n'
        )
    if fixture.kind == "edge":
        return (
            f'    <body name="edge" pos="{x} {y} 0"><geom class="visual" type="box" '
            f'size="{TABLE_HALF[0]} {EDGE_WIDTH / 2} .0004" pos="0 0 .0004" rgba="{COLOURS["white"]}"/></body>\n'
        )
    if fixture.kind == "bin":
        walls = _open_box(BIN_HALF, BIN_HALF, BIN_WALL, ".42 .30 .20 1")
        return f'    <body name="bin" pos="{x} {y} 0">{walls}</body>\n'
    return _cabinet_xml(x, y)


def _open_box(half_x: float, half_y: float, height: float, rgba: str, floor: float = 0.002) -> str:
    wall = 0.004
    half = height / 2
    style = f'rgba="{rgba}"'
    return (
        f'<geom type="box" size="{half_x + 2 * wall} {half_y + 2 * wall} {floor / 2}" pos="0 0 {floor / 2}" {style}/>'
        f'<geom type="box" size="{wall} {half_y + 2 * wall} {half}" pos="{-half_x - wall} 0 {half}" {style}/>'
        f'<geom type="box" size="{wall} {half_y + 2 * wall} {half}" pos="{half_x + wall} 0 {half}" {style}/>'
        f'<geom type="box" size="{half_x} {wall} {half}" pos="0 {half_y + wall} {half}" {style}/>'
        f'<geom type="box" size="{half_x} {wall} {half}" pos="0 {-half_y - wall} {half}" {style}/>'
    )


def _cabinet_xml(x: float, y: float) -> str:
    """A shell open to the front (towards the camera) with a drawer that slides out along -y by its knob."""
    half_x, half_y = CABINET_HALF
    wood, height = 'rgba=".62 .44 .26 1"', CABINET_HEIGHT
    tray = _open_box(DRAWER_HALF[0] - 0.004, DRAWER_HALF[1] - 0.008, 0.042, ".74 .60 .42 1")
    return (
        f'    <body name="cabinet" pos="{x} {y} 0">'
        f'<geom type="box" size="{half_x} {half_y} .006" pos="0 0 {height - 0.006}" {wood}/>'
        f'<geom type="box" size=".004 {half_y} {height / 2}" pos="{-half_x + 0.004} 0 {height / 2}" {wood}/>'
        f'<geom type="box" size=".004 {half_y} {height / 2}" pos="{half_x - 0.004} 0 {height / 2}" {wood}/>'
        f'<geom type="box" size="{half_x} .004 {height / 2}" pos="0 {half_y - 0.004} {height / 2}" {wood}/>'
        f'<body name="drawer" pos="0 -.004 .004" gravcomp="1">'
        f'<joint name="drawer" type="slide" axis="0 -1 0" range="0 {DRAWER_TRAVEL}" damping="8" frictionloss=".8"/>'
        f"{tray}"
        f'<geom name="knob" class="finger" type="box" size=".016 .010 .024" pos="0 -.072 .028"/>'
        f'<geom class="finger" type="box" size=".006 .012 .006" pos="0 -.055 .028"/>'
        f"</body></body>\n"
    )
