"""Judges on disk: a folder with `config.json`, `model.safetensors`, for captions a tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from safelight.checkpoints.atomic import replacing_folder
from safelight.checkpoints.features import load_features
from safelight.checkpoints.files import read_state, write_state
from safelight.checkpoints.rules import Rule, Table, load_into
from safelight.config import from_dict, read_json, to_dict
from safelight.errors import SafelightError
from safelight.eval.caption_ranker import CaptionRanker, CaptionRankerConfig, PlacedFeatures
from safelight.eval.hint_judges import DepthJudge, HintJudgeConfig, PoseJudge
from safelight.eval.scene_judge import SceneJudge, SceneJudgeConfig
from safelight.models.features import EfficientNetLite0
from safelight.models.tokenizer import ClipTokenizer

H = TypeVar("H", DepthJudge, PoseJudge)
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_AS_IS = Table((Rule("{name}", "{name}"),))


def save_scene_judge(judge: SceneJudge, folder: Path) -> None:
    """Writes the folder of a scene judge, whole or not at all."""
    with replacing_folder(folder) as temporary:
        _write(temporary, judge.config, judge.state_dict())


def load_scene_judge(folder: Path) -> SceneJudge:
    """Reads a scene judge; `SafelightError` if the folder does not hold one."""
    judge = SceneJudge(from_dict(SceneJudgeConfig, read_json(_config(folder)), str(folder)))
    _load(judge, folder, "a scene judge")
    return judge


def save_hint_judge(judge: DepthJudge | PoseJudge, folder: Path) -> None:
    """Writes the folder of a judge of depth or poses, whole or not at all."""
    with replacing_folder(folder) as temporary:
        _write(temporary, judge.config, judge.state_dict())


def load_hint_judge(folder: Path, kind: type[H]) -> H:
    """Reads a judge of depth or poses; `SafelightError` if the folder does not hold one."""
    judge = kind(from_dict(HintJudgeConfig, read_json(_config(folder)), str(folder)))
    _load(judge, folder, f"a {kind.__name__}")
    return judge


def new_caption_ranker(config: CaptionRankerConfig, tokenizer: ClipTokenizer) -> CaptionRanker:
    """An untrained ranker that looks through the packaged EfficientNet-Lite0.

    Raises `SafelightError` if that is not installed, or the pictures' size is not the one that its
    features are placed in.
    """
    if config.size != PlacedFeatures.SIZE:
        raise SafelightError(
            f"A caption ranker looks at {PlacedFeatures.SIZE} pixels, got size = {config.size}."
        )
    network = load_features()
    assert isinstance(network, EfficientNetLite0)
    return CaptionRanker(config, tokenizer, PlacedFeatures(network), PlacedFeatures.COUNT)


def save_caption_ranker(ranker: CaptionRanker, folder: Path) -> None:
    """Writes the folder of a caption ranker, whole or not at all."""
    with replacing_folder(folder) as temporary:
        _write(temporary, ranker.config, ranker.state_dict())
        ranker.tokenizer.save(temporary)


def load_caption_ranker(folder: Path) -> CaptionRanker:
    """Reads a caption ranker; `SafelightError` if the folder does not hold one."""
    config = from_dict(CaptionRankerConfig, read_json(_config(folder)), str(folder))
    length = config.text.max_position_embeddings
    tokenizer = ClipTokenizer.from_tokenizer_json(folder / "tokenizer.json", length=length)
    ranker = new_caption_ranker(config, tokenizer)
    _load(ranker, folder, "a caption ranker")
    return ranker


def _config(folder: Path) -> Path:
    path = folder / CONFIG
    if not path.is_file():
        raise SafelightError(f"No judge in {folder}: there is no {CONFIG}.")
    return path


def _write(folder: Path, config: object, state: Mapping[str, Tensor]) -> None:
    text = json.dumps(to_dict(config), indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    write_state(folder / WEIGHTS, state)


def _load(judge: nn.Module, folder: Path, what: str) -> None:
    path = folder / WEIGHTS
    load_into(judge, read_state(path), _AS_IS, what=what, source=str(path))
    judge.eval()
