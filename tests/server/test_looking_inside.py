"""Jobs that are looked into, and grids."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from safelight.app.cli import main


def opened(url: str) -> Image.Image:
    head, text = url.split(",")
    assert head in ("data:image/png;base64", "data:image/webp;base64")
    return Image.open(io.BytesIO(base64.b64decode(text)))


def inside_of(client, job: dict, place: int = 0) -> dict:
    answer = client.get(f"/v1/jobs/{job['id']}/pictures/{place}/inside")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_steps_and_words_come_with_the_picture(client, finished):
    asked = {"prompt": "a red cube", "seed": 7, "steps": 5}
    plain = finished(**asked, alone=True)
    job = finished(**asked, inside=3)
    pictures = [client.get(one["pictures"][0]["url"]).content for one in (plain, job)]
    assert pictures[0] == pictures[1]
    seen = inside_of(client, job)
    assert [one["step"] for one in seen["steps"]] == [0, 2, 4]
    sigmas = [one["sigma"] for one in seen["steps"]]
    assert sigmas == sorted(sigmas, reverse=True)
    for one in seen["steps"]:
        assert opened(one["latent"]).size == opened(one["denoised"]).size == (8, 8)
        assert opened(one["picture"]).size == (32, 32)
    assert [word["text"] for word in seen["words"]] == ["a", "red", "cube"]
    assert seen["layers"] == [{"height": 8, "width": 8}, {"height": 4, "width": 4}]
    for word in seen["words"]:
        assert len(word["steps"]) == 3
        assert len(word["layers"]) == 2
        for heat in (word["whole"], *word["steps"], *word["layers"]):
            levels = np.asarray(opened(heat["map"]))
            assert levels.shape == (8, 8)
            assert levels.max() == 255
            assert 0 < heat["mean"] <= heat["peak"] <= 1
            assert levels.mean() / 255 * heat["peak"] == pytest.approx(heat["mean"], abs=2e-3)


def test_each_picture_of_a_job_has_its_own_inside(client, finished):
    job = finished(prompt="a red cube", seed=1, steps=2, count=2, inside=2)
    first, second = (inside_of(client, job, place) for place in range(2))
    assert first["steps"][0]["latent"] != second["steps"][0]["latent"]


def test_what_was_not_asked_for_is_not_there(client, finished):
    job = finished(prompt="a red cube", steps=2)
    assert client.get(f"/v1/jobs/{job['id']}/pictures/0/inside").status_code == 404
    assert client.get(f"/v1/jobs/{job['id']}/grid").status_code == 404
    assert job["grid"] is None


def test_a_prompt_that_cannot_be_watched_fails_the_job(finished):
    job = finished("failed", prompt="a cube AND a ball", steps=2, inside=2)
    assert "leave AND" in job["error"]["message"]


def test_a_row_of_guidance_scales(client, finished):
    job = finished(prompt="a red cube", seed=7, steps=2, x="scale=1,2,4")
    assert job["count"] == len(job["pictures"]) == 3
    assert job["grid"]["columns"] == ["1", "2", "4"]
    assert job["grid"]["rows"] == []
    manifests = [client.get(one["url"] + "/manifest").json() for one in job["pictures"]]
    assert [one["scale"] for one in manifests] == [1, 2, 4]
    assert {one["seed"] for one in manifests} == {7}
    alone = finished(prompt="a red cube", seed=7, steps=2, scale=4, alone=True)
    [picture] = alone["pictures"]
    assert client.get(picture["url"]).content == client.get(job["pictures"][2]["url"]).content


def test_a_grid_is_that_of_the_command_line(client, finished, models, tmp_path, capsys):
    x, y = "words=red,blue", "steps=1-2"
    job = finished(prompt="a red cube", seed=3, width=32, height=32, x=x, y=y)
    assert job["grid"]["axes"] == ["words", "steps"]
    assert job["grid"]["rows"] == ["1", "2"]
    theirs = tmp_path / "grid.png"
    options = [f"--model={models / 'tiny'}", "--seed=3", "--width=32", "--height=32"]
    main(["grid", "a red cube", *options, f"--x={x}", f"--y={y}", f"--output={theirs}"])
    ours = Image.open(io.BytesIO(client.get(job["grid"]["url"]).content))
    assert ours.tobytes() == Image.open(theirs).tobytes()
    file = tmp_path / "ours.png"
    file.write_bytes(client.get(job["grid"]["url"]).content)
    capsys.readouterr()
    main(["rerun", str(file), "--output", str(tmp_path / "again.png")])
    assert "the same pixels" in capsys.readouterr().err + capsys.readouterr().out


def test_a_cell_may_be_looked_into(client, finished):
    job = finished(prompt="a red cube", steps=2, x="seed=1,2", inside=1)
    assert inside_of(client, job, 1)["words"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"x": "sclae=1,2"}, "did you mean"),
        ({"x": "scale=1,two"}, "scale"),
        ({"x": "model=/etc/passwd,x"}, "no axis"),
        ({"y": "scale=1,2"}, "want columns"),
        ({"x": "scale=1,2", "y": "scale=1,2"}, "Both axes"),
        ({"x": "scale=1,2", "count": 2}, "leave count out"),
        ({"x": "seed=1-1000", "y": "scale=1-1000"}, "64 is the most"),
        ({"x": "steps=1,9999"}, "500 is the most"),
        ({"x": "width=32,99999"}, "larger than this server"),
        ({"x": "sampler=euler,oiler"}, "sampler"),
        ({"x": "words=green,blue"}, "neither the prompt"),
        ({"inside": 51}, "50"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(client, asked, told):
    answer = client.post("/v1/jobs", json={"prompt": "a red cube", **asked})
    assert answer.status_code in (400, 422), answer.text
    line = answer.json()["error"]["message"]
    assert told.lower() in line.lower()
    assert "\n" not in line


def test_a_grid_is_cancelled_like_any_job(client):
    asked = {"prompt": "a red cube", "steps": 400, "x": "seed=1-8"}
    job = client.post("/v1/jobs", json=asked).json()
    ended = client.delete(f"/v1/jobs/{job['id']}").json()
    assert ended["state"] == "cancelled"
    assert client.get(f"/v1/jobs/{job['id']}/grid").status_code == 404
