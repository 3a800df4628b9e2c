"""A picture made again from its manifest, and how it compares."""

from dataclasses import dataclass

import torch

from safelight.app.making import counting_steps
from safelight.errors import SafelightError
from safelight.pipelines.image import GeneratedImage, ImagePipeline
from safelight.pipelines.load import has_device, load, precision_named
from safelight.pipelines.manifest import Manifest
from safelight.pipelines.request import Request


@dataclass(frozen=True)
class Remade:
    """The picture made again, whether its pixels are the same, and that in words."""

    picture: GeneratedImage
    same: bool
    verdict: str


def remake(
    manifest: Manifest,
    *,
    model: str | None = None,
    vae: str | None = None,
    any_weights: bool = False,
) -> Remade:
    """Makes the manifest's picture again, on its device and with its number of threads.

    `model` and `vae` stand in for those that the manifest names. Raises `SafelightError` if there
    is no such model, or if its weights are others, unless `any_weights`.
    """
    device = manifest.device if has_device(manifest.device) else "cpu"
    pipeline = load(
        model or manifest.model,
        dtype=precision_named(manifest.precision),
        device=device,
        vae=vae or manifest.vae or None,
    )
    if not any_weights:
        check_weights(manifest, pipeline)
    for adapter in manifest.adapters:
        pipeline.adapt(adapter.file, adapter.strength)
    if not any_weights:
        check_adapters(manifest, pipeline)
    request = request_of(manifest)
    threads = torch.get_num_threads()
    torch.set_num_threads(manifest.threads)
    try:
        with counting_steps(manifest.steps) as on_step:
            [picture] = pipeline.each(request, on_step)
    finally:
        torch.set_num_threads(threads)
    same = picture.manifest.pixels == manifest.pixels
    if same:
        return Remade(picture, True, "the same pixels.")
    causes = differences(manifest, picture.manifest)
    reason = f" Changed since: {'; '.join(causes)}." if causes else ""
    return Remade(picture, False, f"the pixels are not the same.{reason}")


def check_weights(manifest: Manifest, pipeline: ImagePipeline) -> None:
    """Raises `SafelightError` naming the components whose weights did not make the picture."""
    ours = pipeline.weights
    changed = [
        f"{name} ({_short(manifest.weights.get(name))} then, {_short(ours.get(name))} now)"
        for name in sorted(manifest.weights.keys() | ours.keys())
        if manifest.weights.get(name) != ours.get(name)
    ]
    if changed:
        raise SafelightError(
            f"The weights of {pipeline.name!r} are not those that made the picture: "
            f"{', '.join(changed)}. Give the right ones by --model, or --other-weights to go on."
        )


def check_adapters(manifest: Manifest, pipeline: ImagePipeline) -> None:
    """Raises `SafelightError` naming the adapter's file that did not make the picture."""
    for then, now in zip(manifest.adapters, pipeline.adapters, strict=True):
        if then.sha256 != now.sha256:
            raise SafelightError(
                f"{then.file} is not the adapter that made the picture ({_short(then.sha256)} "
                f"then, {_short(now.sha256)} now). Put the right one there, or give "
                "--other-weights to go on."
            )


def request_of(manifest: Manifest) -> Request:
    """What to ask for to get the manifest's picture."""
    return Request(
        manifest.prompt,
        manifest.negative,
        manifest.steps,
        manifest.scale,
        manifest.sampler,
        manifest.seed,
        manifest.width,
        manifest.height,
    )


def differences(then: Manifest, now: Manifest) -> list[str]:
    """What may have changed the pixels, each as "torch 2.12 -> 2.13", of what `then` tells."""
    pairs = {
        **{
            f"weights of {name}": (_short(then.weights.get(name)), _short(now.weights.get(name)))
            for name in sorted(then.weights.keys() | now.weights.keys())
        },
        **{
            name: (_short(then.configuration[name]), _short(now.configuration.get(name)))
            for name in sorted(then.configuration)
        },
        **{
            name: (then.versions[name], now.versions.get(name, "none"))
            for name in sorted(then.versions)
        },
        "device": (then.device, now.device),
        "machine": (then.machine, now.machine),
    }
    return [f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if old != new]


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
