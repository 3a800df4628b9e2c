import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from safelight.engine import compiled as module
from safelight.engine.compiled import Compiled
from safelight.engine.home import Home
from safelight.engine.inductor import Inducted
from safelight.engine.store import Store
from safelight.errors import SafelightError


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.layer(x) * y


class Unexportable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if bool(x.sum() > 0) else x


@pytest.fixture
def exports(monkeypatch):
    made: list[object] = []
    whole = module._exported

    def counted(base, shapes):
        made.append(shapes)
        return whole(base, shapes)

    monkeypatch.setattr(module, "_exported", counted)
    return made


def kept_at(folder: Path, plain: nn.Module) -> Compiled:
    return Compiled(plain, Home(plain, Store(folder)), fill=True)


def test_batches_and_sizes(exports):
    torch.manual_seed(0)
    plain = Sum()
    compiled = Compiled(plain, None, fill=True)

    def check(*shape: int) -> None:
        x, y = torch.randn(shape), torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, y), plain(x, y))

    check(3, 4)
    check(2, 4)  # filled up to 3
    assert exports == [((3, 4), (3, 4))]
    check(5, 4)
    check(3, 4)
    check(1, 6, 4)
    assert [shapes[0] for shapes in exports] == [(3, 4), (5, 4), (1, 6, 4)]


def test_it_is_not_torch_that_computes(exports):
    plain = Sum()
    compiled = Compiled(plain, None, fill=True)
    x, y = torch.randn(2, 1, 4)
    before = compiled(x, y)
    with torch.no_grad():
        plain.layer.weight.zero_()
    torch.testing.assert_close(compiled(x, y), before)


def test_what_was_exported_is_kept(exports, tmp_path):
    plain, (x, y) = Sum(), torch.randn(2, 3, 4)
    first = kept_at(tmp_path, plain)(x, y)
    again = kept_at(tmp_path, plain)(x, y)
    assert len(exports) == 1
    torch.testing.assert_close(first, again)
    [kept] = tmp_path.rglob("*.blob")
    whole = kept.read_bytes()
    damages = (b"", b"<damaged", whole[:100], whole[:-100], whole[:100] + bytes(len(whole) - 100))
    for times, damaged in enumerate(damages, start=2):
        kept.write_bytes(damaged)
        torch.testing.assert_close(kept_at(tmp_path, plain)(x, y), first)
        assert len(exports) == times
    assert kept.stat().st_size >= len(whole)


def test_nothing_is_reported_to_openvinos_makers():
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
    script = "import safelight.engine.compiled, sys; print('openvino_telemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.split() == [b"False"]


def test_what_cannot_be_exported_is_told_in_one_line(capsys, caplog):
    root = logging.getLogger()
    handlers, filters = list(root.handlers), list(root.filters)
    with pytest.raises(SafelightError, match='take the engine "torch"') as told:
        Compiled(Unexportable(), None, fill=True)(torch.ones(2))
    assert "\n" not in str(told.value)
    assert (root.handlers, root.filters) == (handlers, filters)


def test_torchs_compiler_computes_what_a_module_gives(monkeypatch):
    torch.manual_seed(0)
    plain = Sum()
    compiled = Inducted(plain)
    x, y = torch.randn(2, 3, 4)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x, y), plain(x, y))
        before = compiled(x, y)
        monkeypatch.setattr(Sum, "forward", lambda *_: pytest.fail("the module computes"))
        torch.testing.assert_close(compiled(x, y), before)
    with pytest.raises(SafelightError, match='take the engine "torch"'):
        Inducted(Unexportable())(torch.ones(2))
