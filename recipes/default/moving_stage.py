"""The MuJoCo stage with physics: solids that roll, fall and hit each other, seen by a still camera.

Axes: x to the right of the picture, y away from the camera, z up; metres and seconds.
"""

import math
from collections.abc import Sequence

import mujoco
import numpy as np
import stage
from camera import PICTURE, Camera
from moving_solids import RADIUS, Body, Play
from people import Person
from PIL import Image
from solids import Look, extent
from stage import Stage

STEPS = 20
"""Steps of the physics in a frame."""

_SLOTS = 2


class MovingStage(Stage):
    """A stage whose first two solids are free bodies; not shared between processes."""

    def __init__(self) -> None:
        xml = stage._stage_xml()
        for slot in range(_SLOTS):
            body = f'<body name="slot{slot}">'
            xml = xml.replace(body, f'{body}<freejoint name="free{slot}"/>')
        self._model = mujoco.MjModel.from_xml_string(xml)
        self._state = mujoco.MjData(self._model)
        self._colour = mujoco.Renderer(self._model, 2 * PICTURE, 2 * PICTURE)
        self._truth = mujoco.Renderer(self._model, PICTURE, PICTURE)
        self._ids = np.zeros(self._model.ngeom + 1, dtype=np.uint8)

    def play(self, play: Play, look: Look, frames: int, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """Lets it happen: the bodies' places at each frame, (frames, nq), and the points that the
        camera must see, (n, 3).
        """
        self.place([body.solid for body in play.bodies], None, look)
        model, state = self._model, self._state
        mujoco.mj_resetData(model, state)
        model.opt.timestep = dt / STEPS
        model.opt.gravity[2] = 0 if play.held else -9.81
        model.geom_contype[:] = model.geom_conaffinity[:] = 0
        shown = [self._set_up(slot, body, play) for slot, body in enumerate(play.bodies)]
        for slot in range(len(play.bodies), _SLOTS):  # out of the way of everything
            state.qpos[7 * slot : 7 * slot + 3] = (0, -50, 10 * slot)
        floor = model.geom("floor").id
        model.geom_contype[floor] = model.geom_conaffinity[floor] = 0 if play.held else 1
        mujoco.mj_setConst(model, mujoco.MjData(model))
        places, points = [], []
        for _ in range(frames):
            mujoco.mj_forward(model, state)
            places.append(state.qpos.copy())
            points += [_around(state, geom, play.bodies[i]) for i, geom in enumerate(shown)]
            mujoco.mj_step(model, state, STEPS)
        return np.array(places), np.concatenate(points)

    def act(self, people: Sequence[Person], look: Look) -> tuple[np.ndarray, np.ndarray]:
        """Lets a person do something: the places of its parts at each frame, (frames, 7 bodies),
        and the points that the camera must see, (n, 3).
        """
        model = self._model
        places, points = [], []
        for person in people:
            points.append(self.place([], person, look)[0])
            places.append(np.concatenate([model.body_pos.ravel(), model.body_quat.ravel()]))
        return np.array(places), np.concatenate(points)

    def shoot(self, camera: Camera) -> Image.Image:
        """The picture as things are, drawn at twice its size and shrunk."""
        self._model.vis.global_.fovy = camera.fovy
        self._colour.update_scene(self._state, stage._free_camera(camera))
        return Image.fromarray(self._colour.render()).reduce(2)

    def at(self, places: np.ndarray) -> None:
        """Puts the bodies in the places of a frame, as `play` or `act` gave them."""
        model = self._model
        if len(places) == model.nq:
            self._state.qpos[:] = places
        else:
            model.body_pos[:] = places[: 3 * model.nbody].reshape(-1, 3)
            model.body_quat[:] = places[3 * model.nbody :].reshape(-1, 4)
        mujoco.mj_kinematics(self._model, self._state)
        mujoco.mj_camlight(self._model, self._state)

    def _set_up(self, slot: int, body: Body, play: Play) -> int:
        """A body at its beginning, with the mass of the one solid that it shows; that geom."""
        model, state, solid = self._model, self._state, body.solid
        index = model.body(f"slot{slot}").id
        geom = model.geom(f"slot{slot}-{solid.shape}-{solid.size}").id
        half, tall = extent(solid.shape, solid.size)
        middle = np.array([0, 0, _middle(solid.shape) * tall])
        model.body_mass[index] = 1.0
        model.body_ipos[index] = middle
        model.body_iquat[index] = (1, 0, 0, 0)
        model.body_inertia[index] = _inertia(solid.shape, half, tall)
        model.geom_contype[geom] = model.geom_conaffinity[geom] = 0 if play.held else 1
        model.geom_priority[geom] = 1
        model.geom_friction[geom] = (play.friction, 0.002, 0.0005)
        model.geom_solref[geom] = _touch(play.bounce)
        quaternion = np.array(stage._yaw(solid.yaw))
        low = 0.0
        if body.lying:  # its axis along y before it is turned
            side = np.array([math.cos(math.pi / 4), math.sin(math.pi / 4), 0, 0])
            turned = np.zeros(4)
            mujoco.mju_mulQuat(turned, quaternion, side)
            quaternion, low = turned, RADIUS[solid.shape]
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, quaternion)
        rotation = rotation.reshape(3, 3)
        up = low if body.lying else middle[2]
        centre = np.array([solid.x, solid.y, up + body.height])
        free = slice(7 * slot, 7 * slot + 7)
        state.qpos[free] = (*(centre - rotation @ middle), *quaternion)
        turning = np.array(body.turning)
        # a free joint's velocity is that of the frame's origin; its turning is in its own frame
        at_origin = np.array(body.velocity) + np.cross(turning, -(rotation @ middle))
        state.qvel[6 * slot : 6 * slot + 6] = (*at_origin, *(rotation.T @ turning))
        return geom


def _around(state: mujoco.MjData, geom: int, body: Body) -> np.ndarray:
    """The ends of a solid in the three directions, (6, 3)."""
    half, tall = extent(body.solid.shape, body.solid.size)
    own = state.geom_xmat[geom].reshape(3, 3)
    sides = np.array([half, half, tall / 2])
    if body.solid.shape == "ring":  # a mesh, whose own axes are those of its inertia
        sides = np.full(3, half)
    reach = sides if body.solid.shape == "ball" else np.abs(own) @ sides
    ends = np.concatenate([np.diag(reach), -np.diag(reach)])
    return state.geom_xpos[geom] + ends


def _middle(shape: str) -> float:
    """How high the centre of mass is, as a part of the height."""
    return 0.25 if shape in ("cone", "pyramid") else 0.5


def _inertia(shape: str, half: float, tall: float) -> Sequence[float]:
    """Of a solid of 1 kg about its centre of mass."""
    if shape == "ball":
        return (0.4 * half**2,) * 3
    if shape == "ring":  # a torus whose axis is y
        around, tube = 0.4, 0.15
        across = around**2 / 2 + 5 * tube**2 / 8
        return (across, around**2 + 3 * tube**2 / 4, across)
    if shape == "cube":
        return ((half**2 + half**2) / 3,) * 3
    if shape == "cylinder":
        across = half**2 / 4 + tall**2 / 12
        return (across, across, half**2 / 2)
    across = 3 * half**2 / 20 + 3 * tall**2 / 80  # a cone, and nearly a pyramid
    return (across, across, 3 * half**2 / 10)


def _touch(bounce: float) -> tuple[float, float]:
    """MuJoCo's contact as a spring: stiffness, and the damping that leaves that part of a speed."""
    stiffness = 20_000.0
    logarithm = math.log(max(bounce, 0.02))
    ratio = -logarithm / math.sqrt(math.pi**2 + logarithm**2)
    return -stiffness, -2 * ratio * math.sqrt(stiffness)
