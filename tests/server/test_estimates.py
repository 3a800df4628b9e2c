"""Hints that a network estimates, by every API: made by the worker, and kept nowhere."""

import base64
import io

import numpy as np
import pytest
import webuiapi
from PIL import Image

from safelight.pipelines.annotate import annotate
from safelight.pipelines.manifest import pixel_digest


@pytest.fixture
def api(server) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(port=server.port, sampler="Euler", steps=2)


@pytest.fixture
def drawn() -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((64, 64), Image.Resampling.BICUBIC)


def b64(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


@pytest.mark.parametrize(
    ("module", "kind"), [("depth_midas", "depth"), ("depth", "depth"), ("hed", "softedge")]
)
def test_detect_makes_what_annotate_makes(api, estimators, drawn, module, kind):
    expected = annotate(kind, drawn, weights=estimators[kind])
    assert np.ptp(np.asarray(expected)) > 10
    other = Image.new("RGB", (48, 32), "blue")
    found = api.controlnet_detect([drawn, other], module=module).images
    assert [one.size for one in found] == [(64, 64), (48, 32)]
    assert np.abs(np.asarray(found[0]).astype(int) - np.asarray(expected)).max() <= 1


def test_the_lists_name_what_can_be_made(api, client):
    pytest.importorskip("cv2")
    kinds = api.controlnet_module_list()
    assert {"none", "canny", "depth", "softedge", "tile"} <= {*kinds}
    assert not {"pose", "normal", "segmentation", "depth_midas"} & {*kinds}
    told = client.get("/controlnet/module_list", params={"alias_names": True}).json()
    names = told["module_list"]
    assert {*kinds} | {"depth_midas", "depth_anything_v2", "hed", "softedge_hed"} <= {*names}
    assert "dw_openpose_full" not in names
    types = client.get("/controlnet/control_types").json()["control_types"]
    assert types["depth"]["module_list"] == ["none", "depth"]
    assert types["pose"]["module_list"] == ["none"]


def test_an_estimated_unit_steers_as_its_hint_does(api, client, drawn):
    """Of the control's own kind, by the model that is at it; of another, before the run."""
    size = {"prompt": "a red ball", "seed": 1, "width": 64, "height": 64}
    size |= {"override_settings": {"sd_model_checkpoint": "default"}, "alwayson_scripts": {}}

    def steered(image: Image.Image, module: str, model: str) -> Image.Image:
        unit = webuiapi.ControlNetUnit(image=image, module=module, model=model)
        return api.txt2img(controlnet_units=[unit], **size).image

    for module, model in (("depth_midas", "depth"), ("hed", "scribble")):
        hint = api.controlnet_detect([drawn], module=module).image
        made = steered(drawn, module, model)
        assert pixel_digest(made) == pixel_digest(steered(hint, "none", model))
        assert pixel_digest(made) != pixel_digest(steered(drawn, "none", model))


def test_jobs_are_steered_by_pictures_that_a_network_reads(finished, client, drawn, estimators):
    control = {"kind": "depth", "picture": b64(drawn)}
    job = finished(model="default", prompt="a ball", steps=1, seed=1, controls=[control])
    manifest = client.get(job["pictures"][0]["url"] + "/manifest").json()
    [used] = manifest["controls"]
    assert used["annotator"] == str(estimators["depth"])
    asked = {"kind": "depth", "picture": b64(drawn)}
    hint = Image.open(io.BytesIO(client.post("/v1/annotate", json=asked).content))
    assert used["made"] == pixel_digest(hint)


def test_hints_are_kept_nowhere(client, server, drawn):
    before = client.get("/v1/jobs").json()
    count = sum(server.service.store.counts().values())
    seen: list[str] = []
    hand_in = server.service.store.submit

    def submit(job, most):
        found = hand_in(job, most)
        seen.append(found[0].id)
        return found

    server.service.store.submit = submit
    try:
        asked = {"kind": "hed", "picture": b64(drawn)}
        assert client.post("/v1/annotate", json=asked).status_code == 200
    finally:
        del server.service.store.submit
    assert len(seen) == 1
    assert client.get(f"/v1/jobs/{seen[0]}").status_code == 404
    assert client.get("/v1/jobs").json() == before
    assert sum(server.service.store.counts().values()) == count


def test_waiting_hints_are_seen_by_nobody(tmp_path, drawn):
    from safelight.app.server.config import Limits
    from safelight.app.server.estimates import hint_job
    from safelight.app.server.store import Store

    store = Store(tmp_path / "jobs.sqlite")
    job, _ = store.submit(hint_job("depth", drawn, Limits()), 8)
    assert job.is_hint
    assert store.newest(10) == []
    [(claimed, inputs)] = store.claim(store.begin_reign())
    assert (claimed.id, list(inputs)) == (job.id, ["picture"])
    store.forget(job.id)
    assert store.get(job.id) is None
    store.close()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/annotate", {"kind": "dw_openpose_full", "picture": "PICTURE"}),
        (
            "/v1/jobs",
            {"model": "default", "controls": [{"kind": "pose", "picture": "PICTURE"}]},
        ),
        (
            "/controlnet/detect",
            {"controlnet_module": "openpose", "controlnet_images": ["PICTURE"]},
        ),
        (
            "/sdapi/v1/txt2img",
            {
                "override_settings": {"sd_model_checkpoint": "default"},
                "alwayson_scripts": {
                    "ControlNet": {"args": [{"module": "openpose", "image": "PICTURE"}]}
                },
            },
        ),
    ],
)
def test_a_network_that_is_not_here_is_501_and_says_what_to_do(client, drawn, path, body):
    def filled(value):
        if isinstance(value, dict):
            return {key: filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [filled(one) for one in value]
        return b64(drawn) if value == "PICTURE" else value

    answer = client.post(path, json=filled(body))
    assert answer.status_code == 501, answer.text
    assert "--annotator pose=WEIGHTS" in answer.json()["detail"]


def test_what_no_hint_can_be_made_of_is_one_line(client):
    small = {"kind": "softedge", "picture": b64(Image.new("RGB", (15, 40)))}
    answer = client.post("/v1/annotate", json=small)
    assert (answer.status_code, "16 pixels a side" in answer.text) == (400, True)
    large = {"kind": "softedge", "picture": b64(Image.new("RGB", (160, 160)))}
    answer = client.post("/v1/annotate", json=large)
    assert (answer.status_code, "send a smaller" in answer.text) == (400, True)
    odd = {"kind": "depth", "picture": b64(Image.new("RGB", (32, 32))), "low": 3}
    answer = client.post("/v1/annotate", json=odd)
    assert (answer.status_code, "takes no low" in answer.text) == (400, True)
