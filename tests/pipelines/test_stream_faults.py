"""What a stream does when what it is given is refused, and what its pipeline does meanwhile."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

import safelight
from safelight.checkpoints.files import write_state
from safelight.errors import SafelightError
from safelight.nn.kept import Kept, KeptRows
from safelight.pipelines.control_settings import Control
from safelight.pipelines.load import load
from safelight.pipelines.stream import Stream
from tiny_model import SIZE

PROMPT = "a red cube"
UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return load(model_folder, device="cpu")


@pytest.fixture
def lora(tmp_path):
    torch.manual_seed(2)
    state = {}
    for name, out in ((f"{UNET}_attn1_to_q", 32), (f"{UNET}_attn2_to_k", 32), (TEXT, 64)):
        state[f"{name}.lora_down.weight"] = torch.randn(2, 32)
        state[f"{name}.lora_up.weight"] = torch.randn(out, 2)
    write_state(tmp_path / "style.safetensors", state)
    return tmp_path / "style.safetensors"


def noisy(seed: int) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def apart(picture, other) -> int:
    first, second = (np.asarray(one).astype(int) for one in (picture, other))
    return int(np.abs(first - second).max())


def refusing(monkeypatch, stream, method, when):
    """Lets a method of a stream refuse what `when` is true of."""
    owner = stream._steps if method == "read" else stream
    usual = getattr(owner, method)

    def maybe(inputs, *rest):
        if when(inputs):
            raise SafelightError("refused")
        return usual(inputs, *rest)

    monkeypatch.setattr(owner, method, maybe)


def test_an_adapter_of_a_pipeline_is_in_its_streams(model_folder, lora):
    adapted = load(model_folder, device="cpu", adapters={lora: 0.8})
    [single] = adapted.generate(PROMPT, steps=2, scale=1.0)
    [other] = adapted.generate("a blue ball", steps=2, scale=1.0)
    with safelight.stream(adapted, prompt=PROMPT, steps=2) as stream:
        assert apart(stream.next().levels, single.image) <= 1
        adapted.eject()
        [plain] = adapted.generate(PROMPT, steps=2, scale=1.0)
        assert apart(plain.image, single.image) > 1
        stream.update(prompt="a blue ball")
        assert apart(stream.next().levels, other.image) <= 1


def test_an_adapter_that_comes_later_is_in_no_stream(model_folder, lora):
    pipeline = load(model_folder, device="cpu")
    wanted = [pipeline.generate(text, steps=2, scale=1.0)[0] for text in (PROMPT, "a blue ball")]
    with safelight.stream(pipeline, prompt=PROMPT, steps=2) as stream:
        pipeline.adapt(lora)
        with pipeline.with_adapters():  # as while another thread makes a picture
            assert apart(stream.next().levels, wanted[0].image) <= 1
            stream.update(prompt="a blue ball")
            assert apart(stream.next().levels, wanted[1].image) <= 1
        [styled] = pipeline.generate("a blue ball", steps=2, scale=1.0)
        assert apart(styled.image, wanted[1].image) > 1
        stream.update(prompt=PROMPT)
        assert apart(stream.next().levels, wanted[0].image) <= 1


def test_what_is_refused_is_taken_back_and_the_rest_stays(pipeline, monkeypatch):
    wrong, good = noisy(8), noisy(9)
    options = {"steps": 2, "strength": 0.6, "prompt": PROMPT}
    with safelight.stream(pipeline, **options, picture=good) as stream:
        first = stream.next()
        refusing(monkeypatch, stream, "_pixels", lambda one: one.picture == wrong)
        stream.update(prompt="a blue ball")
        stream.update(picture=wrong)
        with pytest.raises(SafelightError, match="refused"):
            stream.next()
        second = stream.next()  # the prompt that came along is good
        assert apart(second.levels, first.levels) > 1
        with safelight.stream(
            pipeline, **options | {"prompt": "a blue ball"}, picture=good
        ) as other:
            assert apart(other.next().levels, second.levels) <= 1
        stream.update(picture=wrong)
        with pytest.raises(SafelightError, match="refused"):
            stream.next()
        assert stream.next() is second
        assert stream.passed_over == 2
        refusing(monkeypatch, stream, "read", lambda one: one.prompt == "no")
        stream.update(prompt="no", seed=3)
        with pytest.raises(SafelightError, match="refused"):
            stream.next()
        assert (stream.newest.prompt, stream.newest.seed) == ("a blue ball", 3)
        assert apart(stream.next().levels, second.levels) > 1


def test_the_first_refusal_is_told_again(pipeline, monkeypatch):
    with safelight.stream(pipeline, steps=2, strength=0.6) as stream:
        refusing(monkeypatch, stream, "_pixels", lambda one: one.picture == noisy(1))
        stream.update(picture=noisy(1))
        for _ in range(2):
            with pytest.raises(SafelightError, match=r"^refused$"):
                stream.next()
        stream.update(picture=noisy(2))
        assert stream.next().number == 2


def test_other_errors_leave_it_to_be_tried_again(pipeline, monkeypatch):
    with safelight.stream(pipeline, prompt=PROMPT, steps=2) as stream:
        first = stream.next()
        with monkeypatch.context() as patched:
            patched.setattr(stream._steps, "read", lambda _: 1 / 0)
            stream.update(prompt="a blue ball")
            with pytest.raises(ZeroDivisionError):
                stream.next()
        assert apart(stream.next().levels, first.levels) > 1


def test_a_lack_of_memory_in_encoding_is_one_line(pipeline, monkeypatch):
    with safelight.stream(pipeline, steps=2, strength=0.6, picture=noisy(1)) as stream:
        first = stream.next()

        def full(*_, **__):
            raise torch.OutOfMemoryError("full")

        monkeypatch.setattr("safelight.pipelines.stream.encoded", full)
        stream.update(picture=noisy(2))
        with pytest.raises(SafelightError, match="Not enough memory"):
            stream.next()
        assert stream.next() is first


def test_the_filter_compares_to_what_was_begun_with(pipeline, monkeypatch):
    wrong = Image.fromarray(np.asarray(noisy(3)) ^ np.uint8(1))
    with safelight.stream(
        pipeline, steps=2, strength=0.6, similarity=0.5, picture=noisy(1)
    ) as stream:
        stream.next()
        with monkeypatch.context() as patched:
            refusing(patched, stream, "_begin", lambda one: one.picture == wrong)
            stream.update(picture=wrong)
            with pytest.raises(SafelightError, match="refused"):
                stream.next()
        stream.update(picture=wrong)
        assert stream.next().number == 3
        stream.update(picture=wrong, seed=4)  # not the picture alone
        assert stream.next().number == 4


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_picture(pipeline, array):
    with safelight.stream(pipeline, strength=0.6) as stream:
        with pytest.raises(SafelightError, match="should be uint8 of"):
            stream.update(picture=array)
        with pytest.raises(SafelightError, match="empty"):
            stream.update(picture=Image.new("RGB", (0, 4)))


def test_closing_ends_who_iterates_even_on_its_way(pipeline, monkeypatch):
    stream = safelight.stream(pipeline, prompt=PROMPT, steps=1)
    usual = Stream._has_work

    def closing(one):
        found = usual(one)
        one._closed = True  # between the wait and the picture
        return found

    monkeypatch.setattr(Stream, "_has_work", closing)
    assert list(stream) == []


def test_who_iterates_sees_pictures_that_another_thread_made(pipeline):
    stream = safelight.stream(pipeline, prompt=PROMPT, steps=1)
    seen = []
    shown = threading.Event()

    def follow():
        for picture in stream:
            seen.append(picture.number)
            shown.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert shown.wait(300)
    for number in (1, 2):
        shown.clear()
        stream.update(seed=number)
        assert stream.next().number == number
        assert shown.wait(300)
    stream.close()
    thread.join(300)
    assert seen == [0, 1, 2]


def test_what_failed_is_not_made_again_before_something_is_new(pipeline, monkeypatch):
    stream = safelight.stream(pipeline, prompt=PROMPT, steps=1)
    tries = []

    def fails(*_):
        tries.append(1)
        raise SafelightError("no number")

    with monkeypatch.context() as patched:
        patched.setattr(stream, "_finished", fails)
        with pytest.raises(SafelightError, match="no number"):
            next(iter(stream))
        assert not stream._has_work()
        assert len(tries) == 1
    stream.update(seed=1)
    assert next(iter(stream)).number == 1


def test_a_frame_keeps_the_noise_it_was_begun_with(pipeline):
    def singles(seed):
        return pipeline.generate(PROMPT, steps=3, scale=1.0, sampler="euler_a", seed=seed)[0].image

    with safelight.stream(
        pipeline, prompt=PROMPT, steps=3, sampler="euler_a", batched=True
    ) as stream:
        stream.next()
        for seed in (1, 2, 3):
            stream.update(seed=seed)
            shown = stream.next()
        assert shown.number == 1
        assert apart(shown.levels, singles(1)) <= 1


def test_prompts_of_the_past_are_not_remembered(pipeline):
    with safelight.stream(pipeline, prompt=PROMPT, steps=2) as stream:
        most = []
        for text in (PROMPT, "a blue ball", "two red apples", "a ball"):
            stream.update(prompt=text)
            stream.next()
            most.append(max(len(module._known) for module in stream._steps._kept))
        assert max(most) <= 2
        levels = stream.next().levels
        with pytest.raises(ValueError, match="read-only"):
            levels[:] = 0


def test_copies_alone_are_remembered_of_rows():
    kept = KeptRows(torch.nn.Identity(), 2)
    batch = torch.arange(400.0).reshape(100, 4)
    kept(batch)
    assert [len(row.untyped_storage()) // 4 for row, _ in kept._known] == [4, 4]


def test_inputs_are_known_by_identity_before_values(monkeypatch):
    kept, base = Kept(torch.nn.Identity(), 4), torch.ones(2)
    first, second = base.clone(), 2 * base
    alias = second.clone()
    for one in (second, first, alias):
        kept(one)
    monkeypatch.setattr(torch, "equal", lambda *_: pytest.fail("a value was looked at"))
    for one in (first, second, alias, first):
        assert kept(one) is (first if one is first else second)


def test_a_new_picture_takes_the_place_of_a_ready_hint():
    bundled = load(device="cpu")
    white, black = (Image.new("RGB", (64, 64), colour) for colour in ("white", "black"))
    made = Control("canny", white)
    with safelight.stream(bundled, steps=1, controls=[made]) as stream:
        stream.update(hint=white)
        assert stream.newest.hints["canny"].getpixel((0, 0)) == (255, 255, 255)
        stream.update(picture=black)
        assert not stream.newest.hints
        stream.update(picture=black, hint=white)
        assert list(stream.newest.hints) == ["canny"]
