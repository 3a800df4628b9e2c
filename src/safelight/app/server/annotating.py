"""Hints made before a run: of a picture, or of joints that a user puts where they should be."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from PIL import Image
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from safelight.app.server.asked import Strict, Upload
from safelight.app.server.hints import hint_of
from safelight.app.server.replies import service_of
from safelight.app.server.uploads import from_base64, opened, png
from safelight.conditioners.annotators.pose import Keypoint, Person, draw_pose
from safelight.errors import SafelightError

router = APIRouter(prefix="/v1", tags=["the page's"])

_OF_A_WIDTH = 128  # sticks are as wide as a picture's sides have so many pixels: 4 at 512

Side = Annotated[int, Field(ge=8, le=4096)]
Place = Annotated[float, Field(ge=-1, le=2)]
Joint = tuple[Place, Place]
Level = Annotated[float, Field(ge=0, le=4096)]


class AskedHint(Strict):
    """A picture whose hint is to be made."""

    kind: str = Field(description="of /v1/offer's annotators, such as canny")
    picture: Upload
    low: Level | None = Field(default=None, description="of canny: where an edge goes on")
    high: Level | None = Field(default=None, description="of canny: where an edge begins")


class AskedPose(Strict):
    """People, each by OpenPose's 18 joints as parts of the picture's width and height; null is a
    joint that is not seen.
    """

    width: Side
    height: Side
    people: list[Annotated[list[Joint | None], Field(min_length=18, max_length=18)]] = Field(
        max_length=16
    )


_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}


@router.post("/annotate", summary="Make a hint", response_class=Response, responses=_PNG)
async def annotate(request: Request, asked: AskedHint) -> Response:
    """The hint of a picture, as large as it, as PNG; 501 for one whose network is not here."""
    limits = service_of(request).serving.limits
    levels = {"low": asked.low, "high": asked.high}
    options = {name: level for name, level in levels.items() if level is not None}

    def read() -> Image.Image:
        return opened(from_base64(asked.picture, "picture"), "picture", limits)

    hint = await hint_of(request, asked.kind, await run_in_threadpool(read), options)
    return Response(await run_in_threadpool(png, hint), media_type="image/png")


@router.post("/pose", summary="Draw a pose", response_class=Response, responses=_PNG)
async def pose(request: Request, asked: AskedPose) -> Response:
    """People as OpenPose's sticks on black, as PNG: a hint of a control of poses."""
    limits = service_of(request).serving.limits
    if asked.width * asked.height > limits.pixels:
        raise SafelightError(f"{limits.pixels} pixels are the most; ask for a smaller picture.")

    def draw() -> bytes:
        size = (asked.width, asked.height)
        people = [Person(tuple(_point(joint, size) for joint in one)) for one in asked.people]
        return png(draw_pose(people, size, max(1, min(size) // _OF_A_WIDTH)))

    return Response(await run_in_threadpool(draw), media_type="image/png")


def _point(joint: Joint | None, size: tuple[int, int]) -> Keypoint | None:
    if joint is None:
        return None
    return Keypoint(joint[0] * size[0], joint[1] * size[1])
