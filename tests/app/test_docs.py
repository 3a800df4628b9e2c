"""The pages keep up with the code."""

import re
from pathlib import Path

import pytest

from option_names import option_names
from safelight.app.cli import main
from safelight.app.commands.generate import generate
from safelight.diffusion.samplers import SAMPLERS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_every_sampler_has_its_row():
    page = (ROOT / "docs" / "generate.md").read_text()
    section = page[page.index("## Samplers") :]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(SAMPLERS)


def test_every_option_of_generate_has_its_row():
    page = (ROOT / "docs" / "generate.md").read_text()
    options = [name for name in option_names(generate) if name != "prompt"]
    assert [name for name in options if f"`--{name.replace('_', '-')}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_error_lines_in_the_pages_are_the_real_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "generate.md").read_text()
    shown = re.findall(r'^\$ safelight generate "a cat" (.+)\n(safelight: .+)$', page, re.MULTILINE)
    assert [options.split()[0] for options, _ in shown] == ["--sampler", "--width", "-o"]
    for options, line in shown:
        assert main(["generate", "a cat", *options.split(), "--device", "cpu"]) == 2
        assert capsys.readouterr().err.strip() == line
