"""OpenAI's Images API, by OpenAI's own client."""

import base64
import io

import httpx
import openai
import pytest
from PIL import Image

from safelight.pipelines.manifest import pixel_digest


@pytest.fixture
def api(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def png(image: Image.Image, name: str = "image.png") -> tuple[str, bytes, str]:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return name, stream.getvalue(), "image/png"


def opened(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_generations_are_those_of_the_native_api(api, client, finished):
    made = api.images.generate(
        prompt="a red cube",
        n=2,
        size="32x32",
        extra_body={"seed": 3, "steps": 4, "guidance_scale": 2.5, "negative_prompt": "blue"},
    )
    assert made.data is not None
    job = finished(prompt="a red cube", negative="blue", count=2, seed=3, steps=4, scale=2.5)
    for picture, ours in zip(made.data, job["pictures"], strict=True):
        with Image.open(io.BytesIO(client.get(ours["url"]).content)) as expected:
            assert pixel_digest(opened(picture.b64_json)) == pixel_digest(expected)


def test_a_url_leads_to_the_picture(api):
    made = api.images.generate(prompt="x", response_format="url", output_format="webp")
    assert made.output_format == "webp"
    answer = httpx.get(made.data[0].url)
    assert answer.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(answer.content)).size == (32, 32)


def test_names_of_their_models_mean_the_default(api):
    assert api.images.generate(prompt="x", model="gpt-image-1", quality="low", user="me").data
    with pytest.raises(openai.NotFoundError, match="no model"):
        api.images.generate(prompt="x", model="no-such")


def test_a_stream_shows_partial_images_and_ends_with_the_picture(api):
    stream = api.images.generate(
        prompt="x", stream=True, partial_images=2, extra_body={"seed": 1, "steps": 8}
    )
    events = list(stream)
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    partial, last = opened(events[0].b64_json), opened(events[-1].b64_json)
    assert partial.size == last.size == (32, 32)
    assert partial.tobytes() != last.tobytes()
    assert events[-1].usage.total_tokens == 0


def test_an_error_in_a_stream_is_raised(api):
    with pytest.raises(openai.APIError, match="multiple of 4"):
        list(api.images.generate(prompt="x", stream=True, size="33x32"))


def test_edits_keep_what_the_mask_does_not_leave_open(api):
    image = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    mask = Image.new("RGBA", (32, 32), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 8, 32))
    made = api.images.edit(
        image=png(image), mask=png(mask, "mask.png"), prompt="a red cube", extra_body={"seed": 1}
    )
    edited = opened(made.data[0].b64_json)
    kept = (16, 0, 32, 32)
    assert edited.crop(kept).tobytes() == image.crop(kept).tobytes()
    assert edited.tobytes() != image.tobytes()


def test_edits_stream_too_and_take_the_transparency_of_the_image(api):
    image = Image.linear_gradient("L").resize((32, 32)).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 8, 32))
    stream = api.images.edit(image=[png(image)], prompt="x", stream=True, partial_images=1)
    *_, last = list(stream)
    assert last.type == "image_edit.completed"
    kept = (16, 0, 32, 32)
    expected = image.convert("RGB").crop(kept).tobytes()
    assert opened(last.b64_json).crop(kept).tobytes() == expected


def test_several_images_want_a_model_that_sees(api):
    image = Image.new("RGB", (32, 32), "red")
    with pytest.raises(openai.BadRequestError, match=r"(?i)image.?(adapter|prompt)"):
        api.images.edit(image=[png(image), png(image)], prompt="x")


def test_variations_need_no_prompt(api):
    image = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    made = api.images.create_variation(image=png(image), n=2, extra_body={"seed": 1})
    first, second = (opened(one.b64_json).tobytes() for one in made.data)
    assert len({first, second, image.tobytes()}) == 3


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"size": "big"}, "such as 512x768"),
        ({"background": "transparent"}, "transparent"),
        ({"output_compression": 50}, "output_compression"),
        ({"extra_body": {"steps": 1000}}, "500 is the most"),
    ],
)
def test_what_cannot_be_is_a_bad_request(api, asked, told):
    with pytest.raises(openai.BadRequestError, match=told):
        api.images.generate(prompt="x", **asked)


def test_models_are_listed(api):
    listed = {one.id: one for one in api.models.list()}
    assert {"tiny", "other", "default"} <= {*listed}
    assert next(iter(listed)) == "tiny"
    assert api.models.retrieve("other").owned_by == "safelight"
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("no/such")
