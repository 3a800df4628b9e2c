"""`import safelight` and `safelight --help` are instant: what they import is what they cost."""

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "numpy", "PIL", "tokenizers", "safetensors", "pydantic", "einops", "jaxtyping")
IMPORT = "import safelight"
HELP = "from safelight.app.cli import main; main(['--help'])"
GENERATE_HELP = "from safelight.app.cli import main; main(['generate', '--help'])"


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("code", [IMPORT, HELP, GENERATE_HELP])
def test_nothing_heavy_is_imported(code):
    loaded = run(f"{code}\nimport sys; print('\\n', *sys.modules)").splitlines()[-1].split()
    assert "safelight" in loaded
    assert not set(HEAVY) & set(loaded)


def test_import_brings_nothing_but_itself():
    loaded = run(
        f"import sys; before = {{*sys.modules}}; {IMPORT}; print(*({{*sys.modules}} - before))"
    )
    packages = {name.split(".")[0] for name in loaded.split()}
    assert packages - sys.stdlib_module_names == {"safelight"}


def test_making_a_picture_leaves_torchs_compiler_alone(tmp_path):
    arguments = ["generate", "a red cube", "--steps", "1", "-o", f"{tmp_path}/x.png"]
    loaded = run(
        f"from safelight.app.cli import main; main({arguments}); import sys; print(*sys.modules)"
    )
    assert "torch.nn" in loaded
    assert "torch._dynamo" not in loaded
    assert "torch.fx.experimental.symbolic_shapes" not in loaded


@pytest.mark.parametrize("code", [IMPORT, HELP])
def test_start_takes_less_than_a_third_of_a_second(code):
    """Or, on a slow or busy machine, as many bare interpreters as that is on a quiet one."""

    def seconds(code: str) -> float:
        start = time.perf_counter()
        run(code)
        return time.perf_counter() - start

    rounds = [(seconds("pass"), seconds(code)) for _ in range(7)]
    bare, whole = (min(column) for column in zip(*rounds, strict=True))
    assert whole < max(0.3, 20 * bare)
