"""Whether the pieces of a firmware set are genuine: what `amdrv firmware verify` reports.

The driver does not need this to boot, since the PSP checks every piece itself; it tells a person beforehand which file
is bad. Pieces whose key the set's key database lists get a real signature check. The keys of KDB, SPL, SYS_DRV and sOS
are in the boot ROM and AMD has not published them: those pieces are compared with a table of digests instead, and one
that is not in the table can only be called consistent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from amdrv.errors import MalformedInput
from amdrv.facts.firmware_auth import PIECE_TYPES, ROOT_KEYS, known_pieces
from amdrv.firmware.container import Container, parse_container, parse_key_database
from amdrv.firmware.image import FirmwareImage, Section
from amdrv.firmware.signature import PublicKey, verify

Verdict = Literal["signed", "known", "consistent", "bad"]
"""``signed``: a right signature. ``known``: no public key, but a digest of the table. ``consistent``: no public key and
not in the table; sizes and body digest hold. ``bad``: damaged, altered, or not of the kind or key it should be."""


class PieceVerdict(NamedTuple):
    """What is known about one piece of one image."""

    image: str
    piece: str
    size_bytes: int
    version: int  # as the signed header states it
    verdict: Verdict
    detail: str


_TYPE_IDS = {piece.name: piece.container_types for piece in PIECE_TYPES}


def authenticate(images: Mapping[str, FirmwareImage]) -> tuple[PieceVerdict, ...]:
    """A verdict for every piece of ``images`` (by role), key database first.

    Pieces of kinds without a known type id (trusted applications of other cards) are judged by their signature alone.
    """
    keys = {root.key_id: PublicKey(root.modulus, 0x10001, 0) for root in ROOT_KEYS if root.modulus is not None}
    rows: list[PieceVerdict] = []
    sections = [(image, section) for image in images.values() for section in image.sections]
    for image, section in sorted(sections, key=lambda pair: pair[1].name != "KDB"):
        row = _judge(image, section, keys)
        rows.append(row)
        if section.name == "KDB" and row.verdict != "bad":
            keys.update(parse_key_database(f"firmware image {image.name}: KDB", parse_container("KDB", section.data)))
    return tuple(rows)


def _judge(image: FirmwareImage, section: Section, keys: Mapping[bytes, PublicKey]) -> PieceVerdict:
    def row(version: int, verdict: Verdict, detail: str) -> PieceVerdict:
        return PieceVerdict(image.name, section.name, len(section.data), version, verdict, detail)

    try:
        container = parse_container(section.name, section.data)
        if section.name == "KDB":
            parse_key_database(section.name, container)
    except MalformedInput as error:
        return row(0, "bad", str(error))
    expected = _TYPE_IDS.get(section.name, (container.type_id,))
    if container.type_id not in expected:
        wanted = " or ".join(f"{type_id:#06x}" for type_id in expected)
        return row(container.version, "bad", f"its type is {container.type_id:#06x}, expected {wanted}")
    return row(container.version, *_judge_signature(section.name, container, keys))


def _judge_signature(piece: str, container: Container, keys: Mapping[bytes, PublicKey]) -> tuple[Verdict, str]:
    key = keys.get(container.key_id)
    if key is not None:
        if verify(container.signed, container.signature, key):
            return "signed", f"RSA-{key.modulus.bit_length()} signature by key {container.key_id.hex()[:8]}"
        return "bad", f"the signature is not one by key {container.key_id.hex()[:8]}"
    if not any(root.key_id == container.key_id and piece in root.pieces for root in ROOT_KEYS):
        return "bad", f"signed by key {container.key_id.hex()[:8]}, which the key database does not list"
    if not container.body_digest_matches:
        return "bad", "the body does not have the digest that its header states"
    same_body = [known for known in known_pieces() if known.body_sha256 == container.body_digest]
    for known in same_body:
        if known.sha256 == container.sha256:
            return "known", f"as in {known.package}"
    # AMD signs the SPL anew for each release without changing it: a body listed more than once may come with yet
    # another signature. A body listed once, with another header or signature, has been altered.
    if len(same_body) == 1:
        return "bad", f"header or signature differ from those in {same_body[0].package}"
    return "consistent", "no public key, and not in the table of digests"
