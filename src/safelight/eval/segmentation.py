"""How far two maps of classes agree (Long et al. 2015, arXiv 1411.4038, section 5)."""

import math
from typing import cast

import torch
from jaxtyping import Int64
from torch import Tensor

ClassMaps = Int64[Tensor, "n h w"]


def pixel_accuracy(found: ClassMaps, wanted: ClassMaps) -> float:
    """The part of all pixels whose class is the wanted one."""
    return float((found == wanted).float().mean())


def mean_iou(found: ClassMaps, wanted: ClassMaps) -> float:
    """Intersection over union of each class, over all maps at once, and of these the mean over the
    classes that are wanted anywhere; nan of no pixels.

    What is found of a class that nobody wants counts against the classes in whose place it stands.
    """
    parts: list[float] = []
    for label in cast(list[int], torch.unique(wanted).tolist()):
        there, here = found == label, wanted == label
        parts.append(float((there & here).sum()) / float((there | here).sum()))
    return sum(parts) / len(parts) if parts else math.nan
