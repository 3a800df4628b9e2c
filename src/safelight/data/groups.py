"""The pictures of a folder, grouped by the shape they are cut to."""

from dataclasses import dataclass

from safelight.data.buckets import buckets_for, nearest_bucket
from safelight.data.config import DataConfig
from safelight.data.folders import PictureFolder
from safelight.pictures import Size


@dataclass(frozen=True)
class Group:
    """Pictures of one shape.

    `items[m]` is the index in the folder of member m, and `slots[m]` its slot.
    A picture with `repeats` has as many slots; slots are counted through the whole folder.
    """

    bucket: Size
    items: tuple[int, ...]
    slots: tuple[int, ...]


def grouped(folder: PictureFolder, config: DataConfig) -> tuple[Group, ...]:
    """The groups of all shapes that some picture has."""
    buckets = buckets_for(config)
    members: dict[int, list[tuple[int, int]]] = {}
    slot = 0
    for index, item in enumerate(folder.items):
        group = members.setdefault(nearest_bucket(item.size, buckets), [])
        for _ in range(item.repeats):
            group.append((index, slot))
            slot += 1
    return tuple(
        Group(
            bucket=buckets[bucket],
            items=tuple(index for index, _ in members[bucket]),
            slots=tuple(slot for _, slot in members[bucket]),
        )
        for bucket in sorted(members)
    )
