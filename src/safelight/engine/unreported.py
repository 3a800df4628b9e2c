"""OpenVINO, imported without a report of that to its makers.

`import openvino` sends one where `openvino_telemetry` is installed, as it is with OpenVINO's
wheels: from a process that is forked beside running threads, which may hang for good and keep open
what its parent had. To be imported before OpenVINO is.
"""

import importlib
import sys
from types import ModuleType

_TELEMETRY = "openvino_telemetry"


def _quietly(name: str) -> ModuleType:
    """A module, imported where nobody finds the package that reports."""
    there = {key: one for key, one in sys.modules.items() if key.partition(".")[0] == _TELEMETRY}
    for key in there:
        del sys.modules[key]
    sys.modules[_TELEMETRY] = None  # pyright: ignore[reportArgumentType]  # so an import fails
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[_TELEMETRY]
        sys.modules.update(there)


_quietly("openvino")
