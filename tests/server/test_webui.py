"""AUTOMATIC1111's API, by the client package that its users have."""

import io
import threading
import time

import pytest
import webuiapi
from PIL import Image, ImageDraw

from safelight.pipelines.manifest import pixel_digest


@pytest.fixture
def api(server) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(port=server.port, sampler="Euler", steps=3)


@pytest.fixture
def image() -> Image.Image:
    return Image.linear_gradient("L").resize((32, 32)).convert("RGB")


def half_mask() -> Image.Image:
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 12, 32))
    return mask


def test_txt2img_is_the_native_apis_picture(api, client, finished):
    made = api.txt2img(
        prompt="a red cube", negative_prompt="blue", seed=3, batch_size=2, width=32, height=32
    )
    job = finished(
        prompt="a red cube",
        negative="blue",
        seed=3,
        count=2,
        scale=7.0,
        steps=3,
        sampler="euler",
        alone=True,
    )
    expected = [Image.open(io.BytesIO(client.get(p["url"]).content)) for p in job["pictures"]]
    assert [pixel_digest(one) for one in made.images] == [pixel_digest(one) for one in expected]
    assert made.info["all_seeds"] == [3, 4]
    assert made.info["sampler_name"] == "Euler"
    assert "Steps: 3, Sampler: Euler" in made.info["infotexts"][0]
    assert made.parameters["prompt"] == "a red cube"
    info = api.png_info(made.image)
    assert info.info.startswith("a red cube\nNegative prompt: blue")
    assert info.json["parameters"]["Seed"] == "3"


def test_the_second_pass_enlarges(api):
    size = {"width": 32, "height": 32, "seed": 1, "denoising_strength": 0.7}
    made = api.txt2img(prompt="x", enable_hr=True, hr_scale=2, hr_upscaler="Lanczos", **size)
    assert made.image.size == (64, 64)
    made = api.txt2img(prompt="x", enable_hr=True, hr_resize_x=48, hr_second_pass_steps=2, **size)
    assert made.image.size == (48, 48)


def test_img2img_begins_from_the_picture(api, image):
    options = {"images": [image], "prompt": "x", "seed": 1, "width": 32, "height": 32}
    little = api.img2img(denoising_strength=0.4, **options)
    much = api.img2img(denoising_strength=1.0, **options)
    assert little.parameters["init_images"] is None
    assert little.image.tobytes() != much.image.tobytes()


@pytest.mark.parametrize("invert", [0, 1])
@pytest.mark.parametrize("whole", [True, False])
def test_a_mask_keeps_the_rest_to_the_bit(api, image, invert, whole):
    made = api.img2img(
        images=[image],
        mask_image=half_mask(),
        prompt="x",
        seed=1,
        width=32,
        height=32,
        mask_blur=0,
        inpainting_fill=1,
        inpainting_mask_invert=invert,
        inpaint_full_res=not whole,
        inpaint_full_res_padding=2,
    )
    kept, anew = (12, 0, 32, 32), (0, 0, 12, 32)
    if invert:
        kept, anew = anew, kept
    assert made.image.crop(kept).tobytes() == image.crop(kept).tobytes()
    assert made.image.crop(anew).tobytes() != image.crop(anew).tobytes()


@pytest.mark.parametrize(("strength", "different"), [(0.5, 3), (1.0, 2)])
def test_latents_are_filled_under_the_mask(api, image, strength, different):
    """At full strength 1 and 3 are begun from noise alone."""
    fixed = {"images": [image], "mask_image": half_mask(), "prompt": "x", "seed": 1}
    fixed |= {"width": 32, "height": 32, "mask_blur": 0, "denoising_strength": strength}
    made = [api.img2img(**fixed, inpainting_fill=fill).image for fill in (1, 2, 3)]
    assert len({picture.tobytes() for picture in made}) == different
    assert made[1].tobytes() != made[2].tobytes()
    assert {picture.crop((12, 0, 32, 32)).tobytes() for picture in made} == {
        image.crop((12, 0, 32, 32)).tobytes()
    }


def test_a_fill_takes_the_colours_around(image):
    from safelight.app.server.webui_masks import filled

    red = Image.new("RGB", (32, 32), "red")
    ImageDraw.Draw(red).rectangle((0, 0, 11, 31), fill="blue")
    assert filled(red, half_mask()).getpixel((3, 16)) == (255, 0, 0)


def test_only_masked_widens_to_the_proportions_within_the_picture():
    from safelight.app.server.webui_masks import region

    assert region((10, 10, 20, 20), (100, 100), (64, 64), 0) == (10, 10, 20, 20)
    assert region((10, 10, 20, 20), (100, 100), (64, 32), 5) == (0, 5, 40, 25)
    assert region((0, 40, 4, 44), (100, 100), (32, 64), 0) == (0, 38, 4, 46)
    assert region((0, 0, 100, 10), (100, 20), (32, 32), 0) == (0, 0, 100, 20)


def test_interrupt_answers_with_the_pictures_that_are_there(api):
    answers: list[webuiapi.webuiapi.WebUIApiResult] = []
    size = {"width": 32, "height": 32, "seed": 1}
    thread = threading.Thread(
        target=lambda: answers.append(api.txt2img(prompt="x", steps=60, n_iter=4, **size))
    )
    thread.start()
    other = webuiapi.WebUIApi(port=int(api.baseurl.split(":")[2].split("/")[0]))
    end = time.monotonic() + 120
    while not 0 < (told := other.get_progress())["progress"] < 1:
        assert time.monotonic() < end
    assert told["state"]["sampling_steps"] == 60
    other.interrupt()
    thread.join(240)
    assert len(answers) == 1
    assert len(answers[0].images) < 4
    assert other.get_progress()["progress"] == 0.0


def test_skip_goes_on_with_the_next_picture(api):
    answers: list[webuiapi.webuiapi.WebUIApiResult] = []
    size = {"width": 32, "height": 32, "seed": 1}
    thread = threading.Thread(
        target=lambda: answers.append(api.txt2img(prompt="x", steps=60, n_iter=2, **size))
    )
    thread.start()
    other = webuiapi.WebUIApi(port=int(api.baseurl.split(":")[2].split("/")[0]))
    while other.get_progress()["state"]["sampling_step"] == 0:
        assert thread.is_alive()
    other.skip()
    thread.join(240)
    assert answers[0].info["all_seeds"] in ([2], [1])


def test_options_choose_the_model(api):
    assert api.util_get_current_model() == "tiny"
    assert {"tiny", "other"} <= {*api.util_get_model_names()}
    try:
        api.util_set_model("other")
        made = api.txt2img(prompt="x", steps=1, width=32, height=32)
        assert made.info["sd_model_name"] == "other"
    finally:
        api.set_options({"sd_model_checkpoint": "tiny"})
    once = {"sd_model_checkpoint": "other", "CLIP_stop_at_last_layers": 2}
    made = api.txt2img(prompt="x", steps=1, width=32, height=32, override_settings=once)
    assert (made.info["sd_model_name"], made.info["clip_skip"]) == ("other", 2)
    assert api.util_get_current_model() == "tiny"


def test_lists_say_what_there_is(api):
    assert "DPM++ 2M" in api.util_get_sampler_names()
    assert {"automatic", "karras"} <= {*api.util_get_scheduler_names()}
    assert [one["name"] for one in api.get_upscalers()] == ["None", "Lanczos", "Nearest"]
    assert api.get_latent_upscale_modes() == [{"name": "Latent"}]
    assert api.get_scripts()["txt2img"] == ["controlnet"]
    assert api.get_cmd_flags()["api"] is True
    assert api.get_memory()["ram"]["total"] > 0
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    for empty in (
        *(api.get_sd_vae, api.get_hypernetworks, api.get_face_restorers),
        *(api.get_realesrgan_models, api.get_prompt_styles, api.get_loras),
    ):
        assert empty() == []
    assert api.refresh_checkpoints() is None
    api.util_wait_for_ready(0.1)


def test_samplers_and_schedules_of_the_lists_are_taken(api):
    size = {"width": 32, "height": 32, "seed": 1}
    plain = api.txt2img(prompt="x", steps=4, sampler_name="DPM++ 2M", **size)
    karras = api.txt2img(prompt="x", steps=4, sampler_name="DPM++ 2M", scheduler="karras", **size)
    assert plain.image.tobytes() != karras.image.tobytes()
    assert "Schedule type: Karras" in karras.info["infotexts"][0]


def test_extras_enlarge(api, image):
    assert api.extra_single_image(image, upscaler_1="Lanczos").image.size == (64, 64)
    assert api.extra_single_image(image).image.size == (32, 32)
    fitted = api.extra_single_image(
        image, resize_mode=1, upscaler_1="Nearest", upscaling_resize_w=40, upscaling_resize_h=20
    )
    assert fitted.image.size == (40, 20)
    both = api.extra_batch_images([image, image], upscaler_1="Nearest", upscaling_resize=1.5)
    assert [one.size for one in both.images] == [(48, 48)] * 2


def test_controlnets_own_addresses(api, image):
    pytest.importorskip("cv2")
    assert api.controlnet_version() == 2
    assert "canny" in api.controlnet_module_list()
    assert {"canny", "pose"} <= {*api.controlnet_model_list()}
    edges = api.controlnet_detect([image], module="canny").image
    assert edges.size == image.size


def test_a_unit_of_controlnet_steers_the_default_model(api):
    pytest.importorskip("cv2")
    drawn = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(drawn).ellipse((10, 10, 50, 50), fill="red")
    unit = webuiapi.ControlNetUnit(image=drawn, module="canny", model="canny")
    options = {"prompt": "a red ball", "seed": 1, "width": 64, "height": 64, "steps": 2}
    default = {"override_settings": {"sd_model_checkpoint": "default"}}
    steered = api.txt2img(controlnet_units=[unit], alwayson_scripts={}, **options, **default)
    free = api.txt2img(alwayson_scripts={}, **options, **default)
    assert steered.image.tobytes() != free.image.tobytes()
    assert "ControlNet 0" in steered.info["infotexts"][0]


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ({"restore_faces": True}, 501, "faces"),
        ({"tiling": True}, 501, "tiling"),
        ({"styles": ["x"]}, 501, "styles"),
        ({"script_name": "x/y/z plot"}, 501, "script_name"),
        ({"enable_hr": True, "hr_upscaler": "R-ESRGAN 4x+"}, 501, "there are Latent, Lanczos"),
        ({"alwayson_scripts": {"ADetailer": {"args": [True]}}}, 501, "ADetailer"),
        ({"override_settings": {"eta_ddim": 1}}, 501, "eta_ddim"),
        ({"sampler_name": "Heum"}, 400, "Heum"),
        ({"override_settings": {"sd_model_checkpoint": "/etc"}}, 404, "no model"),
        (
            {"alwayson_scripts": {"ControlNet": {"args": [{"model": "../x", "image": "AAAA"}]}}},
            400,
            "control 0 ",
        ),
    ],
)
def test_what_is_not_here_says_so(client, asked, status, told):
    answer = client.post("/sdapi/v1/txt2img", json={"width": 32, "height": 32, **asked})
    assert answer.status_code == status, answer.text
    assert told in answer.json()["detail"]


def test_everything_else_of_the_web_ui_is_501(api, client, image):
    for method, path in (("POST", "interrogate"), ("GET", "artists"), ("POST", "train/embedding")):
        answer = client.request(method, f"/sdapi/v1/{path}", json={})
        assert answer.status_code == 501
        assert path in answer.json()["detail"]
    with pytest.raises(RuntimeError, match="501"):
        api.interrogate(image)
    with pytest.raises(RuntimeError, match="One picture"):
        api.img2img(images=[image, image], prompt="x")
    with pytest.raises(RuntimeError, match="of latents"):
        api.img2img(images=[image], resize_mode=3, prompt="x", width=32, height=32)


def test_sizes_are_bounded_before_anything_is_resized():
    from safelight.app.server.webui_bodies import Img2Img
    from safelight.app.server.webui_masks import prepared
    from safelight.errors import SafelightError

    body = Img2Img(width=2**30, height=2**30)
    with pytest.raises(SafelightError, match="larger than this server makes"):
        prepared(body, Image.new("RGB", (8, 8)), None, 2**20)


def test_what_no_second_pass_could_be_is_one_line(client):
    asked = {"enable_hr": True, "hr_second_pass_steps": 5, "denoising_strength": 1e-300}
    answer = client.post("/sdapi/v1/txt2img", json={"width": 32, "height": 32, **asked})
    assert answer.status_code == 400
    assert "steps" in answer.json()["detail"]
    half = {"content": b'{"\\ud800": 1}', "headers": {"Content-Type": "application/json"}}
    answer = client.post("/v1/jobs", **half)
    assert answer.status_code == 422
