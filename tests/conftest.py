"""Checks every jaxtyping annotation of safelight at run time, in all tests.

Tests run in as many processes as there are cores, each of one thread.
"""

import os

from hypothesis import settings
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
_hook = install_import_hook("safelight", "beartype.beartype")

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")
