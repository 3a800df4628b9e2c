"""The MuJoCo stage: one compiled model of every solid and one person, edited live for each scene.

Axes: x to the right of the picture, y away from the camera, z up; metres.
"""

import math
import os
from dataclasses import dataclass

import numpy as np
from camera import PICTURE, Camera
from people import PARTS, Person, keypoints_3d, part_quaternions, person_xml
from solids import COLOURS, FLOORS, SHAPES, SIZES, Look, Solid

os.environ.setdefault("MUJOCO_GL", "osmesa")

try:
    import mujoco  # reads MUJOCO_GL when it is imported
except AttributeError as error:  # what PyOpenGL raises then
    raise ImportError("MuJoCo finds no OSMesa to draw with; Debian: libosmesa6.") from error

SLOTS = 3
NEAR, FAR = 0.02, 12.0
_HIDDEN, _SHOWN = 5, 0


@dataclass(frozen=True)
class Render:
    """A picture and its truth: rgb (h, w, 3) uint8, depth (h, w) in metres, object ids (h, w)."""

    rgb: np.ndarray
    depth: np.ndarray
    ids: np.ndarray


class Stage:
    """The compiled stage with its renderers; not shared between processes."""

    def __init__(self) -> None:
        self._model = mujoco.MjModel.from_xml_string(_stage_xml())
        self._state = mujoco.MjData(self._model)
        self._colour = mujoco.Renderer(self._model, 2 * PICTURE, 2 * PICTURE)
        self._truth = mujoco.Renderer(self._model, PICTURE, PICTURE)
        self._ids = np.zeros(self._model.ngeom + 1, dtype=np.uint8)

    def close(self) -> None:
        """Frees the renderers."""
        self._colour.close()
        self._truth.close()

    def place(
        self, solids: list[Solid], person: Person | None, look: Look
    ) -> tuple[np.ndarray, np.ndarray]:
        """Edits the model to show a scene.

        Returns the points that the camera must see, (n, 3), and the person's key points, (18, 3) or
        (0, 3), in metres.
        """
        model = self._model
        movable = np.arange(model.ngeom) >= 2
        model.geom_group[movable] = _HIDDEN
        self._ids[:] = 0
        for slot, solid in enumerate(solids):
            body = model.body(f"slot{slot}").id
            model.body_pos[body] = (solid.x, solid.y, 0)
            model.body_quat[body] = _yaw(solid.yaw)
            geom = model.geom(f"slot{slot}-{solid.shape}-{solid.size}").id
            model.geom_group[geom] = _SHOWN
            model.geom_rgba[geom] = (*COLOURS[solid.colour], 1)
            self._ids[geom] = slot + 1
        points = [solid.corners() for solid in solids]
        keypoints = np.zeros((0, 3))
        if person is not None:
            person_points, keypoints = self._place_person(person, len(solids) + 1)
            points.append(person_points)
        self._light(look)
        mujoco.mj_kinematics(model, self._state)
        mujoco.mj_camlight(model, self._state)
        return np.concatenate(points), keypoints

    def render(self, camera: Camera) -> Render:
        """Draws the scene as placed: the picture at twice its size, then shrunk; and the truth."""
        self._model.vis.global_.fovy = camera.fovy
        view = _free_camera(camera)
        self._colour.update_scene(self._state, view)
        doubled = self._colour.render().astype(np.float32)
        rgb = doubled.reshape(PICTURE, 2, PICTURE, 2, 3).mean(axis=(1, 3))
        self._truth.update_scene(self._state, view)
        self._truth.enable_depth_rendering()
        depth = self._truth.render().copy()
        self._truth.disable_depth_rendering()
        return Render(np.rint(rgb).astype(np.uint8), depth, self.segment(camera))

    def segment(self, camera: Camera, only: int | None = None) -> np.ndarray:
        """Object ids per pixel, (h, w) uint8; `only` hides the other objects.

        0 is the room, 1 and on are the solids in their order, and then the person.
        """
        self._model.vis.global_.fovy = camera.fovy
        shown = self._model.geom_group.copy()
        if only is not None:
            others = (self._ids[:-1] != only) & (self._ids[:-1] != 0)
            self._model.geom_group[others] = _HIDDEN
        self._truth.update_scene(self._state, _free_camera(camera))
        self._model.geom_group[:] = shown
        self._truth.enable_segmentation_rendering()
        geoms = self._truth.render()[..., 0]
        self._truth.disable_segmentation_rendering()
        return self._ids[geoms]  # a pixel of no geom is -1: the table's last entry

    def _place_person(self, person: Person, identity: int) -> tuple[np.ndarray, np.ndarray]:
        model, state = self._model, self._state
        root = model.body("person").id
        model.body_pos[root] = (0, 0, 0)
        for part, quaternion in part_quaternions(person).items():
            model.body_quat[model.body(part).id] = quaternion
        shown: list[int] = []
        for part in PARTS:
            for geom in _geoms_of(model, part):
                model.geom_group[geom] = _SHOWN
                colour = person.colours.get(model.geom(geom).name.split("-")[1])
                if colour is not None:
                    model.geom_rgba[geom] = (*colour, 1)
                shown.append(geom)
        self._ids[shown] = identity
        mujoco.mj_kinematics(model, state)
        reach = _reach(model, shown)
        lowest = min(state.geom_xpos[g][2] - r for g, r in zip(shown, reach, strict=True))
        model.body_pos[root] = (0, 0, person.lift - lowest)
        mujoco.mj_kinematics(model, state)
        if person.on_box:
            top = state.body("person").xpos[2] - 0.13
            box = model.geom("box").id
            model.geom_size[box] = (0.26, 0.2, top / 2)
            model.geom_pos[box] = (0, 0, top / 2)
            model.body_quat[model.body("seat").id] = _yaw(person.yaw)
            model.geom_group[box] = _SHOWN
        points = np.concatenate(
            [
                state.geom_xpos[g] + r * np.array([(0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0)])
                for g, r in zip(shown, reach, strict=True)
            ]
        )
        positions = {part: state.body(part).xpos.copy() for part in PARTS}
        frames = {part: state.body(part).xmat.reshape(3, 3).copy() for part in PARTS}
        return points, keypoints_3d(positions, frames)

    def _light(self, look: Look) -> None:
        model = self._model
        azimuth, elevation = math.radians(look.light_azimuth), math.radians(look.light_elevation)
        toward = np.array(
            [
                math.cos(elevation) * math.sin(azimuth),
                -math.cos(elevation) * math.cos(azimuth),
                math.sin(elevation),
            ]
        )
        light = model.light("sun").id
        model.light_pos[light] = 5 * toward
        model.light_dir[light] = -toward
        model.light_diffuse[light] = look.light
        model.vis.headlight.ambient[:] = look.ambient
        floor = np.array(FLOORS[look.floor])
        model.geom_rgba[model.geom("floor").id][:3] = floor
        model.geom_rgba[model.geom("wall").id][:3] = np.clip(floor * look.wall_shade, 0, 1)


def _stage_xml() -> str:
    slots = "".join(
        f'<body name="slot{slot}">'
        + "".join(_solid_xml(slot, shape, size) for shape in SHAPES for size in SIZES)
        + "</body>"
        for slot in range(SLOTS)
    )
    return f"""
<mujoco>
  <compiler angle="degree"/>
  <visual>
    <global offwidth="{2 * PICTURE}" offheight="{2 * PICTURE}"/>
    <quality shadowsize="1024" offsamples="0" numslices="40" numstacks="24"/>
    <headlight ambient="0.4 0.4 0.4" diffuse="0.25 0.25 0.25" specular="0 0 0"/>
    <map znear="{NEAR}" zfar="{FAR}" shadowclip="8" shadowscale="0.9"/>
  </visual>
  <statistic extent="1" center="0 0 0.5"/>
  <default><geom contype="0" conaffinity="0" group="{_HIDDEN}"/></default>
  <asset>
    <material name="room" specular="0" shininess="0" reflectance="0"/>
    <material name="solid" specular="0.35" shininess="0.6"/>
    {"".join(_mesh_xml(shape, size) for shape in ("cone", "pyramid", "ring") for size in SIZES)}
  </asset>
  <worldbody>
    <light name="sun" directional="true" castshadow="true" specular="0.4 0.4 0.4"/>
    <geom name="floor" type="plane" size="30 30 1" material="room" group="{_SHOWN}"/>
    <geom name="wall" type="plane" size="30 30 1" pos="0 4.5 0" euler="90 0 0" material="room"
          group="{_SHOWN}"/>
    {slots}
    {person_xml()}
    <body name="seat"><geom name="box" type="box" size="0.2 0.2 0.2" rgba="0.42 0.3 0.2 1"/></body>
  </worldbody>
</mujoco>"""


def _solid_xml(slot: int, shape: str, size: str) -> str:
    k = SIZES[size]
    form = {
        "cube": f'type="box" size="{0.42 * k} {0.42 * k} {0.42 * k}" pos="0 0 {0.42 * k}"',
        "ball": f'type="sphere" size="{0.5 * k}" pos="0 0 {0.5 * k}"',
        "cylinder": f'type="cylinder" size="{0.4 * k} {0.5 * k}" pos="0 0 {0.5 * k}"',
    }.get(shape, f'type="mesh" mesh="{shape}-{size}"')
    return f'<geom name="slot{slot}-{shape}-{size}" material="solid" {form}/>'


def _mesh_xml(shape: str, size: str) -> str:
    vertices, faces = {"cone": _cone, "pyramid": _pyramid, "ring": _ring}[shape]()
    vertices = vertices * SIZES[size]
    smooth = "true" if shape == "ring" else "false"
    return (
        f'<mesh name="{shape}-{size}" smoothnormal="{smooth}" inertia="shell" '
        f'vertex="{" ".join(f"{v:.5f}" for v in vertices.ravel())}" '
        f'face="{" ".join(map(str, faces.ravel()))}"/>'
    )


def _cone(
    around: int = 48, radius: float = 0.52, height: float = 1.1
) -> tuple[np.ndarray, np.ndarray]:
    angle = np.arange(around) * 2 * np.pi / around
    rim = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=1)
    vertices = np.concatenate([rim, [(0, 0, height), (0, 0, 0)]])
    faces = []
    for i in range(around):
        j = (i + 1) % around
        faces += [(i, j, around), (j, i, around + 1)]
    return vertices, np.array(faces)


def _pyramid(half: float = 0.48, height: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    base = [(-half, -half, 0), (half, -half, 0), (half, half, 0), (-half, half, 0)]
    faces = [(0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4), (0, 2, 1), (0, 3, 2)]
    return np.array([*base, (0, 0, height)]), np.array(faces)


def _ring(
    around: int = 40, across: int = 20, radius: float = 0.4, tube: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = [], []
    for i in range(around):
        for j in range(across):
            u, v = i * 2 * math.pi / around, j * 2 * math.pi / across
            out = radius + tube * math.cos(v)
            vertices.append(
                (out * math.cos(u), tube * math.sin(v), out * math.sin(u) + radius + tube)
            )
            a, b = i * across + j, ((i + 1) % around) * across + j
            c, d = (
                ((i + 1) % around) * across + (j + 1) % across,
                i * across + (j + 1) % across,
            )
            faces += [(a, c, b), (a, d, c)]
    return np.array(vertices), np.array(faces)


def _geoms_of(model: mujoco.MjModel, body: str) -> range:
    entry = model.body(body)
    return range(entry.geomadr[0], entry.geomadr[0] + entry.geomnum[0])


def _reach(model: mujoco.MjModel, geoms: list[int]) -> list[float]:
    return [float(model.geom_rbound[g]) * 0.9 for g in geoms]


def _free_camera(camera: Camera) -> mujoco.MjvCamera:
    view = mujoco.MjvCamera()
    view.type = mujoco.mjtCamera.mjCAMERA_FREE
    view.lookat[:] = camera.lookat
    view.distance = camera.distance
    view.azimuth = 90
    view.elevation = camera.elevation
    return view


def _yaw(degrees: float) -> tuple[float, float, float, float]:
    half = math.radians(degrees) / 2
    return (math.cos(half), 0, 0, math.sin(half))
