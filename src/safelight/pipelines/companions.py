"""Other models that take part in making a picture: one that goes on, and one that guides."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safelight.errors import SafelightError
from safelight.pipelines.manifest import UsedGuide, UsedRefiner

if TYPE_CHECKING:
    from safelight.pipelines.image import ImagePipeline


@dataclass(frozen=True)
class Refiner:
    """A second model, and the part of the noise schedule that is done before it."""

    pipeline: "ImagePipeline"
    at: float

    @property
    def used(self) -> UsedRefiner:
        """What a manifest says of it."""
        pipeline = self.pipeline
        return UsedRefiner(
            pipeline.name, self.at, dict(pipeline.weights), dict(pipeline.configuration)
        )


@dataclass(frozen=True)
class Guide:
    """A weaker model that guidance leads away from (Karras et al. 2024, arXiv 2406.02507)."""

    pipeline: "ImagePipeline"

    @property
    def used(self) -> UsedGuide:
        """What a manifest says of it."""
        pipeline = self.pipeline
        return UsedGuide(pipeline.name, dict(pipeline.weights), dict(pipeline.configuration))


def check_refiner(base: "ImagePipeline", refiner: "ImagePipeline", at: float) -> None:
    """Raises `SafelightError` if the two have other latents, or `at` is out of its range."""
    channels, theirs = base.folder.unet.config.out_channels, refiner.folder.unet.config
    if not 0 < at < 1:
        raise SafelightError(f"refine_at should lie between 0 and 1, got {at}.")
    if theirs.out_channels != channels or theirs.in_channels != channels:
        raise SafelightError(
            f"{refiner.name} takes {theirs.in_channels} latent channels, {base.name} makes "
            f"{channels}; a refiner goes on from the same latents."
        )


def check_guide(model: "ImagePipeline", weaker: "ImagePipeline") -> None:
    """Raises `SafelightError` if the two cannot be asked about the same latents."""
    ours, theirs = model.folder.unet.config, weaker.folder.unet.config
    for what, own, other in (
        ("latent channels", ours.out_channels, theirs.out_channels),
        ("channels", ours.in_channels, theirs.in_channels),
        ("pictures", model.kind.sees, weaker.kind.sees),
        ("numbers", model.kind.numbers, weaker.kind.numbers),
        ("guidance", model.kind.guided, weaker.kind.guided),
    ):
        if own != other:
            raise SafelightError(
                f"{weaker.name} cannot guide {model.name}: their U-Nets take other {what} ({other} "
                f"and {own}); give an earlier or smaller model of the same kind."
            )
