"""Synthetic firmware, so that an emulated card boots without a download.

Each file has the header version, the pieces, the piece types and the version numbers of the genuine one of the same
name (firmware-amd-graphics 20260916-1~bpo13+1), in a few KiB. What the pieces hold is a label and pseudo-random bytes:
no code of anybody. They are signed containers like genuine ones, by the published keys of `synthetic_keys`, so a PSP
can tell a damaged, exchanged or foreign piece from a right one by the same check. Same arguments, same bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from amdrv.errors import NotFound
from amdrv.facts.firmware_auth import PIECE_TYPES, ROOT_PIECES, SYNTHETIC_ROOT_KEY_ID
from amdrv.firmware import container as c
from amdrv.firmware.headers import COMMON_FIELDS, COMMON_HEADER, LAYOUTS, PSP_FW_TYPES, TA_FW_TYPES, Layout, kind_of
from amdrv.firmware.synthetic_keys import COMPONENT_KEY, ROOT_KEY

_PAYLOAD_OFFSET_BYTES = 0x100
_BODY_SIZE_BYTES = 0x800
_PADDING_SIZE_BYTES = 0x400  # behind the signature of data images; genuine ones have some 130 KiB of zeros there
_KDB_VERSION = 0x04003100

# Usages under which Navi31's key database lists keys, by piece signed with them. All others have the graphics key. This
# project's database is the same for every chip.
_GRAPHICS_USAGE = 0x0A
_USAGES: Mapping[str, int] = {
    "ASD": 0x11,
    "TA_HDCP": 0x11,
    "TA_DTM": 0x11,
    "TA_RAS": 0x3A,
    "SMU": 0x2F,
    "IMU_I": 0x8B,
    "IMU_D": 0x8B,
    "REG_LIST": 0x3C,
}
_TYPE_IDS = {piece.name: piece.container_type for piece in PIECE_TYPES}


class _File(NamedTuple):
    """What distinguishes one file: header version, versions and pieces (with the version in their container)."""

    name: str
    header_version: tuple[int, int]
    ip_version: tuple[int, int]
    ucode_version: int
    pieces: tuple[tuple[str, int], ...]
    fields: Mapping[str, int] = MappingProxyType({})
    padded: bool = False  # pieces after the first are data images with padding


_RS64 = {
    "ucode_feature_version": 0x1D,
    "code_offset_bytes": _PAYLOAD_OFFSET_BYTES,
    "start_address_lo": 0x3000,
    "start_address_hi": 0x70000,
}
_MES = {
    "start_address_lo": 0xF0005000,
    "start_address_hi": 0xFFFFFFFF,
    "data_start_address_lo": 0xF0100000,
    "data_start_address_hi": 0xFFFFFFFF,
}
_RLC = {
    "ucode_feature_version": 1,
    "rlcp_version": 0x19,
    "rlcp_feature": 1,
    "rlcv_version": 0x22,
    "rlcv_feature": 1,
}


def _rs64(engine: str, version: int, gc: tuple[int, int, int] = (11, 0, 0)) -> _File:
    code = f"RS64_{engine.upper()}"
    pieces = ((code, version), (f"{code}_P0_STACK", version))
    name = f"gc_{gc[0]}_{gc[1]}_{gc[2]}_{engine}.bin"
    return _File(name, (2, 0), gc[:2], version, pieces, _RS64, padded=True)


_FILES: dict[str, tuple[_File, ...]] = {
    "gfx1100": (
        _File(
            "psp_13_0_0_sos.bin",
            (2, 0),
            (13, 0),
            0x310036,
            (
                ("SYS_DRV", 0x310036),
                ("SOS", 0x310036),
                ("TOC", 0x0C),
                ("KDB", _KDB_VERSION),
                ("SPL", 0x010031C0),
                ("REG_LIST", 0x07001C00),
            ),
        ),
        _File(
            "psp_13_0_0_ta.bin",
            (2, 0),
            (13, 0),
            0,
            (("ASD", 0x21000118), ("TA_HDCP", 0x17000053), ("TA_DTM", 0x1200001F), ("TA_RAS", 0x1B000205)),
        ),
        _File("smu_13_0_0.bin", (2, 1), (13, 0), 0x4E8700, (("SMU", 0x4E8700),), {"ucode_start_address": 0x20000}),
        _File(
            "sdma_6_0_0.bin",
            (2, 0),
            (6, 0),
            0x1B,
            (("SDMA_UCODE_TH0", 0x1B), ("SDMA_UCODE_TH1", 0x1B)),
            {"ucode_feature_version": 0x3C},
        ),
        _rs64("pfp", 0xA96),
        _rs64("me", 0x9EC),
        _rs64("mec", 0xAE6),
        _File(
            "gc_11_0_0_rlc.bin",
            (2, 3),
            (11, 0),
            0x80,
            (
                ("RLC_G", 0x80),
                ("RLC_RESTORE_LIST_GPM_MEM", 6),
                ("RLC_RESTORE_LIST_SRM_MEM", 6),
                ("RLC_IRAM", 0x01002F00),
                ("RLC_DRAM_BOOT", 0x01002F00),
                ("RLC_P", 0x19),
                ("RLC_V", 0x22),
            ),
            _RLC,
        ),
        _File("gc_11_0_0_imu.bin", (1, 0), (11, 0), 0x0B1F4B00, (("IMU_I", 0x0B1F4B00), ("IMU_D", 0x0B1F4B00))),
        _File("gc_11_0_0_mes_2.bin", (1, 0), (11, 0), 0, (("CP_MES", 0x92), ("MES_STACK", 0x92)), _MES, True),
        _File("gc_11_0_0_mes1.bin", (1, 0), (11, 0), 0, (("CP_MES_KIQ", 0x113), ("MES_KIQ_STACK", 0x113)), _MES, True),
    ),
    "gfx1201": (
        _File(
            "psp_14_0_3_sos.bin",
            (2, 0),
            (14, 0),
            0x3A1214,
            (
                ("KDB", 0x703B0001),
                ("SYS_DRV", 0x3A1214),
                ("SOS", 0x3A1214),
                ("SOC_DRV", 0x3A1214),
                ("INTF_DRV", 0x3A1214),
                ("DBG_DRV", 0x3A1214),
                ("TOC", 0),
                ("IPKEYMGR_DRV", 0x3A1214),
                ("SPL", 0x01003A00),
                ("RAS_DRV", 0x3A1214),
                ("REG_LIST", 0),
            ),
        ),
        _File(
            "psp_14_0_3_ta.bin",
            (2, 0),
            (14, 0),
            0,
            (("ASD", 0x21000118), ("TA_HDCP", 0x17000053), ("TA_DTM", 0x1200001F), ("TA_RAS", 0x1B3A0001)),
        ),
        _File("smu_14_0_3.bin", (2, 0), (14, 0), 0x685000, (("SMU", 0x685000),), {"ucode_start_address": 0x20000}),
        _File(
            "sdma_7_0_1.bin",
            (3, 0),
            (7, 0),
            0x798E96,
            (("SDMA_UCODE_TH0", 0xEBED6),),
            {"ucode_feature_version": 0x40798E96},
        ),
        *(_rs64(engine, number, (12, 0, 1)) for engine, number in (("pfp", 0xC76), ("me", 0xC12), ("mec", 0xD7A))),
        _File(
            "gc_12_0_1_rlc.bin",
            (2, 2),
            (12, 0),
            0xBE7DA0,
            (
                ("RLC_G", 0xBE7DA0),
                ("RLC_RESTORE_LIST_GPM_MEM", 0),
                ("RLC_RESTORE_LIST_SRM_MEM", 0),
                ("RLC_IRAM", 0x12484000),
                ("RLC_DRAM_BOOT", 0x12484000),
            ),
            {"ucode_feature_version": 0x3E8},
        ),
        _File("gc_12_0_1_imu.bin", (1, 0), (12, 0), 0x0C302B00, (("IMU_I", 0x0C302B00), ("IMU_D", 0x0C302B00))),
        _File("gc_12_0_1_uni_mes.bin", (1, 0), (12, 0), 0, (("CP_MES", 0x93), ("MES_STACK", 0x93)), _MES, True),
    ),
}


def key_id(usage: int) -> bytes:
    """Id under which the synthetic key database lists the key for ``usage``."""
    return b"amdrv-synth-k%03x" % usage


@cache
def images_for(arch: str, seed: str = "") -> Mapping[str, bytes]:
    """A complete set of firmware files by name.

    Args:
        arch: which card's set.
        seed: another seed gives another content, as a firmware update would: validly signed and not identical.

    Raises:
        NotFound: no set is described for ``arch``.
    """
    if arch not in _FILES:
        raise NotFound(f"no synthetic firmware for {arch}; there is some for {', '.join(_FILES)}")
    return MappingProxyType({file.name: _build(file, seed) for file in _FILES[arch]})


def make_piece(
    name: str, version: int = 1, seed: str = "", body: bytes | None = None, type_id: int | None = None
) -> bytes:
    """One signed piece.

    Args:
        name: piece name of `amdrv.facts.firmware_auth.PIECE_TYPES`; picks type id and key.
        version: version in the container's header.
        seed: changes the generated body.
        body: instead of a generated body.
        type_id: instead of the piece's own type id.
    """
    if body is None:
        body = _key_database() if name == "KDB" else _filler(name, seed)
    is_root = name in ROOT_PIECES
    key = ROOT_KEY if is_root else COMPONENT_KEY
    signature_size = key.public().size_bytes
    header = bytearray(c.HEADER_SIZE_BYTES)
    header[0:16] = hashlib.sha256(f"nonce {name} {seed}".encode()).digest()[:16]
    if name != "KDB":  # genuine key databases have no magic here
        header[c.MAGIC_OFFSET : c.MAGIC_OFFSET + 4] = c.MAGIC
    for offset, value in (
        (c.BODY_SIZE_OFFSET, len(body)),
        (c.SIGNED_OFFSET, 1),
        (c.VERSION_OFFSET, version),
        (c.TOTAL_SIZE_OFFSET, c.HEADER_SIZE_BYTES + len(body) + signature_size),
    ):
        header[offset : offset + 4] = value.to_bytes(4, "little")
    header[c.TYPE_OFFSET : c.TYPE_OFFSET + 2] = (_TYPE_IDS[name] if type_id is None else type_id).to_bytes(2, "little")
    signer = SYNTHETIC_ROOT_KEY_ID if is_root else key_id(_USAGES.get(name, _GRAPHICS_USAGE))
    header[c.KEY_ID_OFFSET : c.KEY_ID_OFFSET + c.KEY_ID_SIZE_BYTES] = signer
    header[c.BODY_DIGEST_OFFSET : c.BODY_DIGEST_OFFSET + 32] = hashlib.sha256(body).digest()
    signed = bytes(header) + body
    return signed + key.sign(signed, salt=hashlib.sha256(signed).digest())


def _filler(name: str, seed: str) -> bytes:
    label = f"amdrv synthetic firmware, not code: {name} {seed}".encode().ljust(96, b"\0")[:96]
    return label + hashlib.shake_128(f"{name} {seed}".encode()).digest(_BODY_SIZE_BYTES - len(label))


def _key_database() -> bytes:
    """Body of the key database: every usage's key is the same one, under its own id."""
    entries = bytearray()
    for usage in sorted({_GRAPHICS_USAGE, *_USAGES.values()}):
        public = COMPONENT_KEY.public(usage)
        size, bits = public.size_bytes, public.modulus.bit_length()
        words = (0x50 + size, 1, usage, public.exponent)
        entry = b"".join(word.to_bytes(4, "little") for word in words) + key_id(usage) + bits.to_bytes(4, "little")
        entries += entry.ljust(0x50, b"\0") + public.modulus.to_bytes(size, "little")
    size_bytes = 0x50 + len(entries) + 0x50  # ends with an empty entry
    head = size_bytes.to_bytes(4, "little") + (1).to_bytes(4, "little") + c.KEY_DATABASE_MAGIC
    return head.ljust(0x50, b"\0") + bytes(entries) + bytes(0x50)


def _build(file: _File, seed: str) -> bytes:
    """Header and payload of one file."""
    kind = kind_of(file.name)
    layout = LAYOUTS[kind][file.header_version]
    payload = bytearray()
    placed: dict[str, tuple[int, int, int]] = {}  # piece → offset in the payload, size, version
    for index, (name, version) in enumerate(file.pieces):
        piece = make_piece(name, version, seed)
        if file.padded and index > 0:
            piece += bytes(_PADDING_SIZE_BYTES)
        placed[name] = (len(payload), len(piece), version)
        payload += piece
    header = {
        "size_bytes": _PAYLOAD_OFFSET_BYTES + len(payload),
        "header_size_bytes": layout.size_bytes,
        "header_version_major": file.header_version[0],
        "header_version_minor": file.header_version[1],
        "ip_version_major": file.ip_version[0],
        "ip_version_minor": file.ip_version[1],
        "ucode_version": file.ucode_version,
        "payload_size_bytes": len(payload),
        "payload_offset_bytes": _PAYLOAD_OFFSET_BYTES,
        **file.fields,
        **_section_fields(layout, placed),
    }
    fields = b"".join(header.get(name, 0).to_bytes(4, "little") for name in layout.fields)
    rest = (fields + _descriptors(kind, layout, placed)).ljust(_PAYLOAD_OFFSET_BYTES - COMMON_HEADER.size, b"\0")
    rest += payload
    header["crc32"] = zlib.crc32(rest)
    return COMMON_HEADER.pack(*(header[name] for name in COMMON_FIELDS)) + rest


def _section_fields(layout: Layout, placed: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
    """Size and offset fields of the layout's rules; those counted from the payload follow from the order."""
    fields: dict[str, int] = {}
    for rule in layout.sections:
        if rule.names[0] in placed:
            offset, size, _ = placed[rule.names[0]]
            fields[rule.size[0][0]] = size
            if rule.offset[0][0] != "payload_offset_bytes":
                fields[rule.offset[0][0]] = _PAYLOAD_OFFSET_BYTES + offset
    if "dram_offset_bytes" in layout.fields and "IMU_D" in placed:
        fields["dram_offset_bytes"] = placed["IMU_D"][0]  # the one offset that no rule reads
    if layout.descriptors is not None:
        fields[layout.descriptors.count_field] = len(placed)
    return fields


def _descriptors(kind: str, layout: Layout, placed: Mapping[str, tuple[int, int, int]]) -> bytes:
    if layout.descriptors is None:
        return b""
    numbers = {name: number for number, name in (PSP_FW_TYPES if kind == "sos" else TA_FW_TYPES).items()}
    return b"".join(
        word.to_bytes(4, "little")
        for name, (offset, size, version) in placed.items()
        for word in (numbers[name], version, offset, size)
    )
