"""Machine code as text, operand for operand what ``llvm-objdump -d`` of LLVM 22 prints."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.generation import generation_for
from amdrv.emulator.isa.instruction import Instruction, Kind, Operand, UnknownInstruction
from amdrv.emulator.isa.print_graphics import (
    export_text,
    image_text,
    lds_direct_text,
    sampled_image_text,
    unsampled_image_text,
)
from amdrv.emulator.isa.print_modifiers import (
    OUTPUT_MODIFIERS,
    bit_list,
    byte_select,
    cache_policy,
    dpp_text,
    sparse_key,
    swizzle,
)
from amdrv.emulator.isa.print_operand import constant_text, could_be_inline, operand_text, with_modifiers
from amdrv.emulator.isa.print_scalar import (
    code_version,
    delay,
    dependency_counters,
    hardware_register,
    message,
    wait_counters,
)
from amdrv.emulator.isa.table import IsaTable, OpSpec, generation_of, load_table

_DECIMAL_BRANCH = ("s_branch", "s_cbranch_")
_NO_IMMEDIATE = frozenset((
    "s_wait_idle", "s_code_end", "s_endpgm_saved", "s_endpgm_ordered_ps_done", "s_wakeup", "s_ttracedata",
    "s_icache_inv", "s_barrier", "s_barrier_leave",
))  # fmt: skip
_SHOWN_AS_HALF_FLOAT = frozenset((  # their source of another type too
    "v_cmp_class_f16", "v_cmpx_class_f16", "v_ldexp_f16", "v_cvt_pk_f32_fp8", "v_cvt_pk_f32_bf8",
))  # fmt: skip
_DEFAULT_FORMAT = 1  # BUF_FMT_8_UNORM goes without saying
_SMALL_DECIMAL = frozenset((  # LLVM shows these as a number up to 64, in hexadecimal above
    "s_nop", "s_setkill", "s_sethalt", "s_sleep", "s_trap", "s_denorm_mode", "s_setprio", "s_incperflevel",
    "s_decperflevel", "s_barrier_wait",
))  # fmt: skip


@functools.cache
def _in_short_and_long_form(generation: str) -> frozenset[str]:
    """Mnemonics that need a suffix to tell VOP1, VOP2 or VOPC from VOP3."""
    ops = load_table(generation).ops
    short = {op.mnemonic for name in ("VOP1", "VOP2", "VOPC") for op in ops[name].values()}
    long = [op for name in ("VOP3", "VOP3SD") for op in ops[name].values()]
    return frozenset(op.mnemonic for op in long if op.mnemonic in short and "unlisted" not in op.flags)


_GRAPHICS = {
    "MIMG": image_text, "VIMAGE": unsampled_image_text, "VSAMPLE": sampled_image_text,
    "EXP": export_text, "LDSDIR": lds_direct_text,
}  # fmt: skip


class Printer:
    """Formats instructions of one generation for one wave size.

    ``halves`` names the halves of registers (``v5.h``) that 16-bit operands use; unless said, it is as LLVM does it for
    the processor, which leaves them to op_sel on gfx12.
    """

    def __init__(self, arch: str = "gfx1100", wave32: bool = True, halves: bool | None = None) -> None:
        self._table: IsaTable = load_table(generation_of(arch))
        self._generation = generation_for(arch)
        self._halves = self._generation.names_halves if halves is None else halves
        self._wave_bits = 32 if wave32 else 64
        self._two_forms = _in_short_and_long_form(generation_of(arch))
        self._formats: dict[str, Callable[[Instruction, OpSpec], str]] = {
            "SOPP": self._sopp, "SOPK": self._sopk, "SMEM": self._smem, "DS": self._ds,
            "FLAT": self._flat, "GLOBAL": self._flat, "SCRATCH": self._flat,
            "MUBUF": self._buffer, "MTBUF": self._buffer,
            "SOP1": self._scalar, "SOP2": self._scalar, "SOPC": self._scalar,
            "VOP1": self._vector, "VOP2": self._vector, "VOPC": self._vector, "VOP3": self._vector,
            "VOP3SD": self._vector, "VOP3P": self._vector, "VINTERP": self._vector,
        }  # fmt: skip

    def text(self, instruction: Instruction) -> str:
        """One instruction as a line of assembly."""
        if instruction.dual is not None:
            return " :: ".join(self._half(half) for half in instruction.dual)
        op = self._table.ops[instruction.encoding][instruction.opcode]
        graphics = _GRAPHICS.get(instruction.encoding)
        return graphics(instruction) if graphics else self._formats[instruction.encoding](instruction, op)

    def _plain(self, operand: Operand, instruction: Instruction, halves: bool = True) -> str:
        literal = instruction.fields.get("literal", 0)
        if instruction.encoding in ("SOP1", "SOPC") and operand.literal and operand.type == "f16":
            operand = replace(operand, bits=32, type="b32")  # LLVM takes such a literal for a whole dword
            if instruction.encoding == "SOPC" and not could_be_inline(literal, "b32", 32):
                literal &= 0xFFFF
        elif instruction.encoding == "SOPC" and operand.type == "f16" and operand.kind is Kind.CONSTANT:
            operand = replace(operand, type="b16")  # and shows bits in place of an inline float
        splat = instruction.mnemonic == "v_pk_fmac_f16"
        if self._wave_bits == 64 and operand.name in self._generation.halved_in_wave64(instruction.mnemonic):
            operand = replace(operand, bits=operand.bits // 2)  # a matrix over 64 lanes, not 32
        if operand.bits == 16 and instruction.mnemonic in _SHOWN_AS_HALF_FLOAT:
            operand = replace(operand, type="f16")
        return with_modifiers(operand, operand_text(operand, self._wave_bits, literal, halves, splat))

    def _join(self, name: str, parts: list[str], tail: str = "") -> str:
        return f"{name} {', '.join(parts)}{tail}" if parts else name + tail

    def _half(self, half: Instruction) -> str:
        parts = [self._plain(item, half) for item in (*half.dst, *half.src) if item.type != "mask"]
        return self._join(half.mnemonic.replace("v_", "v_dual_", 1), parts)

    def _scalar(self, instruction: Instruction, op: OpSpec) -> str:
        parts = [self._plain(item, instruction) for item in instruction.dst]
        for item, spec in zip(instruction.src, op.src, strict=True):
            if spec.cls == "m":
                parts.append(message(item.value, self._table.names["msg"]))
            else:
                parts.append(self._plain(item, instruction))
        return self._join(instruction.mnemonic, parts)

    def _sopp(self, instruction: Instruction, op: OpSpec) -> str:
        name, immediate = instruction.mnemonic, instruction.fields["simm16"]
        if name in _NO_IMMEDIATE or (name == "s_endpgm" and not immediate):
            return name
        if name.startswith(_DECIMAL_BRANCH) or name == "s_endpgm":
            return f"{name} {immediate}"
        if name == "s_waitcnt":
            return f"{name} {wait_counters(immediate)}"
        if name == "s_delay_alu":
            return f"{name} {delay(immediate)}"
        if name in ("s_waitcnt_depctr", "s_wait_alu"):
            return f"{name} {dependency_counters(immediate)}"
        if name in ("s_sendmsg", "s_sendmsghalt"):
            return f"{name} {message(immediate, self._table.names['msg'])}"
        return f"{name} {immediate if name in _SMALL_DECIMAL and immediate <= 64 else hex(immediate)}"

    def _sopk(self, instruction: Instruction, op: OpSpec) -> str:
        name, immediate = instruction.mnemonic, instruction.fields["simm16"]
        parts = [self._plain(item, instruction) for item in (*instruction.dst, *instruction.src) if item.name == "sdst"]
        if "getreg" in name:
            parts.append(hardware_register(immediate, self._table.names["hwreg"]))
        elif "setreg" in name:
            parts.insert(0, hardware_register(immediate, self._table.names["hwreg"]))
            parts += [constant_text(item.value) for item in instruction.src if item.name == "literal"]
        elif name == "s_call_b64" or "subvector" in name:
            parts.append(str(immediate))
        elif name == "s_version":
            parts.append(code_version(immediate))
        else:
            parts.append(hex(immediate))
        return self._join(name, parts)

    def _smem(self, instruction: Instruction, op: OpSpec) -> str:
        parts = [self._plain(item, instruction) for item in (*instruction.dst, *instruction.src)]
        if not parts:
            return instruction.mnemonic
        offset = self._generation.offset(instruction)
        shown = hex(offset)
        if "prefetch" in instruction.mnemonic:  # how much to fetch stands last
            return self._join(instruction.mnemonic, [*parts[1:-1], shown, parts[-1], str(instruction.src[0].value)])
        if not instruction.dst:
            parts[0] = constant_text(instruction.src[0].value)  # what s_atc_probe asks for
        tail = ""
        shows_zero = not self._generation.smem_hides_zero_offset
        if (offset or shows_zero) and parts[-1] == "null":
            parts[-1] = shown
        elif offset or shows_zero:
            tail = f" offset:{shown}"
        hides_policy = "atc_probe" in instruction.mnemonic and "scope" in instruction.fields
        policy = "" if hides_policy else cache_policy(instruction)
        return self._join(instruction.mnemonic, parts, tail + policy)

    def _ds(self, instruction: Instruction, op: OpSpec) -> str:
        fields = instruction.fields
        parts = [self._plain(item, instruction) for item in (*instruction.dst, *instruction.src)]
        if "2addr" in op.mnemonic:
            tail = "".join(f" {name}:{fields[name]}" for name in ("offset0", "offset1") if fields[name])
        else:
            offset = fields["offset0"] | fields["offset1"] << 8
            tail = f" offset:{offset}" if offset else ""
            if op.mnemonic == "ds_swizzle_b32":
                tail = swizzle(offset)
        return self._join(op.mnemonic, parts, tail + (" gds" if fields.get("gds") else ""))

    def _flat(self, instruction: Instruction, op: OpSpec) -> str:
        parts = [self._plain(item, instruction) for item in (*instruction.dst, *instruction.src)]
        offset = self._generation.offset(instruction)
        tail = f" offset:{offset}" if offset else ""
        return self._join(op.mnemonic, parts, tail + cache_policy(instruction))

    def _buffer(self, instruction: Instruction, op: OpSpec) -> str:
        fields = instruction.fields
        sources = instruction.src
        if not sources:
            return op.mnemonic
        if instruction.dst and sources[0].name == "vdata":
            sources = sources[1:] if instruction.dst[0].bits == sources[0].bits else sources
        shown = instruction.dst if instruction.dst and sources[0].name != "vdata" else ()
        parts = [self._plain(item, instruction) for item in (*shown, *sources)]
        tail = ""
        if instruction.encoding == "MTBUF":
            names = self._table.names.get("format", {})
            number = fields["format"]
            if number != _DEFAULT_FORMAT:
                tail += f" format:[{names[number]}]" if number in names else f" format:{number}"
        tail += " idxen" if fields["idxen"] else ""
        tail += " offen" if fields["offen"] else ""
        tail += f" offset:{fields['offset']}" if fields["offset"] else ""
        tail += cache_policy(instruction)
        tail += " tfe" if fields["tfe"] else ""
        return self._join(op.mnemonic, parts, tail)

    def _vector(self, instruction: Instruction, op: OpSpec) -> str:
        short = instruction.encoding in ("VOP1", "VOP2", "VOPC")
        name = instruction.mnemonic + self._suffix(instruction, short)
        fields = instruction.fields
        selected = fields.get("opsel", 0)
        # An op_sel bit that the opcode lacks makes LLVM fall back to its form without halves.
        has_selectors = instruction.encoding in ("VOP3", "VINTERP")
        halves = not has_selectors or "dot2" in op.mnemonic or not selected & ~op.flags.get("opsel", 0xF)
        operands: list[Operand] = []
        for item in instruction.dst:
            hidden = item.kind is Kind.SPECIAL and item.type == "mask" and "cmpx" in op.mnemonic
            if not hidden:
                operands.append(item)
        operands += instruction.src
        if op.mnemonic.startswith("v_swap"):
            operands = [instruction.dst[0], instruction.dst[1]]
        if not self._halves:  # no names but where they alone can tell
            halves = halves and _has_upper_half(operands) and "opselplain" not in op.flags
        if instruction.encoding == "VOP3P":
            halves = False
        parts = [self._plain(item, instruction, halves) for item in operands]
        tail = self._selectors(instruction, op)
        tail += byte_select(instruction)
        if fields.get("clamp") and "clamp" in op.flags:
            tail = f" clamp{tail}" if instruction.encoding == "VINTERP" else f"{tail} clamp"
        if fields.get("omod") and "omod" in op.flags:
            tail += OUTPUT_MODIFIERS[fields["omod"]]
        if instruction.dpp is not None:
            tail += dpp_text(instruction.dpp)
        if instruction.encoding == "VINTERP":
            tail += f" wait_exp:{fields['waitexp']}"
        return self._join(name, parts, tail)

    def _suffix(self, instruction: Instruction, short: bool) -> str:
        name = instruction.mnemonic
        if instruction.dpp is not None:
            if instruction.encoding == "VOPC":
                return ""
            return "_dpp" if short else "_e64_dpp"
        if not instruction.dst or name not in self._two_forms:
            return ""
        return "_e32" if short else "_e64"

    def _selectors(self, instruction: Instruction, op: OpSpec) -> str:
        """op_sel, op_sel_hi, neg_lo, neg_hi where they differ from their defaults."""
        fields = instruction.fields
        sources = len(instruction.src)
        if op.mnemonic.startswith("v_swmmac"):
            return sparse_key(instruction) + self._negations(instruction, op)
        if instruction.encoding == "VOP3P":
            every = (1 << sources) - 1
            text = bit_list("op_sel", fields["opsel"], sources) if fields["opsel"] & every else ""
            default = 0 if op.mnemonic.startswith("v_fma_mix") else every
            if fields["opsel_hi"] & every != default and "opsel" in op.flags:
                text += bit_list("op_sel_hi", fields["opsel_hi"], sources)
            return text if op.mnemonic.startswith("v_fma_mix") else text + self._negations(instruction, op)
        valid = op.flags.get("opsel", 0)
        selected = fields.get("opsel", 0)
        count = op.flags.get("opseln", 0)
        if "dot2" in op.mnemonic:
            selected &= valid
        if not selected & valid or selected & ~valid or not count:
            return ""
        if instruction.dpp is not None and "cmp" in op.mnemonic:
            count = sources  # the scalar destination has no bit, though LLVM shows one in the plain form
        if count == sources + 1:
            selected = selected & (1 << sources) - 1 | (selected >> 3 & 1) << sources
        return bit_list("op_sel", selected, count)

    @staticmethod
    def _negations(instruction: Instruction, op: OpSpec) -> str:
        text = ""
        for name, key in (("neg_lo", "neg"), ("neg_hi", "neg_hi")):
            if instruction.fields[key] & op.flags.get(key, 0):
                text += bit_list(name, instruction.fields[key], len(instruction.src))
        return text


def disassemble(
    code: bytes, address: int = 0, arch: str = "gfx1100", wave32: bool = True, halves: bool | None = None
) -> Iterator[tuple[int, Instruction | UnknownInstruction, str]]:
    """Every instruction of ``code`` as (its address, what it is, text).

    ``address`` is that of the first byte; with 0 the first item is the offset. Branch distances are printed as encoded.
    ``halves`` says whether halves of registers are named (see ``Printer``).
    What does not decode takes four bytes (fewer at the end) and is printed as ``.long``. Never raises for any bytes;
    raises Unsupported for an architecture without a table.
    """
    decoder = Decoder(arch)
    printer = Printer(arch, wave32, halves)
    offset = 0
    while offset < len(code):
        try:
            instruction = decoder.decode(code, offset)
            if instruction.dual is not None and not wave32:
                raise UnknownInstruction(instruction.words, "VOPD", instruction.opcode, "VOPD exists in wave32 only")
        except UnknownInstruction as unknown:
            yield address + offset, unknown, _data_text(code[offset : offset + 4])
            offset += 4
            continue
        yield address + offset, instruction, printer.text(instruction)
        offset += instruction.size_bytes


def _has_upper_half(operands: list[Operand]) -> bool:
    """Whether an operand is the upper half of a register: in a short encoding only its name can say so."""
    return any(operand.half for operand in operands)


def _data_text(data: bytes) -> str:
    """Up to four bytes that are no instruction; a dword of zeroes is the one that is illegal on purpose."""
    if len(data) < 4:
        return ".byte " + ", ".join(f"{byte:#04x}" for byte in data)
    return f".long {int.from_bytes(data, 'little'):#010x}" if any(data) else "v_illegal"
