"""What a simulator says of its camera is where its pictures show things: coloured things at known places."""

from __future__ import annotations

import numpy as np
import pytest

from tests.envs.simulators.simulation import in_simulator

BALL = (0.13, -0.07, 0.21)
SIZE = (96, 128)
SCENE = """<mujoco><visual><headlight ambient='1 1 1'/></visual><worldbody>
<geom pos='.13 -.07 .21' size='.02' rgba='1 0 1 1'/>
<camera name='front' pos='.1 -.9 .6' xyaxes='1 .1 0 -.05 .5 .8' fovy='41'/></worldbody></mujoco>"""


def see_the_ball(free: bool) -> tuple[np.ndarray, np.ndarray]:
    from wovr.envs.simulators.cameras import camera_of
    from wovr.envs.simulators.rendering import choose_backend, fast_renderer
    from wovr.functional.cameras import project

    choose_backend()
    import mujoco

    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = mujoco.MjvCamera()
    if free:
        camera.type, camera.distance, camera.azimuth, camera.elevation = mujoco.mjtCamera.mjCAMERA_FREE, 0.8, 70, -40
        camera.lookat[:] = [0.0, 0.0, 0.1]
    else:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    with fast_renderer(model, SIZE) as renderer:
        renderer.update_scene(data, camera=camera)
        image = renderer.render().astype(int)
        view = camera_of(model, data, camera, renderer.scene, SIZE)
    rows, columns = np.nonzero((image[:, :, 0] > 60) & (image[:, :, 1] < 40))
    return project(np.array([BALL]), view)[0][0], np.array([columns.mean() + 0.5, rows.mean() + 0.5])


@pytest.mark.parametrize("free", [False, True])
def test_a_coloured_ball_is_drawn_where_the_camera_puts_it(free: bool) -> None:
    told, drawn = in_simulator(see_the_ball, free)
    assert 0 < drawn[0] < SIZE[1]
    assert told == pytest.approx(drawn, abs=0.6)


def see_a_cube() -> tuple[np.ndarray, np.ndarray]:
    from wovr.envs.simulators.rendering import choose_backend

    choose_backend()
    from wovr.envs.simulators.tabletop import env as tabletop
    from wovr.functional.cameras import project
    from wovr.types import StartState

    env = tabletop.TabletopEnv(size=96)
    env.start(StartState("spatial", 0, 3))
    name = env.task.placements[0].thing.name
    body = env.model.body(name).id
    geoms = [number for number in range(env.model.ngeom) if env.model.geom_bodyid[number] == body]
    env.model.geom_rgba[geoms] = [1, 0, 1, 1]
    env.model.geom_matid[geoms] = -1
    tabletop._renderer.cache_clear()  # it draws a copy of the model
    image = env.render().astype(int)
    rows, columns = np.nonzero((image[:, :, 0] > 90) & (image[:, :, 1] < 40) & (image[:, :, 2] > 90))
    view = env.camera_view()
    return project(env.data.xpos[[body]], view)[0][0], np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def test_the_tabletop_says_where_it_is_looked_at_from() -> None:
    told, drawn = in_simulator(see_a_cube)
    assert told == pytest.approx(drawn, abs=1.5)  # a cube's middle is not quite the middle of what is seen of it
