"""What computes a pipeline's networks."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from safelight.engine.choosing import choose_engine, packs
from safelight.engine.compiled_networks import CompiledUNet, Wrap, compiled_autoencoder
from safelight.engine.home import OnTerms
from safelight.engine.names import Chosen, Engine
from safelight.engine.networks import wrapping
from safelight.engine.store import own_store
from safelight.engine.verdict import Terms, gains
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.deep_reuse import Deep
from safelight.models.prepared import prepared
from safelight.models.unet import UNet
from safelight.pipelines.beginning import Batch, Model
from safelight.pipelines.manifest import UsedAdapter

_MANY = 10  # calls of the U-Net, past which packing is sooner done than convolving without
_LARGE = 2**29  # bytes
_log = logging.getLogger(__name__)


class Computing:
    """Puts networks by an engine into the place of a model's own, picture by picture.

    "prepared" lets torch compute with convolutions packed and what sees the prompt alone remembered
    (`models.prepared`); so does "auto" for pictures of many steps by one model that is not large,
    where OpenVINO does not compute. "compile" and "openvino" make ready what is not. "auto" takes
    OpenVINO's networks where they were made ready before, for these weights and sizes, and gain
    time in one picture; it makes none ready but within `preparing`. What an engine cannot do, such
    as to record attention, torch does.

    Attributes:
        best: what computes where it is ready and can.

    Raises `SafelightError` for an engine that is not there, or not for the model.
    """

    def __init__(self, wanted: Engine, device: str, dtype: torch.dtype):
        self._wanted = wanted
        self.best: Chosen = choose_engine(wanted, device, dtype)
        self._packs = wanted == "auto" and packs(device, dtype)
        self._unet, self._coder = (Terms(prepares=wanted != "auto") for _ in range(2))
        self._made: dict[Chosen, _Made] = {}
        self._told = ""
        self._used: Chosen = "torch"

    @property
    def used(self) -> Chosen:
        """What computed the U-Net in the newest picture."""
        return "openvino" if self._unet.used else self._used

    def of(
        self,
        model: Model,
        batch: Batch,
        adapters: tuple[UsedAdapter, ...],
        *,
        alone: bool = True,
    ) -> Model:
        """The model with the networks for a batch; `adapters` are those in its weights now, and
        `alone` says that no other model does a part of the steps.
        """
        self._used, self._unet.used = "torch", False
        self._made = {  # of the others nothing stays
            engine: made
            for engine, made in self._made.items()
            if made.adapters == adapters and made.of is model.folder.unet
        }
        if self.best == "torch" and not self._packs:
            return model
        hindrance = _hindrance(model, batch)
        if hindrance is not None:
            self._tell(hindrance)
            return model
        calls = self._unet.calls = batch.settings.total_steps
        packs = self._packs and alone and calls >= _MANY
        packs = packs and _weight_of_convolutions(model) <= _LARGE
        engine = self._engine_for(calls, packs=packs)
        if engine == "torch":
            return model
        self._unet.packs = self._coder.packs = packs
        self._used = engine
        if engine == "openvino":  # which tells by itself where it computed
            self._used = "prepared" if packs else "torch"
        made = self._made.get(engine)
        if made is None:
            self._made[engine] = made = self._make(engine, model, adapters)
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

    def _engine_for(self, calls: int, *, packs: bool) -> Chosen:
        """What computes so many calls; before anything is imported for it."""
        if self._wanted != "auto":
            return self.best
        begun = self._unet.prepares or self.best in self._made
        if self.best != "torch" and (begun or _any_gains(calls)):
            return self.best
        return "prepared" if packs else "torch"

    def _make(self, engine: Chosen, model: Model, adapters: tuple[UsedAdapter, ...]) -> "_Made":
        unet, autoencoder = model.folder.unet, model.folder.autoencoder
        if engine == "prepared":
            parts = prepared(unet, times=False), prepared(autoencoder, times=False)
            return _Made(adapters, unet, *parts)
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
    network: Deep
    autoencoder: AnyAutoencoder


def _weight_of_convolutions(model: Model) -> int:
    """Bytes of the weights that are packed, which a second time take room in memory."""
    networks = (model.folder.unet, model.folder.autoencoder)
    layers = (layer for network in networks for layer in network.modules())
    return sum(one.weight.nbytes for one in layers if isinstance(one, nn.Conv2d))


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
