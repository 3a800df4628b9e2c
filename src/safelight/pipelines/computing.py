"""What computes a pipeline's networks."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from safelight.engine.choosing import choose_engine
from safelight.engine.compiled_networks import CompiledUNet, Wrap, compiled_autoencoder
from safelight.engine.home import OnTerms
from safelight.engine.names import Chosen, Engine
from safelight.engine.networks import wrapping
from safelight.engine.store import own_store
from safelight.engine.verdict import Terms, gains
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.unet import UNet
from safelight.pipelines.beginning import Batch, Model
from safelight.pipelines.manifest import UsedAdapter

_log = logging.getLogger(__name__)


class Computing:
    """Puts networks by an engine into the place of a model's own, picture by picture.

    "compile" and "openvino" make ready what is not. "auto" takes OpenVINO's networks where they
    were made ready before, for these weights and sizes, and gain time in one picture; it makes none
    ready but within `preparing`. What an engine cannot do, such as to record attention, torch does.

    Attributes:
        best: what computes where it is ready and can.

    Raises `SafelightError` for an engine that is not there, or not for the model.
    """

    def __init__(self, wanted: Engine, device: str, dtype: torch.dtype):
        self._wanted = wanted
        self.best: Chosen = choose_engine(wanted, device, dtype)
        self._unet, self._coder = (Terms(prepares=wanted != "auto") for _ in range(2))
        self._made: _Made | None = None
        self._told = ""
        self._used: Chosen = "torch"

    @property
    def used(self) -> Chosen:
        """What computed the U-Net in the newest picture."""
        return "openvino" if self._unet.used else self._used

    def of(self, model: Model, batch: Batch, adapters: tuple[UsedAdapter, ...]) -> Model:
        """The model with the networks for a batch; `adapters` are those in its weights now."""
        self._used, self._unet.used = "torch", False
        if self.best == "torch":
            return model
        hindrance = _hindrance(model, batch)
        if hindrance is not None:
            self._tell(hindrance)
            return model
        calls = self._unet.calls = batch.settings.total_steps
        if not (self._unet.prepares or self._made is not None or _any_gains(calls)):
            return model  # before anything is imported
        if self.best == "compile":
            self._used = "compile"
        made = self._made
        if made is None or made.adapters != adapters or made.of is not model.folder.unet:
            self._made = None  # frees the ones before
            self._made = made = self._make(model, adapters)
        return replace(
            model,
            folder=replace(model.folder, autoencoder=made.autoencoder),
            network=made.network,
        )

    @contextmanager
    def preparing(self) -> Generator[None]:
        """Lets "auto" make ready what OpenVINO computes, while it lasts."""
        before = self._unet.prepares
        self._unet.prepares = self._coder.prepares = True
        try:
            yield
        finally:
            self._unet.prepares = self._coder.prepares = before

    def _make(self, model: Model, adapters: tuple[UsedAdapter, ...]) -> "_Made":
        unet, autoencoder = model.folder.unet, model.folder.autoencoder
        return _Made(
            adapters,
            unet,
            CompiledUNet(unet, self._wrapping(self._unet)),
            compiled_autoencoder(autoencoder, self._wrapping(self._coder)),
        )

    def _wrapping(self, terms: Terms) -> Wrap:
        if self.best != "openvino":
            return wrapping(self.best, fill=False)
        store = own_store()

        def on_terms(module: nn.Module) -> nn.Module:
            return OnTerms(module, store, terms)

        return on_terms

    def _tell(self, what: str) -> None:
        """Says once, of an engine that was asked for by its name, why it does not compute."""
        if self._wanted != "auto" and what != self._told:
            self._told = what
            _log.warning("torch computes the networks: %s.", what)


@dataclass(frozen=True)
class _Made:
    adapters: tuple[UsedAdapter, ...]  # that are in the weights
    of: UNet
    network: CompiledUNet
    autoencoder: AnyAutoencoder


def _any_gains(calls: int) -> bool:
    """Whether anything is kept that gains time in so many calls, of whatever model."""
    return any(gains(place, calls) for place in own_store().kept())


def _hindrance(model: Model, batch: Batch) -> str | None:
    """Why torch alone can make a picture."""
    if model.watch is not None:
        return "attention is recorded"
    if batch.led.image_prompts is not None:
        return "image prompts speak to the layers of the U-Net"
    if batch.settings.token_merging:
        return "tokens are merged within layers of the U-Net"
    if batch.settings.guidance.pag_scale:
        return "perturbed attention changes layers of the U-Net"
    return None
