import threading

import numpy as np
import pytest
import torch
from PIL import Image

import safelight
from safelight.diffusion.affine import MEMORYLESS
from safelight.errors import SafelightError
from safelight.pipelines.control_settings import Control
from safelight.pipelines.load import load
from safelight.pipelines.stream_settings import unseen_control
from tiny_model import SIZE

PROMPT = "a red cube"


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return load(model_folder, device="cpu")


def noisy(seed: int, size: int = SIZE) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def apart(picture, other) -> int:
    first, second = (np.asarray(one).astype(int) for one in (picture, other))
    return int(np.abs(first - second).max())


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("sampler", MEMORYLESS)
@pytest.mark.parametrize("strength", [None, 0.7])
def test_a_still_stream_is_the_single_picture(pipeline, sampler, batched, strength):
    begun = {} if strength is None else {"strength": strength}
    image = {} if strength is None else {"image": noisy(1)}
    [single] = pipeline.generate(
        PROMPT, steps=4, scale=1.0, sampler=sampler, seed=5, **begun, **image
    )
    with safelight.stream(
        pipeline, prompt=PROMPT, sampler=sampler, seed=5, batched=batched, **begun
    ) as stream:
        if strength is not None:
            stream.update(picture=noisy(1))
        assert apart(stream.next().levels, single.image) <= 1
        stream.update(seed=6)
        stream.next()
        stream.update(seed=5)
        again = [stream.next() for _ in range(5)]
    assert apart(again[-1].levels, single.image) <= 1
    assert again[-1] is again[-2]  # nothing new is nothing to make


@pytest.mark.parametrize("batched", [False, True])
def test_full_guidance_is_that_of_single_pictures(pipeline, batched):
    [single] = pipeline.generate(PROMPT, negative="ball", steps=3, scale=4.0, sampler="euler")
    with safelight.stream(
        pipeline,
        prompt=PROMPT,
        negative="ball",
        steps=3,
        scale=4.0,
        guidance="full",
        batched=batched,
    ) as stream:
        assert apart(stream.next().levels, single.image) <= 1


@pytest.mark.parametrize("guidance", ["self", "onetime"])
@pytest.mark.parametrize("strength", [None, 0.8])
def test_residual_guidance_leads_the_same_way_in_batches(pipeline, guidance, strength):
    def last(batched, **other):
        with safelight.stream(
            pipeline,
            prompt=PROMPT,
            strength=strength,
            picture=noisy(2),
            batched=batched,
            **other,
        ) as stream:
            return stream.next().levels

    led = {"guidance": guidance, "scale": 3.0, "negative": "ball"}
    one_by_one = last(False, **led)
    assert apart(last(True, **led), one_by_one) <= 1
    assert apart(one_by_one, last(False)) > 1
    assert apart(last(False, **led, delta=0.5), one_by_one) > 1
    changed = apart(last(False, **led | {"negative": "two apples"}), one_by_one)
    assert (changed > 1) == (guidance == "onetime")


def test_onetime_guidance_in_one_step_is_full_guidance(pipeline):
    def only(guidance):
        with safelight.stream(
            pipeline, prompt=PROMPT, steps=1, guidance=guidance, scale=3.0
        ) as stream:
            return stream.next().levels

    assert apart(only("onetime"), only("full")) <= 1
    assert apart(only("onetime"), only("self")) > 1


def test_a_prompt_that_says_another_thing_in_each_step(pipeline):
    prompt = "a [red:blue:0.5] cube"
    [single] = pipeline.generate(prompt, steps=4, scale=1.0, sampler="euler")
    for batched in (False, True):
        with safelight.stream(pipeline, prompt=prompt, batched=batched) as stream:
            assert apart(stream.next().levels, single.image) <= 1


def test_frames_of_a_batch_come_in_their_order_and_late(pipeline):
    pictures = [noisy(i) for i in range(6)]
    singles = [
        pipeline.generate(PROMPT, image=picture, strength=0.5, steps=6, scale=1.0)[0].image
        for picture in pictures
    ]
    with safelight.stream(
        pipeline, prompt=PROMPT, steps=6, strength=0.5, batched=True, picture=pictures[0]
    ) as stream:
        shown = [stream.next()]
        for picture in pictures[1:]:
            stream.update(picture=picture)
            shown.append(stream.next())
        shown += [stream.next() for _ in range(3)]
    assert [one.number for one in shown] == [1, 1, 1, 2, 3, 4, 5, 6, 6]
    for one in shown:
        assert apart(one.levels, singles[one.number - 1]) <= 1


def test_the_newest_input_wins_and_nothing_queues(pipeline):
    with safelight.stream(pipeline, prompt=PROMPT, steps=1) as stream:
        stream.next()
        for seed in range(1, 50):
            number = stream.update(seed=seed)
        shown = stream.next()
        assert shown.number == number == 49
        assert stream.passed_over == 48
        assert stream.next() is shown
        [single] = pipeline.generate(PROMPT, steps=1, scale=1.0, seed=49)
        assert apart(shown.levels, single.image) <= 1


def test_who_iterates_sees_what_another_thread_gives_and_ends_with_it(pipeline):
    prompts = ["a blue ball", "two red apples", PROMPT]
    stream = safelight.stream(pipeline, prompt="", steps=2)
    seen: list[int] = []
    shown = threading.Event()

    def give() -> None:
        for prompt in prompts:
            assert shown.wait(300)
            shown.clear()
            stream.update(prompt=prompt)
        assert shown.wait(300)
        stream.close()

    other = threading.Thread(target=give)
    other.start()
    for picture in stream:
        seen.append(picture.number)
        last = picture
        shown.set()
    other.join()
    assert seen == [0, 1, 2, 3]
    [single] = pipeline.generate(PROMPT, steps=2, scale=1.0)
    assert apart(last.levels, single.image) <= 1
    with pytest.raises(SafelightError, match="closed"):
        stream.next()


def test_what_a_pipeline_does_meanwhile(pipeline):
    before = {name: tensor.clone() for name, tensor in pipeline.folder.unet.state_dict().items()}
    [first] = pipeline.generate(PROMPT)
    with safelight.stream(pipeline, prompt=PROMPT) as stream:
        stream.next()
        [meanwhile] = pipeline.generate(PROMPT)
    assert meanwhile.image.tobytes() == first.image.tobytes()
    after = pipeline.folder.unet.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_alike_pictures_are_passed_over(pipeline):
    steady = noisy(3)
    near = Image.fromarray(np.asarray(steady) ^ np.uint8(1))
    with safelight.stream(
        pipeline, prompt=PROMPT, steps=2, strength=0.5, similarity=0.5, picture=steady
    ) as stream:
        first = stream.next()
        for _ in range(5):
            stream.update(picture=steady)
            assert stream.next() is first
        made = 0
        for i in range(22):
            stream.update(picture=near if i % 2 else steady)
            made += stream.next() is not first
            first = stream.next()
        assert 1 <= made <= 6  # of ten in a row one is made
        stream.update(picture=noisy(4))
        assert stream.next() is not first
        stream.update(prompt="a blue ball")
        assert stream.next().number == stream.number


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "dpmpp_2m"}, "a sampler without memory: euler, ddim"),
        ({"sampler": "eulr"}, "Unknown sampler 'eulr'. Did you mean 'euler'"),
        ({"scale": 3.0}, "does nothing without guidance"),
        ({"delta": 2.0}, "delta should lie between 0 and 1"),
        ({"similarity": 1.0, "strength": 0.5}, "similarity should lie from 0 to below 1"),
        ({"similarity": 0.5}, "similarity compares pictures"),
        ({"guidance": "self", "scale": 1.0}, "does nothing at a scale of 1"),
        ({"dtype": torch.bfloat16}, "is loaded as torch.float32 on cpu"),
        ({"strength": 0.1, "steps": 2}, "leaves none of 2 steps"),
        ({"strength": 0.0}, "strength should lie above 0"),
        ({"width": 33}, "width should be a multiple of 4"),
        ({"steps": 0}, "steps should be 1 or more"),
        ({"prompt": "a cube AND a ball"}, "AND does not go with a stream"),
        ({"prompt": "<lora:ink:1> a cube"}, "leave <lora:...> out"),
        ({"controls": ["canny", "canny"]}, "canny is given more than once"),
        ({"controls": ["canny"]}, "has no control 'canny'"),
    ],
)
def test_mistakes_are_told_as_it_is_opened(pipeline, options, message):
    with pytest.raises(SafelightError, match=message):
        safelight.stream(pipeline, **options)


def test_mistakes_in_an_update_leave_the_stream_as_it_was(pipeline, tmp_path):
    with safelight.stream(pipeline, prompt=PROMPT, strength=0.6, steps=2) as stream:
        with pytest.raises(SafelightError, match="has no picture yet"):
            stream.next()
        stream.update(picture=noisy(5))
        first = stream.next()
        for wrong, message in (
            ({"prompt": "a AND b"}, "AND"),
            ({"seed": 2**64}, "seed should lie"),
            ({"picture": tmp_path / "none.png"}, "none.png"),
            ({"hint": noisy(1)}, "A hint is of one control; the stream has none"),
            ({"hint": {"pose": noisy(1)}}, "no control 'pose'"),
        ):
            with pytest.raises(SafelightError, match=message):
                stream.update(**wrong)
        assert stream.next() is first


def test_a_model_that_a_stream_is_not_of(tmp_path):
    import dataclasses

    from safelight.checkpoints.folder import write_folder
    from safelight.models.unet import UNet
    from tiny_model import tiny_folder

    folder = tiny_folder()
    inpainting = dataclasses.replace(folder.unet.config, in_channels=9)
    write_folder(tmp_path / "nine", dataclasses.replace(folder, unet=UNet(inpainting)))
    with pytest.raises(SafelightError, match="takes models of these alone"):
        safelight.stream(tmp_path / "nine", device="cpu")


def test_a_model_that_is_told_the_scale(tmp_path):
    import dataclasses

    from safelight.checkpoints.folder import Defaults, write_folder
    from safelight.checkpoints.schedulers import SchedulerConfig
    from safelight.models.unet import UNet
    from tiny_model import tiny_folder

    torch.manual_seed(1)
    scheduler = SchedulerConfig(class_name="LCMScheduler", prediction_type="epsilon")
    folder = tiny_folder(scheduler=scheduler)
    unet = UNet(dataclasses.replace(folder.unet.config, guidance_dim=16)).eval()
    write_folder(tmp_path / "lcm", dataclasses.replace(folder, unet=unet, defaults=Defaults(None)))
    pipeline = load(tmp_path / "lcm", device="cpu")
    [single] = pipeline.generate(PROMPT, steps=4, scale=6.0)
    [other] = pipeline.generate(PROMPT, steps=4, scale=2.0)
    for batched in (False, True):
        with safelight.stream(pipeline, prompt=PROMPT, scale=6.0, batched=batched) as stream:
            assert stream.settings.sampler == "lcm"
            shown = stream.next().levels
        assert apart(shown, single.image) <= 1
        assert apart(shown, other.image) > 1
    with pytest.raises(SafelightError, match="told the scale itself"):
        safelight.stream(pipeline, guidance="self")


def test_low_precision_is_near(model_folder, pipeline):
    [single] = pipeline.generate(PROMPT, steps=4, scale=1.0)
    for batched in (False, True):
        with safelight.stream(
            model_folder, prompt=PROMPT, dtype=torch.bfloat16, device="cpu", batched=batched
        ) as stream:
            shown = stream.next().levels.astype(float)
        assert 0 < np.abs(shown - np.asarray(single.image, float)).mean() < 8


def test_files_arrays_and_pictures_are_taken_alike(pipeline, tmp_path):
    picture = noisy(7)
    picture.save(tmp_path / "x.png")
    levels = np.array(picture)
    shown = []
    for given in (picture, levels, tmp_path / "x.png", str(tmp_path / "x.png")):
        with safelight.stream(pipeline, strength=0.5, picture=given) as stream:
            levels[:] = 0  # what was given is not looked at again
            shown.append(stream.next().levels)
            levels[:] = np.asarray(picture)
    assert all(np.array_equal(one, shown[0]) for one in shown)


def test_controls_of_the_bundled_model():
    bundled = load(device="cpu")
    ball = Image.new("RGB", (64, 64), "white")
    ball.paste((200, 30, 30), (16, 16, 48, 48))
    control = Control("canny", ball, end=0.5, weight=0.8)
    [single] = bundled.generate(PROMPT, steps=4, sampler="euler", scale=1.0, controls=[control])
    [free] = bundled.generate(PROMPT, steps=4, sampler="euler", scale=1.0)
    assert apart(single.image, free.image) > 8
    hint = safelight_hint(ball)
    for batched in (False, True):
        shown = []
        for asked, given in (
            (control, {}),
            (Control("canny", noisy(1, 64), end=0.5, weight=0.8), {"picture": ball}),
            (Control("canny", noisy(1, 64), end=0.5, weight=0.8), {"hint": hint}),
        ):
            with safelight.stream(
                bundled, prompt=PROMPT, controls=[asked], batched=batched, seed=0, sampler="euler"
            ) as stream:
                if given:
                    stream.update(**given)
                shown.append(stream.next().levels)
        assert all(apart(one, single.image) <= 1 for one in shown)
    with safelight.stream(bundled, controls=[unseen_control("pose", hint=True)]) as stream:
        with pytest.raises(SafelightError, match="no hint for the control pose yet"):
            stream.next()
        stream.update(hint={"pose": ball})
        stream.next()


def safelight_hint(picture: Image.Image) -> Image.Image:
    from safelight.pipelines.annotate import annotate

    return annotate("canny", picture)
