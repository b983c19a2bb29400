"""Layouts of AMD's firmware file headers, as data.

Every file begins with one common header; what follows depends on the kind of image and on the header version. All
fields after the common header are 32-bit little endian, so that a layout is a list of names, and a section of the file
is a pair of sums over those names. Source: Linux 6.12 amdgpu_ucode.h (the structs) and, for which bytes are handed to
the PSP as which piece, amdgpu_ucode.c: amdgpu_ucode_init_single_fw, and amdgpu_psp.c: parse_sos_bin_descriptor,
parse_ta_bin_descriptor.

Names are close to the kernel's; the common header's ucode_size_bytes and ucode_array_offset_bytes, which collide with
fields of others, are payload_size_bytes and payload_offset_bytes here.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from amdrv.errors import Unsupported

COMMON_HEADER = struct.Struct("<IIHHHHIIII")
COMMON_FIELDS = (
    "size_bytes",  # of the whole file
    "header_size_bytes",
    "header_version_major",
    "header_version_minor",
    "ip_version_major",
    "ip_version_minor",
    "ucode_version",
    "payload_size_bytes",
    "payload_offset_bytes",
    "crc32",
)

Sum = tuple[tuple[str, int], ...]
"""A sum of fields with factors: (("payload_size_bytes", 1), ("jt_size_dwords", -4))."""


def _sum(*plain: str, **scaled: int) -> Sum:
    return tuple((name, 1) for name in plain) + tuple(scaled.items())


class SectionRule(NamedTuple):
    """Where one piece lies: ``names`` are the pieces made of it (engines of one kind share their data image)."""

    names: tuple[str, ...]
    size: Sum
    offset: Sum  # from the start of the file
    version: str = "ucode_version"
    feature: str = ""  # field of the feature version; "" where the header has none
    optional: bool = False  # a size of zero means that the image does not carry the piece


class DescriptorRule(NamedTuple):
    """Pieces listed by descriptors (type, version, offset from the payload, size) behind the fixed fields."""

    count_field: str
    names: dict[int, str]
    auxiliary_field: str = ""  # how many descriptors at the end are the auxiliary set


class Layout(NamedTuple):
    """One header version of one kind of image."""

    fields: tuple[str, ...]
    sections: tuple[SectionRule, ...] = ()
    descriptors: DescriptorRule | None = None
    # Whether genuine images of this layout carry a right CRC-32 of everything behind the common header: checked on all
    # images of firmware-amd-graphics 20260916-1. RLC v2.2+, SMC and PSP v1 never do, and nobody reads it in Linux.
    crc_valid: bool = True

    @property
    def size_bytes(self) -> int:
        """Bytes of the fixed header."""
        return COMMON_HEADER.size + 4 * len(self.fields)


MAX_DESCRIPTORS = 26  # exclusive; Linux 6.12 amdgpu_ucode.h: UCODE_MAX_PSP_PACKAGING

_PAYLOAD_SIZE = _sum("payload_size_bytes")
_PAYLOAD = _sum("payload_offset_bytes")

# amdgpu_ucode.h: psp_fw_type. RL is the register list, which LOAD_IP_FW takes as GFX_FW_TYPE_REG_LIST.
PSP_FW_TYPES = {
    1: "SOS",
    2: "SYS_DRV",
    3: "KDB",
    4: "TOC",
    5: "SPL",
    6: "REG_LIST",
    7: "SOC_DRV",
    8: "INTF_DRV",
    9: "DBG_DRV",
    10: "RAS_DRV",
    11: "IPKEYMGR_DRV",
}
# amdgpu_ucode.h: ta_fw_type
TA_FW_TYPES = {
    1: "ASD",
    2: "TA_XGMI",
    3: "TA_RAS",
    4: "TA_HDCP",
    5: "TA_DTM",
    6: "TA_RAP",
    7: "TA_SECUREDISPLAY",
}


def _descriptor(prefix: str) -> tuple[str, ...]:
    return (f"{prefix}_version", f"{prefix}_offset_bytes", f"{prefix}_size_bytes")


def _legacy(piece: str, prefix: str, *base: str) -> SectionRule:
    """A piece of the fixed descriptors that PSP headers of version 1 use; its offset counts from ``base``."""
    return SectionRule(
        (piece,),
        _sum(f"{prefix}_size_bytes"),
        _sum("payload_offset_bytes", *base),
        version=f"{prefix}_version",
        optional=True,
    )


_PSP_1_0 = _descriptor("sos")
_PSP_1_1 = _PSP_1_0 + _descriptor("toc") + _descriptor("kdb")
_PSP_1_0_SECTIONS = (
    # The SYS_DRV has no descriptor: it fills the payload up to the sOS.
    SectionRule(("SYS_DRV",), _sum("sos_offset_bytes"), _PAYLOAD),
    SectionRule(("SOS",), _sum("sos_size_bytes"), _sum("payload_offset_bytes", "sos_offset_bytes")),
)
_PSP_1_1_SECTIONS = (
    *_PSP_1_0_SECTIONS,
    _legacy("TOC", "toc", "toc_offset_bytes"),
    _legacy("KDB", "kdb", "kdb_offset_bytes"),
)

_SOS = {
    (1, 0): Layout(_PSP_1_0, _PSP_1_0_SECTIONS, crc_valid=False),
    (1, 1): Layout(_PSP_1_1, _PSP_1_1_SECTIONS, crc_valid=False),
    (1, 2): Layout(
        _PSP_1_0 + _descriptor("reserved") + _descriptor("kdb"),
        (*_PSP_1_0_SECTIONS, _legacy("KDB", "kdb", "kdb_offset_bytes")),
        crc_valid=False,
    ),
    (1, 3): Layout(
        _PSP_1_1 + _descriptor("spl") + _descriptor("rl") + _descriptor("sys_drv_aux") + _descriptor("sos_aux"),
        (
            *_PSP_1_1_SECTIONS,
            _legacy("SPL", "spl", "spl_offset_bytes"),
            _legacy("REG_LIST", "rl", "rl_offset_bytes"),
        ),
        crc_valid=False,
    ),
    (2, 0): Layout(("bin_count",), descriptors=DescriptorRule("bin_count", PSP_FW_TYPES)),
    (2, 1): Layout(
        ("bin_count", "auxiliary_count"),
        descriptors=DescriptorRule("bin_count", PSP_FW_TYPES, auxiliary_field="auxiliary_count"),
    ),
}

_TA = {
    (1, 0): Layout(
        tuple(name for ta in ("xgmi", "ras", "hdcp", "dtm", "securedisplay") for name in _descriptor(ta)),
        (
            _legacy("TA_XGMI", "xgmi"),
            _legacy("TA_RAS", "ras", "ras_offset_bytes"),
            _legacy("TA_HDCP", "hdcp"),
            _legacy("TA_DTM", "dtm", "dtm_offset_bytes"),
            _legacy("TA_SECUREDISPLAY", "securedisplay", "securedisplay_offset_bytes"),
        ),
        crc_valid=False,
    ),
    (2, 0): Layout(("bin_count",), descriptors=DescriptorRule("bin_count", TA_FW_TYPES)),
}


def _whole_payload(piece: str) -> dict[tuple[int, int], Layout]:
    return {(1, 0): Layout(_PSP_1_0, (SectionRule((piece,), _PAYLOAD_SIZE, _PAYLOAD),), crc_valid=False)}


_SMC_1_0 = ("ucode_start_address",)
# MI300's images have an empty payload: its SMU boots from flash, and the file only carries tables.
_SMC_SECTIONS = (SectionRule(("SMU",), _PAYLOAD_SIZE, _PAYLOAD, optional=True),)
_SMC = {
    (1, 0): Layout(_SMC_1_0, _SMC_SECTIONS, crc_valid=False),
    (2, 0): Layout((*_SMC_1_0, "pptable_offset_bytes", "pptable_size_bytes"), _SMC_SECTIONS, crc_valid=False),
    (2, 1): Layout((*_SMC_1_0, "pptable_count", "pptable_entry_offset_bytes"), _SMC_SECTIONS, crc_valid=False),
}

_FEATURE = "ucode_feature_version"
_SDMA_1_0 = (_FEATURE, "ucode_change_version", "jt_offset_dwords", "jt_size_dwords")
_SDMA_1_SECTIONS = (SectionRule(("SDMA0",), _PAYLOAD_SIZE, _PAYLOAD, feature=_FEATURE),)
_SDMA = {
    (1, 0): Layout(_SDMA_1_0, _SDMA_1_SECTIONS),
    (1, 1): Layout((*_SDMA_1_0, "digest_size_bytes"), _SDMA_1_SECTIONS),
    (2, 0): Layout(
        (
            _FEATURE,
            "ctx_size_bytes",
            "ctx_jt_offset_dwords",
            "ctx_jt_size_dwords",
            "ctl_offset_bytes",
            "ctl_size_bytes",
            "ctl_jt_offset_dwords",
            "ctl_jt_size_dwords",
        ),
        (
            SectionRule(("SDMA_UCODE_TH0",), _sum("ctx_size_bytes"), _PAYLOAD, feature=_FEATURE),
            SectionRule(("SDMA_UCODE_TH1",), _sum("ctl_size_bytes"), _sum("ctl_offset_bytes"), feature=_FEATURE),
        ),
    ),
    (3, 0): Layout(
        (_FEATURE, "code_offset_bytes", "code_size_bytes"),
        (SectionRule(("SDMA_UCODE_TH0",), _sum("code_size_bytes"), _PAYLOAD, feature=_FEATURE),),
    ),
}


def _gfx(engine: str, stacks: int) -> dict[tuple[int, int], Layout]:
    """Headers of one command processor engine: v1.0 is the older F32 core, v2.0 the RS64 core with a data image."""
    code_size: Sum = _PAYLOAD_SIZE
    jump_table: tuple[SectionRule, ...] = ()
    if engine == "MEC":
        code_size = _sum("payload_size_bytes", jt_size_dwords=-4)
        jump_table = (
            SectionRule(
                ("CP_MEC_ME1",),
                _sum(jt_size_dwords=4),
                _sum("payload_offset_bytes", jt_offset_dwords=4),
                feature=_FEATURE,
            ),
        )
    data_names = tuple(f"RS64_{engine}_P{pipe}_STACK" for pipe in range(stacks))
    return {
        (1, 0): Layout(
            (_FEATURE, "jt_offset_dwords", "jt_size_dwords"),
            (SectionRule((f"CP_{engine}",), code_size, _PAYLOAD, feature=_FEATURE), *jump_table),
            crc_valid=False,  # wrong in some images of gfx8
        ),
        (2, 0): Layout(
            (
                _FEATURE,
                "code_size_bytes",
                "code_offset_bytes",
                "data_size_bytes",
                "data_offset_bytes",
                "start_address_lo",
                "start_address_hi",
            ),
            (
                SectionRule((f"RS64_{engine}",), _sum("code_size_bytes"), _PAYLOAD, feature=_FEATURE),
                SectionRule(data_names, _sum("data_size_bytes"), _sum("data_offset_bytes"), feature=_FEATURE),
            ),
        ),
    }


def _mes(code: str, data: str) -> dict[tuple[int, int], Layout]:
    fields = (
        "code_version",
        "code_size_bytes",
        "code_offset_bytes",
        "data_version",
        "data_size_bytes",
        "data_offset_bytes",
        "start_address_lo",
        "start_address_hi",
        "data_start_address_lo",
        "data_start_address_hi",
    )
    return {
        (1, 0): Layout(
            fields,
            (
                SectionRule((code,), _sum("code_size_bytes"), _sum("code_offset_bytes"), version="code_version"),
                SectionRule((data,), _sum("data_size_bytes"), _sum("data_offset_bytes"), version="data_version"),
            ),
        )
    }


_IMU = {
    (1, 0): Layout(
        ("iram_size_bytes", "iram_offset_bytes", "dram_size_bytes", "dram_offset_bytes"),
        (
            SectionRule(("IMU_I",), _sum("iram_size_bytes"), _PAYLOAD),
            SectionRule(("IMU_D",), _sum("dram_size_bytes"), _sum("payload_offset_bytes", "iram_size_bytes")),
        ),
    )
}

_RLC_2_0 = (
    _FEATURE,
    "jt_offset_dwords",
    "jt_size_dwords",
    "save_and_restore_offset",
    "clear_state_descriptor_offset",
    "avail_scratch_ram_locations",
    "reg_restore_list_size",
    "reg_list_format_start",
    "reg_list_format_separate_start",
    "starting_offsets_start",
    "reg_list_format_size_bytes",
    "reg_list_format_offset_bytes",
    "reg_list_size_bytes",
    "reg_list_offset_bytes",
    "reg_list_format_separate_size_bytes",
    "reg_list_format_separate_offset_bytes",
    "reg_list_separate_size_bytes",
    "reg_list_separate_offset_bytes",
)


def _versioned(prefix: str) -> tuple[str, ...]:
    return (f"{prefix}_version", f"{prefix}_feature", f"{prefix}_size_bytes", f"{prefix}_offset_bytes")


def _sized(*prefixes: str) -> tuple[str, ...]:
    return tuple(f"{prefix}_{what}_bytes" for prefix in prefixes for what in ("size", "offset"))


def _rlc(piece: str, prefix: str, *, versioned: bool = False) -> SectionRule:
    return SectionRule(
        (piece,),
        _sum(f"{prefix}_size_bytes"),
        _sum(f"{prefix}_offset_bytes"),
        version=f"{prefix}_version" if versioned else "ucode_version",
        feature=f"{prefix}_feature" if versioned else _FEATURE,
        optional=True,
    )


_RLC_2_1 = (
    *_RLC_2_0,
    "reg_list_format_direct_reg_list_length",
    *_versioned("srm_cntl"),
    *_versioned("gpm"),
    *_versioned("srm"),
)
_RLC_2_2 = _RLC_2_1 + _sized("iram", "dram")
_RLC_2_3 = _RLC_2_2 + _versioned("rlcp") + _versioned("rlcv")
_TAP_DELAYS = ("global", "se0", "se1", "se2", "se3")
_RLC_2_4 = _RLC_2_3 + _sized(*(f"{where}_tap_delays" for where in _TAP_DELAYS))
_RLC_2_0_SECTIONS = (SectionRule(("RLC_G",), _PAYLOAD_SIZE, _PAYLOAD, feature=_FEATURE),)
_RLC_2_1_SECTIONS = (
    *_RLC_2_0_SECTIONS,
    _rlc("RLC_RESTORE_LIST_SRM_CNTL", "srm_cntl", versioned=True),
    _rlc("RLC_RESTORE_LIST_GPM_MEM", "gpm", versioned=True),
    _rlc("RLC_RESTORE_LIST_SRM_MEM", "srm", versioned=True),
)
_RLC_2_2_SECTIONS = (*_RLC_2_1_SECTIONS, _rlc("RLC_IRAM", "iram"), _rlc("RLC_DRAM_BOOT", "dram"))
_RLC = {
    (2, 0): Layout(_RLC_2_0, _RLC_2_0_SECTIONS),
    (2, 1): Layout(_RLC_2_1, _RLC_2_1_SECTIONS, crc_valid=False),  # right in some images only
    (2, 2): Layout(_RLC_2_2, _RLC_2_2_SECTIONS, crc_valid=False),
    (2, 3): Layout(
        _RLC_2_3,
        (
            *_RLC_2_2_SECTIONS,
            _rlc("RLC_P", "rlcp", versioned=True),
            _rlc("RLC_V", "rlcv", versioned=True),
        ),
        crc_valid=False,
    ),
    # The kernel loads RLC_P and RLC_V from v2.3 only (amdgpu_gfx_rlc_init_microcode tests minor == 3 and minor == 4).
    (2, 4): Layout(
        _RLC_2_4,
        (*_RLC_2_2_SECTIONS, *(_rlc(f"{where.upper()}_TAP_DELAYS", f"{where}_tap_delays") for where in _TAP_DELAYS)),
        crc_valid=False,
    ),
}

LAYOUTS: dict[str, dict[tuple[int, int], Layout]] = {
    "sos": _SOS,
    "ta": _TA,
    "toc": _whole_payload("TOC"),
    "asd": _whole_payload("ASD"),
    "smu": _SMC,
    "sdma": _SDMA,
    "pfp": _gfx("PFP", 2),
    "me": _gfx("ME", 2),
    "mec": _gfx("MEC", 4),
    "mes": _mes("CP_MES", "MES_STACK"),
    "mes_kiq": _mes("CP_MES_KIQ", "MES_KIQ_STACK"),
    "imu": _IMU,
    "rlc": _RLC,
}

# File names of linux-firmware. A header does not say what kind of image it heads, so the name has to.
_NAME = re.compile(r"(psp|smu|sdma|gc)_\d+_\d+_\d+(?:_((?:uni_)?[a-z]+(?:_?\d)?))?(?:_kicker)?\.bin")
_KINDS = {
    ("psp", "sos"): "sos",
    ("psp", "ta"): "ta",
    ("psp", "toc"): "toc",
    ("gc", "toc"): "toc",
    ("psp", "asd"): "asd",
    ("smu", None): "smu",
    ("sdma", None): "sdma",
    ("gc", "pfp"): "pfp",
    ("gc", "me"): "me",
    ("gc", "mec"): "mec",
    ("gc", "mes"): "mes",
    ("gc", "mes_2"): "mes",
    ("gc", "mes1"): "mes_kiq",
    ("gc", "uni_mes"): "mes",
    ("gc", "imu"): "imu",
    ("gc", "rlc"): "rlc",
    ("gc", "rlc_1"): "rlc",
}


def kind_of(name: str) -> str:
    """Kind of the image called ``name`` ("gc_11_0_0_mec.bin" → "mec").

    Raises:
        Unsupported: no known kind has such a name.
    """
    match = _NAME.fullmatch(name)
    kind = None if match is None else _KINDS.get((match[1], match[2]))
    if kind is None:
        raise Unsupported(f"firmware image {name}: not a kind of image that this version reads")
    return kind


def layout_of(name: str, kind: str, version: tuple[int, int]) -> Layout:
    """Layout of header ``version`` of the image ``name``.

    Raises:
        Unsupported: the kind has no such header version, as far as this version knows.
    """
    versions = LAYOUTS[kind]
    if version not in versions:
        known = ", ".join(f"{major}.{minor}" for major, minor in sorted(versions))
        raise Unsupported(
            f"firmware image {name}: {kind} header of version {version[0]}.{version[1]} is unknown (known: {known})"
        )
    return versions[version]
