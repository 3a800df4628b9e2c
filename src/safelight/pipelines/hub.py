"""Models of the Hugging Face hub, fetched into its cache: only the files that are read."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from safelight.checkpoints.folder import DEFAULTS, INDEX, unused_parts
from safelight.config import Value, near, read_json
from safelight.errors import SafelightError, first_line
from safelight.pipelines.find import (
    HubId,
    cached_snapshot,
    expanded,
    find_model,
    found_locally,
    hub_cache,
)

_WITHOUT_WEIGHTS = (
    *("scheduler", "low_res_scheduler", "tokenizer", "tokenizer_2"),
    *("feature_extractor", "image_noising_scheduler"),
)
_COMPONENT = re.compile(r"[a-z][a-z0-9_]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<before>[^./]+?))?(?:-\d{5}-of-\d{5})?"
    r"(?:\.(?P<after>[^./]+?))?\.safetensors"
)
_SHARDS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<before>[^./]+))?\.safetensors\.index"
    r"(?:\.(?P<after>[^./]+))?\.json"
)


def find_or_fetch(name: str, *, offline: bool = False) -> Path:
    """The folder or single file that a name means, as `find_model`; a repository of the hub,
    `owner/name` or `owner/name@revision`, is fetched if it is not whole in the hub's cache, and so
    is a single file in one, `owner/name/file.safetensors`.

    Nothing is fetched where `offline` is set, or HF_HUB_OFFLINE is in the environment.

    Raises `SafelightError`: there is no such model, the hub refuses it or cannot be reached, or it
    is not a model in diffusers' layout with safetensors.
    """
    found = found_locally(name)
    identity = HubId.of(name)
    if identity is None or offline or _hub_is_off():
        return find_model(name)
    cached = found == cached_snapshot(name) and not identity.file
    if found is not None and (not cached or _is_whole(found)):
        return found
    return _fetched(identity)


def find_part(name: str | Path, *, offline: bool = False) -> Path:
    """The path of an adapter, a textual inversion or an autoencoder: what is at that path, else the
    file of the hub that it names, `owner/name/file.safetensors`, fetched as by `find_or_fetch`.

    A name that is neither is a path where nothing is. Raises `SafelightError` as `find_or_fetch`.
    """
    path, identity = expanded(str(name)), HubId.of(str(name))
    if path.exists() or identity is None or not identity.file:
        return path
    return find_or_fetch(str(name), offline=offline)


def wanted_files(names: Sequence[str], index: Mapping[str, Value], source: str) -> list[str]:
    """The files of a repository in diffusers' layout that `read_folder` reads.

    Of each component that the index names: its settings, its words, and its safetensors, the plain
    ones or else one variant, fp16 before others. No checker, no pickles, no other frameworks'.

    Raises `SafelightError` for a network without safetensors.
    """
    chosen = [name for name in (INDEX, DEFAULTS) if name in names]
    for component in _components(index):
        inside = {
            name.removeprefix(f"{component}/"): name
            for name in names
            if name.startswith(f"{component}/") and name.count("/") == 1
        }
        variants = {file: _variant(match) for file in inside if (match := _WEIGHTS.fullmatch(file))}
        if not variants and component not in _WITHOUT_WEIGHTS:
            others = ", ".join(sorted(inside)) or "nothing"
            raise SafelightError(
                f"{source} has no safetensors of its {component} ({others}); pickled weights of a "
                "folder are not opened. Take a repository that has safetensors."
            )
        order = sorted(set(variants.values()), key=lambda variant: (variant != "", variant))
        variant = "fp16" if "" not in order and "fp16" in order else next(iter(order), "")
        for file, name in inside.items():
            shards = _SHARDS.fullmatch(file)
            if file in variants:
                wanted = variants[file] == variant
            elif shards is not None:
                wanted = _variant(shards) == variant
            else:
                wanted = file.endswith((".json", ".txt")) and ".index." not in file
            if wanted:
                chosen.append(name)
    return chosen


def _variant(match: re.Match[str]) -> str:
    return match["before"] or match["after"] or ""


def _components(index: Mapping[str, Value]) -> Iterator[str]:
    unused = unused_parts(str(index.get("_class_name")))
    for name, entry in index.items():
        listed = isinstance(entry, list) and len(entry) == 2 and entry[1] is not None
        if listed and name not in unused and _COMPONENT.fullmatch(name):
            yield name


def _is_whole(snapshot: Path) -> bool:
    """Whether a cached repository, perhaps fetched in part, has weights of each network."""
    names = [path.relative_to(snapshot).as_posix() for path in snapshot.glob("*/*")]
    try:
        chosen = wanted_files(names, read_json(snapshot / INDEX), str(snapshot))
        shards = {
            f"{index.split('/')[0]}/{file}"
            for index in chosen
            if _SHARDS.fullmatch(index.split("/")[1])
            for file in _listed_shards(read_json(snapshot / index))
        }
    except SafelightError:
        return False
    return all((snapshot / name).is_file() for name in {*chosen, *shards})


def _listed_shards(index: Mapping[str, Value]) -> set[str]:
    files = index.get("weight_map")
    return set(map(str, files.values())) if isinstance(files, Mapping) else set()


def _fetched(identity: HubId) -> Path:
    try:
        from huggingface_hub import HfApi, hf_hub_download  # pyright: ignore[reportUnknownVariableType]
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # of the library it uses
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise SafelightError(
            f"No model {str(identity)!r} on this machine, and fetching it from the Hugging Face "
            'hub takes another package: pip install "safelight[hub]".'
        ) from error
    # The hub's package reads HF_ENDPOINT once, when it is imported, which may be long ago.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        listed = HfApi(endpoint=endpoint).model_info(
            identity.repository, revision=identity.revision, timeout=30
        )
        commit = listed.sha or ""
        if _COMMIT.fullmatch(commit) is None:
            raise SafelightError(f"The hub named no commit of {identity}, but {commit!r}.")

        def fetch(name: str) -> Path:
            path = hf_hub_download(
                identity.repository,
                name,
                revision=commit,
                cache_dir=hub_cache(),
                endpoint=endpoint,
            )
            return Path(str(path))

        names = [file.rfilename for file in listed.siblings or ()]
        return _all_of(identity, commit, names, fetch)
    except GatedRepoError as error:
        raise SafelightError(
            f"{identity} is open only to those who accepted its terms: accept them on its page of "
            "the hub, then give your token in the environment variable HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise SafelightError(
            f"{identity.repository} has no revision {identity.revision!r} on the hub; give a "
            "branch, a tag or a commit that it has."
        ) from error
    except RepositoryNotFoundError as error:
        raise SafelightError(
            f"No model {str(identity)!r}, neither on this machine nor on the Hugging Face hub. See "
            "that the name is right; for a private one give your token in HF_TOKEN."
        ) from error
    except HfHubHTTPError as error:
        raise SafelightError(f"The hub would not send {identity}: {first_line(error)}") from error
    except (HTTPError, OSError) as error:
        cause = first_line(error.__cause__ or error)  # the hub's package wraps what happened
        raise SafelightError(
            f"{identity} is not on this machine, and fetching it failed ({cause}). See to "
            "the connection and the free disk space; what was fetched is kept."
        ) from error


def _all_of(
    identity: HubId, commit: str, names: Sequence[str], fetch: Callable[[str], Path]
) -> Path:
    """What is wanted of a repository's commit: a file, or the folder of the whole model."""
    if identity.file:
        if identity.file not in names:
            raise SafelightError(
                f"{identity.repository} has no file {identity.file!r}. {near(identity.file, names)}"
            )
        found = fetch(identity.file)
    else:
        found = _model_of(identity, names, fetch)
    # Last, so that a fetch that was cut short is not taken for the whole model.
    reference = hub_cache() / identity.folder / "refs" / identity.revision
    if identity.revision != commit:
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, encoding="utf-8")
    return found


def _model_of(identity: HubId, names: Sequence[str], fetch: Callable[[str], Path]) -> Path:
    """The folder of a repository's commit with the files that `read_folder` reads."""
    if INDEX not in names:
        files = [name for name in names if name.endswith((".safetensors", ".ckpt"))]
        single = f"If it is one of its files, name that: {identity}/{files[0]}." if files else ""
        raise SafelightError(
            f"{identity} is not a model in diffusers' layout: it has no {INDEX}. {single}".rstrip()
        )
    folder = fetch(INDEX).parent
    for name in wanted_files(names, read_json(folder / INDEX), str(identity)):
        fetch(name)
    return folder


def _hub_is_off() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
