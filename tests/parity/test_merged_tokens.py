"""Merged tokens against tomesd, the authors' own patch of diffusers' pipelines."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import tomesd
import torch
from tomesd.merge import bipartite_soft_matching_random2d

from safelight.errors import SafelightError
from safelight.models.merged_tokens import finest_transformers, with_merged_tokens
from safelight.nn.merged_attention import MOST, MergedTransformer, Pairs, split_tokens
from safelight.pipelines.attention import attention
from safelight.pipelines.choices import MOST_MERGED
from safelight.pipelines.guidance_settings import Guidance
from safelight.pipelines.load import load
from safelight.pipelines.request import Hires, Request
from safelight.types import Conditioning
from tiny_model import tiny_folder, write_tiny_model

CPU = torch.device("cpu")


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (16, 13), (4, 3)])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75])
def test_tokens_are_merged_and_spread_as_tomesd_does(height: int, width: int, ratio: float):
    x = torch.randn(2, height * width, 16, generator=torch.Generator().manual_seed(1))
    takers, others = split_tokens(height, width, CPU)
    count = min(int(x.shape[1] * ratio), len(others))
    assert count
    pairs = Pairs.of(x, takers, others, count)
    merge, unmerge = bipartite_soft_matching_random2d(x, width, height, 2, 2, count, no_rand=True)
    ours, wanted = pairs.merged(x), merge(x)
    for one, other in zip(ours, wanted, strict=True):  # whose order an unstable sort makes
        torch.testing.assert_close(one[one[:, 0].argsort()], other[other[:, 0].argsort()])
    torch.testing.assert_close(pairs.spread(pairs.merged(x)), unmerge(merge(x)))


@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
def test_pictures_are_those_of_diffusers_with_tomesd(tmp_path: Path, size: tuple[int, int]):
    folder = write_tiny_model(tmp_path / "tiny")
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = diffusers.EulerDiscreteScheduler.from_config(theirs.scheduler.config)
    pipeline = load(folder, device="cpu", engine="torch")

    def made(ratio: float) -> np.ndarray:
        options = {"steps": 3, "scale": 2.0, "sampler": "euler", "token_merging": ratio}
        width, height = size
        [picture] = pipeline.generate(
            "a red cube", prompt_syntax="plain", seed=4, width=width, height=height, **options
        )
        assert picture.manifest.token_merging == ratio
        return np.asarray(picture.image).astype(float)

    def wanted() -> np.ndarray:
        generator = torch.Generator().manual_seed(4)
        options = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "np"}
        width, height = size
        pictures = theirs("a red cube", generator=generator, width=width, height=height, **options)
        return pictures.images[0] * 255

    assert np.abs(made(0.0) - wanted()).max() <= 1
    plain = made(0.0)
    tomesd.apply_patch(theirs, ratio=0.5, use_rand=False)
    assert np.abs(made(0.5) - wanted()).max() <= 1
    assert np.abs(made(0.5) - plain).max() > 3


def test_the_finest_transformers_alone_merge_and_share_their_weights():
    unet = tiny_folder().unet
    merged = with_merged_tokens(unet, 0.5)
    paths = [path for path, m in merged.named_modules() if isinstance(m, MergedTransformer)]
    assert sorted(paths) == sorted(finest_transformers(unet))
    assert {path.split(".")[0] + path.split(".")[1] for path in paths} == {
        "down_blocks0",
        "up_blocks1",
    }
    own = {id(p) for p in unet.parameters()}
    assert all(id(p) in own for p in merged.parameters())
    assert with_merged_tokens(unet, 0.0) is unet
    x, t = torch.randn(1, 4, 8, 8), torch.full((1,), 200.0)
    cond = Conditioning(torch.randn(1, 16, 32))
    with torch.no_grad():
        assert not torch.allclose(merged(x, t, cond), unet(x, t, cond), atol=1e-3)
        tiny = torch.randn(1, 4, 1, 1)  # of no square
        assert torch.equal(merged(tiny, t, cond), unet(tiny, t, cond))


def test_ratios_that_cannot_be_are_refused():
    assert MOST == MOST_MERGED
    with pytest.raises(ValueError, match=r"at most 0\.75, got 0\.8"):
        with_merged_tokens(tiny_folder().unet, 0.8)


def test_perturbed_attention_and_quality_go_with_it_and_recorded_attention_does_not(tmp_path: Path):
    pipeline = load(write_tiny_model(tmp_path / "tiny"), device="cpu", engine="torch")

    def made(ratio: float, **options: object) -> np.ndarray:
        [picture] = pipeline.generate("a red cube", steps=4, token_merging=ratio, **options)
        return np.asarray(picture.image).astype(int)

    perturbed = Guidance(pag_scale=2.0, pag_layers=("down_blocks.0",))
    ways = ({}, {"guidance": perturbed}, {"quality": "fast"}, {"hires": Hires(2.0)})
    pictures = [made(0.5, **options) for options in ways]
    for options, picture in zip(ways, pictures, strict=True):
        assert np.abs(picture - made(0.0, **options)).max() > 3
    assert all(np.any(pictures[0] != other) for other in pictures[1:3])
    with pytest.raises(SafelightError, match="merged tokens"):
        attention(pipeline, Request("a red cube", token_merging=0.5))
