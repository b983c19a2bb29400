"""The README says what is so."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def run(program: str) -> str:
    """What a program prints, as a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_program_prints_what_its_comments_say() -> None:
    (program,) = blocks(ROOT / "README.md", "python")
    expected = [line.partition("# ")[2] for line in program.splitlines() if line.strip().startswith("print(")]
    assert run(program).splitlines() == expected


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name == "using.md"], ids=lambda path: path.name)
def test_the_programs_of_the_guide_run(path: Path) -> None:
    programs = blocks(path, "python")
    assert programs
    run("\n".join(programs))


def test_every_stage_of_the_compiler_prints_what_its_comments_say() -> None:
    section = (ROOT / "docs/tensor.md").read_text().partition("## Stage by stage\n")[2].partition("\n## ")[0]
    program = "".join(re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
    expected = re.findall(r"^# ?(.*)|^ *print\(.*\) +# (.*)", program, re.MULTILINE)
    for said, printed in zip_longest((full or short for full, short in expected), run(program).splitlines()):
        assert said is not None and re.fullmatch(re.escape(said).replace(r"\.\.\.", ".*"), printed or ""), said


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_the_layout_names_every_room() -> None:
    rooms = {
        entry.name
        for entry in ROOT.iterdir()
        if entry.is_dir() and not entry.name.startswith((".", "_")) and not entry.name.endswith(".egg-info")
    } - {"build", "dist"}
    assert {name for name in rooms if f"| `{name}/` |" not in README} == set()


def test_the_counts_of_a_boot_are_those_that_the_readme_states() -> None:
    program = """
import amdrv
for _ in range(2):
    with amdrv.open("emu:gfx1100") as device:
        print(f"{device.boot.reads} and {device.boot.writes}", end=" | ")
"""
    assert f"| {run(program).strip()}" in README, "measure again with `amdrv demo`; docs/boot.md has the counts too"
