"""Where tests find genuine firmware, which is not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest


@pytest.fixture(scope="session")
def genuine_folder() -> Path:
    """Folder with linux-firmware's amdgpu images, uncompressed; tests that need it skip where there is none."""
    chosen = os.environ.get("AMDRV_FIRMWARE", "")
    candidates = [Path(chosen), Path(chosen, "amdgpu")] if chosen else []
    candidates += [platformdirs.user_cache_path("amdrv") / "firmware" / "amdgpu", Path("/lib/firmware/amdgpu")]
    for folder in candidates:
        if (folder / "psp_13_0_0_sos.bin").is_file():
            return folder
    pytest.skip("no genuine firmware on this machine; ./tools/fetch_firmware fetches it")
