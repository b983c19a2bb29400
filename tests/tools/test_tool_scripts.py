"""The scripts a newcomer runs first: what they say when the machine lacks something."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
# A Python of a good version: it makes an environment of itself, then does what a test wants; its pip does likewise.
PYTHON = """#!/bin/sh
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin"; ln -s "$0" "$3/bin/python"; AFTER_VENV ;;
  "-m pip") AT_PIP ;;
esac
"""
WORKING = PYTHON.replace("AFTER_VENV", "exit 0").replace("AT_PIP", "exit 0")
WITHOUT_VENV = PYTHON.replace("AFTER_VENV", "exit 1")  # as Debian's without python3-venv: it leaves half of one
WITHOUT_NETWORK = PYTHON.replace("AFTER_VENV", "exit 0").replace("AT_PIP", "exit 1")  # pip reaches no index
TOO_OLD = "#!/bin/sh\nexit 1\n"
VERSIONS = ("python3", "python3.11", "python3.12", "python3.13", "python3.14")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the environment script and a pyproject.toml."""
    (tmp_path / "tools").mkdir()
    shutil.copy(TOOLS / "environment", tmp_path / "tools")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return tmp_path


def source(project: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Source the script on a machine whose only Pythons are ``python``."""
    binaries = project / "bin"
    binaries.mkdir(exist_ok=True)
    for version in VERSIONS:
        (binaries / version).write_text(python)
        (binaries / version).chmod(0o755)
    command = f"source {project}/tools/environment; echo python is $python"
    path = f"{binaries}:{os.environ['PATH']}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env={"PATH": path}, timeout=30)


def test_without_a_new_enough_python_it_says_which_is_needed(project: Path) -> None:
    done = source(project, TOO_OLD)
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr


def test_without_the_venv_package_it_names_it_and_leaves_nothing_half_made(project: Path) -> None:
    done = source(project, WITHOUT_VENV)
    assert done.returncode == 1
    assert "apt install python3-venv" in done.stderr
    assert not (project / ".venv").exists()


def test_without_a_network_it_says_so_and_tries_again_next_time(project: Path) -> None:
    assert "PyPI" in source(project, WITHOUT_NETWORK).stderr
    done = source(project, WITHOUT_NETWORK)
    assert done.returncode == 1
    assert "is PyPI reachable" in done.stderr


def test_the_environment_is_made_once_and_again_when_the_project_changes(project: Path) -> None:
    first = source(project, WORKING)
    assert first.returncode == 0
    assert f"python is {project}/.venv/bin/python" in first.stdout
    assert "setting up" in first.stderr
    assert source(project, WORKING).stderr == ""
    (project / "pyproject.toml").write_text("[project]\nname = 'changed'\n")
    assert "setting up" in source(project, WORKING).stderr


@pytest.mark.parametrize("name", ["demo", "test", "environment", "fetch_firmware"])
def test_scripts_parse_and_are_executable(name: str) -> None:
    script = TOOLS / name
    assert os.access(script, os.X_OK)
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
