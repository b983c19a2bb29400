"""Matrix instructions: the functions that compiled code calls give what the definitions give in NumPy, bit for bit."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from native_harness import AVX2, Batch, compile_ir

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.algebra import FloatMode, Rounding
from amdrv.emulator.isa.native import matrix_functions
from amdrv.emulator.isa.native.algebra import LlvmAlgebra
from amdrv.emulator.isa.native.builder import Builder, Val
from amdrv.emulator.isa.numpy_algebra import NumpyAlgebra, quiet
from amdrv.emulator.isa.semantics.matrix import INTEGER, SHORT, SINGLE
from amdrv.emulator.isa.semantics.modifiers import bind

WAVES = 6
ELEMENT_BITS = dict.fromkeys((*SINGLE, *SHORT), 16) | INTEGER
FLOAT_FIELDS = ({}, {"neg": 5, "neg_hi": 4}, {"neg": 2, "neg_hi": 3, "opsel": 4}, {"neg": 4})
INTEGER_FIELDS = ({}, {"neg": 1}, {"neg": 2, "clamp": 1}, {"neg": 3, "clamp": 1})


def registers(mnemonic: str, lanes: int) -> list[int]:
    """How many registers A, B, C and, where it is read, the old D have."""
    rows = 256 // lanes
    elements = ELEMENT_BITS[mnemonic] // 2
    return [elements, elements, rows, *([rows] if mnemonic in SHORT else [])]


def operands(mnemonic: str, lanes: int, random: np.random.Generator) -> list[np.ndarray]:
    """A third of the waves hold moderate numbers, a third any bits, a third single infinities, NaNs and denormals."""
    stacks = []
    for number, count in enumerate(registers(mnemonic, lanes)):
        shape = (count, WAVES, lanes)
        stack = random.integers(0, 1 << 32, shape, dtype=np.uint32)
        if mnemonic not in INTEGER:
            wide = number >= 2 and mnemonic in SINGLE
            moderate = random.normal(0, 2, (*shape, 1 if wide else 2)).astype(
                "f4" if wide or "bf16" in mnemonic else "f2"
            )
            if "bf16" in mnemonic and not wide:
                moderate = (moderate.view("u4") >> 16).astype("u2")
            usual = np.ascontiguousarray(moderate).view("u4")[..., 0]
            odd = np.where(random.random(shape) < 0.01, stack, usual)
            stack = np.concatenate([usual[:, ::3], stack[:, 1::3], odd[:, 2::3]], axis=1)
        stacks.append(np.ascontiguousarray(stack))
    return stacks


def disagreements(lanes: int, mode: FloatMode, cpu: str = "", mnemonics: tuple[str, ...] = tuple(ELEMENT_BITS)) -> int:
    """Elements of all cases' results that differ; all NaNs are one."""
    batch = Batch(lanes, matrix_functions.functions(lanes), 0, cpu)
    cases = [(m, f) for m in mnemonics for f in (INTEGER_FIELDS if m in INTEGER else FLOAT_FIELDS)]
    for number, (mnemonic, fields) in enumerate(cases):
        counts = registers(mnemonic, lanes)

        def body(builder: Builder, *values: Val, m: str = mnemonic, f: dict[str, int] = fields) -> list[Val]:
            rest = list(values)
            stacks = [[rest.pop(0) for _ in range(count)] for count in registers(m, lanes)]
            return matrix_functions.matrix(LlvmAlgebra(builder, mode), m, f, *stacks, *([] if m in SHORT else [[]]))

        batch.add(f"case{number}", body, [("u32", True)] * sum(counts))
    wrong = 0
    for number, (mnemonic, fields) in enumerate(cases):
        stacks = operands(mnemonic, lanes, np.random.default_rng(number))
        definition = semantics.lookup(mnemonic)
        assert definition is not None
        with quiet():
            wanted = bind(definition, fields, "u32")(NumpyAlgebra(mode), *stacks, fields)
        got = np.stack(batch.call(f"case{number}", *[register for stack in stacks for register in stack]))
        wrong += int((~same(mnemonic, got, wanted)).sum())
    return wrong


def same(mnemonic: str, got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if mnemonic in INTEGER:
        return got == wanted
    ours, theirs = np.ascontiguousarray(got), np.ascontiguousarray(wanted)
    if mnemonic in SINGLE:
        ours, theirs = ours.view("f4"), theirs.view("f4")
    elif "bf16" in mnemonic:
        ours, theirs = ((a.view("u2").astype("u4") << 16).view("f4") for a in (ours, theirs))
    else:
        ours, theirs = ours.view("f2"), theirs.view("f2")
    word = f"u{ours.itemsize}"
    return (ours.view(word) == theirs.view(word)) | (np.isnan(ours) & np.isnan(theirs))


@pytest.mark.parametrize("cpu", ["", AVX2])
@pytest.mark.parametrize("lanes", [32, 64])
def test_matrix_functions_agree_with_the_definitions(lanes: int, cpu: str) -> None:
    assert disagreements(lanes, FloatMode(), cpu) == 0


@pytest.mark.parametrize(
    "mode",
    [
        FloatMode(round32=Rounding.UP, round64=Rounding.DOWN),
        FloatMode(flush_inputs32=True, flush_outputs32=True, flush_inputs64=True, flush_outputs64=True),
        FloatMode(saturate16=True),
    ],
)
def test_other_float_modes_agree_with_the_definitions(mode: FloatMode) -> None:
    assert disagreements(32, mode, mnemonics=("v_wmma_f32_16x16x16_f16", "v_wmma_f16_16x16x16_f16")) == 0


@pytest.mark.parametrize("mnemonic", SINGLE)
@pytest.mark.parametrize("lanes", [32, 64])
def test_registers_in_memory_may_be_those_of_the_addend(mnemonic: str, lanes: int) -> None:
    functions = {function.name: function for function in matrix_functions.functions(lanes)}
    name = f"{mnemonic}.mem.w{lanes}"
    code = compile_ir(functions[name].definition(), name)
    multiply = code.function(name, None, *[ctypes.c_void_p] * 4)
    stacks = operands(mnemonic, lanes, np.random.default_rng(1))
    with quiet():
        wanted = np.asarray(bind(semantics.lookup(mnemonic), {}, "u32")(NumpyAlgebra(), *stacks, {}))
    for wave in range(WAVES):
        a, b, c = (aligned(stack[:, wave]) for stack in stacks)
        multiply(a.ctypes.data, b.ctypes.data, c.ctypes.data, c.ctypes.data)
        assert same(mnemonic, c, wanted[:, wave]).all()


def aligned(registers: np.ndarray) -> np.ndarray:
    """A copy at an address that suits the widest vectors."""
    space = np.zeros(registers.nbytes + 256, np.uint8)
    start = -space.ctypes.data % 256
    copy = space[start : start + registers.nbytes].view(np.uint32).reshape(registers.shape)
    copy[...] = registers
    return copy
