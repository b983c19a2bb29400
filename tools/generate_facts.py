#!/usr/bin/env python3
"""Writes the generated modules of amdrv/facts from the kernel's AMD headers.

usage: generate_facts.py --source "linux-source-6.12 6.12.95-1~bpo12+1" LINUX_TREE OUTPUT_FOLDER

Numbers come from ``#define`` lines and C enums, structure layouts from cffi, which lays the preprocessed declarations
out as a compiler would (``cc -E`` is the only part of a compiler that is needed).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cffi

HEADERS = Path("drivers/gpu/drm/amd")
WIDTH = 120


@dataclass(frozen=True)
class Defines:
    """An IntEnum from ``#define`` lines; ``pattern`` matches the macro's name and its group 1 is the member's name."""

    name: str
    doc: str
    header: str
    pattern: str
    value: str = r"\(?(0x[0-9a-fA-F]+|\d+)\)?"


@dataclass(frozen=True)
class Enumeration:
    """An IntEnum from a C enum; ``c_name`` is its tag (``enum x``) or typedef, ``prefix`` is cut from the names."""

    name: str
    doc: str
    header: str
    c_name: str
    prefix: str
    skip: str = r"$^"


@dataclass(frozen=True)
class Structure:
    """A StructLayout from a C structure.

    Members of nested structures are named ``outer_inner``; names in ``inline`` are left out of that, members in
    ``opaque`` stay one run of bytes. ``skip`` matches members that say nothing (reserved words, padding).
    """

    name: str
    header: str
    c_name: str
    packed: bool = False
    inline: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()
    skip: str = r".*(reserved|[pP]adding|Spare)\w*$"


@dataclass(frozen=True)
class Frame:
    """A BitLayout from a C structure of dwords that has bit fields; ``pack`` is what ``#pragma pack`` says.

    Names are made as those of a Structure; elements of an array get ``_0``, ``_1``, … behind its name.
    """

    name: str
    header: str
    c_name: str
    pack: int
    skip: str = r".*(reserved|[uU]32_?[aA]ll|_t_all|uint32_all|max_dwords_in_api)\w*$"


@dataclass(frozen=True)
class SdmaPacket:
    """A BitLayout from the ``SDMA_PKT_<name>_<word>_<field>_{offset,mask,shift}`` lines of one packet.

    Fields that go on in the next dword (``addr_31_0``, ``addr_63_32``) become one.
    """

    name: str
    header: str


Item = Defines | Enumeration | Structure | Frame | SdmaPacket

PSP = "amdgpu/psp_gfx_if.h"
PSP_DRIVER = "amdgpu/amdgpu_psp.h"
DISCOVERY = "include/discovery.h"
ATOM = "include/atomfirmware.h"
SMU = "pm/swsmu/inc/pmfw_if/smu13_driver_if_v13_0_0.h"
SMU_MESSAGES = "pm/swsmu/inc/pmfw_if/smu_v13_0_0_ppsmc.h"
SMU14 = "pm/swsmu/inc/pmfw_if/smu14_driver_if_v14_0.h"
SMU14_MESSAGES = "pm/swsmu/inc/pmfw_if/smu_v14_0_2_ppsmc.h"

SDMA_PACKETS = "amdgpu/sdma_v6_0_0_pkt_open.h"
SDMA_PACKET_NAMES = (
    "COPY_LINEAR",
    "COPY_BROADCAST_LINEAR",
    "COPY_DIRTY_PAGE",
    "COPY_PHYSICAL_LINEAR",
    "COPY_LINEAR_SUBWIN",
    "COPY_LINEAR_SUBWIN_LARGE",
    "COPY_TILED",
    "COPY_L2T_BROADCAST",
    "COPY_T2T",
    "COPY_TILED_SUBWIN",
    "COPY_STRUCT",
    "WRITE_UNTILED",
    "WRITE_INCR",
    "PTEPDE_COPY",
    "PTEPDE_COPY_BACKWARDS",
    "PTEPDE_RMW",
    "INDIRECT",
    "SEMAPHORE",
    "MEM_INCR",
    "VM_INVALIDATION",
    "FENCE",
    "SRBM_WRITE",
    "PRE_EXE",
    "COND_EXE",
    "CONSTANT_FILL",
    "DATA_FILL_MULTI",
    "POLL_REGMEM",
    "POLL_REG_WRITE_MEM",
    "POLL_DBIT_WRITE_MEM",
    "POLL_MEM_VERIFY",
    "ATOMIC",
    "TIMESTAMP_SET",
    "TIMESTAMP_GET",
    "TRAP",
    "GPUVM_INV",
    "GCR_REQ",
    "NOP",
)
MES_FRAMES = {
    "SET_HW_RESOURCES": "MESAPI_SET_HW_RESOURCES",
    "SET_HW_RESOURCES_1": "MESAPI_SET_HW_RESOURCES_1",
    "SET_SCHEDULING_CONFIG": "MESAPI__SET_SCHEDULING_CONFIG",
    "ADD_QUEUE": "MESAPI__ADD_QUEUE",
    "REMOVE_QUEUE": "MESAPI__REMOVE_QUEUE",
    "PERFORM_YIELD": "MESAPI__PERFORM_YIELD",
    "CHANGE_GANG_PRIORITY": "MESAPI__CHANGE_GANG_PRIORITY_LEVEL",
    "SUSPEND": "MESAPI__SUSPEND",
    "RESUME": "MESAPI__RESUME",
    "RESET": "MESAPI__RESET",
    "SET_LOGGING_BUFFER": "MESAPI__SET_LOGGING_BUFFER",
    "QUERY_MES_STATUS": "MESAPI__QUERY_MES_STATUS",
    "PROGRAM_GDS": "MESAPI__PROGRAM_GDS",
    "SET_DEBUG_VMID": "MESAPI__SET_DEBUG_VMID",
    "MISC": "MESAPI__MISC",
    "UPDATE_ROOT_PAGE_TABLE": "MESAPI__UPDATE_ROOT_PAGE_TABLE",
}


def scheduler(gfx: str, header: str, pack: int, *absent: str) -> tuple[str, tuple[Item, ...]]:
    """A scheduler's interface."""
    enumerations = (
        ("SchedulerOpcode", "opcode of a frame.", "MES_SCH_API_OPCODE", "MES_SCH_API_"),
        ("QueueType", "queue_type.", "MES_QUEUE_TYPE", "MES_QUEUE_TYPE_"),
        ("MiscOpcode", "opcode inside MISC.", "MESAPI_MISC_OPCODE", "MESAPI_MISC__"),
        ("WaitOperation", "op of WAIT_REG_MEM.", "WRM_OPERATION", "WRM_OPERATION__"),
    )
    frames = {name: c_name for name, c_name in MES_FRAMES.items() if name not in absent}
    return f"Messages of the micro engine scheduler of {gfx}: every one is a frame of 64 dwords.", (
        *(Enumeration(name, doc, header, f"enum {c}", prefix, r".*_MAX$") for name, doc, c, prefix in enumerations),
        *(Frame(name, header, f"union {c}", pack) for name, c in {"HEADER": "MES_API_HEADER", **frames}.items()),
    )


MODULES: dict[str, tuple[str, tuple[Item, ...]]] = {
    "pm4_opcodes": (
        "PM4 type-3 opcodes of gfx10 and later.",
        (Defines("Opcode", "IT_OPCODE of a type-3 packet.", "amdgpu/nvd.h", r"PACKET3_(\w+)", r"(0x[0-9a-fA-F]{2})"),),
    ),
    "atomics": (
        "What an atomic packet (PM4 ATOMIC_MEM, SDMA ATOMIC) asks of GL2.",
        (
            Enumeration(
                "AtomicOpcode",
                "ATOMIC of the packet; _RTN forms give the old value back.",
                "include/soc21_enum.h",
                "TC_OP",
                "TC_OP_ATOMIC_",
            ),
        ),
    ),
    "doorbells": (
        "Doorbell assignment of Navi10 and later in 64-bit doorbells: a dword index in BAR2 is twice the number.",
        (
            Enumeration(
                "Doorbell",
                "Number of a 64-bit doorbell.",
                "amdgpu/amdgpu_doorbell.h",
                "enum AMDGPU_NAVI10_DOORBELL_ASSIGNMENT",
                "AMDGPU_NAVI10_DOORBELL",
                r".*(INVALID|MAX_ASSIGNMENT)$",
            ),
        ),
    ),
    "mqd_v11": (
        "Memory queue descriptors of gfx11: what the command processor and SDMA load a queue's registers from.",
        (
            Structure("V11_COMPUTE_MQD", "include/v11_structs.h", "struct v11_compute_mqd", skip=r"reserved_"),
            Structure("V11_SDMA_MQD", "include/v11_structs.h", "struct v11_sdma_mqd", skip=r"reserved_"),
            Structure("V11_GFX_MQD", "include/v11_structs.h", "struct v11_gfx_mqd", skip=r"reserved_"),
        ),
    ),
    "mqd_v12": (
        "Memory queue descriptors of gfx12: what the command processor and SDMA load a queue's registers from.",
        (
            Structure("V12_COMPUTE_MQD", "include/v12_structs.h", "struct v12_compute_mqd", skip=r"reserved_"),
            Structure("V12_SDMA_MQD", "include/v12_structs.h", "struct v12_sdma_mqd", skip=r"reserved_"),
            Structure("V12_GFX_MQD", "include/v12_structs.h", "struct v12_gfx_mqd", skip=r"reserved_"),
        ),
    ),
    "sdma_v6_0": (
        "Packets of the SDMA engines of gfx11: opcodes, bodies. COUNT fields hold one less than they count.",
        (
            Defines("Opcode", "OP of a packet header.", SDMA_PACKETS, r"SDMA_OP_((?!AQL)\w+)"),
            Defines("CopySub", "SUB_OP of COPY.", SDMA_PACKETS, r"SDMA_SUBOP_COPY_(\w+)"),
            Defines("WriteSub", "SUB_OP of WRITE.", SDMA_PACKETS, r"SDMA_SUBOP_WRITE_(\w+)"),
            Defines("PtepdeSub", "SUB_OP of PTEPDE.", SDMA_PACKETS, r"SDMA_SUBOP_PTEPDE_(\w+)"),
            Defines("TimestampSub", "SUB_OP of TIMESTAMP.", SDMA_PACKETS, r"SDMA_SUBOP_TIMESTAMP_(\w+)"),
            Defines(
                "PollSub",
                "SUB_OP of POLL_REGMEM; 0 is the plain wait.",
                SDMA_PACKETS,
                r"SDMA_SUBOP_(?:POLL_)?((?<=POLL_)\w+|VM_INVALIDATION)",
            ),
            Defines("SemaphoreSub", "SUB_OP of SEM.", SDMA_PACKETS, r"SDMA_SUBOP_(MEM_INCR)"),
            Defines("FillSub", "SUB_OP of CONST_FILL.", SDMA_PACKETS, r"SDMA_SUBOP_(DATA_FILL_MULTI)"),
            *(SdmaPacket(name, SDMA_PACKETS) for name in SDMA_PACKET_NAMES),
        ),
    ),
    "mes_v11": scheduler("gfx11", "include/mes_v11_api_def.h", 4),
    "mes_v12": scheduler("gfx12", "include/mes_v12_api_def.h", 8, "PROGRAM_GDS"),
    "psp": (
        "The PSP's interface: bootloader commands, ring frames, command buffers and responses.",
        (
            Enumeration(
                "BootloaderCommand",
                "Written to C2PMSG_35 with the image's address in C2PMSG_36.",
                PSP_DRIVER,
                "enum psp_bootloader_cmd",
                "PSP_BL__",
            ),
            Enumeration("RingType", "Bits 31:16 of C2PMSG_64.", PSP_DRIVER, "enum psp_ring_type", "PSP_RING_TYPE__"),
            Enumeration("ControlCommand", "Through C2PMSG_64.", PSP, "enum psp_gfx_crtl_cmd_id", "GFX_CTRL_CMD_ID_"),
            Enumeration("Command", "cmd_id of a command buffer.", PSP, "enum psp_gfx_cmd_id", "GFX_CMD_ID_"),
            Enumeration("FwType", "fw_type of LOAD_IP_FW.", PSP, "enum psp_gfx_fw_type", "GFX_FW_TYPE_", r".*_MAX$"),
            Enumeration("TeeError", "Status values named in the header.", PSP, "enum tee_error_code", "TEE_"),
            Structure("RING_FRAME", PSP, "struct psp_gfx_rb_frame"),
            Structure("COMMAND_BUFFER", PSP, "struct psp_gfx_cmd_resp", opaque=("cmd", "resp")),
            Structure("LOAD_TA", PSP, "struct psp_gfx_cmd_load_ta"),
            Structure("UNLOAD_TA", PSP, "struct psp_gfx_cmd_unload_ta"),
            Structure("SETUP_TMR", PSP, "struct psp_gfx_cmd_setup_tmr"),
            Structure("LOAD_IP_FW", PSP, "struct psp_gfx_cmd_load_ip_fw"),
            Structure("LOAD_TOC", PSP, "struct psp_gfx_cmd_load_toc"),
            Structure("REG_PROG", PSP, "struct psp_gfx_cmd_reg_prog"),
            Structure("BOOT_CFG", PSP, "struct psp_gfx_cmd_boot_cfg"),
            Structure("RESPONSE", PSP, "struct psp_gfx_resp"),
        ),
    ),
    "smu_v13_0_0": (
        "The SMU 13.0.0 interface: messages, answers, features, tables.",
        (
            Defines("Result", "Answers in the response mailbox.", SMU_MESSAGES, r"PPSMC_Result_(\w+)"),
            Defines("Message", "Message numbers.", SMU_MESSAGES, r"PPSMC_MSG_(\w+)"),
            Defines("Version", "What the headers describe.", SMU, r"(SMU13_0_0_DRIVER_IF|PPTABLE)_VERSION"),
            Defines("DebugMessage", "Messages of the debug mailbox.", SMU_MESSAGES, r"DEBUGSMC_MSG_(\w+)"),
            Defines("Table", "Argument of the TransferTable messages.", SMU, r"TABLE_((?!TRANSFER|COUNT)\w+)"),
            Defines("Feature", "Bit numbers of the feature masks.", SMU, r"FEATURE_((?!SPARE)\w+)_BIT"),
            Defines("Workload", "Bit numbers of SetWorkloadMask.", SMU, r"WORKLOAD_PPLIB_(\w+)_BIT"),
            Enumeration("Clock", "Index of CurrClock; bits 31:16 of frequency messages.", SMU, "PPCLK_e", "PPCLK_"),
            Enumeration("Temperature", "Index of AvgTemperature.", SMU, "TEMP_e", "TEMP_"),
            Enumeration("Throttler", "Index of PPT limits.", SMU, "PPT_THROTTLER_e", "PPT_THROTTLER_"),
            Defines("ThrottleCause", "Index of ThrottlingPercentage.", SMU, r"THROTTLER_(\w+)_BIT"),
            Enumeration("Plane", "Index of AvgVoltage and AvgCurrent.", SMU, "SVI_PLANE_e", "SVI_PLANE_"),
            Structure("METRICS", SMU, "SmuMetricsExternal_t", inline=("SmuMetrics",)),
            Structure("DRIVER_SMU_CONFIG", SMU, "DriverSmuConfigExternal_t", inline=("DriverSmuConfig",)),
        ),
    ),
    "smu_v14_0_2": (
        "The interface of SMU 14.0.2 and 14.0.3: messages, answers, features, tables.",
        (
            Defines("Result", "Answers in the response mailbox.", SMU14_MESSAGES, r"PPSMC_Result_(\w+)"),
            Defines("Message", "Message numbers.", SMU14_MESSAGES, r"PPSMC_MSG_(\w+)"),
            Defines("Version", "What the headers describe.", SMU14, r"(PPTABLE)_VERSION"),
            Defines(
                "Table",
                "Argument of the TransferTable messages.",
                SMU14,
                r"TABLE_((?!TRANSFER|COUNT|\w+_FAILED)\w+)",
            ),
            Defines("Feature", "Bit numbers of the feature masks.", SMU14, r"FEATURE_((?!SPARE)\w+)_BIT"),
            Defines("Workload", "Bit numbers of SetWorkloadMask.", SMU14, r"WORKLOAD_PPLIB_(\w+)_BIT"),
            Enumeration("Clock", "Index of CurrClock; bits 31:16 of frequency messages.", SMU14, "PPCLK_e", "PPCLK_"),
            Enumeration("Temperature", "Index of AvgTemperature.", SMU14, "TEMP_e", "TEMP_"),
            Enumeration("Plane", "Index of AvgVoltage and AvgCurrent.", SMU14, "SVI_PLANE_e", "SVI_PLANE_"),
            Structure("METRICS", SMU14, "SmuMetricsExternal_t", inline=("SmuMetrics",)),
            Structure("DRIVER_SMU_CONFIG", SMU14, "DriverSmuConfigExternal_t", inline=("DriverSmuConfig",)),
        ),
    ),
    "ih_ids": (
        "Who interrupts and why: client ids of SOC21 chips, source ids of their clients.",
        (
            Enumeration(
                "Client",
                "client_id of an interrupt entry.",
                "include/soc15_ih_clientid.h",
                "enum soc21_ih_clientid",
                "SOC21_IH_CLIENTID_",
                r".*_MAX$",
            ),
            Defines(
                "GfxSource",
                "source_id when the client is GFX or GRBM_CP.",
                "include/ivsrcid/gfx/irqsrcs_gfx_11_0_0.h",
                r"GFX_11_0_0__SRCID__(\w+)",
            ),
            Defines(
                "VmcSource",
                "source_id when the client is VMC (MMHUB).",
                "include/ivsrcid/vmc/irqsrcs_vmc_1_0.h",
                r"VMC_1_0__SRCID__(VM_FAULT)",
            ),
        ),
    ),
    "hw_ids": (
        "Hardware ids of the blocks in an IP discovery table.",
        (Defines("HwId", "hw_id of a discovery entry.", "include/soc15_hw_ip.h", r"(\w+)_HWID"),),
    ),
    "discovery_tables": (
        "Layouts of the IP discovery binary.",
        (
            Structure("BINARY_HEADER", DISCOVERY, "binary_header", packed=True, skip=r"table_list$"),
            Structure("TABLE_INFO", DISCOVERY, "table_info", packed=True),
            Structure("IP_DISCOVERY_HEADER", DISCOVERY, "ip_discovery_header", True, skip=r"die_info|padding|reserved"),
            Structure("DIE_INFO", DISCOVERY, "die_info", packed=True),
            Structure("DIE_HEADER", DISCOVERY, "die_header", packed=True),
            *(
                Structure(f"GC_INFO_V{version}", DISCOVERY, f"struct gc_info_v{version}", True, ("header",))
                for version in ("1_0", "1_1", "1_2", "1_3", "2_0", "2_1")
            ),
            Structure("HARVEST_HEADER", DISCOVERY, "harvest_info_header", packed=True),
            Structure("HARVEST_INFO", DISCOVERY, "harvest_info", packed=True),
            Structure("MALL_INFO_V1_0", DISCOVERY, "struct mall_info_v1_0", packed=True, inline=("header",)),
        ),
    ),
    "atom_tables": (
        "Layouts of the tables in a video BIOS.",
        (
            Structure("TABLE_HEADER", ATOM, "struct atom_common_table_header", packed=True),
            Structure("ROM_HEADER", ATOM, "struct atom_rom_header_v2_2", True, ("table_header",)),
            Structure(
                "MASTER_DATA_TABLE",
                ATOM,
                "struct atom_master_data_table_v2_1",
                True,
                ("table_header", "listOfdatatables"),
            ),
            Structure(
                "MASTER_COMMAND_TABLE",
                ATOM,
                "struct atom_master_command_function_v2_1",
                True,
                ("table_header", "listofcmdfunctions"),
                skip=r"cmd_function\d+",
            ),
            Structure(
                "FIRMWARE_INFO_V3_4", ATOM, "struct atom_firmware_info_v3_4", True, ("table_header",), skip=r"reserved"
            ),
            Structure("SMU_INFO_V3_6", ATOM, "struct atom_smu_info_v3_6", True, ("table_header",)),
            Structure("GFX_INFO_V3_0", ATOM, "struct atom_gfx_info_v3_0", True, ("table_header",)),
            Structure("UMC_INFO_V3_3", ATOM, "struct atom_umc_info_v3_3", True, ("table_header",)),
            Structure("VRAM_MODULE_V3_0", ATOM, "struct atom_vram_module_v3_0", packed=True),
            Structure(
                "VRAM_INFO_V3_0", ATOM, "struct atom_vram_info_header_v3_0", True, ("table_header",), ("vram_module",)
            ),
        ),
    ),
}

IDENTIFIER = re.compile(r"[A-Za-z_]\w*$")


class Tree:
    """The kernel tree: header text, and declarations that cffi has laid out."""

    def __init__(self, linux: Path) -> None:
        self.root = linux / HEADERS
        self._declared: dict[tuple[str, bool, int | None], cffi.FFI] = {}

    def text(self, header: str) -> str:
        return (self.root / header).read_text(errors="replace")

    def declared(self, header: str, packed: bool, pack: int | None = None) -> cffi.FFI:
        key = header, packed, pack
        if key not in self._declared:
            ffi = cffi.FFI()
            for declaration in self._declarations(header):
                # cffi evaluates no sizeof, but the types it is asked for are declared by now.
                kept = declaration
                if pack is not None:  # a run of bits may end in padding to more than 32, which cffi does not lay out
                    kept = re.sub(r"uint32_t reserved\s*:\s*\d+;\s*(?=\})", "", kept)
                sized = re.sub(r"sizeof\(([^)]+)\)", lambda found: str(ffi.sizeof(found[1])), kept)
                ffi.cdef(sized, packed=packed, pack=pack)
            self._declared[key] = ffi
        return self._declared[key]

    def _declarations(self, header: str) -> list[str]:
        """Enums and structures of one header without includes, macros or functions."""
        text = re.sub(r"^\s*#\s*(include|pragma).*$", "", self.text(header), flags=re.MULTILINE)
        text = re.sub(r"DECLARE_FLEX_ARRAY\((\w+), (\w+)\);", r"\1 \2[1];", text)
        command = ["cc", "-E", "-P", "-D__packed=", "-D__counted_by(n)=", "-DLITTLEENDIAN_CPU", "-Dvolatile=", "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
        kept = [part for part in top_level(text) if re.match(r"(typedef\s+)?(enum|struct|union)\b", part)]
        if header.startswith("amdgpu/amdgpu_"):  # structures there need the whole driver; the enums are wanted
            kept = [part for part in kept if part.startswith("enum")]
        return kept


def top_level(text: str) -> Iterator[str]:
    """Declarations at file scope, each up to its semicolon."""
    depth, start = 0, 0
    for i, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if char == ";" and depth == 0:
            yield text[start : i + 1].strip()
            start = i + 1


def define_members(tree: Tree, item: Defines) -> dict[str, int]:
    pattern = re.compile(rf"^\s*#define\s+{item.pattern}\s+{item.value}\s*(//.*|/\*.*)?$", re.MULTILINE)
    return {found[1]: int(found[2], 0) for found in pattern.finditer(tree.text(item.header))}


def enum_members(tree: Tree, item: Enumeration) -> dict[str, int]:
    elements = tree.declared(item.header, False).typeof(item.c_name).relements
    names = [name for name in re.findall(r"\w+", tree.text(item.header)) if name in elements]  # in header order
    return {
        re.sub(r"^(64)?_", "", name.removeprefix(item.prefix)).upper(): int(elements[name])
        for name in dict.fromkeys(names)
        if name.startswith(item.prefix) and not re.match(item.skip, name)
    }


def struct_members(item: Structure, ctype: Any, base: int = 0, prefix: str = "") -> Iterator[tuple[str, str, int]]:
    """(name, Member(...) source, offset) of every member, nested structures flattened."""
    for name, field in ctype.fields:
        full, offset, kind, count = prefix + name, base + field.offset, field.type, 1
        if field.bitsize >= 0 or (name and re.match(item.skip, full)):
            continue
        while kind.kind == "array":
            kind, count = kind.item, count * kind.length
        size = 4 if kind.kind == "enum" else cffi.FFI().sizeof(kind)
        if name in item.opaque:
            yield full, member_source(offset, 1, size * count, False), offset
        elif kind.kind in ("struct", "union") and count == 1:
            below = prefix if not name or name in item.inline else f"{full}_"
            yield from struct_members(item, kind, offset, below)
        else:
            signed = kind.kind == "primitive" and re.match(r"(signed |int|short|char|long)", kind.cname) is not None
            yield full, member_source(offset, size, count, signed), offset


def member_source(offset: int, size: int, count: int, signed: bool) -> str:
    parts = [str(offset), str(size), str(count)]
    if signed:
        return f"Member({', '.join(parts)}, signed=True)"
    while len(parts) > 1 and parts[-1] == {3: "1", 2: "4"}[len(parts)]:
        parts.pop()
    return f"Member({', '.join(parts)})"


def enum_source(name: str, doc: str, members: dict[str, int]) -> Iterator[str]:
    if not members:
        raise SystemExit(f"{name}: nothing found")
    yield from (f"class {name}(enum.IntEnum):", f'    """{doc}"""', "")
    hexadecimal = max(members.values()) > 255
    for member, value in members.items():
        if not IDENTIFIER.match(member):
            raise SystemExit(f"{name}: {member} is no identifier")
        yield f"    {member} = {value:#x}" if hexadecimal else f"    {member} = {value}"


def struct_source(tree: Tree, item: Structure) -> Iterator[str]:
    ffi = tree.declared(item.header, item.packed)
    ctype: Any = ffi.typeof(item.c_name)
    members = list(struct_members(item, ctype))
    dwords = all(re.fullmatch(r"Member\(\d+\)", source) and offset % 4 == 0 for _, source, offset in members)
    entries = (f'"{n}": {offset // 4 if dwords else source}' for n, source, offset in members)
    # A no-break mark in place of each inner blank keeps a name and its number on one line.
    body = fill(" ".join(f"{entry},".replace(" ", "\0") for entry in entries), WIDTH - 8).replace("\0", " ")
    opening, closing = ("dword_members({", "})") if dwords else ("{", "}")
    yield f"# {item.c_name}"
    yield f'{item.name} = StructLayout("{item.name}", {ffi.sizeof(ctype)}, {opening}'
    yield textwrap.indent(body, "    ")
    yield f"{closing})"


def frame_fields(item: Frame, ctype: Any, base_bits: int = 0, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """(name, lowest bit, width) of every member, nested structures and arrays flattened."""
    for name, field in ctype.fields:
        full, lo, kind = prefix + name, base_bits + 8 * field.offset, field.type
        if name and re.match(item.skip, full):
            continue
        if field.bitsize >= 0:
            yield full, lo + field.bitshift, field.bitsize
        elif kind.kind == "array":
            size = 8 * cffi.FFI().sizeof(kind.item)
            yield from ((f"{full}_{index}", lo + index * size, size) for index in range(kind.length))
        elif kind.kind in ("struct", "union"):
            yield from frame_fields(item, kind, lo, f"{full}_" if name else prefix)
        else:
            yield full, lo, 32 if kind.kind == "enum" else 8 * cffi.FFI().sizeof(kind)


def packet_fields(tree: Tree, item: SdmaPacket) -> Iterator[tuple[str, int, int]]:
    """(name, lowest bit, width) of a packet's fields; halves of one number joined."""
    text = tree.text(item.header)
    _, found, rest = text.partition(f"Definitions for SDMA_PKT_{item.name} packet")
    section = rest.partition("Definitions for SDMA_PKT_")[0]
    # A field's name begins in lower case, or is the rest after the last word that does not.
    lines = re.findall(
        rf"#define SDMA_PKT_{item.name}_[A-Z0-9_]*?_([a-z]\w*)_(offset|mask|shift)\s+(\w+)", section
    )
    if not found or not lines:
        raise SystemExit(f"{item.name}: no such packet")
    places: dict[str, dict[str, int]] = {}
    for name, kind, value in lines:
        places.setdefault(name, {})[kind] = int(value, 0)
    fields = [(n, 32 * p["offset"] + p["shift"], p["mask"].bit_length()) for n, p in places.items()]
    while fields:
        name, lo, width = fields.pop(0)
        while half := re.fullmatch(r"(.*)_(\d+)_(\d+)", name):
            following = next((f for f in fields if re.fullmatch(rf"{half[1]}_\d+_{int(half[2]) + 1}", f[0])), None)
            if following is None or following[1] != lo + width:
                break
            fields.remove(following)
            name, width = f"{half[1]}_{following[0].split('_')[-2]}_{half[3]}", width + following[2]
        yield re.sub(r"_\d+_0$", "", name), lo, width


def layout_source(name: str, c_name: str, dwords: int, fields: list[tuple[str, int, int]]) -> Iterator[str]:
    entries = (f'"{n}": Field({lo}{f", {width}" if width > 1 else ""}),' for n, lo, width in fields)
    body = fill(" ".join(entry.replace(" ", "\0") for entry in entries), WIDTH - 8).replace("\0", " ")
    yield f"# {c_name}"
    yield f'{name} = BitLayout("{name}", {dwords}, {{'
    yield textwrap.indent(body, "    ")
    yield "})"


def bits_source(tree: Tree, item: Frame | SdmaPacket) -> Iterator[str]:
    if isinstance(item, SdmaPacket):
        fields = list(packet_fields(tree, item))
        dwords = max((lo + width + 31) // 32 for _, lo, width in fields)
        return layout_source(item.name, f"SDMA_PKT_{item.name}", dwords, fields)
    ffi = tree.declared(item.header, False, item.pack)
    ctype: Any = ffi.typeof(item.c_name)
    return layout_source(item.name, item.c_name, ffi.sizeof(ctype) // 4, list(frame_fields(item, ctype)))


def fill(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def module_source(tree: Tree, doc: str, items: Iterable[Item], source: str) -> str:
    items = list(items)
    headers = ", ".join(dict.fromkeys(item.header for item in items))
    note = fill(f"Generated by tools/generate_facts.py from {source}, {HEADERS}: {headers}.", WIDTH)
    lines = [f'"""{doc}', "", note, '"""', "", "from __future__ import annotations", ""]
    structures = [item for item in items if isinstance(item, Structure)]
    if any(isinstance(item, Defines | Enumeration) for item in items):
        lines += ["import enum", ""]
    if any(isinstance(item, Frame | SdmaPacket) for item in items):
        lines += ["from amdrv.registers.fields import BitLayout, Field", ""]
    if structures:
        names = ["StructLayout"]
        body = "\n".join(line for item in structures for line in struct_source(tree, item))
        names += [name for name in ("Member", "dword_members") if f"{name}(" in body]
        lines += [f"from amdrv.facts.layout import {', '.join(sorted(names))}", ""]
    for item in items:
        if isinstance(item, Structure):
            lines += [*struct_source(tree, item), ""]
        elif isinstance(item, Frame | SdmaPacket):
            lines += [*bits_source(tree, item), ""]
        else:
            members = define_members(tree, item) if isinstance(item, Defines) else enum_members(tree, item)
            lines += ["", *enum_source(item.name, item.doc, members), ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("linux", type=Path, help="top of a Linux source tree")
    parser.add_argument("output", type=Path, help="folder for the modules, amdrv/facts")
    parser.add_argument("--source", required=True, help="package and version that the tree came from")
    arguments = parser.parse_args()
    tree = Tree(arguments.linux)
    for name, (doc, items) in MODULES.items():
        target = arguments.output / f"{name}.py"
        target.write_text(module_source(tree, doc, items, arguments.source))
        print(f"{target}: {len(items)} tables")
    return 0


if __name__ == "__main__":
    sys.exit(main())
