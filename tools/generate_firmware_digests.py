#!/usr/bin/env python3
"""Writes amdrv/facts/firmware_digests.txt: digests of genuine boot-loader pieces, from unpacked firmware packages.

Only pieces that are signed with keys of the boot ROM are listed; every other piece can be verified by its signature. A
digest is a fact about a file; no firmware is copied.

usage: generate_firmware_digests.py FOLDER [FOLDER ...]

Each FOLDER is what tools/fetch_firmware made: amdgpu/ with the images, and PACKAGE with the package's name and version.
"""

from __future__ import annotations

import sys
from pathlib import Path

from amdrv.facts.firmware_auth import ROOT_KEYS, ROOT_PIECES
from amdrv.firmware.container import parse_container
from amdrv.firmware.image import parse

IMAGES = ("psp_13_0_0_sos.bin", "psp_14_0_3_sos.bin")  # older packages lack the second
ROOT_KEY_IDS = frozenset(key.key_id for key in ROOT_KEYS)
OUTPUT = Path(__file__).resolve().parent.parent / "amdrv" / "facts" / "firmware_digests.txt"
HEADER = """\
# Genuine boot-loader pieces whose signing keys are only in the boot ROM, by SHA-256.
# Made by tools/generate_firmware_digests.py from Debian packages; read by amdrv/facts/firmware_auth.py.
# sha256 of header, body and signature | digest of the body as the header states it | size in bytes | piece | image |
# package | version
"""


def rows_of(folder: Path) -> list[tuple[str, ...]]:
    """Rows of one unpacked package."""
    package, version = (folder / "PACKAGE").read_text(encoding="ascii").split()
    rows: list[tuple[str, ...]] = []
    for name in IMAGES:
        if not (folder / "amdgpu" / name).exists():
            continue
        image = parse(name, (folder / "amdgpu" / name).read_bytes())
        for piece in ROOT_PIECES:
            section = image.section(piece)
            if section is None:
                continue
            container = parse_container(f"{name}: {piece}", section.data)
            if container.key_id not in ROOT_KEY_IDS:
                continue
            if not container.body_digest_matches:
                raise SystemExit(f"{folder}: {name}: {piece} does not match its own digest")
            size = len(container.signed) + len(container.signature)
            digests = container.sha256.hex(), container.body_digest.hex()
            rows.append((*digests, str(size), piece, name, package, version))
    return rows


def main(folders: list[str]) -> None:
    """Collect the rows of all folders; a piece that several versions share is listed for the first of them."""
    if not folders:
        raise SystemExit(__doc__)
    rows: dict[str, tuple[str, ...]] = {}
    for folder in folders:
        for row in rows_of(Path(folder)):
            rows.setdefault(row[0], row)
    OUTPUT.write_text(HEADER + "".join(" ".join(row) + "\n" for row in rows.values()), encoding="ascii")
    print(f"{OUTPUT}: {len(rows)} pieces")


if __name__ == "__main__":
    main(sys.argv[1:])
