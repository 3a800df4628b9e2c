"""Models by hub ids, against a small server that speaks the hub's API."""

import json
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from safelight.app.cli import main
from safelight.checkpoints.components import read_unet
from safelight.checkpoints.controlnet import write_controlnet
from safelight.checkpoints.folder import write_folder
from safelight.checkpoints.single_file import write_single_file
from safelight.checkpoints.video_layers import write_video_layers
from safelight.errors import SafelightError
from safelight.models.controlnet import ControlNetConfig, control_of
from safelight.models.video import TemporalConfig, inflate
from safelight.pipelines import hub
from safelight.pipelines.control_settings import Control
from safelight.pipelines.find import HubId, find_model, lasting_name, own_controls
from safelight.pipelines.hub import find_control, find_or_fetch, find_part, wanted_files
from safelight.pipelines.load import load
from safelight.pipelines.load_video import load_video
from safelight.pipelines.picture_files import read_manifest
from tiny_model import tiny_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
UNWANTED = (
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_flax_model.msgpack",
    "unet/openvino_model.bin",
    "vae/model.onnx",
    "safety_checker/model.safetensors",
    "safety_checker/config.json",
    "model.safetensors",
    "model.ckpt",
    "README.md",
)


class Hub:
    """The repositories of a server: owner/fine, owner/gated, owner/bins; asked: what was sent."""

    def __init__(self, root: Path):
        self.root, self.asked, self.broken = root, [], ""

    def handler(self):
        this = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, code, body=b"", **headers):
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_GET(self):
                parts = self.path.split("?")[0].strip("/").split("/")
                if parts[:2] == ["api", "models"]:
                    self.info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
                elif parts[2:3] == ["resolve"]:
                    self.file("/".join(parts[4:]))
                else:
                    self.answer(404)

            do_HEAD = do_GET  # noqa: N815 - the name that http.server asks for

            def info(self, repository, revision):
                if repository == "owner/gated":
                    self.answer(401, X_Error_Code="GatedRepo", X_Error_Message="gated")
                elif repository != "owner/fine":
                    self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="no")
                elif revision not in ("main", COMMIT):
                    self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="no")
                else:
                    files = [p for p in this.root.rglob("*") if p.is_file()]
                    names = [{"rfilename": p.relative_to(this.root).as_posix()} for p in files]
                    body = {"id": repository, "sha": COMMIT, "siblings": names}
                    self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

            def file(self, name):
                path = this.root / name
                if self.command == "GET":
                    this.asked.append(name)
                if name == this.broken:
                    return self.answer(403)
                if not path.is_file():
                    return self.answer(404, X_Error_Code="EntryNotFound")
                return self.answer(
                    200, path.read_bytes(), ETag=f'"{name.replace("/", "-")}"', X_Repo_Commit=COMMIT
                )

        return Handler


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub with a tiny model and much beside it; an empty cache and library."""
    write_folder(tmp_path / "remote", tiny_folder())
    index = tmp_path / "remote" / "model_index.json"
    named = json.loads(index.read_text())
    named["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index.write_text(json.dumps(named))
    for name in UNWANTED:
        (tmp_path / "remote" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "remote" / name).write_bytes(b"not wanted")
    served = Hub(tmp_path / "remote")
    listening = ThreadingHTTPServer(("127.0.0.1", 0), served.handler())
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    # which the hub's package reads once, when other tests' imports bring it in
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("SAFELIGHT_MODELS", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield served
    listening.shutdown()
    listening.server_close()
    thread.join()


def refused(name: str) -> str:
    with pytest.raises(SafelightError) as caught:
        find_or_fetch(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_repository_is_fetched_once_and_only_what_is_read(server):
    pipeline = load("owner/fine", device="cpu")
    wanted = {
        path.relative_to(server.root).as_posix()
        for path in server.root.rglob("*")
        if path.is_file()
    } - set(UNWANTED)
    assert set(server.asked) == wanted
    server.asked.clear()
    made = pipeline.generate("a red cube", steps=1)[0]
    assert made.manifest.model == f"owner/fine@{COMMIT}"
    for name in ("owner/fine", made.manifest.model):
        assert find_or_fetch(name) == find_or_fetch(name, offline=True) == find_model(name)
    assert server.asked == []
    assert lasting_name("owner/fine@main") == f"owner/fine@{COMMIT}"


@pytest.mark.parametrize("revision", ["", f"@{COMMIT}"])
def test_a_single_file_of_a_repository_is_fetched_alone(server, revision):
    (server.root / "files").mkdir()
    write_single_file(server.root / "files" / "tiny.safetensors", tiny_folder())
    name = f"owner/fine{revision}/files/tiny.safetensors"
    pipeline = load(name, device="cpu")
    assert server.asked == ["files/tiny.safetensors"]
    assert pipeline.name == f"owner/fine@{COMMIT}/files/tiny.safetensors"
    for known in (name, pipeline.name):
        found = find_or_fetch(known, offline=True)
        assert found == find_part(known, offline=True) == find_model(known)
    assert server.asked == ["files/tiny.safetensors"]
    assert "Did you mean 'files/tiny.safetensors'" in refused("owner/fine/files/tinny.safetensors")


def test_a_part_is_sought_here_before_on_the_hub(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "owner/fine/model.safetensors"
    with pytest.raises(SafelightError, match=f"No model '{name}'"):
        find_part(name, offline=True)
    (tmp_path / "owner" / "fine").mkdir(parents=True)
    (tmp_path / name).touch()
    assert find_part(name) == Path(name)
    assert find_part("not/there") == Path("not/there")
    assert server.asked == []


def _controls_at(path: Path, *kinds: str) -> None:
    unet = tiny_folder().unet
    for kind in kinds:
        control = control_of(unet, ControlNetConfig(unet.config, hint_block_channels=(4, 4, 8)))
        write_controlnet(path / kind, control)


def test_the_controls_of_a_model_are_fetched_along(server):
    _controls_at(server.root / "controls", "canny", "pose")
    (server.root / "controls/pose/diffusion_pytorch_model.fp16.safetensors").touch()
    (server.root / "controls/README.md").touch()
    (server.root / "controls/bins").mkdir()
    (server.root / "controls/bins/config.json").write_text("{}")
    (server.root / "controls/bins/diffusion_pytorch_model.bin").touch()
    folder = find_or_fetch("owner/fine")
    assert set(own_controls(folder)) == {"canny", "pose"}
    files = {name for name in server.asked if name.startswith("controls/")}
    parts = ("config.json", "diffusion_pytorch_model.safetensors")
    assert files == {f"controls/{kind}/{part}" for kind in ("canny", "pose") for part in parts}
    pipeline = load("owner/fine", device="cpu", offline=True)
    control = Control("pose", Image.new("RGB", (32, 32)), hint=True)
    made = pipeline.generate("a red cube", steps=1, controls=[control])
    assert made[0].manifest.controls[0].network == ""


def test_the_video_layers_of_a_model_are_fetched_along(server):
    pictures = read_unet(server.root / "unet")
    video = inflate(pictures, TemporalConfig(3), number_dim=8)
    write_video_layers(server.root / "video", video, pictures)
    (server.root / "video" / "diffusion_pytorch_model.bin").touch()
    assert len(load_video("owner/fine", device="cpu").animate(prompt="a cat", steps=1).frames) == 3
    assert not [name for name in server.asked if name.endswith(".bin")]


def test_a_control_network_is_fetched_by_its_name(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "local", tiny_folder())
    Image.new("RGB", (32, 32)).save(tmp_path / "hint.png")
    shutil.rmtree(server.root)
    _controls_at(server.root.parent, server.root.name)
    (server.root / "diffusion_pytorch_model.fp16.safetensors").touch()
    (server.root / "README.md").touch()
    command = ["generate", "a red cube", "--model", "local", "--steps", "1", "-o", "a.png"]
    command += ["--control", "edges=hint.png", "--hint", "--control-net", "edges=owner/fine"]
    assert main([*command, "--offline"]) == 2
    assert "nor one of the hub's 'owner/fine' on this machine" in capsys.readouterr().err
    assert server.asked == []
    assert main(command) == 0
    assert sorted(server.asked) == ["config.json", "diffusion_pytorch_model.safetensors"]
    server.asked.clear()
    assert main([*command, "--offline"]) == 0
    assert server.asked == []
    used = read_manifest(Path("a.png")).controls[0].network
    assert f"snapshots/{COMMIT}" in used
    assert main(["rerun", "a.png"]) == 0
    weights = Path(used, "diffusion_pytorch_model.safetensors")
    weights.unlink()  # as another program leaves it that fetches the settings alone
    assert find_control("owner/fine") == Path(used)
    assert weights.is_file()


def test_a_repository_that_is_no_control_is_refused_before_it_is_fetched(server):
    with pytest.raises(SafelightError, match=r"expected config\.json and diff"):
        find_control("owner/fine")
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("a/b@v1/c/d e.ckpt", HubId("a/b", "v1", "c/d e.ckpt")),
        ("a/b@refs/pr/3/c.pt", HubId("a/b", "refs/pr/3", "c.pt")),
        ("a/b@feature/c", HubId("a/b", "feature/c")),
        ("a/b.safetensors", HubId("a/b.safetensors")),
        ("a/b/../c.pt", None),
        ("a/b/c.png", None),
    ],
)
def test_a_name_says_its_repository_revision_and_file(name, identity):
    assert HubId.of(name) == identity


def test_a_fetch_that_was_cut_short_is_not_a_model_and_goes_on(server):
    server.broken = "vae/diffusion_pytorch_model.safetensors"
    assert "403" in refused("owner/fine")
    with pytest.raises(SafelightError, match="No model 'owner/fine'"):
        find_model("owner/fine")
    server.broken = ""
    server.asked.clear()
    folder = find_or_fetch(f"owner/fine@{COMMIT}")
    assert "model_index.json" not in server.asked
    assert (folder / "vae" / "diffusion_pytorch_model.safetensors").is_file()


def test_what_another_program_fetched_in_part_is_completed(server):
    folder = find_or_fetch("owner/fine")
    shutil.rmtree(folder / "unet")
    assert find_or_fetch("owner/fine") == folder
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("owner/nothing", "neither on this machine nor on the Hugging Face hub"),
        ("owner/gated", "accept them on its page"),
        ("owner/fine@v9", "no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses_is_one_line(server, name, said):
    assert said in refused(name)


def test_a_hub_that_is_not_there_is_one_line(server, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert "See to the connection" in refused("owner/fine")


def test_a_repository_of_another_layout_is_refused_before_its_weights(server):
    (server.root / "model_index.json").unlink()
    assert "no model_index.json" in refused("owner/fine")
    assert server.asked == []


def test_pickled_weights_are_refused_before_they_are_fetched(server):
    for file in (server.root / "unet").glob("*.safetensors"):
        file.unlink()
    assert "has no safetensors of its unet (config.json, diffusion_flax" in refused("owner/fine")
    assert server.asked == ["model_index.json"]


@pytest.mark.parametrize("by_argument", [True, False])
def test_offline_asks_nobody(server, monkeypatch, by_argument):
    monkeypatch.setattr(hub, "_fetched", lambda identity: 1 / 0)
    if not by_argument:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SafelightError, match="No model 'owner/fine'"):
        find_or_fetch("owner/fine", offline=by_argument)


def test_without_the_extra_its_remedy_is_named(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert 'pip install "safelight[hub]"' in refused("owner/fine")


def test_the_command_fetches_and_offline_does_not(server, tmp_path):
    command = [sys.executable, "-m", "safelight.app.cli", "generate", "a red cube"]
    command += ["--model", "owner/fine", "--steps", "1", "-o", str(tmp_path / "a.png")]
    stopped = subprocess.run([*command, "--offline"], capture_output=True, text=True, check=False)
    assert stopped.returncode != 0
    assert "No model 'owner/fine'" in stopped.stderr
    assert server.asked == []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").is_file()


def test_one_variant_is_chosen_plain_before_fp16_before_others():
    index = {"unet": ["diffusers", "U"], "text_encoder": ["transformers", "T"]}
    unet = [
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    ]
    other = [
        "unet/diffusion_pytorch_model.bf16.safetensors",
        "unet/diffusion_pytorch_model.bin.index.json",
        "unet/deep/config.json",
        "unet/../config.json",
        "text_encoder/model.fp16.safetensors",
    ]
    text = ["text_encoder/model-00001-of-00001.safetensors", "text_encoder/model.safetensors"]
    text += ["text_encoder/model.safetensors.index.json"]
    assert wanted_files([*unet, *other, *text], index, "x") == [*unet, *text]


def test_an_image_tower_is_fetched_only_where_the_pipeline_sees_pictures():
    parts = {"image_encoder": ["transformers", "T"], "feature_extractor": ["transformers", "F"]}
    names = ["image_encoder/config.json", "image_encoder/model.safetensors"]
    names += ["feature_extractor/preprocessor_config.json"]
    seeing = {"_class_name": "StableDiffusionImageVariationPipeline", **parts}
    assert wanted_files(names, seeing, "x") == names
    assert wanted_files(names, {"_class_name": "StableDiffusionPipeline", **parts}, "x") == []
