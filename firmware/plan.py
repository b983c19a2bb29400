"""In which order the pieces of a firmware set go to the PSP.

Linux 6.12 amdgpu_psp.c: psp_hw_start (boot loader, TOC, SMU before the TMR where the power firmware manages C-states),
psp_load_non_psp_fw (the order of enum AMDGPU_UCODE_ID, RLC autoload after RLC_G), psp_load_fw (ASD, register list).

``scope="compute"`` is the shorter list that tinygrad's AM driver is reported to boot a Navi31 with (0.14.0,
runtime/support/am/amdev.py: AMFirmware, ip.py: AM_PSP): no graphics engines, no schedulers, no TAs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, NamedTuple

from amdrv.errors import MalformedInput, Unsupported
from amdrv.facts.psp import FwType
from amdrv.firmware.container import parse_container
from amdrv.firmware.image import FirmwareImage
from amdrv.firmware.needs import IpVersion, Scope

Stage = Literal["bootloader", "toc", "before_tmr", "after_tmr", "after_autoload", "asd"]
"""When a piece is loaded. Between the stages the driver creates the PSP ring (after ``bootloader``), learns the size of
the trusted memory region (``toc``), sets it up (after ``before_tmr``), starts RLC autoload (after ``after_tmr``)."""


class PspLoad(NamedTuple):
    """One command to the PSP: which piece of which image it loads as what."""

    stage: Stage
    name: str  # what the command is to load: "KDB", "RS64_MEC", ...
    fw_type: FwType | None  # for LOAD_IP_FW; None where the stage's own command says it
    image: str  # file name, for messages
    data: memoryview
    version: int
    sha256: bytes  # of data


class _Row(NamedTuple):
    stage: Stage
    name: str
    role: str
    compute: bool = True
    required: bool = True
    piece: str = ""  # the piece that is handed over, where it is not the one named


def _after_tmr(role: str, *names: str, compute: bool = True, required: bool = True) -> tuple[_Row, ...]:
    return tuple(_Row("after_tmr", name, role, compute, required) for name in names)


_PSP13_GFX11: tuple[_Row, ...] = (
    _Row("bootloader", "KDB", "sos"),
    # psp_v13_0_bootloader_load_spl hands over the key database, not the SPL piece, and silicon takes it.
    _Row("bootloader", "SPL", "sos", piece="KDB"),
    _Row("bootloader", "SYS_DRV", "sos"),
    _Row("bootloader", "SOC_DRV", "sos", required=False),
    _Row("bootloader", "INTF_DRV", "sos", required=False),
    _Row("bootloader", "DBG_DRV", "sos", required=False),
    _Row("bootloader", "RAS_DRV", "sos", required=False),
    _Row("bootloader", "SOS", "sos"),
    _Row("toc", "TOC", "sos"),
    _Row("before_tmr", "SMU", "smu"),
    *_after_tmr("sdma", "SDMA_UCODE_TH0", "SDMA_UCODE_TH1"),
    *_after_tmr("pfp", "RS64_PFP", compute=False),
    *_after_tmr("me", "RS64_ME", compute=False),
    *_after_tmr("mec", "RS64_MEC"),
    *_after_tmr("pfp", "RS64_PFP_P0_STACK", "RS64_PFP_P1_STACK", compute=False),
    *_after_tmr("me", "RS64_ME_P0_STACK", "RS64_ME_P1_STACK", compute=False),
    *_after_tmr("mec", "RS64_MEC_P0_STACK"),
    *_after_tmr("mec", "RS64_MEC_P1_STACK", "RS64_MEC_P2_STACK", "RS64_MEC_P3_STACK", compute=False),
    *_after_tmr("mes", "CP_MES", "MES_STACK", compute=False),
    *_after_tmr("mes_kiq", "CP_MES_KIQ", "MES_KIQ_STACK", compute=False),
    *_after_tmr("imu", "IMU_I", "IMU_D"),
    *_after_tmr("rlc", "RLC_RESTORE_LIST_GPM_MEM", "RLC_RESTORE_LIST_SRM_MEM", compute=False, required=False),
    *_after_tmr("rlc", "RLC_IRAM", "RLC_DRAM_BOOT", "RLC_P", "RLC_V", "RLC_G"),
    _Row("asd", "ASD", "ta", compute=False, required=False),
    _Row("after_autoload", "REG_LIST", "sos", compute=False, required=False),
)

# amdgpu_psp.c: psp_hw_start and psp_load_non_psp_fw for MP0 14.0.3: the bootloader gets the SPL piece, and the power
# firmware comes first of those that go to trusted memory. Pieces of the images: gfx_v12_0.c: gfx_v12_0_init_microcode.
_PSP14_GFX12: tuple[_Row, ...] = (
    *(_Row("bootloader", name, "sos") for name in ("KDB", "SPL", "SYS_DRV")),
    *(
        _Row("bootloader", name, "sos", required=False)
        for name in ("SOC_DRV", "INTF_DRV", "DBG_DRV", "RAS_DRV", "IPKEYMGR_DRV")
    ),
    _Row("bootloader", "SOS", "sos"),
    _Row("toc", "TOC", "sos"),
    *_after_tmr("smu", "SMU"),
    *_after_tmr("sdma", "SDMA_UCODE_TH0"),
    *_after_tmr("pfp", "RS64_PFP", compute=False),
    *_after_tmr("me", "RS64_ME", compute=False),
    *_after_tmr("mec", "RS64_MEC"),
    *_after_tmr("pfp", "RS64_PFP_P0_STACK", compute=False),
    *_after_tmr("me", "RS64_ME_P0_STACK", compute=False),
    *_after_tmr("mec", "RS64_MEC_P0_STACK"),
    *_after_tmr("mec", "RS64_MEC_P1_STACK", compute=False),
    *_after_tmr("mes", "CP_MES", "MES_STACK", compute=False),
    _Row("after_tmr", "CP_MES_KIQ", "mes", compute=False, piece="CP_MES"),
    _Row("after_tmr", "MES_KIQ_STACK", "mes", compute=False, piece="MES_STACK"),
    *_after_tmr("imu", "IMU_I", "IMU_D"),
    *_after_tmr("rlc", "RLC_RESTORE_LIST_GPM_MEM", "RLC_RESTORE_LIST_SRM_MEM", compute=False, required=False),
    *_after_tmr("rlc", "RLC_IRAM", "RLC_DRAM_BOOT", "RLC_G"),
    _Row("asd", "ASD", "ta", compute=False, required=False),
    _Row("after_autoload", "REG_LIST", "sos", compute=False, required=False),
)

_ORDERS: dict[tuple[IpVersion, IpVersion], tuple[_Row, ...]] = {  # by MP0 and GC
    ((13, 0, 0), (11, 0, 0)): _PSP13_GFX11,
    ((14, 0, 3), (12, 0, 1)): _PSP14_GFX12,
}


def load_plan(
    images: Mapping[str, FirmwareImage], versions: Mapping[str, IpVersion], scope: Scope = "all"
) -> tuple[PspLoad, ...]:
    """Pieces in the order in which the PSP is to get them.

    Args:
        images: parsed images by role ("sos", "smu", ...), as `needs_for` names the roles.
        versions: IP versions of at least MP0 and GC.
        scope: everything that Linux loads, or only what compute needs.

    Raises:
        Unsupported: no order is known for these IP versions.
        MalformedInput: an image lacks a piece, or a piece is no signed container.
    """
    key = (versions["MP0"], versions["GC"])
    if key not in _ORDERS:
        raise Unsupported(f"no firmware load order is known for PSP {key[0]} with GC {key[1]}")
    digests: dict[tuple[str, int], bytes] = {}  # engines share data images of 136 KiB: hash each once
    loads: list[PspLoad] = []
    for row in _ORDERS[key]:
        image = images.get(row.role)
        if scope == "compute" and not row.compute:
            continue
        piece = row.piece or row.name
        section = None if image is None else image.section(piece)
        if image is None or section is None:
            if not row.required:
                continue
            raise MalformedInput(f"firmware image {row.role if image is None else image.name} has no piece {piece}")
        slot = (image.name, section.offset_bytes)
        if slot not in digests:
            parse_container(f"firmware image {image.name}: {section.name}", section.data)
            digests[slot] = hashlib.sha256(section.data).digest()
        fw_type = None if row.stage in ("bootloader", "asd") else FwType[row.name]
        loads.append(PspLoad(row.stage, row.name, fw_type, image.name, section.data, section.version, digests[slot]))
    return tuple(loads)
