import os
from dataclasses import dataclass

import torch
from torch import nn

from safelight.engine import store as stores
from safelight.engine.store import Store, identity, own_store


@dataclass(frozen=True)
class Shape:
    heads: int = 2


class Scaled(nn.Module):
    def __init__(self, scale: float = 2.0, heads: int = 2, told: object = "a"):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        nn.init.ones_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.scale, self.shape, self.told = scale, Shape(heads), told


def test_what_computes_the_same_has_one_identity_and_what_does_not_another(monkeypatch):
    first = identity(Scaled())
    assert first is not None
    assert first == identity(Scaled())
    other = Scaled()
    with torch.no_grad():
        other.layer.weight[0, 0] = 1.5
    hooked = Scaled()
    hooked.layer.register_forward_hook(lambda *_: None)
    different = [identity(one) for one in (other, Scaled(3.0), Scaled(heads=3), Scaled(told="b"))]
    assert None not in different
    assert len({first, *different}) == 5
    assert identity(Scaled(told=lambda: 1)) is None  # which no text tells
    assert identity(hooked) is None
    monkeypatch.setattr(stores, "_versions", lambda: "later")
    assert identity(Scaled()) != first


def test_what_was_used_longest_ago_goes_first(tmp_path):
    store = Store(tmp_path, most=25)
    places = [store.place(name, ((1,),)) for name in "abc"]
    for i, place in enumerate(places[:2]):
        with store.writing(place) as folder:
            (folder / "model.xml").write_bytes(bytes(10))
        os.utime(place, (i, i))
    store.place("a", ((1,),))  # used again
    with store.writing(places[2]) as folder:
        (folder / "model.xml").write_bytes(bytes(10))
    assert [place.is_dir() for place in places] == [True, False, True]
    assert store.place("a", ((2,),)) not in places


def test_the_places_of_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("SAFELIGHT_CACHE", str(tmp_path))
    assert own_store().place("a", ()).parent == tmp_path / "engine"
    monkeypatch.delenv("SAFELIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert own_store().place("a", ()).parent == tmp_path / "other" / "safelight" / "engine"
