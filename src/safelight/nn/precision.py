"""The precision that suits a machine."""

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16; where it does not, that is emulated several times
    slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # torch's own bfloat16 question says yes to plain AVX-512 too, which only emulates it
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # pyright: ignore[reportPrivateUsage]
    return False
