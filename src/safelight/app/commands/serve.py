"""`safelight serve`: pictures over HTTP."""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from safelight.engine.names import Engine, Storage
from safelight.errors import SafelightError

Precision = Literal["float32", "bfloat16", "float16"]
LogLevel = Literal["debug", "info", "warning", "error"]
TOKEN = "SAFELIGHT_TOKEN"
_MEGABYTE, _HOUR = 2**20, 3600.0


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    model: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    token: str | None = None,
    open_to_all: Annotated[bool, Parameter(name="--open", negative=())] = False,
    origin: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    state: Path | None = None,
    kept_models: int = 2,
    batch: int = 4,
    preview_vae: str | None = None,
    annotator: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    watermark: Annotated[bool, Parameter(negative=())] = False,
    safety: Annotated[bool, Parameter(negative=())] = False,
    runs: Path | None = None,
    queue: int = 256,
    job_seconds: float = 600.0,
    most_pixels: int = 2**22,
    most_count: int = 16,
    most_cells: int = 64,
    most_steps: int = 200,
    most_upload: int = 64,
    keep_hours: float = 168.0,
    keep_megabytes: int = 2048,
    grace: float = 20.0,
    device: str = "auto",
    precision: Precision = "float32",
    storage: Storage | None = None,
    engine: Engine = "auto",
    offline: Annotated[bool, Parameter(negative=())] = False,
    log_level: LogLevel = "info",
) -> None:
    """Serve pictures over HTTP until interrupted.

    Parameters
    ----------
    host
        The address to listen on. Another than this machine's
        own wants a token.
    port
        Its port; 0 is any that is free.
    model
        A folder, a single file or a name, as of safelight
        generate; the first is meant where a request names none.
        Give it several times for several. Those that safelight
        models lists are there too. [default: default]
    token
        What each request must bring, as a bearer's token or as
        the password of basic authentication. [default: the
        environment's SAFELIGHT_TOKEN]
    open_to_all
        Listen on another address without a token.
    origin
        Another site whose pages may use the server, such as
        https://example.org.
    state
        The folder that jobs and their pictures are kept in.
        [default: of this user's state]
    kept_models
        Models that stay in memory; the one used longest ago
        goes.
    batch
        Pictures of equal settings that may share each call of
        the network; 1 makes each alone, the same bits as
        safelight generate.
    preview_vae
        The autoencoder of previews, such as a tiny one.
        [default: the model's if it is small, else colours]
    annotator
        KIND=WEIGHTS of the network that makes hints of a kind,
        such as depth=FOLDER, as of safelight annotate. Give it
        several times for several.
    watermark
        Put a mark into pictures that is not seen.
    safety
        Check pictures for nudity; unsafe ones are black. There
        are no previews, clips and streams then.
    runs
        A folder of trainings, which the page then shows.
    queue
        Jobs that may wait.
    job_seconds
        That a job may run.
    most_pixels
        Of a picture that is made.
    most_count
        Pictures of a job.
    most_cells
        Of a job that is a grid.
    most_steps
        Of a picture.
    most_upload
        Megabytes of a request.
    keep_hours
        How long a job and its pictures are kept.
    keep_megabytes
        Of pictures that are kept; the oldest go first.
    grace
        Seconds that a running job has to end when the server is
        to.
    device
        cpu, cuda, or auto: cuda where there is one.
    precision
        Of the weights and the networks.
    storage
        Hold the weights of U-Nets and text towers in fewer
        bytes, as of safelight generate; not those of streams.
    engine
        What computes the networks, as of safelight generate;
        auto makes ready by OpenVINO, where that is installed,
        pictures of each model's own size as it is loaded.
    offline
        Fetch nothing, as with HF_HUB_OFFLINE=1.
    log_level
        From which on is logged, as JSON, on standard error.
    """
    try:
        import fastapi  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import prometheus_client  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import python_multipart  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import uvicorn  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise SafelightError(
            f"safelight serve needs {error.name}: pip install 'safelight[serve]'"
        ) from error
    from safelight.app.server.config import Keeping, Limits, Serving, state_folder
    from safelight.app.server.running import serve as run

    if runs is not None and not runs.is_dir():
        raise SafelightError(f"There is no folder {runs}; give --runs that of trainings.")
    if safety:
        from safelight.pipelines.finishing import Finish

        Finish(safety=True).check()

    secret = token or os.environ.get(TOKEN) or None
    run(
        Serving(
            host=host,
            port=port,
            models=model or ("default",),
            state=state or state_folder(),
            token=secret,
            open_to_all=open_to_all,
            origins=tuple(one.rstrip("/") for one in origin),
            limits=Limits(
                body=most_upload * _MEGABYTE,
                pixels=most_pixels,
                count=most_count,
                cells=most_cells,
                steps=most_steps,
                queue=queue,
                seconds=job_seconds,
            ),
            keeping=Keeping(keep_hours * _HOUR, keep_megabytes * _MEGABYTE),
            device=device,
            precision=precision,
            kept=kept_models,
            batch=batch,
            preview_vae=preview_vae,
            annotators=dict(_annotator(text, offline) for text in annotator),
            watermark=watermark,
            safety=safety,
            runs=runs,
            grace=grace,
            engine=engine,
            storage=storage,
        ),
        log_level=log_level,
        offline=offline,
    )


def _annotator(text: str, offline: bool) -> tuple[str, Path]:
    """The kind and the weights of `KIND=WEIGHTS`."""
    from safelight.pipelines.annotators import find_weights

    kind, equals, weights = text.partition("=")
    if not (equals and kind.strip() and weights):
        raise SafelightError(f"--annotator should be such as depth=FOLDER; got {text!r}.")
    return find_weights(kind, weights, offline=offline)
