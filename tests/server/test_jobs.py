"""The native API: jobs that are handed in, watched, cancelled and fetched."""

import base64
import io
import json

import pytest
from PIL import Image
from serving import wait_for

from safelight.pipelines.load import load
from safelight.pipelines.manifest import Manifest, pixel_digest
from safelight.pipelines.picture_files import read_manifest


def png_text(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def gradient(size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert("RGB")


def test_a_picture_is_the_same_bits_as_in_python(client, finished, models, tmp_path):
    job = finished(prompt="a red cube", seed=5, alone=True)
    content = client.get(job["pictures"][0]["url"]).content
    (tmp_path / "x.png").write_bytes(content)
    [expected] = load(models / "tiny").generate("a red cube", seed=5)
    with Image.open(io.BytesIO(content)) as image:
        assert pixel_digest(image) == expected.manifest.pixels
    manifest = read_manifest(tmp_path / "x.png")
    assert (manifest.prompt, manifest.seed) == ("a red cube", 5)
    told = client.get(job["pictures"][0]["url"] + "/manifest").json()
    assert Manifest.from_json(json.dumps(told), "told") == manifest


def test_pictures_of_a_job_share_a_batch_unless_it_asks_for_the_same_bits(client, finished):
    def manifests(**asked) -> list[dict]:
        job = finished(prompt="a blue ball", seed=3, count=3, **asked)
        assert [picture["seed"] for picture in job["pictures"]] == [3, 4, 5]
        return [client.get(one["url"] + "/manifest").json() for one in job["pictures"]]

    together, alone = manifests(), manifests(alone=True)
    assert [one["served"] and one["served"]["batch"] for one in together] == [3, 3, 3]
    assert [one["served"] for one in alone] == [None] * 3
    assert len({one["pixels"] for one in alone}) == 3


def test_jobs_of_equal_settings_share_a_batch(client):
    slow = client.post("/v1/jobs", json={"steps": 400, "alone": True}).json()
    twins = [
        client.post("/v1/jobs", json={"prompt": prompt, "seed": 1}).json()
        for prompt in ("a red cube", "a blue ball")
    ]
    client.delete(f"/v1/jobs/{slow['id']}")
    for twin in twins:
        job = wait_for(client, twin["id"])
        manifest = client.get(job["pictures"][0]["url"] + "/manifest").json()
        assert manifest["served"]["batch"] == 2
        assert manifest["prompt"] == twin["asked"]["prompt"]


def test_a_webp_holds_its_manifest_too(client, finished, tmp_path):
    job = finished(prompt="a red cube", format="webp", infotext=True)
    assert job["pictures"][0]["media"] == "image/webp"
    (tmp_path / "x.webp").write_bytes(client.get(job["pictures"][0]["url"]).content)
    assert read_manifest(tmp_path / "x.webp").prompt == "a red cube"


def test_events_tell_every_step_and_show_previews(client):
    job = client.post("/v1/jobs", json={"steps": 6, "previews": 2}).json()
    told: list[tuple[str, dict]] = []
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        event = ""
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                told.append((event, json.loads(value)))
    kinds = [kind for kind, _ in told]
    assert kinds[0] == "state"
    assert kinds[-1] == "state"
    assert told[-1][1]["state"] == "done"
    assert "picture" in kinds
    previews = [one["preview"] for kind, one in told if "preview" in one and kind == "progress"]
    assert len(previews) == 2
    with Image.open(io.BytesIO(base64.b64decode(previews[0]))) as image:
        assert image.size == (32, 32)


def test_a_given_picture_is_begun_from(finished, client):
    image, mask = gradient(), Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))
    job = finished(
        prompt="a red cube", seed=1, image=png_text(image), mask=png_text(mask), mask_blur=0
    )
    with Image.open(io.BytesIO(client.get(job["pictures"][0]["url"]).content)) as made:
        kept = (16, 0, 32, 32)
        assert made.crop(kept).tobytes() == image.crop(kept).tobytes()
        assert made.tobytes() != image.tobytes()


def test_a_job_is_cancelled_while_it_runs_and_while_it_waits(client):
    running = client.post("/v1/jobs", json={"steps": 500, "alone": True}).json()
    waiting = client.post("/v1/jobs", json={"steps": 500, "alone": True}).json()
    for job in (waiting, running):
        assert client.delete(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
        wait_for(client, job["id"], "cancelled")
    assert client.get("/v1/jobs", params={"state": "running"}).json()["jobs"] == []


def test_the_same_key_gives_the_same_job(client):
    asked, key = {"prompt": "a red cube", "steps": 1}, {"Idempotency-Key": "test-key"}
    first = client.post("/v1/jobs", json=asked, headers=key)
    again = client.post("/v1/jobs", json=asked, headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    other = client.post("/v1/jobs", json={**asked, "steps": 2}, headers=key)
    assert other.status_code == 422


def test_another_model_is_loaded_and_the_first_goes(client, finished, server):
    job = finished(prompt="a red cube", model="other", seed=5)
    assert job["model"] == "other"
    assert [place.rpartition("/")[2] for place in server.service.loaded] == ["other"]
    finished(prompt="a red cube", seed=5)
    assert [place.rpartition("/")[2] for place in server.service.loaded] == ["tiny"]


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ({"promt": "a cat"}, 422, "promt"),
        ({"steps": 0}, 422, "steps"),
        ({"steps": 501}, 400, "500 is the most"),
        ({"count": 9}, 400, "8 is the most"),
        ({"sampler": "heum"}, 400, "Did you mean 'heun'"),
        ({"schedule": "karas"}, 400, "Did you mean 'karras'"),
        ({"model": "../tiny"}, 404, "There is no model"),
        ({"model": "/etc"}, 404, "There is no model"),
        ({"width": 8192, "height": 8192}, 400, "larger than this server makes"),
        ({"image": "%%%"}, 400, "not base64"),
        ({"image": base64.b64encode(b"no picture").decode()}, 400, "send PNG, JPEG or WebP"),
        ({"image": png_text(gradient((512, 512)))}, 400, "65536 are the most"),
        ({"prompt": "a <lora:../../secret:1>"}, 400, "names an adapter"),
        ({"controls": [{"kind": "/etc", "picture": "AAAA"}]}, 400, "cannot be read|no picture"),
        (
            {"controls": [{"kind": "/etc/passwd", "picture": png_text(gradient()), "hint": True}]},
            400,
            "has no control",
        ),
        ({"conditions": [{"kind": "map", "name": "../../x.png"}]}, 422, "conditions"),
        ({"guidance": {"pag_scale": 1, "pag_layers": ["(a+)+$"]}}, 400, "pag_layers"),
        ({"guidance": {"rescail": 1}}, 400, "rescail"),
        ({"prompt": "x" * 10_001}, 400, "10000 is the most"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(client, asked, status, told):
    answer = client.post("/v1/jobs", json=asked)
    assert answer.status_code == status
    message = answer.json()["error"]["message"]
    assert any(part in message for part in told.split("|")), message
    assert "\n" not in message


def test_what_only_the_model_can_refuse_fails_the_job(finished):
    job = finished("failed", width=33, height=32)
    assert job["error"]["fault"] == "request"
    assert "multiple of 4" in job["error"]["message"]


def test_jobs_that_are_not_there(client):
    for path in ("", "/events", "/pictures/0"):
        assert client.get(f"/v1/jobs/{'0' * 32}{path}").status_code == 404
    assert client.delete(f"/v1/jobs/{'0' * 32}").status_code == 404


def test_jobs_are_listed_from_the_newest_on(client, finished):
    jobs = [finished(steps=1)["id"] for _ in range(3)]
    page = client.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in page["jobs"]] == jobs[:0:-1]
    rest = client.get("/v1/jobs", params={"limit": 1, "before": page["next"]}).json()
    assert rest["jobs"][0]["id"] == jobs[0]


def test_health_figures_and_the_page(client, finished):
    finished(steps=1)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 200
    text = client.get("/metrics").text
    assert 'safelight_jobs{state="done"}' in text
    assert 'route="/v1/jobs"' in text
    assert 'src="page/js/main.js"' in client.get("/").text
    assert "/v1/jobs" in client.get("/openapi.json").json()["paths"]
