"""Models of the Hugging Face hub, fetched into its cache: only the files that are read."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from safelight.checkpoints.folder import DEFAULTS, INDEX, unused_parts
from safelight.config import Value, near, read_json
from safelight.errors import SafelightError, first_line
from safelight.pipelines.find import (
    CONTROLS,
    VIDEO,
    HubId,
    bundled_autoencoders,
    cached_snapshot,
    expanded,
    find_model,
    found_locally,
    hub_cache,
)

CONFIG = "config.json"  # of one network
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


def find_control(name: str | Path, *, offline: bool = False) -> Path:
    """The path of what steers a model: as `find_part`, and also a repository of the hub that is one
    network in diffusers' layout, `owner/name`.

    Raises `SafelightError` as `find_or_fetch`.
    """
    path, identity = expanded(str(name)), HubId.of(str(name))
    if path.exists() or identity is None or identity.file:
        return find_part(name, offline=offline)
    cached = cached_snapshot(str(name), CONFIG)
    if cached is not None and _is_whole_part(cached):
        return cached
    if offline or _hub_is_off():
        raise SafelightError(
            f"There is neither a network at {path} nor one of the hub's {str(name)!r} on this "
            "machine, and offline nothing is fetched."
        )
    return _fetched(identity, _part_of)


def find_part(name: str | Path, *, offline: bool = False) -> Path:
    """The path of an adapter, a textual inversion or an autoencoder: what is at that path; else the
    bundled autoencoder of that name, such as `default-tiny`; else the file of the hub that it
    names, `owner/name/file.safetensors`, fetched as by `find_or_fetch`.

    A name that is neither is a path where nothing is. Raises `SafelightError` as `find_or_fetch`.
    """
    path, identity = expanded(str(name)), HubId.of(str(name))
    if path.exists():
        return path
    if identity is None or not identity.file:
        return bundled_autoencoders().get(str(name), path)
    return find_or_fetch(str(name), offline=offline)


def wanted_files(names: Sequence[str], index: Mapping[str, Value], source: str) -> list[str]:
    """The files of a repository in diffusers' layout that `read_folder` reads.

    Of each component that the index names, of each control and of a video U-Net: its settings, its
    words, and its safetensors, the plain ones or else one variant, fp16 before others. No checker,
    no pickles, no other frameworks'.

    Raises `SafelightError` for a network without safetensors.
    """
    chosen = [name for name in (INDEX, DEFAULTS) if name in names]
    for component in (*_components(index), *_brought(names)):
        inside = _inside(names, component)
        weights = _weights_in(inside)
        if not weights and component not in _WITHOUT_WEIGHTS:
            others = ", ".join(sorted(inside)) or "nothing"
            raise SafelightError(
                f"{source} has no safetensors of its {component} ({others}); pickled weights of a "
                "folder are not opened. Take a repository that has safetensors."
            )
        chosen += [
            name
            for file, name in inside.items()
            if file in weights or (file.endswith((".json", ".txt")) and ".index." not in file)
        ]
    return chosen


def _inside(names: Sequence[str], folder: str) -> dict[str, str]:
    """The files that lie in a folder, their names there to those in the repository."""
    start = f"{folder}/"
    names = [name for name in names if name.startswith(start)]
    return {name[len(start) :]: name for name in names if "/" not in name[len(start) :]}


def _weights_in(inside: Iterable[str]) -> set[str]:
    """The safetensors among a component's files, of one variant, and the index of their shards."""
    files = list(inside)
    variants = {file: _variant(match) for file in files if (match := _WEIGHTS.fullmatch(file))}
    order = sorted(set(variants.values()), key=lambda variant: (variant != "", variant))
    variant = "fp16" if "" not in order and "fp16" in order else next(iter(order), "")
    indices = {file: _variant(match) for file in files if (match := _SHARDS.fullmatch(file))}
    return {file for file in variants if variants[file] == variant} | {
        file for file in indices if variants and indices[file] == variant
    }


def _brought(names: Sequence[str]) -> Iterator[str]:
    """The folders of a model's controls and of its video U-Net: those with settings and
    safetensors.
    """
    for name in names:
        folder, _, file = name.rpartition("/")
        is_control = folder.count("/") == 1 and folder.startswith(f"{CONTROLS}/")
        of_network = file == CONFIG and (is_control or folder == VIDEO)
        if of_network and _weights_in(_inside(names, folder)):
            yield folder


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
    found = [*snapshot.glob("*/*"), *snapshot.glob(f"{CONTROLS}/*/*")]
    names = [path.relative_to(snapshot).as_posix() for path in found]
    try:
        chosen = wanted_files(names, read_json(snapshot / INDEX), str(snapshot))
    except SafelightError:
        return False
    return _are_there(snapshot, chosen)


def _is_whole_part(snapshot: Path) -> bool:
    """The same of a repository that is one network."""
    weights = _weights_in(path.name for path in snapshot.iterdir())
    return bool(weights) and _are_there(snapshot, sorted(weights))


def _are_there(snapshot: Path, chosen: Sequence[str]) -> bool:
    """Whether files, and the shards that those list, are in a cached repository."""
    try:
        shards = {
            str(Path(index).with_name(file))
            for index in chosen
            if _SHARDS.fullmatch(Path(index).name)
            for file in _listed_shards(read_json(snapshot / index))
        }
    except (SafelightError, ValueError):
        return False
    return all((snapshot / name).is_file() for name in {*chosen, *shards})


def _listed_shards(index: Mapping[str, Value]) -> set[str]:
    files = index.get("weight_map")
    return set(map(str, files.values())) if isinstance(files, Mapping) else set()


_Fetch = Callable[[str], Path]
"""Gets one file of a repository's commit, by its name there, and gives its path here."""

_Choose = Callable[[HubId, Sequence[str], _Fetch], Path]
"""Gets of a repository with these files what is wanted, and gives its folder."""


def _fetched(identity: HubId, choose: _Choose | None = None) -> Path:
    """The file that an identity names, else what `choose` gets of its repository."""
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
        return _all_of(identity, commit, names, fetch, choose or _model_of)
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
    identity: HubId, commit: str, names: Sequence[str], fetch: _Fetch, choose: _Choose
) -> Path:
    """What is wanted of a repository's commit: a file, or the folder that `choose` gets."""
    if identity.file:
        if identity.file not in names:
            raise SafelightError(
                f"{identity.repository} has no file {identity.file!r}. {near(identity.file, names)}"
            )
        found = fetch(identity.file)
    else:
        found = choose(identity, names, fetch)
    # Last, so that a fetch that was cut short is not taken for the whole model.
    reference = hub_cache() / identity.folder / "refs" / identity.revision
    if identity.revision != commit:
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, encoding="utf-8")
    return found


def _part_of(identity: HubId, names: Sequence[str], fetch: _Fetch) -> Path:
    """The folder of a repository's commit that is one network, such as a ControlNet."""
    weights = _weights_in(names)
    if CONFIG not in names or not weights:
        files = [name for name in names if name.endswith((".safetensors", ".pth"))]
        single = f"If it is one of its files, name that: {identity}/{files[0]}." if files else ""
        raise SafelightError(
            f"{identity} is not a network in diffusers' layout: expected {CONFIG} and "
            f"diffusion_pytorch_model.safetensors. {single}".rstrip()
        )
    for name in sorted(weights):
        fetch(name)
    return fetch(CONFIG).parent


def _model_of(identity: HubId, names: Sequence[str], fetch: _Fetch) -> Path:
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
