"""Modules as graphs, for engines that compile these."""

import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram


def exported(module: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
    """A module as a graph for inputs of these shapes and precisions, whatever their values; errors
    as `torch.export.export`.
    """
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(inputs[0].device.type, enabled=False),
        in_silence(),
    ):
        return torch.export.export(module, tuple(torch.zeros_like(x) for x in inputs))


@contextmanager
def in_silence() -> Generator[None]:
    """Without what `torch.export` says it will not do in years to come, and what OpenVINO does not
    find in torch.
    """
    root, nowhere = logging.getLogger(), logging.NullHandler()  # else a handler is made for good
    root.addHandler(nowhere)
    root.addFilter(_is_not_about_operations)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_is_not_about_operations)
        root.removeHandler(nowhere)


def _is_not_about_operations(record: logging.LogRecord) -> bool:
    return "not found in decomp table" not in record.getMessage()
