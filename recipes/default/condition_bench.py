"""The held-out pictures on which conditions are measured, and the judges of what is made."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from condition_figures import boxes_kept, classes_there, kept_psnr, own_first, painted_kinds
from condition_trials import boxes_of, class_of, draw_masks, make, map_of
from conditions import PERSON
from judge_hints import depths
from PIL import Image
from solids import SHAPES
from torch import Tensor

from safelight.checkpoints.features import load_features
from safelight.eval.caption_ranker import CaptionRanker
from safelight.eval.distances import frechet_distance, pooled_features
from safelight.eval.hint_judges import DepthJudge
from safelight.eval.judge_files import load_caption_ranker, load_hint_judge, load_scene_judge
from safelight.eval.judges import CaptionVerdicts, SceneVerdicts, rates
from safelight.eval.pictures import read_pictures
from safelight.eval.quality import psnr
from safelight.eval.scene_judge import SceneJudge
from safelight.eval.segmentation import mean_iou, pixel_accuracy
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.request import Request

COUNT = 100
FOLDERS = {"scenes": "conditions/held_out", "emoji": "emoji/held_out"}

Measure = Callable[[Tensor], float]


class Bench:
    """The held-out pictures of one subject, the default model, and the judges."""

    def __init__(
        self, subject: str, work: Path, judges: Path, plain: ImagePipeline, count: int = COUNT
    ):
        size = plain.settle(Request("")).width
        self.subject, self.plain, self._judges = subject, plain, judges
        self.real = read_pictures(work / "pictures" / FOLDERS[subject], size, most=count)
        self.masks = draw_masks(len(self.real.items), size)

    @cached_property
    def back(self) -> Tensor:
        """The real pictures there and back through the autoencoder."""
        return self.plain.reconstruct(self.real.pixels)

    @cached_property
    def prompted(self) -> Tensor:
        """What the default model makes for their prompts."""
        return make(self.plain, self.real, prompted=True)

    @cached_property
    def unprompted(self) -> Tensor:
        """What the default model makes for as many empty prompts."""
        return make(self.plain, self.real, prompted=False)

    @property
    def measures(self) -> dict[str, Measure]:
        """Every figure, by its name."""
        return {
            "prompt followed": self._followed,
            "class there": self._class_there,
            "depth error": lambda made: float(self._depth.errors(made, self._depths).mean()),
            "pixel accuracy": lambda made: pixel_accuracy(self._scenes.kinds(made), self._kinds),
            "mean IoU": lambda made: mean_iou(self._scenes.kinds(made), self._kinds),
            "boxes kept": self._boxes_kept,
            "PSNR, dB": lambda made: float(psnr(made, self.real.pixels).mean()),
            "PSNR of what is kept, dB": lambda made: float(
                kept_psnr(made, self.real.pixels, self.masks).mean()
            ),
            "own picture first of 100": self._own_first,
            "Fréchet distance": self._frechet,
        }

    @cached_property
    def _scenes(self) -> SceneJudge:
        return load_scene_judge(self._judges / "scenes")

    @cached_property
    def _captions(self) -> CaptionRanker:
        return load_caption_ranker(self._judges / "captions")

    @cached_property
    def _depth(self) -> DepthJudge:
        return load_hint_judge(self._judges / "depth", DepthJudge)

    def _followed(self, made: Tensor) -> float:
        if self.subject == "emoji":
            judge = CaptionVerdicts(self._captions, self.real.prompts)
        else:
            judge = SceneVerdicts(self._scenes)
        return rates(judge(made, self.real.items))[judge.main].part

    def _class_there(self, made: Tensor) -> float:
        names = [class_of(item) for item in self.real.items]
        return float(classes_there(names, self._scenes.find(made)).mean())

    def _boxes_kept(self, made: Tensor) -> float:
        asked = [boxes_of(item) for item in self.real.items]
        return float(boxes_kept(asked, self._scenes.find(made)).mean())

    def _own_first(self, made: Tensor) -> float:
        sides = [self._embedded(pixels) for pixels in (made, self.real.pixels)]
        return float(own_first(*sides).mean())

    @torch.inference_mode()
    def _embedded(self, pixels: Tensor) -> Tensor:
        return self._captions.embed_features(self._captions.features_of(pixels))

    def _frechet(self, made: Tensor) -> float:
        pooled = load_features("efficientnet-lite0").pooled
        sides = [pooled_features(pooled, pixels) for pixels in (made, self.real.pixels)]
        return frechet_distance(*sides)

    @cached_property
    def _depths(self) -> Tensor:
        return depths(self.real.items)

    @cached_property
    def _kinds(self) -> Tensor:
        side = self._scenes.config.size
        maps = [Image.open(map_of("semantic", item)).convert("RGB") for item in self.real.items]
        small = [np.array(each.resize((side, side), Image.Resampling.NEAREST)) for each in maps]
        return painted_kinds(torch.from_numpy(np.stack(small)), (*SHAPES, PERSON))
