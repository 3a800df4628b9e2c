import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from safelight.engine.home import OnTerms
from safelight.engine.store import Store
from safelight.engine.verdict import Terms


def test_openvino_is_not_imported_before_something_gains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "safelight.engine.compiled", None)  # an import would fail
    base, terms = nn.Linear(3, 3), Terms(prepares=False)
    terms.calls = 1_000_000
    x = torch.ones(2, 3)
    assert torch.equal(OnTerms(base, Store(tmp_path), terms)(x), base(x))
    assert not terms.used
    with pytest.raises(ImportError):
        OnTerms(base, Store(tmp_path), Terms(prepares=True))(x)
