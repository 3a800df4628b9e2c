"""Autoencoders over tiles: one tile is the whole, seams fade, tiles lie as in diffusers."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import given
from hypothesis import strategies as st

from safelight.checkpoints.components import read_autoencoder
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig, Gaussian
from safelight.models.tiling import decode_tiled, encode_tiled, needs_tiles, tile_of
from safelight.models.tiny import TinyAutoencoder, TinyConfig
from safelight.models.vq import VQAutoencoder, VQConfig
from safelight.nn.tiles import joined, starts

SMALL = {"block_out_channels": (16, 32), "norm_num_groups": 8}
KL = AutoencoderConfig(**SMALL, layers_per_block=1, attention=(False,) * 2)
KINDS = {
    "kl": (Autoencoder, KL),
    "vq": (VQAutoencoder, VQConfig(**SMALL, layers_per_block=1, attention=(False,) * 2)),
    "tiny": (
        TinyAutoencoder,
        TinyConfig(encoder_width=8, decoder_width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1)),
    ),
}


@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_pieces_cover_all_and_overlap_by_what_was_asked_at_least(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    begins = starts(length, size, overlap)
    ends = [min(begin + size, length) for begin in begins]
    assert (begins[0], ends[-1]) == (0, length)
    assert all(0 < after - before <= size - overlap for before, after in pairwise(begins))
    whole = torch.randn(2, length, generator=torch.Generator().manual_seed(length))
    pieces = [whole[:, begin:end] for begin, end in zip(begins, ends, strict=True)]
    torch.testing.assert_close(joined(pieces, begins, dim=1), whole)


@given(st.integers(8, 60), st.integers(4, 20), st.data())
def test_a_seam_is_no_steeper_than_its_pieces_and_their_distance_over_the_overlap(
    length, size, data
):
    overlap = data.draw(st.integers(1, size - 1))
    begins = starts(length, size, overlap)
    generator = torch.Generator().manual_seed(length + size)
    pieces = [torch.rand(min(size, length), generator=generator) * 3 for _ in begins]
    within = max(piece.diff().abs().max().item() for piece in pieces)
    fades = max(sum(begin <= at < begin + size for begin in begins) for at in range(length)) - 1
    steepest = joined(pieces, begins, dim=0).diff().abs().max().item()
    assert steepest <= within + fades * 3 / overlap + 1e-5
    flat = [torch.full_like(pieces[0], float(i % 2)) for i, _ in enumerate(begins)]
    steepest = joined(flat, begins, dim=0).diff().abs().max().item()
    assert steepest <= fades / overlap + 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_one_tile_is_the_whole_to_the_bit_and_many_have_its_shape(kind):
    build, config = KINDS[kind]
    autoencoder = build(config).eval()
    pixels = torch.rand(2, 3, 24, 36) * 2 - 1

    def tensors(found):
        return (found.mean, found.logvar) if isinstance(found, Gaussian) else (found,)

    with torch.no_grad():
        plain = autoencoder.encode(pixels)
        z = tensors(plain)[0]
        for tile in (18, 8):
            found = tensors(encode_tiled(autoencoder, pixels, tile, 3))
            made = decode_tiled(autoencoder, z, tile, 3)
            assert [t.shape for t in found] == [t.shape for t in tensors(plain)]
            assert made.shape == pixels.shape
            same = all(torch.equal(a, b) for a, b in zip(found, tensors(plain), strict=True))
            assert same == torch.equal(made, autoencoder.decode(z)) == (tile == 18)


def _theirs(tmp_path, tile):
    theirs = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        sample_size=2 * tile,
    ).eval()
    theirs.enable_tiling()
    theirs.save_pretrained(tmp_path)
    return theirs, read_autoencoder(tmp_path)


@pytest.mark.parametrize("encode", [False, True])
def test_tiles_and_their_fades_are_those_of_diffusers(encode, tmp_path):
    """Where both lay the same tiles, and not four at a time; see `models.tiling`."""
    tile, overlap = 8, 2  # latents
    theirs, ours = _theirs(tmp_path, tile)
    side = tile + 2 * (tile - overlap)
    with torch.no_grad():
        if encode:
            pixels = torch.randn(1, 3, 2 * side, 2 * side)
            wanted = theirs.encode(pixels).latent_dist.mean
            found, plain = encode_tiled(ours, pixels, tile, overlap), ours.encode(pixels)
            made, plain, per = found.mode(), plain.mode(), 1
        else:
            z = torch.randn(1, 4, side, side)
            wanted = theirs.decode(z).sample
            made, plain, per = decode_tiled(ours, z, tile, overlap), ours.decode(z), 2
    place = torch.arange(side * per)
    step = (tile - overlap) * per
    fading = (place >= step) & (place % step < overlap * per)
    shared = place < (side - overlap) * per
    compared = shared[:, None] & shared & ~(fading[:, None] & fading)
    assert compared.float().mean() > 0.7
    assert (made - wanted).abs()[..., compared].max() < 1e-4
    assert (plain - wanted).abs()[..., compared].max() > 0.01


def test_the_rule_goes_by_the_widest_activation():
    with torch.device("meta"):
        big = Autoencoder(AutoencoderConfig())
        large = Autoencoder(AutoencoderConfig(sample_size=1024))
        small = Autoencoder(replace(KL, sample_size=32))
        tiny = TinyAutoencoder(TinyConfig())
    assert not needs_tiles(big, 1024, 2048)
    assert needs_tiles(big, 1536, 1536)
    assert needs_tiles(big, 2048, 1032)
    assert not needs_tiles(tiny, 2048, 2048)
    assert (tile_of(big), tile_of(large)) == ((64, 16), (128, 32))
    assert (tile_of(tiny), tile_of(small)) == ((64, 16), (256, 64))
