"""Every definition means the same to LLVM as to NumPy: both algebras on random and on special operands, bit for bit."""

from __future__ import annotations

import enum
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from native_harness import AVX2, DTYPES, Batch

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.algebra import FloatMode, Rounding
from amdrv.emulator.isa.native import extrema, math_functions
from amdrv.emulator.isa.native.algebra import LlvmAlgebra
from amdrv.emulator.isa.native.builder import Builder, Val
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.stack import Stack
from amdrv.emulator.isa.numpy_algebra import NumpyAlgebra, quiet
from amdrv.emulator.isa.semantics.definition import Definition
from amdrv.emulator.isa.semantics.modifiers import bind
from amdrv.emulator.isa.table import OperandSpec, OpSpec, load_table

ENCODINGS = ("VOPD", "SOP1", "SOP2", "SOPC", "SOPK", "VOP1", "VOP2", "VOPC", "VOP3P", "VOP3SD", "VOP3")
WAVES = 24
# Approximated functions are rounded once from double precision on both sides, by different polynomials.
POLYNOMIAL = re.compile(r"v_(exp|log|sin|cos)_f(16|32)$")
SPECIAL = {
    "f16": (0, 1, 0x3FF, 0x400, 0x3BFF, 0x3C00, 0x3C01, 0x4000, 0x3800, 0x7BFF, 0x7C00, 0x7C01, 0x7DFF, 0x7E00, 0x7FFF),
    "f32": (
        *(0, 1, 0x7FFFFF, 0x800000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x40000000, 0x3F000000, 0x7F7FFFFF, 0x7F800000),
        *(0x7F800001, 0x7FBFFFFF, 0x7FC00000, 0x7FFFFFFF, 0x4F000000, 0x4EFFFFFF, 0x4F800000, 0x4F7FFFFF, 0x477FE000),
        *(0x477FF000, 0x33000000, 0x33800000, 0x38800000, 0x387FC000, 0x4B800001, 0x42FF8000, 0x47000000, 0x7E800000),
    ),
    "f64": (
        *(0, 1, (1 << 52) - 1, 1 << 52, 0x3FEFFFFFFFFFFFFF, 0x3FF0000000000000, 0x3FF0000000000001, 0x7FEFFFFFFFFFFFFF),
        *(0x7FF0000000000000, 0x7FF0000000000001, 0x7FF7FFFFFFFFFFFF, 0x7FF8000000000000, 0x7FFFFFFFFFFFFFFF),
        *(0x41DFFFFFFFC00000, 0x41E0000000000000, 0x41EFFFFFFFE00000, 0x41F0000000000000, 0x36A0000000000000),
        *(0x3810000000000000, 0x47EFFFFFF0000000, 0x47EFFFFFEFFFFFFF, 0x3FE0000000000000, 0x7FD0000000000000),
    ),
}


def library(lanes: int, cpu: str = "") -> list[Function]:
    features = "+avx2" if cpu else None
    return [*math_functions.functions(lanes), *extrema.functions(lanes, features)]


def patterns(width: int, kind: str, count: int, random: np.random.Generator) -> np.ndarray:
    """Bit patterns: a third specials of either sign, a third numbers of near exponents, a third anything."""
    anything = (
        random.integers(0, 1 << width, count, dtype=np.uint64, endpoint=False)
        if width < 64
        else (random.integers(0, 1 << 64, count, dtype=np.uint64))
    )
    if kind in SPECIAL:
        sign = np.uint64(1 << width - 1)
        special = random.choice(np.array(SPECIAL[kind], np.uint64), count) | sign * random.integers(
            0, 2, count, np.uint64
        )
        near = random.normal(0, 4, count).astype(f"f{width // 8}").view(f"u{width // 8}").astype(np.uint64)
    else:
        edges = [0, 1, 2, (1 << width) - 1, 1 << width - 1, (1 << width - 1) - 1, 1 << width // 2]
        special = random.choice(np.array(edges, np.uint64), count)
        near = random.integers(0, 40, count).astype(np.uint64)
    choice = random.integers(0, 3, count)
    return np.select([choice == 0, choice == 1], [special, near], anything)


def values(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Operands of a kind; 32 and 64 bits without sign are now and then bits of packed floats."""
    width = int(kind[1:])
    count = int(np.prod(shape))
    bits = patterns(width, kind, count, random)
    if kind == "u32":
        halves = patterns(16, "f16", 2 * count, random).reshape(2, count)
        packed = halves[0] | halves[1] << np.uint64(16)
        bits = np.where(random.integers(0, 2, count).astype(bool), packed, bits)
    return bits.astype(f"u{width // 8}").view(DTYPES[kind]).reshape(shape)


def operand_kind(spec: OperandSpec) -> str:
    letter, digits = re.fullmatch(r"([a-z]+)(\d*)", spec.type).groups()  # type: ignore[union-attr]
    if spec.type == "mix":
        letter = "f"
    elif letter in ("b", "bf", "iu") or int(digits) != spec.bits:
        letter = "u"
    return f"{letter}{spec.bits}"


@dataclass(frozen=True)
class Case:
    """A definition, the fields of an instruction, and how its operands look."""

    op: OpSpec
    fields: Mapping[str, int]

    @property
    def definition(self) -> Definition:
        definition = semantics.lookup(self.op.mnemonic)
        assert definition is not None
        return definition

    @property
    def name(self) -> str:
        return "_".join([self.op.mnemonic, *(f"{k}{v}" for k, v in self.fields.items())])

    @property
    def scalar(self) -> bool:
        return self.op.encoding.startswith("SOP")

    def inputs(self, lanes: int) -> list[tuple[str, int, bool]]:
        """(kind, registers of a stack or 0, per lane) of each value but "fields"."""
        kinds = [self._operand(spec) for spec in self.op.src]
        width = self.op.dst[0].bits if self.op.dst else 32
        for name in self.definition.reads:
            if name == "old":
                kinds.append(self._operand(self.op.dst[0]))
            elif name != "fields":
                kinds.append(
                    {
                        "scc": ("bool", 0, False),
                        "vcc": ("bool", 0, True),
                        "exec": (f"u{width}", 0, False),
                        "lane": ("u32", 0, True),
                    }[name]
                )
        return kinds

    def _operand(self, spec: OperandSpec) -> tuple[str, int, bool]:
        if spec.type == "mask":
            return "bool", 0, True
        if spec.bits > 64:
            return "u32", spec.bits // 32, True
        return operand_kind(spec), 0, not self.scalar

    def evaluate(self, algebra: object, arguments: list[object]) -> tuple[object, ...]:
        """Results of the bound definition; "fields" is put in its place."""
        reads = self.definition.reads
        if "fields" in reads:
            place = len(self.op.src) + reads.index("fields")
            arguments = [*arguments[:place], self.fields, *arguments[place:]]
        evaluate = bind(self.definition, self.fields, self.op.dst[0].type if self.op.dst else "")
        result = evaluate(algebra, *arguments)
        return result if isinstance(result, tuple) else (result,)


def _opcodes() -> Iterator[OpSpec]:
    """One opcode for each definition: that of the encoding with the most modifiers."""
    found: dict[str, OpSpec] = {}
    for encoding in ENCODINGS:
        found |= {op.mnemonic.replace("v_dual_", "v_"): op for op in load_table("gfx11").ops[encoding].values()}
    for definition in semantics.definitions():
        if not definition.mnemonic.startswith("v_wmma"):
            yield found[definition.mnemonic]


CASES = [
    Case(op, fields)
    for op in _opcodes()
    for fields in (
        {},
        *([{"clamp": 1}] if "clamp" in op.flags else []),
        *(
            [{"opsel": 2, "opsel_hi": 5, "neg": 3, "neg_hi": 6}]
            if "fields" in semantics.lookup(op.mnemonic).reads
            else []
        ),
    )
]


class Shape(enum.Enum):
    """What kind of registers the sources of a vector instruction are."""

    VECTORS = "vectors"
    FIRST_SCALAR = "first scalar"
    SCALARS = "scalars"
    FIRST_CONSTANT = "first constant"
    CONSTANTS = "constants"


class Bench:
    """All cases of one wave size, mode and processor, compiled together."""

    def __init__(
        self,
        lanes: int,
        mode: FloatMode,
        cases: list[Case],
        cpu: str = "",
        level: int = 0,
        shape: Shape = Shape.VECTORS,
    ) -> None:
        self.lanes, self.mode, self.cases, self.shape = lanes, mode, cases, shape
        self.batch = Batch(lanes, library(lanes, cpu), level, cpu)
        for case in cases:
            self._add(case)

    def _inputs(self, case: Case) -> list[tuple[str, int, bool]]:
        inputs = case.inputs(self.lanes)
        scalars = {Shape.FIRST_SCALAR: 1, Shape.SCALARS: len(inputs)}.get(self.shape, 0)
        return [
            (kind, count, vector and (number >= scalars or count > 0 or kind == "bool"))
            for number, (kind, count, vector) in enumerate(inputs)
        ]

    def _constants(self, case: Case, arrays: list[np.ndarray]) -> dict[int, np.ndarray]:
        """Sources that are known when the code is written, by number, with one value for all waves."""
        count = {Shape.FIRST_CONSTANT: 1, Shape.CONSTANTS: len(case.op.src)}.get(self.shape, 0)
        sources = enumerate(zip(arrays[:count], case.inputs(self.lanes), strict=False))
        return {n: a[:1, :1] for n, (a, (kind, registers, _)) in sources if not registers and kind != "bool"}

    def _add(self, case: Case) -> None:
        shapes = self._inputs(case)
        flat = [(kind, vector) for kind, count, vector in shapes for _ in range(count or 1)]
        known = self._constants(case, self.arrays(case))

        def body(builder: Builder, *operands: Val) -> list[Val]:
            rest, arguments = list(operands), []
            for _, count, _ in shapes:
                arguments.append(Stack([rest.pop(0) for _ in range(count)]) if count else rest.pop(0))
            for number, value in known.items():
                arguments[number] = builder.constant(shapes[number][0], int(value.view(f"u{value.itemsize}")[0, 0]))
            results = case.evaluate(LlvmAlgebra(builder, self.mode), arguments)
            return [value for result in results for value in (result.values if isinstance(result, Stack) else [result])]

        self.batch.add(case.name, body, flat)

    def arrays(self, case: Case) -> list[np.ndarray]:
        """The values that a case is tried with."""
        random = np.random.default_rng(zlib.crc32(case.name.encode()))
        arrays: list[np.ndarray] = []
        for number, (kind, count, vector) in enumerate(self._inputs(case)):
            shape = (*([count] if count else []), WAVES, self.lanes if vector else 1)
            if "lane" in case.definition.reads and number == len(case.op.src):
                arrays.append(
                    np.broadcast_to(np.arange(self.lanes, dtype=np.uint32), (WAVES, self.lanes))[:, : shape[1]]
                )
            elif kind == "bool":
                arrays.append(random.integers(0, 2, shape).astype(np.bool_))
            else:
                arrays.append(values(kind, shape, random))
        return arrays

    def compare(self, case: Case) -> list[str]:
        """Where the two algebras disagree, in words."""
        arrays = self.arrays(case)
        for number, value in self._constants(case, arrays).items():
            arrays[number] = np.broadcast_to(value, arrays[number].shape)
        with quiet():
            wanted = case.evaluate(NumpyAlgebra(self.mode), list(arrays))
        stacked = [w for v in wanted for w in (list(v) if v.ndim == 3 else [v])]
        flat = [part for array in arrays for part in (list(array) if array.ndim == 3 else [array])]
        got = self.batch.call(case.name, *flat)
        assert len(got) == len(stacked)
        problems: list[str] = []
        for ours, theirs in zip(got, stacked, strict=True):
            shape = np.broadcast_shapes(ours.shape, theirs.shape)
            pair = [np.ascontiguousarray(np.broadcast_to(side, shape)) for side in (ours, theirs)]
            problems += differences(case, *pair, flat)
        return problems


def differences(case: Case, got: np.ndarray, wanted: np.ndarray, inputs: list[np.ndarray]) -> list[str]:
    """Lanes with other bits; all NaNs are one."""
    if got.dtype.itemsize != wanted.dtype.itemsize:
        return [f"{case.name}: {got.dtype} is not {wanted.dtype}"]
    wanted = np.ascontiguousarray(wanted)
    got = got.view(wanted.dtype)
    wrong = got != wanted if wanted.dtype == bool else got.view(f"u{got.itemsize}") != wanted.view(f"u{got.itemsize}")
    if wanted.dtype.kind == "f":
        wrong &= ~(np.isnan(got) & np.isnan(wanted))
        if POLYNOMIAL.match(case.op.mnemonic):
            wrong &= ~(ulps(got, wanted) <= 1)
    elif case.op.dst and case.op.dst[0].type == "f16" and case.op.dst[0].bits == 32:
        wrong &= ~_same_halves(got, wanted)
    return [
        f"{case.name}{[hex(int(np.broadcast_to(a, got.shape)[w, n].view(f'u{a.itemsize}'))) for a in inputs]}: "
        f"{got[w, n]!r} is not {wanted[w, n]!r}"
        for w, n in np.argwhere(wrong)[:2]
    ]


def _same_halves(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether both halves of packed f16 are the same numbers."""
    ours, theirs = (np.ascontiguousarray(a).view("f2").reshape(*a.shape, 2) for a in (got, wanted))
    same = (ours.view("u2") == theirs.view("u2")) | (np.isnan(ours) & np.isnan(theirs))
    return same.all(axis=-1)


def ulps(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Distance in representable numbers."""
    signed = [a.view(f"i{a.itemsize}").astype(np.int64) for a in (got, wanted)]
    top = 1 << 8 * got.itemsize - 1
    ordered = [np.where(s < 0, -top - s, s) for s in signed]
    return np.abs(ordered[0] - ordered[1])


def check(bench: Bench) -> None:
    problems = [line for case in bench.cases for line in bench.compare(case)]
    assert not problems, "\n".join(problems[:40])


# Comparisons that write EXEC are the others under a second name: they are tried once.
VECTOR = [case for case in CASES if not case.scalar and "cmpx" not in case.name]
PLAIN = [case for case in VECTOR if not case.fields]
FLOATS = [case for case in VECTOR if re.search(r"f16|f32|f64|norm", case.op.mnemonic)]
MODIFIED = [Case(c.op, {"omod": n}) for c in FLOATS for n in (1, 2, 3) if "omod" in c.op.flags and not c.fields]
EVERYTHING_FLUSHED = dict.fromkeys(("flush_inputs32", "flush_outputs32", "flush_inputs64", "flush_outputs64"), True)


def test_every_definition_agrees_with_numpy() -> None:
    check(Bench(32, FloatMode(), CASES))


def test_vector_definitions_agree_in_waves_of_64() -> None:
    check(Bench(64, FloatMode(), PLAIN))


def test_vector_definitions_agree_on_a_lesser_processor() -> None:
    check(Bench(32, FloatMode(), PLAIN, AVX2))


def test_optimised_float_code_agrees_with_numpy() -> None:
    check(Bench(32, FloatMode(), [case for case in FLOATS if not case.fields and "cmp" not in case.name], level=1))


@pytest.mark.parametrize("shape", [shape for shape in Shape if shape is not Shape.VECTORS])
def test_scalars_and_constants_stand_for_vectors(shape: Shape) -> None:
    check(Bench(32, FloatMode(), VECTOR, shape=shape))


@pytest.mark.parametrize(
    "mode",
    [
        FloatMode(round32=Rounding.UP, round64=Rounding.ZERO),
        FloatMode(Rounding.DOWN, Rounding.UP, flush_inputs32=True, flush_outputs64=True, saturate16=True),
        FloatMode(round32=Rounding.ZERO, round64=Rounding.DOWN, ieee=False, dx10_clamp=False, flush_inputs64=True),
        FloatMode(**EVERYTHING_FLUSHED, ieee=False, dx10_clamp=False),
        FloatMode(**EVERYTHING_FLUSHED),
        FloatMode(saturate16=True),
    ],
    ids=lambda mode: f"{mode.round32.name}-{mode.round64.name}-{'ieee' if mode.ieee else 'plain'}-{mode.saturate16:d}",
)
def test_float_definitions_agree_in_every_mode(mode: FloatMode) -> None:
    check(Bench(32, mode, FLOATS if mode.ieee else FLOATS + MODIFIED))
