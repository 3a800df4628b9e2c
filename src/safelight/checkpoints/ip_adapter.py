"""IP-Adapters: one file in the layout of their authors, as diffusers and ComfyUI read it."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from safelight.checkpoints.components import Reading, filled
from safelight.checkpoints.files import State, write_state
from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.weights_file import read_weights_file
from safelight.errors import SafelightError
from safelight.models.image_adapter import ImageAdapter, ImageAdapterConfig

_TABLE = Table((Rule("{key}", "{key}"),))
_KEYS = re.compile(r"ip_adapter\.([0-9]{1,6})\.to_k_ip\.weight")
_PATCHES = 257  # tokens of CLIP's ViT-H/14, which every published "full" adapter looks at
_HEAD = 64


def is_image_adapter(state: Mapping[str, object]) -> bool:
    """Whether a file is an IP-Adapter, by the names of its tensors."""
    return any(_KEYS.fullmatch(name) for name in state)


def read_image_adapter(path: Path, reading: Reading | None = None) -> ImageAdapter:
    """The IP-Adapter in a file, safetensors or a pickle, told by its tensors: plain, plus or full.

    Raises `SafelightError`, one line, if it is broken or of another kind.
    """
    reading = reading or Reading()
    state, source = read_weights_file(path).state, str(path)
    config = config_of(state, source)
    adapter = filled(
        lambda: ImageAdapter(config), state, _TABLE, source=source, dtype=reading.dtype
    )
    return adapter.to(reading.device)


def write_image_adapter(
    path: Path, adapter: ImageAdapter, *, dtype: torch.dtype = torch.float32
) -> None:
    """Writes it as one safetensors file, which diffusers' `load_ip_adapter` opens."""
    state = {name: one.detach().to("cpu", dtype) for name, one in adapter.state_dict().items()}
    write_state(path, state, {})


def config_of(state: State, source: str) -> ImageAdapterConfig:
    """The shape of the adapter that tensors are of; errors as `read_image_adapter`."""
    if not is_image_adapter(state):
        raise SafelightError(
            f"{source} is no IP-Adapter; expected tensors as ip_adapter.1.to_k_ip."
        )
    _refuse_faces(state, source)
    shape = _Shapes(state, source)
    places = sorted(int(found[1]) for name in state if (found := _KEYS.fullmatch(name)))
    if places != list(range(1, 2 * len(places), 2)):
        raise SafelightError(
            f"{source}: the layers of an IP-Adapter are numbered 1, 3, 5 and so on, these are "
            f"{', '.join(map(str, places[:8]))}."
        )
    widths = tuple(shape(f"ip_adapter.{place}.to_k_ip.weight", 2)[0] for place in places)
    context = shape("ip_adapter.1.to_k_ip.weight", 2)[1]
    if "image_proj.latents" in state:
        _, tokens, hidden = shape("image_proj.latents", 3)
        depth = len({name.split(".")[2] for name in state if name.startswith("image_proj.layers.")})
        inner = shape("image_proj.layers.0.0.to_q.weight", 2)[0]
        _check_whole(inner, _HEAD, "the resampler's heads", source)
        return ImageAdapterConfig(
            embedding_dim=shape("image_proj.proj_in.weight", 2)[1],
            context_dim=context,
            widths=widths,
            kind="plus",
            tokens=tokens,
            hidden_dim=hidden,
            depth=depth,
            heads=inner // _HEAD,
        )
    if "image_proj.proj.weight" in state:
        rows, width = shape("image_proj.proj.weight", 2)
        _check_whole(rows, context, "the tokens of a picture", source)
        return ImageAdapterConfig(width, context, widths, tokens=rows // context)
    width = shape("image_proj.proj.0.weight", 2)[1]
    return ImageAdapterConfig(width, context, widths, kind="full", tokens=_PATCHES)


def _check_whole(width: int, part: int, what: str, source: str) -> None:
    """Raises `SafelightError` unless a width is that of one or several equal parts."""
    if part < 1 or width < 1 or width % part:
        raise SafelightError(
            f"{source} is a broken IP-Adapter: a width of {width} does not split into {what}, each "
            f"{part} wide."
        )


class _Shapes:
    """The shapes of a file's tensors; `SafelightError` for one that is not there, or is flat."""

    def __init__(self, state: Mapping[str, Tensor], source: str):
        self._state = state
        self._source = source

    def __call__(self, name: str, axes: int) -> tuple[int, ...]:
        tensor = self._state.get(name)
        if tensor is None or tensor.ndim != axes:
            raise SafelightError(
                f"{self._source} is an IP-Adapter of no known kind: it has no {name} with {axes} "
                "axes."
            )
        return tuple(tensor.shape)


def _refuse_faces(state: State, source: str) -> None:
    face = any(".to_q_lora." in name or "perceiver_resampler" in name for name in state)
    if face or ("image_proj.norm.weight" in state and "image_proj.proj.0.weight" in state):
        raise SafelightError(
            f"{source} is an IP-Adapter of the FaceID kind, which is told vectors of faces that "
            "InsightFace makes and that are not made here; take ip-adapter-plus-face instead."
        )
