"""Compiled code on disk: $XDG_CACHE_HOME/amdrv/native, or ~/.cache/amdrv/native.

A file is believed only if its checksum fits, and the folder is used only if nobody but the user can write to it: what
lies there is executed. A file that is damaged, and a folder that cannot be written, are as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

MAGIC = b"amdrv\x00c2"
_HEAD = struct.Struct("<8s32s")  # magic, sha256 of the file's place in the folder and of the rest
_SIZES = struct.Struct("<III")  # bytes of the manifest, of the code, of the object
LIMIT_BYTES = 256 << 20
SWEEP_EVERY = 64  # stored files between two looks at the folder's size
UNITS_PER_KEY = 16  # versions of code with the same beginning


@dataclass(frozen=True, slots=True)
class StoredUnit:
    """Compiled code, and what it was made from. Places are offsets from the unit's base."""

    tier: int
    ranges: tuple[tuple[int, bytes], ...]  # (place, code)
    sites: tuple[tuple[int, str], ...]  # (place, mnemonic), in order; "" where no instruction can be fetched
    entries: frozenset[tuple[int, int]]  # (place, MODE)
    added: frozenset[tuple[int, int]]  # entries that it was asked for beyond its start
    calls: tuple[str, ...]  # functions of the library that it needs
    leaves: bool  # whether it can go on at places that it does not know
    ends_at_once: bool  # see unit.Unit
    holes: tuple[int, ...]  # places where nothing could be fetched
    code: bytes  # the object


def default_folder() -> Path:
    """Where compiled code is kept unless told otherwise."""
    return platformdirs.user_cache_path("amdrv") / "native"


class ObjectCache:
    """Objects in a folder, which is made when something is first stored."""

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._stored = 0

    # Library functions.

    def load_function(self, key: str) -> bytes | None:
        """The object of a library function, by a digest of everything that it depends on."""
        return self._read(self._folder / "functions" / key)

    def store_function(self, key: str, code: bytes) -> None:
        """Keep the object of a library function."""
        self._write(self._folder / "functions" / key, code)

    # Units.

    def load_units(self, key: str) -> Iterator[StoredUnit]:
        """Units whose code begins alike, those with the most entries first; all else is for the caller to compare."""
        found: list[StoredUnit] = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._folder / "units" / key):
                payload = self._read(Path(entry.path))
                if payload is not None:
                    found.append(_unpack(payload))
        yield from sorted(found, key=lambda unit: (len(unit.added), len(unit.entries)), reverse=True)

    def store_unit(self, key: str, unit: StoredUnit) -> None:
        """Keep a unit."""
        payload = _pack(unit)
        name = hashlib.sha256(repr((unit.ranges, sorted(unit.added))).encode()).hexdigest()
        folder = self._folder / "units" / key
        self._write(folder / name, payload)
        _drop_oldest(folder, lambda count, _: count > UNITS_PER_KEY)

    # Files.

    def _trusted(self) -> bool:
        """Whether the folder exists, is the user's own, and is closed to other writers."""
        try:
            status = self._folder.stat()
        except OSError:
            return False
        return status.st_uid == os.geteuid() and not status.st_mode & 0o022

    def _read(self, path: Path) -> bytes | None:
        try:
            data = path.read_bytes() if self._trusted() else b""
        except OSError:
            return None
        if len(data) < _HEAD.size:
            return None
        magic, digest = _HEAD.unpack_from(data)
        payload = data[_HEAD.size :]
        if magic != MAGIC or _digest(path, payload) != digest:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used: not the oldest any more
        return payload

    def _write(self, path: Path, payload: bytes) -> None:
        """Put a file into place whole, or not at all."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._trusted():
                return
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_HEAD.pack(MAGIC, _digest(path, payload)) + payload)
                os.replace(name, path)
            except OSError:
                os.unlink(name)
                raise
        except OSError:
            return
        self._stored += 1
        if self._stored % SWEEP_EVERY == 1:
            _drop_oldest(self._folder, lambda _, size_bytes: size_bytes > self._limit_bytes)


def _digest(path: Path, payload: bytes) -> bytes:
    """What a file is believed by: good code under the name of other code is as bad as damaged code."""
    return hashlib.sha256(f"{path.parent.name}/{path.name}\0".encode() + payload).digest()


def _drop_oldest(folder: Path, too_much: Callable[[int, int], bool]) -> None:
    """Delete the files that were not used for the longest time while ``too_much(files, bytes)``."""
    files: list[tuple[float, int, str]] = []
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(parent, name))
                files.append((status.st_mtime, status.st_size, os.path.join(parent, name)))
    count, size_bytes = len(files), sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if not too_much(count, size_bytes):
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        count, size_bytes = count - 1, size_bytes - size


def _pack(unit: StoredUnit) -> bytes:
    manifest = json.dumps(
        {
            "tier": unit.tier,
            "ranges": [(place, len(code)) for place, code in unit.ranges],
            "places": [place for place, _ in unit.sites],
            "names": "\n".join(name for _, name in unit.sites),
            "entries": sorted(unit.entries),
            "added": sorted(unit.added),
            "calls": unit.calls,
            "leaves": unit.leaves,
            "ends_at_once": unit.ends_at_once,
            "holes": unit.holes,
        }
    ).encode()
    code = b"".join(code for _, code in unit.ranges)
    return _SIZES.pack(len(manifest), len(code), len(unit.code)) + manifest + code + unit.code


def _unpack(payload: bytes) -> StoredUnit:
    """The checksum has been seen to be right."""
    manifest_bytes, code_bytes, object_bytes = _SIZES.unpack_from(payload)
    start = _SIZES.size + manifest_bytes
    manifest = json.loads(payload[_SIZES.size : start])
    ranges = []
    at = start
    for place, size_bytes in manifest["ranges"]:
        ranges.append((place, payload[at : at + size_bytes]))
        at += size_bytes
    names = manifest["names"].split("\n")
    start += code_bytes
    return StoredUnit(
        tier=manifest["tier"],
        ranges=tuple(ranges),
        sites=tuple(zip(manifest["places"], names, strict=True)),
        entries=frozenset((place, mode) for place, mode in manifest["entries"]),
        added=frozenset((place, mode) for place, mode in manifest["added"]),
        calls=tuple(manifest["calls"]),
        leaves=manifest["leaves"],
        ends_at_once=manifest["ends_at_once"],
        holes=tuple(manifest["holes"]),
        code=payload[start : start + object_bytes],
    )
