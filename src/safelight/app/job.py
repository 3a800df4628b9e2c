"""What a command line asks for, checked as far as that needs no model."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from safelight.app.enlarging import check_options, enlarge, enlarges
from safelight.app.outputs import check_preview, plan_outputs
from safelight.engine.names import Engine, Storage
from safelight.errors import SafelightError
from safelight.pipelines.request import Request

_PUT_IN = ("lora", "embedding", "vae", "refiner", "refine_at", "guide", "ip_adapter")
"""What is put into a model, of the fields of `Loading`."""
_SINGULAR = {"controls": "control", "conditions": "condition", "image_prompts": "image_prompt"}
"""Of fields of `Request`, as their options are called."""


@dataclass(frozen=True)
class Loading:
    """A model and what is put into it, by their names on the command line."""

    model: str
    lora: tuple[str, ...]
    embedding: tuple[str, ...]
    vae: str | None
    refiner: str | None
    refine_at: float | None
    guide: str | None
    ip_adapter: str | None
    image_encoder: str | None
    device: str
    precision: str
    offline: bool
    watermark: bool = False
    safety: bool = False
    engine: Engine = "auto"
    storage: Storage | None = None
    offload: bool = False


@dataclass(frozen=True)
class Job:
    """Pictures to be made, and where they go."""

    requests: Sequence[Request]
    loading: Loading
    image: Path | None
    mask: Path | None
    depth: Path | None
    output: str | None
    preview: Path | None
    preview_vae: str | None
    infotext: bool

    def run(self) -> None:
        """Makes the pictures and writes them; `SafelightError` for what cannot be."""
        if self._is_alone and enlarges(self.loading.model, offline=self.loading.offline):
            self._enlarge()
            return
        paths = plan_outputs(self.output, self.requests)
        if self.preview is not None:
            check_preview(self.preview, paths)
        elif self.preview_vae is not None:
            raise SafelightError(
                "--preview-vae is the autoencoder of --preview FILE; give that too."
            )

        # Torch takes a second to import: only now, when the mistakes that need no model are told.
        from safelight.app.making import loaded, make_pictures, previewed

        requests = self.given_requests()
        pipeline = loaded(self.loading)
        shown = None
        if self.preview is not None:
            shown = previewed(pipeline, self.preview, self.preview_vae)
        make_pictures(pipeline, requests, paths, shown, infotext=self.infotext)

    @property
    def _is_alone(self) -> bool:
        """Whether there is an image and no prompt."""
        return self.image is not None and [request.prompt for request in self.requests] == [""]

    def _enlarge(self) -> None:
        [request], loading = self.requests, self.loading
        assert self.image is not None
        plain = Request("", steps=request.steps, seed=request.seed, count=request.count)
        options = {
            field.name: getattr(request, field.name)
            for field in fields(Request)
            if getattr(request, field.name) != getattr(plain, field.name)
        }
        options = {_SINGULAR.get(name, name): v for name, v in options.items()}
        options |= {name: getattr(loading, name) for name in _PUT_IN}
        plainly = ("watermark", "safety", "storage", "offload")
        options |= {name: getattr(loading, name) or None for name in plainly}
        options |= {"mask": self.mask, "depth": self.depth, "preview": self.preview}
        check_options(
            options | {"preview_vae": self.preview_vae, "infotext": self.infotext or None}
        )
        enlarge(
            self.image,
            plain,
            self.output,
            loading.model,
            loading.precision,
            loading.device,
            offline=loading.offline,
        )

    def given_requests(self) -> list[Request]:
        """The requests with the pictures that are given beside the prompt."""
        from safelight.pipelines.given import Given, give

        given = Given(give("image", self.image), give("mask", self.mask), give("depth", self.depth))
        return [replace(request, given=given) for request in self.requests]
