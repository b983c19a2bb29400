"""Which firmware an emulated chip trusts: boot-ROM keys, and the keys of the database that was loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from amdrv.emulator.models.psp_verify import ImageRejected, Piece, Problem, authenticate
from amdrv.facts.firmware_auth import PIECE_TYPES, KnownPiece, RootKey, known_pieces

CONTAINER_TYPES_OF = {kind.name: kind.container_types for kind in PIECE_TYPES}
NAME_OF_FW_TYPE = {int(kind.gfx_fw_type): kind.name for kind in PIECE_TYPES if kind.gfx_fw_type is not None}


class Trust:
    """The PSP's key ring. Names are those of amdrv/facts/firmware_auth.py."""

    def __init__(self, rejects: Callable[[str], bool], roots: Sequence[RootKey]) -> None:
        """``roots`` are the boot ROM's keys; ``rejects`` tells of a piece, by name, that an injected fault fails."""
        self._rejects = rejects
        self._roots = roots
        self._keys: dict[bytes, int] = {}
        self._known: tuple[KnownPiece, ...] | None = None

    def power_on(self) -> None:
        """Back to the keys of the boot ROM."""
        self._keys.clear()

    def add_keys(self, keys: Mapping[bytes, int]) -> None:
        """Trust the keys (id → modulus) of an accepted key database."""
        self._keys.update(keys)

    def authenticate(self, data: bytes, names: Sequence[str]) -> Piece:
        """The piece in ``data`` when it is one of ``names`` and genuine; raises ImageRejected."""
        if any(self._rejects(name) for name in names):
            raise ImageRejected(Problem.BAD_SIGNATURE, "an injected fault")
        if self._known is None:
            self._known = known_pieces()
        types = frozenset(kind for name in names for kind in CONTAINER_TYPES_OF[name])
        return authenticate(data, names, types, self._keys, self._roots, self._known)
