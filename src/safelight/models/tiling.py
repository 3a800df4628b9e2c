"""Big pictures through an autoencoder in tiles that overlap, in the memory that one tile takes.

An autoencoder normalises over all that it sees and attends to it, so that a tile's colours may
differ a little from those of the whole; neighbours are blended over their overlap. Differs from
diffusers' `enable_tiling` where four tiles meet, which there mix in other parts than the product of
the two fades, and at the right and lower edges, where diffusers lays one more tile into the last.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.autoencoder import Autoencoder, Gaussian
from safelight.models.tiny import TinyAutoencoder
from safelight.nn.tiles import joined, starts

_LEAST = 512  # pixels of a tile, as smaller ones differ more from the whole
_MOST = 2**29  # numbers in one activation: 2 GiB in float32


def decode_tiled(
    autoencoder: AnyAutoencoder, z: Float[Tensor, "b c h w"], tile: int, overlap: int
) -> Float[Tensor, "b c_out H W"]:
    """Pictures, about in [-1, 1], from unscaled latents; what fits in one tile as by `decode`.

    Args:
        autoencoder: of any kind.
        z: the latents.
        tile: height and width of a tile, in latents.
        overlap: of neighbouring tiles, in latents, less than `tile`.
    """
    return _over_tiles(autoencoder.decode, z, tile, overlap, each=1, gives=autoencoder.factor)


def encode_tiled(
    autoencoder: AnyAutoencoder, pixels: Float[Tensor, "b c H W"], tile: int, overlap: int
) -> Gaussian | Float[Tensor, "b z h w"]:
    """What `encode` gives of pictures whose sides are multiples of `factor`; in tiles as
    `decode_tiled`.
    """

    def encode(part: Tensor) -> Tensor:
        found = autoencoder.encode(part)
        return found if isinstance(found, Tensor) else torch.cat([found.mean, found.logvar], dim=1)

    found = _over_tiles(encode, pixels, tile, overlap, each=autoencoder.factor, gives=1)
    return Gaussian(*found.chunk(2, dim=1)) if isinstance(autoencoder, Autoencoder) else found


def tile_of(autoencoder: AnyAutoencoder) -> tuple[int, int]:
    """A tile of the size that the autoencoder was trained at, 512 pixels at least, and an overlap
    of a quarter, as in diffusers; both in latents.
    """
    tiny = isinstance(autoencoder, TinyAutoencoder)
    trained = _LEAST if tiny else autoencoder.config.sample_size or _LEAST
    tile = max(trained, _LEAST) // autoencoder.factor
    return tile, tile // 4


def needs_tiles(autoencoder: AnyAutoencoder, width: int, height: int) -> bool:
    """Whether a picture, in pixels, is so big that one activation of the decoder holds more than
    2**29 numbers, of which there are several at a time.

    For Stable Diffusion's autoencoder these are pictures of more than 2**21 pixels, such as 1536 x
    1536.
    """
    if isinstance(autoencoder, TinyAutoencoder):
        channels = autoencoder.config.decoder_width
    else:  # the finest level begins with the channels of the one before
        channels = max(autoencoder.config.block_out_channels[:2])
    return channels * width * height > _MOST


def _over_tiles(
    code: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, *, each: int, gives: int
) -> Tensor:
    """Tiles of x through `code`; a latent is `each` places of x and becomes `gives` places."""
    side = tile * each
    rows, columns = (starts(length // each, tile, overlap) for length in x.shape[-2:])

    def coded(row: int, column: int) -> Tensor:
        top, left = row * each, column * each
        return code(x[..., top : top + side, left : left + side])

    strips = [
        joined([coded(row, column) for column in columns], [gives * at for at in columns], dim=-1)
        for row in rows
    ]
    return joined(strips, [gives * at for at in rows], dim=-2)
