"""OpenVINO, imported without a report of that to its makers.

`import openvino` sends one where `openvino_telemetry` is installed, as it is with OpenVINO's
wheels: from a process that is forked beside running threads, which may hang for good and keep open
what its parent had. To be imported before OpenVINO is.
"""

import sys

_TELEMETRY = "openvino_telemetry"

if "openvino" not in sys.modules:
    sys.modules[_TELEMETRY] = None  # pyright: ignore[reportArgumentType]  # so its import fails
    try:
        import openvino  # noqa: F401  # pyright: ignore[reportUnusedImport]
    finally:
        del sys.modules[_TELEMETRY]
