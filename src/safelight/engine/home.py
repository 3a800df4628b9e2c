"""Where what OpenVINO makes of a module is kept, and whether it is worth taking; without OpenVINO,
whose import takes a quarter of a second.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from safelight.engine.store import Shapes, Store, identity
from safelight.engine.verdict import Terms, gains
from safelight.models.prepared import prepared

if TYPE_CHECKING:
    from safelight.engine.compiled import Compiled


class Home:
    """The places of one module in a store, each for inputs of other shapes."""

    def __init__(self, module: nn.Module, store: Store):
        self.store = store
        self._module = module
        self._identity: str | None = None  # "" if it cannot be told

    def place(self, shapes: Shapes) -> Path | None:
        """Where it is kept for inputs of these shapes, whether anything is there or not; None if it
        is not to be.
        """
        if self._identity is None:
            self._identity = identity(self._module) or ""
        return self.store.place(self._identity, shapes) if self._identity else None

    def gains(self, shapes: Shapes, calls: int) -> bool:
        """Whether what is kept for inputs of these shapes was found to gain time in so many calls,
        its start counted.
        """
        if not any(gains(place, calls) for place in self.store.kept(shapes)):
            return False  # before all weights are looked at
        place = self.place(shapes)
        return place is not None and gains(place, calls)


class OnTerms(nn.Module):
    """A module in whose place OpenVINO computes on some terms; else itself, made ready for many
    calls (`models.prepared`) where the terms say so.
    """

    def __init__(self, base: nn.Module, store: Store, terms: Terms):
        super().__init__()
        self.base = base
        self._home, self._terms = Home(base, store), terms
        self._compiled: Compiled | None = None
        self._packed: nn.Module | None = None

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the module gives."""
        terms = self._terms
        if not (terms.prepares or self._gains(tuple(tuple(x.shape) for x in inputs))):
            if terms.packs and self._packed is None:
                self._packed = prepared(self.base, times=False)
            return self._packed(*inputs) if terms.packs and self._packed else self.base(*inputs)
        if self._compiled is None:
            from safelight.engine.compiled import Compiled

            self._compiled = Compiled(self.base, self._home, fill=False)
        terms.used = True
        return self._compiled(*inputs)

    def _gains(self, shapes: Shapes) -> bool:
        calls, compiled = self._terms.calls, self._compiled
        return (self._home if compiled is None else compiled).gains(shapes, calls)
