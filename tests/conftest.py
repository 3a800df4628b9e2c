"""Checks every jaxtyping annotation of safelight at run time, in all tests."""

import os

from hypothesis import settings
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
_hook = install_import_hook("safelight", "beartype.beartype")

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")
