"""Trainings to look at, and nothing beside them."""

import json
import os
import time

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from safelight.app.cli import main
from safelight.app.server.config import Serving
from safelight.app.server.replies import with_errors
from safelight.app.server.service import Service
from safelight.app.server.trainings import router


def write_training(folder, steps=100, rows=5):
    (folder / "previews").mkdir(parents=True)
    (folder / "checkpoints" / "step_0000050").mkdir(parents=True)
    recipe = f'kind = "latent"\n[loop]\nsteps = {steps}\nbatch_size = 8\n'
    (folder / "recipe.toml").write_text(recipe)
    lines = [
        json.dumps({"step": 10 * (i + 1), "loss": 1 / (i + 1), "images_per_s": 4.0})
        for i in range(rows)
    ]
    (folder / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 6')  # is being written
    Image.new("RGB", (4, 4), "red").save(folder / "previews" / "step_0000010.png")
    return folder


@pytest.fixture
def runs(tmp_path):
    write_training(tmp_path / "runs" / "cats" / "unet")
    done = write_training(tmp_path / "runs" / "done", steps=50)
    os.utime(done / "log.jsonl", (time.time() - 9999,) * 2)
    (tmp_path / "secret.png").write_bytes(b"secret")
    return tmp_path / "runs"


def client_of(runs) -> TestClient:
    app = FastAPI()
    app.state.service = object.__new__(Service)  # without a store and a worker
    app.state.service.serving = Serving(runs=runs)
    app.include_router(router)
    with_errors(app)
    return TestClient(app)


def test_running_and_finished_ones_are_listed(runs):
    first, second = client_of(runs).get("/v1/trainings").json()
    assert (first["name"], first["runs"], first["step"], first["steps"]) == (
        "cats/unet",
        True,
        50,
        100,
    )
    assert first["seconds_left"] == 50 * 8 / 4.0
    assert first["last"]["loss"] == 0.2
    assert (second["name"], second["runs"], second["seconds_left"]) == ("done", False, None)


def test_one_tells_its_log_its_previews_and_its_recipe(runs):
    client = client_of(runs)
    told = client.get("/v1/trainings/one", params={"name": "cats/unet"}).json()
    assert [row["step"] for row in told["rows"]] == [10, 20, 30, 40, 50]
    assert told["previews"] == ["step_0000010.png"]
    assert told["checkpoints"] == ["step_0000050"]
    assert "batch_size = 8" in told["recipe"]
    picture = {"name": "cats/unet", "file": "step_0000010.png"}
    answer = client.get("/v1/trainings/preview", params=picture)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")


def test_a_long_log_is_thinned_between_its_ends(tmp_path):
    write_training(tmp_path / "long", rows=5001)
    told = client_of(tmp_path).get("/v1/trainings/one", params={"name": "long"}).json()
    assert len(told["rows"]) == 2000
    assert (told["rows"][0]["step"], told["rows"][-1]["step"]) == (10, 50010)


@pytest.mark.parametrize("name", ["..", "../", "cats", "/", "cats/../../", "cats/unet/"])
def test_no_name_leads_elsewhere(runs, name):
    client = client_of(runs)
    assert client.get("/v1/trainings/one", params={"name": name}).status_code == 404
    files = ("../recipe.toml", "../../../../secret.png", "/etc/passwd", "../log.jsonl", "..")
    for file in files:
        asked = {"name": "cats/unet", "file": file}
        assert client.get("/v1/trainings/preview", params=asked).status_code == 404


def test_links_are_not_followed(runs, tmp_path):
    outside = write_training(tmp_path / "outside")
    (runs / "linked").symlink_to(outside)
    inside = runs / "cats" / "unet" / "previews" / "step_0000020.png"
    inside.symlink_to(tmp_path / "secret.png")
    (runs / "log").mkdir()
    (runs / "log" / "log.jsonl").symlink_to(outside / "log.jsonl")
    client = client_of(runs)
    assert {one["name"] for one in client.get("/v1/trainings").json()} == {"cats/unet", "done"}
    told = client.get("/v1/trainings/one", params={"name": "cats/unet"}).json()
    assert told["previews"] == ["step_0000010.png"]


def test_a_log_that_is_damaged_is_read_as_far_as_it_is_one(tmp_path):
    folder = write_training(tmp_path / "odd")
    (folder / "log.jsonl").write_bytes(b'\xff\xfe\n[1]\n{"step": "x", "loss": 1}\nnull\n')
    (folder / "recipe.toml").write_text("= no toml")
    told = client_of(tmp_path).get("/v1/trainings/one", params={"name": "odd"}).json()
    assert told["rows"] == [{"loss": 1.0}]
    assert (told["step"], told["steps"], told["kind"]) == (0, None, None)


def test_without_a_folder_it_says_so(tmp_path, capsys):
    answer = client_of(None).get("/v1/trainings")
    assert answer.status_code == 501
    assert "--runs" in answer.json()["detail"]
    assert main(["serve", "--runs", str(tmp_path / "none")]) == 2
    assert "There is no folder" in capsys.readouterr().err
