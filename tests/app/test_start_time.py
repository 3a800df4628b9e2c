"""`import safelight` and `safelight --help` are instant: what they import is what they cost."""

import os
import subprocess
import sys

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


def test_making_a_picture_leaves_torchs_compiler_alone(model_folder, tmp_path):
    arguments = ["generate", "a red cube", "--model", str(model_folder), "-o", f"{tmp_path}/x.png"]
    loaded = run(
        f"from safelight.app.cli import main; main({arguments}); import sys; print(*sys.modules)"
    )
    assert "torch.nn" in loaded
    assert "torch._dynamo" not in loaded


def test_help_costs_a_small_multiple_of_a_bare_interpreter():
    def least_seconds(code: str) -> float:
        """Processor time, which other programs on the machine hardly change."""
        costs: list[float] = []
        for _ in range(5):
            before = os.times()
            run(code)
            after = os.times()
            costs.append(sum(after[2:4]) - sum(before[2:4]))
        return min(costs)

    bare, help_ = least_seconds("pass"), least_seconds(HELP)
    assert help_ < 0.3 or help_ < 40 * bare
