"""What a PSP can check a firmware piece against: piece types, boot-ROM key ids, digests of known genuine pieces.

Shared facts of the firmware room (which reads images) and of the emulated PSP (which accepts or rejects them).

How established: every piece in Debian's firmware-amd-graphics for Navi31 is a signed container whose 16-bit type id
sits at offset 0x58 and whose key id sits at 0x38; both were read from all images of the versions that
firmware_digests.txt lists.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from amdrv.facts.psp import FwType


class PieceType(NamedTuple):
    """One kind of piece: what the load command calls it and what its container calls itself."""

    name: str
    gfx_fw_type: FwType | None  # of LOAD_IP_FW; None where another command loads the piece
    container_type: int  # 16 bits at container offset 0x58
    later_types: tuple[int, ...] = ()  # what they are on later chips, where that differs

    @property
    def container_types(self) -> tuple[int, ...]:
        """Every type that a genuine container of this kind has."""
        return (self.container_type, *self.later_types)


class RootKey(NamedTuple):
    """A key that the boot ROM holds, so that it is in no key database."""

    key_id: bytes
    pieces: tuple[str, ...]
    modulus: int | None  # None: AMD's key, of which only the id is public


class KnownPiece(NamedTuple):
    """A genuine piece whose signature nobody outside AMD can check, known by its digest."""

    sha256: bytes  # of the container: header, body, signature
    body_sha256: bytes  # as the header states it: a SHA-384 in the second format
    size_bytes: int
    piece: str
    image: str
    package: str


# Pieces of one RS64 engine share one data image: the containers of P0..P3 are the same bytes.
PIECE_TYPES: tuple[PieceType, ...] = (
    PieceType("KDB", None, 0x004F),
    PieceType("SPL", None, 0x0056),
    PieceType("SYS_DRV", None, 0x000A),
    PieceType("SOS", None, 0x0009),
    PieceType("SOC_DRV", None, 0x014A),  # this and the next three: read from psp_13_0_10_sos.bin, absent on Navi31
    PieceType("DBG_DRV", None, 0x014B),
    PieceType("INTF_DRV", None, 0x014C),
    PieceType("RAS_DRV", None, 0x0152),
    PieceType("IPKEYMGR_DRV", None, 0x01E1),  # read from psp_14_0_3_sos.bin
    PieceType("TOC", FwType.TOC, 0x200E),
    PieceType("ASD", None, 0x0000),
    PieceType("TA_RAS", None, 0x0000, (0x0F1B,)),  # psp_14_0_3_ta.bin
    PieceType("TA_HDCP", None, 0x0000),
    PieceType("TA_DTM", None, 0x0000),
    PieceType("SMU", FwType.SMU, 0x1001),
    PieceType("SDMA_UCODE_TH0", FwType.SDMA_UCODE_TH0, 0x203E, (0x2025,)),  # sdma_7_0_1.bin
    PieceType("SDMA_UCODE_TH1", FwType.SDMA_UCODE_TH1, 0x203F),
    PieceType("RS64_PFP", FwType.RS64_PFP, 0x2044),
    PieceType("RS64_ME", FwType.RS64_ME, 0x2046),
    PieceType("RS64_MEC", FwType.RS64_MEC, 0x2048),
    PieceType("RS64_PFP_P0_STACK", FwType.RS64_PFP_P0_STACK, 0x2045),
    PieceType("RS64_PFP_P1_STACK", FwType.RS64_PFP_P1_STACK, 0x2045),
    PieceType("RS64_ME_P0_STACK", FwType.RS64_ME_P0_STACK, 0x2047),
    PieceType("RS64_ME_P1_STACK", FwType.RS64_ME_P1_STACK, 0x2047),
    PieceType("RS64_MEC_P0_STACK", FwType.RS64_MEC_P0_STACK, 0x2049),
    PieceType("RS64_MEC_P1_STACK", FwType.RS64_MEC_P1_STACK, 0x2049),
    PieceType("RS64_MEC_P2_STACK", FwType.RS64_MEC_P2_STACK, 0x2049),
    PieceType("RS64_MEC_P3_STACK", FwType.RS64_MEC_P3_STACK, 0x2049),
    PieceType("CP_MES", FwType.CP_MES, 0x2007),
    PieceType("MES_STACK", FwType.MES_STACK, 0x2008),
    # Of the one image for both pipes, gc_12_0_1_uni_mes.bin, each pipe gets the same pieces.
    PieceType("CP_MES_KIQ", FwType.CP_MES_KIQ, 0x2042, (0x2007,)),
    PieceType("MES_KIQ_STACK", FwType.MES_KIQ_STACK, 0x2043, (0x2008,)),
    PieceType("IMU_I", FwType.IMU_I, 0x203B),
    PieceType("IMU_D", FwType.IMU_D, 0x203C),
    PieceType("RLC_RESTORE_LIST_GPM_MEM", FwType.RLC_RESTORE_LIST_GPM_MEM, 0x200B),
    PieceType("RLC_RESTORE_LIST_SRM_MEM", FwType.RLC_RESTORE_LIST_SRM_MEM, 0x200C),
    PieceType("RLC_IRAM", FwType.RLC_IRAM, 0x2016),
    PieceType("RLC_DRAM_BOOT", FwType.RLC_DRAM_BOOT, 0x2017),
    PieceType("RLC_P", FwType.RLC_P, 0x200F),
    PieceType("RLC_V", FwType.RLC_V, 0x200A),
    PieceType("RLC_G", FwType.RLC_G, 0x2009),
    PieceType("REG_LIST", FwType.REG_LIST, 0x0135),
)

ROOT_PIECES = ("KDB", "SPL", "SYS_DRV", "SOS")

SYNTHETIC_ROOT_KEY_ID = b"amdrv-synth-root"
_SYNTHETIC_ROOT_MODULUS = int(
    "b9d7d57f1ba46b70da2eef65a5c4ee85ce20e36ffe4590297cf6234a4048b392209cc61e892788be32aff1014d9a90b9"
    "7c6644a45def9e5f1b9f51e62d466a93ca4282da0a0a59320735c989ace777aabe64af03d00b820ef81662f15f197791"
    "7c13220bda158ffa919852b783742a29bef67d605d1e2de0073211d479e867374c4a5e2d7dd22f88681209880a0406c0"
    "e773281ab0046d993f55da4e38ef4a1e6c8d1aa265c4ecce327ca4218929451f3688f2e73a3efc38755b5be68ceb9690"
    "2d89ca6f579cd2e1b9e61d498c2449d25600400e4665a885af84ad8db510ce255d78613aeca9aed83b9b57c865848910"
    "36a9b6615f0d6e9128d2e7e999bb1f33",
    16,
)

# The key of this project's synthetic images. Its private half is published with them: it protects nothing.
_SYNTHETIC_ROOT = RootKey(SYNTHETIC_ROOT_KEY_ID, ROOT_PIECES, _SYNTHETIC_ROOT_MODULUS)

NAVI31_ROOT_KEYS: tuple[RootKey, ...] = (  # MP0 13.0.0
    RootKey(bytes.fromhex("579a9cb60f674203b2bd47c5b41f9bf7"), ("KDB",), None),
    RootKey(bytes.fromhex("e14e6fe2d5ca474b9149ab3948d96754"), ("SPL",), None),
    RootKey(bytes.fromhex("fc0fe9a89ccd40589008ffafa2f5178e"), ("SYS_DRV", "SOS"), None),
    _SYNTHETIC_ROOT,
)
# MP0 14.0.3: the key database is loaded before anything that its keys sign, SYS_DRV and SOS among them.
NAVI48_ROOT_KEYS: tuple[RootKey, ...] = (
    RootKey(bytes.fromhex("e49fc37411e14a57bcb93913bac1e043"), ("KDB",), None),
    RootKey(bytes.fromhex("f4df025b37194be3afabc96f8132d22d"), ("SPL",), None),
    _SYNTHETIC_ROOT,
)
ROOT_KEYS = (*NAVI31_ROOT_KEYS, *NAVI48_ROOT_KEYS[:-1])


def known_pieces() -> tuple[KnownPiece, ...]:
    """Genuine boot-loader pieces by digest, from firmware_digests.txt (made by tools/generate_firmware_digests.py)."""
    table = Path(__file__).with_name("firmware_digests.txt").read_text(encoding="ascii")
    rows = (line.split() for line in table.splitlines() if line and not line.startswith("#"))
    return tuple(
        KnownPiece(bytes.fromhex(digest), bytes.fromhex(body), int(size), piece, image, f"{package} {version}")
        for digest, body, size, piece, image, package, version in rows
    )
