"""Finding firmware files and putting a card's set together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from amdrv.errors import InvalidArgument, MalformedInput, NotFound
from amdrv.firmware.image import FirmwareImage, parse
from amdrv.firmware.needs import IpVersion, Need, Scope, needs_for
from amdrv.firmware.plan import PspLoad, load_plan

ENVIRONMENT_VARIABLE = "AMDRV_FIRMWARE"
MAX_IMAGE_SIZE_BYTES = 32 << 20  # the largest genuine image is 0.6 MiB; bounds what a broken archive can expand to

_NOTHING: Mapping[str, bytes] = MappingProxyType({})
_PACKAGES = (
    "install your distribution's package (Debian and Ubuntu: firmware-amd-graphics or linux-firmware; Fedora: "
    f"amd-gpu-firmware; Arch: linux-firmware-amdgpu), or set {ENVIRONMENT_VARIABLE} to a folder that holds it"
)


class Place(NamedTuple):
    """Somewhere to look for images: a folder, or images held in memory."""

    label: str
    folder: Path | None = None
    images: Mapping[str, bytes] = _NOTHING


class Found(NamedTuple):
    """One file as it was found, uncompressed."""

    name: str
    data: bytes
    origin: str  # path, or the label of the place and the name


# Linux 6.12 firmware_loader/main.c: fw_path, without the folders of one kernel release; then NixOS.
DISTRIBUTION_FOLDERS = tuple(
    Path(folder, "amdgpu")
    for folder in (
        "/lib/firmware/updates",
        "/lib/firmware",
        "/usr/lib/firmware/updates",
        "/usr/lib/firmware",
        "/run/current-system/firmware",
    )
)


def search_places(
    carried: Mapping[str, bytes] = _NOTHING,
    *,
    environment: Mapping[str, str] | None = None,
    folders: Sequence[Path] = DISTRIBUTION_FOLDERS,
) -> tuple[Place, ...]:
    """Places to search, best first: $AMDRV_FIRMWARE, images that the card brings itself, the distribution's folders.

    Args:
        carried: images by file name that come with the card; a real card has none.
        environment: instead of the process environment, which is read now and not at import.
        folders: instead of the distribution's folders.

    Raises:
        InvalidArgument: $AMDRV_FIRMWARE is set to something that is not a folder.
    """
    chosen = (os.environ if environment is None else environment).get(ENVIRONMENT_VARIABLE, "")
    places: list[Place] = []
    if chosen:
        folder = Path(chosen).expanduser()
        if not folder.is_dir():
            raise InvalidArgument(f"{ENVIRONMENT_VARIABLE}={chosen} is not a folder")
        places += [Place(f"${ENVIRONMENT_VARIABLE}", path) for path in (folder, folder / "amdgpu")]
    if carried:
        places.append(Place("carried by the card", images=carried))
    places += [Place("distribution", path) for path in folders]
    return tuple(places)


def _unxz(data: bytes) -> bytes:
    import lzma  # only where a distribution compresses with it

    return lzma.LZMADecompressor().decompress(data, max_length=MAX_IMAGE_SIZE_BYTES + 1)


def _unzstd(data: bytes) -> bytes:
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(data) as reader:
        return reader.read(MAX_IMAGE_SIZE_BYTES + 1)


def _uncompress(path: Path, data: bytes) -> bytes:
    """Content of a plain, .xz or .zst file.

    A cut-off archive may expand to a part without an error: the size in the image's own header shows that.

    Raises:
        MalformedInput: the archive is damaged, or larger than any firmware.
    """
    expand = {".xz": _unxz, ".zst": _unzstd}.get(path.suffix)
    if expand is not None:
        try:
            data = expand(data)
        except Exception as error:  # LZMAError or ZstdError, whose modules are not loaded without need
            raise MalformedInput(f"firmware file {path} does not uncompress: {error}") from error
    if len(data) > MAX_IMAGE_SIZE_BYTES:
        raise MalformedInput(f"firmware file {path} has more than {MAX_IMAGE_SIZE_BYTES} bytes")
    return data


def find(need: Need, places: Sequence[Place]) -> Found | None:
    """The best file for ``need``: the first place that has any of its names, so that a folder's files stay together.

    Raises:
        NotFound: the file is there but cannot be read.
        MalformedInput: the file is there but a damaged archive.
    """
    for place in places:
        for name in need.names:
            if name in place.images:
                return Found(name, place.images[name], f"{place.label}: {name}")
            if place.folder is None:
                continue
            for suffix in ("", ".xz", ".zst"):
                path = place.folder / f"{name}{suffix}"
                try:
                    raw = path.read_bytes()
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except OSError as error:  # there, but not usable: going on with another version would surprise
                    raise NotFound(f"firmware file {path} cannot be read: {error.strerror}") from error
                return Found(name, _uncompress(path, raw), str(path))
    return None


def describe(places: Sequence[Place]) -> str:
    """The places of a search as one phrase."""
    return ", ".join(place.label if place.folder is None else f"{place.folder} ({place.label})" for place in places)


@dataclass(frozen=True)
class FirmwareSet:
    """A card's firmware: parsed images by role, where each came from, and the order of loading."""

    images: Mapping[str, FirmwareImage]
    origins: Mapping[str, str]  # role → path or "carried by the card: NAME"
    loads: tuple[PspLoad, ...]
    beside: Mapping[str, bytes] = field(default_factory=dict)  # role → SHA-256 of each file that is not loaded

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over every piece in load order and every whole file, those of the set that are not loaded included.

        Equal digests put the same bytes on the card, out of the same files: whoever changed a file wants it looked at.
        """
        total = hashlib.sha256()
        for load in self.loads:
            total.update(load.name.encode() + b"\0" + load.sha256)
        files = {**{role: image.sha256 for role, image in self.images.items()}, **self.beside}
        for role, digest in sorted(files.items()):
            total.update(role.encode() + b"\0" + digest)
        return total.digest()


def resolve(
    versions: Mapping[str, IpVersion],
    carried: Mapping[str, bytes] = _NOTHING,
    *,
    device_id: int = 0,
    revision: int = 0,
    scope: Scope = "all",
    places: Sequence[Place] | None = None,
) -> FirmwareSet:
    """Find, parse and order the firmware of a card.

    Args:
        versions: IP versions from discovery, at least of MP0, MP1, SDMA0 and GC.
        carried: images by file name that the card's transport brings itself.
        device_id: PCI device id, for boards with images of their own.
        revision: PCI revision id.
        scope: everything that Linux loads, or only what compute needs.
        places: instead of `search_places(carried)`.

    Raises:
        NotFound: a needed image is nowhere; the message names it, the places searched and what to install.
        MalformedInput: an image was found but is damaged.
        Unsupported: the card or an image is of an unknown kind.
        InvalidArgument: $AMDRV_FIRMWARE is not a folder.
    """
    searched = search_places(carried) if places is None else places
    images: dict[str, FirmwareImage] = {}
    origins: dict[str, str] = {}
    for need in needs_for(versions, device_id=device_id, revision=revision, scope=scope):
        found = find(need, searched)
        if found is not None:
            images[need.role] = parse(found.name, found.data)
            origins[need.role] = found.origin
        elif not need.optional:
            names = " or ".join(need.names)
            raise NotFound(f"firmware image {names} not found; searched {describe(searched)}; {_PACKAGES}")
    beside: dict[str, bytes] = {}
    for need in needs_for(versions, device_id=device_id, revision=revision):
        other = None if need.role in images else find(need, searched)
        if other is not None:
            beside[need.role] = hashlib.sha256(other.data).digest()
    return FirmwareSet(images, origins, load_plan(images, versions, scope), beside)
