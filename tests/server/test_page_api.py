"""What the page asks the server for: its files, what there is, hints, settings in pictures, clips,
and streams over a WebSocket.
"""

import base64
import io
import json
import struct

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import Running, wait_for
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.sync.client import ClientConnection, connect

from safelight.app.server.config import Serving
from safelight.app.server.guard import Guard
from tiny_model import SIZE

SIDE = SIZE  # of the tiny models' pictures


def b64(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_the_page_is_sent_with_a_strict_policy_and_nothing_beside_it(client):
    for path in ("/", "/docs", "/page/js/main.js", "/page/css/tokens.css"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in ("/page/nothing.js", "/page/../server/page.py", "/page/%2e%2e/server/page.py"):
        assert client.get(path).status_code == 404
    assert client.get("/page/js/main.js").headers["content-type"].startswith("text/javascript")


def test_no_file_of_the_page_names_another_host(client):
    from safelight.app.server.page import page_files

    files = page_files()
    assert len(files) > 25
    for name, path in files.items():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, name
        assert "https://" not in text, name
        assert "innerHTML" not in text, name


def test_what_there_is_to_choose_from(client):
    offer = client.get("/v1/offer").json()
    models = {model["name"]: model for model in offer["models"]}
    assert (models["tiny"]["pictures"], models["tiny"]["clips"]) == (True, False)
    assert (models["moving"]["pictures"], models["moving"]["clips"]) == (False, True)
    assert models["tiny"]["width"] == SIDE
    assert "euler" in offer["samplers"]
    assert {"canny", "depth", "softedge"} <= {*offer["annotators"]}
    assert "pose" not in offer["annotators"]  # for which this server has no network


def test_hints_of_pictures_and_of_joints(client):
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 16:] = 255
    asked = {"kind": "canny", "picture": b64(Image.fromarray(picture))}
    hint = np.asarray(opened(client.post("/v1/annotate", json=asked).content).convert("L"))
    assert hint[:, 14:18].max() == 255
    assert hint[:, :12].max() == 0
    assert client.post("/v1/annotate", json={**asked, "kind": "nothing"}).status_code == 400
    assert client.post("/v1/annotate", json={**asked, "picture": "bm8="}).status_code == 400
    large = b64(Image.new("RGB", (512, 512)))
    assert client.post("/v1/annotate", json={**asked, "picture": large}).status_code == 400
    joints: list = [None] * 18
    joints[2], joints[3] = (0.25, 0.5), (0.75, 0.5)
    pose = {"width": 64, "height": 32, "people": [joints]}
    drawn = opened(client.post("/v1/pose", json=pose).content)
    assert drawn.size == (64, 32)
    assert np.asarray(drawn)[16, 32].max() > 100
    assert np.asarray(drawn)[4].max() == 0
    assert client.post("/v1/pose", json={**pose, "people": [joints[:17]]}).status_code == 422
    assert client.post("/v1/pose", json={**pose, "width": 4096}).status_code == 400


def test_a_picture_gives_its_settings_back(client, finished):
    seed = 2**64 - 3
    job = finished(prompt="a red ball", negative="blue", steps=2, seed=seed, sampler="ddim")
    content = client.get(job["pictures"][0]["url"]).content
    told = client.post("/v1/read", json={"picture": base64.b64encode(content).decode()}).json()
    settings = told["settings"]
    assert (settings["prompt"], settings["negative"]) == ("a red ball", "blue")
    assert (settings["seed"], settings["steps"], settings["model"]) == (str(seed), 2, "tiny")
    again = finished(**{name: value for name, value in settings.items() if value is not None})
    assert (
        client.get(again["pictures"][0]["url"] + "/manifest").json()["pixels"]
        == (told["manifest"]["pixels"])
    )
    blank = client.post("/v1/read", json={"picture": b64(Image.new("RGB", (8, 8)))}).json()
    assert blank == {"settings": None, "manifest": None, "notes": []}


def test_an_infotext_gives_its_settings_and_says_what_it_leaves_out(client):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(
        "parameters",
        "a hat\nNegative prompt: rain\nSteps: 7, Sampler: Euler a, CFG scale: 5, Seed: 9, "
        "Size: 16x16, Model: elsewhere, Tiling: True",
    )
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "PNG", pnginfo=info)
    picture = base64.b64encode(stream.getvalue()).decode()
    told = client.post("/v1/read", json={"picture": picture}).json()
    assert told["settings"]["prompt"] == "a hat"
    assert (told["settings"]["steps"], told["settings"]["seed"]) == (7, "9")
    assert any("elsewhere" in note for note in told["notes"])
    assert any("Tiling" in note for note in told["notes"])


@pytest.mark.parametrize(("form", "media"), [("webp", "image/webp"), ("mp4", "video/mp4")])
def test_a_clip_is_a_job_as_any_other(client, form, media):
    asked = {"model": "moving", "prompt": "a cube", "frames": 5, "steps": 2, "format": form}
    image = b64(Image.new("RGB", (SIDE, SIDE), "red"))
    answer = client.post("/v1/clips", json={**asked, "image": image})
    assert answer.status_code == 202, answer.text
    job = wait_for(client, answer.json()["id"])
    assert job["asked"]["what"] == "clip"
    clip = client.get(job["pictures"][0]["url"])
    assert clip.headers["content-type"] == media
    manifest = client.get(job["pictures"][0]["url"] + "/manifest").json()
    assert (manifest["clip"], manifest["settings"]["frames"]) == (1, 5)
    if form == "webp":
        assert opened(clip.content).n_frames == 5


def test_what_makes_no_clip_is_refused(client):
    for asked, told in (
        ({"model": "tiny"}, "makes pictures, not clips"),
        ({"model": "moving", "frames": 10_000}, "256 is the most"),
        ({"model": "moving", "sampler": "nothing"}, "sampler"),
    ):
        answer = client.post("/v1/clips", json=asked)
        assert answer.status_code == 400
        assert told in answer.json()["error"]["message"]


FOLLOWING = {"prompt": "a red ball", "steps": 2, "strength": 0.5}


def live(server: Running, **options) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/v1/live", open_timeout=120, **options)


def told(socket: ClientConnection) -> dict:
    message = socket.recv(timeout=300)
    assert isinstance(message, str), "a picture came"
    return json.loads(message)


def picture(socket: ClientConnection) -> np.ndarray:
    message = socket.recv(timeout=300)
    assert isinstance(message, bytes), message
    width, height = struct.unpack("<II", message[:8])
    return np.frombuffer(message[8:], np.uint8).reshape(height, width, 3)


def drawing(level: int) -> bytes:
    rows = np.full((SIDE, SIDE, 4), level, np.uint8)
    return SIDE.to_bytes(4, "little") + rows.tobytes()


def test_a_picture_follows_what_is_drawn_and_only_one_page_has_it(server):
    with live(server, subprotocols=["safelight"]) as socket:
        assert socket.subprotocol == "safelight"
        socket.send(json.dumps(FOLLOWING))
        begun = told(socket)
        assert begun["kind"] == "begun"
        assert (begun["width"], begun["draws"], begun["hint"]) == (SIDE, True, False)
        socket.send(drawing(20))
        first = picture(socket)
        assert first.shape == (SIDE, SIDE, 3)
        socket.send(drawing(230))
        assert not np.array_equal(picture(socket), first)
        with live(server) as other:
            other.send(json.dumps(FOLLOWING))
            refused = told(other)
            assert refused["kind"] == "refused"
            assert "room for one" in refused["line"]
    with live(server) as socket:  # there is room again
        socket.send(json.dumps({"prompt": "a hat", "steps": 1}))
        assert told(socket)["draws"] is False
        first = picture(socket)
        socket.send(json.dumps({"prompt": "a hat", "negative": "", "seed": "7"}))
        assert not np.array_equal(picture(socket), first)
        socket.send(json.dumps({"prompt": "a hat", "negative": "", "seed": "seven"}))
        assert told(socket) == {"kind": "wrong", "line": "A seed is a whole number, such as 7."}


def test_a_stream_that_is_left_as_it_begins_makes_room(server):
    opening = json.dumps({"prompt": "a hat", "steps": 1})
    for _ in range(2):
        with live(server) as socket:
            socket.send(opening)  # whose process has not yet read it when the page is gone
    with live(server) as socket:
        socket.send(opening)
        assert told(socket)["kind"] == "begun"


@pytest.mark.parametrize(
    ("opening", "line"),
    [
        ('{"model": "nowhere"}', "There is no model 'nowhere' here."),
        ('{"control": "canny"}', "tiny has no control 'canny'. It has none."),
        ('{"steps": 100000}', "steps is 100000, and 500 is the most on this server."),
        ('{"strength": 2}', "strength: Input should be less than or equal to 1."),
        ("no JSON", "Invalid JSON"),
        ('{"sampler": "dpmpp_2m"}', "A stream takes a sampler without memory"),
    ],
)
def test_a_stream_that_cannot_be_is_refused_in_one_line(server, opening, line):
    with live(server) as socket:
        socket.send(opening)
        refused = told(socket)
    assert refused["kind"] == "refused"
    assert line in refused["line"]


def test_a_drawing_that_is_none_ends_the_stream(server):
    with live(server) as socket:
        socket.send(json.dumps(FOLLOWING))
        assert told(socket)["kind"] == "begun"
        socket.send(b"\0\0\0\0")
        assert told(socket)["line"].startswith("A drawing is its width")


def guarded(**serving) -> TestClient:
    async def hello(socket: WebSocket) -> None:
        await socket.accept(subprotocol="safelight")
        await socket.close()

    app = Starlette(routes=[WebSocketRoute("/v1/live", hello)])
    return TestClient(Guard(app, Serving(**serving)), base_url="http://127.0.0.1:7860")


def lets_in(client: TestClient, **options) -> bool:
    try:
        with client.websocket_connect("ws://127.0.0.1:7860/v1/live", **options):
            return True
    except WebSocketDisconnect:
        return False


def test_a_socket_wants_the_token_and_no_page_of_another_site():
    secret = base64.urlsafe_b64encode(b"a-secret").decode().rstrip("=")
    wrong = base64.urlsafe_b64encode(b"another").decode().rstrip("=")
    closed = guarded(token="a-secret")
    assert lets_in(closed, subprotocols=["safelight", f"token.{secret}"])
    assert lets_in(closed, headers={"Authorization": "Bearer a-secret"})
    assert not lets_in(closed, subprotocols=["safelight", f"token.{wrong}"])
    assert not lets_in(closed, subprotocols=["safelight", "token.%"])
    assert not lets_in(closed)
    free = guarded()
    assert lets_in(free, headers={"Origin": "http://127.0.0.1:7860"})
    assert not lets_in(free, headers={"Origin": "http://evil.example"})
    assert not lets_in(free, headers={"Host": "evil.example"})


def test_docs_needs_no_other_host(client: httpx.Client):
    assert "cdn" not in client.get("/docs").text
    assert client.get("/openapi.json").json()["info"]["title"] == "safelight"
