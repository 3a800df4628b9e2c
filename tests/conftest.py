"""Checks every annotation of safelight at run time, in all tests.

Tests run in as many processes as there are cores, each of one thread. Networks are computed by
torch unless a test asks for another engine.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from checking import check_annotations

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
check_annotations("safelight")

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def computed_by_torch(monkeypatch, tmp_path):
    from safelight.engine import choosing

    monkeypatch.setattr(choosing, "has_openvino", lambda: False)
    monkeypatch.setenv("SAFELIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def kept_networks(tmp_path_factory) -> Path:
    """What engines made ready in one test is there for the others, in all of pytest's processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return folder / "kept"


@pytest.fixture
def networks_are_kept(computed_by_torch, kept_networks, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_CACHE", str(kept_networks))
