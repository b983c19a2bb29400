"""The script that fetches genuine firmware says what it did and never fails a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "fetch_firmware"


def run(folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    environment = {**os.environ, "PATH": path}
    return subprocess.run(
        [bash, str(SCRIPT), str(folder)], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def test_machine_without_apt_gets_a_message_and_success(tmp_path: Path) -> None:
    result = run(tmp_path / "firmware", str(tmp_path))
    assert result.returncode == 0
    assert "no apt-get on this machine" in result.stdout


def test_folder_that_is_filled_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "amdgpu").mkdir()
    (tmp_path / "amdgpu" / "psp_13_0_0_sos.bin").write_bytes(b"image")
    (tmp_path / "PACKAGE").write_text("firmware-amd-graphics 1\n", encoding="ascii")
    result = run(tmp_path, os.environ["PATH"])
    assert result.returncode == 0
    assert "already holds firmware-amd-graphics 1" in result.stdout
    assert (tmp_path / "amdgpu" / "psp_13_0_0_sos.bin").read_bytes() == b"image"
