import math

import pytest
import torch

from safelight.eval.segmentation import mean_iou, pixel_accuracy


def test_agreement_by_hand():
    wanted = torch.tensor([[[0, 0, 0, 1], [0, 0, 2, 2]]])
    found = torch.tensor([[[0, 0, 1, 1], [0, 0, 2, 3]]])
    assert pixel_accuracy(found, wanted) == pytest.approx(6 / 8)
    ious = (4 / 5, 1 / 2, 1 / 2)  # of 0, 1 and 2; nobody wants a 3
    assert mean_iou(found, wanted) == pytest.approx(sum(ious) / 3)
    assert pixel_accuracy(wanted, wanted) == mean_iou(wanted, wanted) == 1


def test_a_class_counts_over_all_maps_at_once():
    wanted = torch.tensor([[[0, 1]], [[0, 0]]])
    found = torch.tensor([[[0, 1]], [[1, 0]]])
    assert mean_iou(found, wanted) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert math.isnan(mean_iou(torch.zeros(0, 2, 2).long(), torch.zeros(0, 2, 2).long()))
