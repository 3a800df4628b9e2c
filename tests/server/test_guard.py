"""Who is let in: tokens, origins, hosts, and how much a request may bring."""

import base64

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from safelight.app.cli import main
from safelight.app.server.config import Serving
from safelight.app.server.guard import BoundedBody, Guard

TOKEN = "a-secret"


async def length(request: Request) -> JSONResponse:
    return JSONResponse(len(await request.body()))


def client(**serving) -> TestClient:
    paths = ("/", "/v1/jobs", "/healthz", "/page/js/main.js")
    app = Starlette(routes=[Route(path, length, methods=["GET", "POST"]) for path in paths])
    guarded = Guard(BoundedBody(app, 100), Serving(**serving))
    return TestClient(guarded, base_url="http://127.0.0.1:7860")


def test_nobody_comes_in_without_the_token():
    guarded = client(token=TOKEN)
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    wrong = base64.b64encode(b"anybody:wrong").decode()
    statuses = {
        told: guarded.get("/v1/jobs", headers={"Authorization": told} if told else {}).status_code
        for told in (
            *("", f"Bearer {TOKEN}", "Bearer wrong", f"Basic {basic}", f"Basic {wrong}"),
            *("Basic %%%", f"Digest {TOKEN}", TOKEN),
        )
    }
    assert [told for told, status in statuses.items() if status == 200] == [
        f"Bearer {TOKEN}",
        f"Basic {basic}",
    ]
    assert {*statuses.values()} == {200, 401}
    open_to_all = ("/healthz", "/", "/page/js/main.js")
    assert [guarded.get(path).status_code for path in open_to_all] == [200] * 3


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:7860"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8000"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:7860", "Origin": "http://evil.example:7860"}, 403),
        ({"Host": "localhost:7860"}, 200),
        ({"Host": "[::1]:7860"}, 200),
    ],
)
def test_no_page_of_another_site_drives_it(headers, status):
    assert client().post("/", headers=headers).status_code == status


def test_a_site_that_is_named_may_ask():
    guarded = client(origins=("https://friend.example",))
    origin = {"Origin": "https://friend.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST"}
    before = guarded.options("/", headers=asked)
    assert before.status_code == 200
    assert "POST" in before.headers["access-control-allow-methods"]
    answer = guarded.post("/", headers=origin)
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    assert "access-control-allow-origin" not in guarded.post("/").headers


def test_a_request_brings_no_more_than_it_may():
    guarded = client()
    assert guarded.post("/", content=bytes(100)).json() == 100
    assert guarded.post("/", content=bytes(101)).status_code == 413
    unsaid = guarded.post("/", content=(bytes(30) for _ in range(4)))
    assert unsaid.status_code == 413


def test_another_address_wants_a_token_or_a_flag(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SAFELIGHT_TOKEN", raising=False)
    assert main(["serve", "--host", "0.0.0.0", "--state", str(tmp_path)]) == 2
    assert "give --token" in capsys.readouterr().err


def test_what_cannot_be_is_one_line(tmp_path, capsys):
    state = ["--state", str(tmp_path)]
    for arguments, told in (
        (["--port", "99999"], "Cannot listen"),
        (["--port", "0", "--model", "no-such"], "No model 'no-such'"),
        (["--port", "0", "--queue", "0"], "limit queue"),
        (["--port", "0", "--engine", "compile", "--storage", "int8"], "leave storage 'int8' out"),
        (["--port", "0", "--annotator", "depth"], "depth=FOLDER; got 'depth'"),
        (["--port", "0", "--annotator", "canny=x"], "made without a network"),
        (["--port", "0", "--annotator", "detph=x"], "Did you mean 'depth'"),
        (["--port", "0", "--annotator", "depth=nowhere"], "not at nowhere; it takes a folder"),
        (["--port", "0", "--annotator", "hed=no/such/file.pth", "--offline"], "No model 'no"),
        (["--port", "0", "--annotator", "dpt=no/such"], "safelight annotate depth PICTURE"),
    ):
        assert main(["serve", *state, *arguments]) == 2
        assert told in capsys.readouterr().err


def test_every_option_has_its_row():
    from pathlib import Path

    from option_names import option_names
    from safelight.app.commands.serve import serve

    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    names = [name.replace("_", "-") for name in option_names(serve) if name != "open_to_all"]
    assert len(names) > 20
    assert [name for name in names if f"`--{name}`" not in page] == []
