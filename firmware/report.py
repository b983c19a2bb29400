"""Rows for `amdrv firmware list` and `amdrv firmware path`; for `verify` see `amdrv.firmware.authenticity`.

Pure of output: what a row looks like is the command line's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from amdrv.errors import Refused
from amdrv.firmware.image import parse
from amdrv.firmware.needs import Need
from amdrv.firmware.store import Place, find


class ImageRow(NamedTuple):
    """One needed image: where it was found and what it is, or what is wrong."""

    role: str
    name: str  # of the file found, or the first of the names looked for
    origin: str  # "" where none was found
    size_bytes: int
    header_version: str  # "2.0"
    ucode_version: int
    sha256: str
    problem: str  # "" for a good image


class PlaceRow(NamedTuple):
    """One place of the search, in order."""

    label: str
    location: str  # a folder, or "" for images in memory
    present: bool
    needed_images: int  # how many of the needed images it has


def image_rows(needs: Sequence[Need], places: Sequence[Place]) -> tuple[ImageRow, ...]:
    """One row for every needed image. Damaged and absent images become rows with a problem."""
    rows: list[ImageRow] = []
    for need in needs:
        origin, name = "", need.names[0]
        try:
            found = find(need, places)
            if found is None:
                problem = "not found, and not essential" if need.optional else "not found"
                rows.append(ImageRow(need.role, name, "", 0, "", 0, "", problem))
                continue
            origin, name = found.origin, found.name
            image = parse(found.name, found.data)
        except Refused as error:
            rows.append(ImageRow(need.role, name, origin, 0, "", 0, "", str(error)))
            continue
        version = ".".join(map(str, image.header_version))
        rows.append(
            ImageRow(need.role, name, origin, len(image.data), version, image.ucode_version, image.sha256.hex(), "")
        )
    return tuple(rows)


def place_rows(needs: Sequence[Need], places: Sequence[Place]) -> tuple[PlaceRow, ...]:
    """One row for every place, in search order."""
    rows: list[PlaceRow] = []
    for place in places:
        count = 0
        for need in needs:
            try:
                count += find(need, (place,)) is not None
            except Refused:  # there, though damaged; image_rows says how
                count += 1
        present = place.folder is None or place.folder.is_dir()
        rows.append(PlaceRow(place.label, "" if place.folder is None else str(place.folder), present, count))
    return tuple(rows)
