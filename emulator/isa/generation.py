"""What differs between generations besides the opcode table: data that decoding, printing and execution share.

Register layouts: Linux 6.12 gc_11_0_0_sh_mask.h and gc_12_0_0_sh_mask.h (SQ_WAVE_*, COMPUTE_*). Initial registers: LLVM
AMDGPUUsage, "Initial Kernel Execution State". Hardware register numbers: LLVM 22 AMDGPUAsmUtils.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amdrv.emulator.isa.instruction import Instruction
from amdrv.emulator.isa.table import generation_of

# Bits of the MODE register as the float rules read them (algebra.FloatMode).
DX10_CLAMP, IEEE, FP16_OVFL = 1 << 8, 1 << 9, 1 << 23
SCALES_ALWAYS = 1 << 22  # no generation's register has this bit, and none shows it
FLAT_OFFSET_MASK = 0xFFF  # of FLAT's offset gfx11 uses 12 bits, unsigned (ISA manual, "Flat")


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation.

    ``signed_offset_bits`` is the width of the signed offset field of an encoding; offsets of others are unsigned.
    ``hardware_registers`` says what each number of s_getreg shows. ``mode_from_rsrc1`` are (bit of COMPUTE_PGM_RSRC1,
    bit of MODE) beside FLOAT_MODE; ``mode_always`` are MODE bits that this generation has no choice about;
    ``mode_writable`` is what s_setreg may change. ``tmpring_wavesize_bits`` is the width of TMPRING_SIZE.WAVESIZE.
    """

    name: str
    signed_offset_bits: Mapping[str, int]
    hardware_registers: Mapping[int, str]
    mode_from_rsrc1: tuple[tuple[int, int], ...]
    mode_always: int
    mode_writable: int
    mode_shown: int  # what s_getreg shows of MODE
    cycles_mask: int  # of SHADER_CYCLES
    tmpring_wavesize_bits: int
    workgroup_ids_in_ttmps: bool  # "architected SGPRs"; else they follow the user SGPRs
    crossbar_lanes: int  # ds_permute_b32 and ds_bpermute_b32 reach lanes of the same so many
    names_halves: bool  # LLVM's listing names halves of registers unless told otherwise
    smem_hides_zero_offset: bool  # LLVM's listing of scalar loads leaves an offset of zero out
    matrices_spread: tuple[str, ...]  # operands of matrix instructions that take half as many registers in wave64

    def halved_in_wave64(self, mnemonic: str) -> tuple[str, ...]:
        """Names of the operands of an instruction that take half as many registers in wave64 as the table says."""
        if mnemonic.startswith("v_wmma"):
            return self.matrices_spread
        if mnemonic.startswith("v_swmmac"):
            return ("vdst", "src0", "src1")
        return ("vdst",) if "_load_tr_" in mnemonic else ()

    def offset(self, instruction: Instruction) -> int:
        """The immediate offset of a memory instruction, in bytes, as listings show it."""
        value, bits = instruction.fields["offset"], self.signed_offset_bits.get(instruction.encoding, 0)
        return value - (1 << bits) if bits and value >> (bits - 1) & 1 else value

    def address_offset(self, instruction: Instruction) -> int:
        """What the instruction itself adds to an address, in bytes; 0 where that is nothing."""
        fields, encoding = instruction.fields, instruction.encoding
        if encoding == "DS":
            return fields["offset0"] | fields["offset1"] << 8
        offset = self.offset(instruction) if "offset" in fields else 0
        return offset if encoding in self.signed_offset_bits or encoding != "FLAT" else offset & FLAT_OFFSET_MASK


_COMMON_REGISTERS = {
    1: "mode", 2: "status", 5: "gpr_alloc", 6: "lds_alloc", 20: "scratch_lo", 21: "scratch_hi", 23: "hw_id1",
    24: "hw_id2", 29: "cycles",
}  # fmt: skip

GFX11 = Generation(
    name="gfx11",
    signed_offset_bits={"SMEM": 21, "GLOBAL": 13, "SCRATCH": 13},
    hardware_registers={**_COMMON_REGISTERS, 15: "sh_mem_bases"},
    mode_from_rsrc1=((21, DX10_CLAMP), (23, IEEE), (26, FP16_OVFL)),
    mode_always=0,
    mode_writable=0x08BF_FFFF,
    mode_shown=0xFFFF_FFFF,
    cycles_mask=0xF_FFFF,
    tmpring_wavesize_bits=15,
    workgroup_ids_in_ttmps=False,
    crossbar_lanes=32,
    names_halves=True,
    smem_hides_zero_offset=True,
    matrices_spread=("vdst", "src2"),
)

# Without DX10_CLAMP and IEEE, a clamped NaN is zero, and minimumNumber and maximumNumber take a signalling NaN for
# missing (V_MIN_NUM_F32), which is what the float rules do outside IEEE mode.
GFX12 = Generation(
    name="gfx12",
    signed_offset_bits={"SMEM": 24, "FLAT": 24, "GLOBAL": 24, "SCRATCH": 24},
    hardware_registers={**_COMMON_REGISTERS, 2: "status_12", 4: "state_priv", 30: "cycles_hi"},
    mode_from_rsrc1=((26, FP16_OVFL),),
    mode_always=DX10_CLAMP | SCALES_ALWAYS,
    mode_writable=0x0180_00FF,
    mode_shown=0xFFFF_FFFF & ~(DX10_CLAMP | SCALES_ALWAYS),
    cycles_mask=0xFFFF_FFFF,
    tmpring_wavesize_bits=18,
    workgroup_ids_in_ttmps=True,
    crossbar_lanes=64,
    names_halves=False,
    smem_hides_zero_offset=False,
    matrices_spread=("vdst", "src0", "src1", "src2"),
)

GENERATIONS: Mapping[str, Generation] = {generation.name: generation for generation in (GFX11, GFX12)}


def generation_for(arch: str) -> Generation:
    """The generation of an LLVM processor name ("gfx1201"); raises Unsupported for others."""
    return GENERATIONS[generation_of(arch)]
