"""Every ALU opcode of the decode table has a meaning, and every meaning fits the table's operands."""

from __future__ import annotations

import ast
import inspect
import re
from types import ModuleType

import numpy as np
import pytest

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.algebra import FloatMode, Rounding
from amdrv.emulator.isa.numpy_algebra import DTYPES, NumpyAlgebra, quiet
from amdrv.emulator.isa.semantics.definition import Definition
from amdrv.emulator.isa.semantics.modifiers import bind
from amdrv.emulator.isa.semantics.ownership import ENGINE, ENGINE_OF_GFX12
from amdrv.emulator.isa.table import OperandSpec, OpSpec, load_table

ALU_ENCODINGS = ("SOP1", "SOP2", "SOPC", "SOPK", "SOPP", "VOP1", "VOP2", "VOP3", "VOP3SD", "VOP3P", "VOPC", "VOPD")
WAVES, LANES = 3, 32

OWNED = {"gfx11": ENGINE, "gfx12": ENGINE_OF_GFX12}


def opcodes(generation: str) -> list[OpSpec]:
    return [op for encoding in ALU_ENCODINGS for op in load_table(generation).ops[encoding].values()]


OPCODES = [(generation, op) for generation in OWNED for op in opcodes(generation)]
COMPUTED = [(generation, op) for generation, op in OPCODES if op.mnemonic not in OWNED[generation]]
ON_GFX1100 = [(generation, op) for generation, op in COMPUTED if "gfx1150" not in op.flags]


def name_of(value: object) -> str:
    return f"{value.encoding}-{value.mnemonic}" if isinstance(value, OpSpec) else str(value)


def definition_of(op: OpSpec, generation: str) -> Definition:
    definition = semantics.lookup(op.mnemonic, generation)
    assert definition is not None, op.mnemonic
    return definition


def is_stack(op: OpSpec, spec: OperandSpec) -> bool:
    """Whether an operand is a stack of registers."""
    return spec.bits > 64 or "wmma" in op.mnemonic or "swmmac" in op.mnemonic


def source(op: OpSpec, spec: OperandSpec, random: np.random.Generator) -> np.ndarray:
    """Random values as an engine hands them over."""
    shape = (WAVES, 1 if is_scalar(op) else LANES)
    if spec.type == "mask":
        return random.integers(0, 2, shape).astype(np.bool_)
    if is_stack(op, spec):
        return random.integers(0, 2**32, (spec.bits // 32, *shape), dtype=np.uint32)
    word = random.integers(0, 2**64, shape, dtype=np.uint64)
    size = {16: "2", 32: "4", 64: "8"}[spec.bits]
    letter, digits = re.fullmatch(r"([a-z]+)(\d*)", spec.type).groups()
    if spec.type == "mix":
        letter = "f"
    elif int(digits) != spec.bits or letter == "bf":
        letter = "u"
    return word.astype(f"u{size}").view({"b": "u", "u": "u", "i": "i", "f": "f"}[letter] + size)


def is_scalar(op: OpSpec) -> bool:
    return op.encoding.startswith("SOP") or op.mnemonic.startswith("v_s_")


def inputs(op: OpSpec, definition: Definition, fields: dict[str, int], random: np.random.Generator) -> list[object]:
    values: list[object] = [source(op, spec, random) for spec in op.src]
    width = op.dst[0].bits if op.dst else 32
    for name in definition.reads:
        values.append(
            {
                "scc": lambda: random.integers(0, 2, (WAVES, 1)).astype(np.bool_),
                "vcc": lambda: random.integers(0, 2, (WAVES, LANES)).astype(np.bool_),
                "exec": lambda: random.integers(0, 2**32, (WAVES, 1)).astype(f"u{width // 8}"),
                "old": lambda: source(op, op.dst[0] if op.dst else op.src[0], random),
                "lane": lambda: np.arange(LANES, dtype=np.uint32)[None],
                "fields": lambda: fields,
            }[name]()
        )
    return values


def results(op: OpSpec, generation: str, fields: dict[str, int], algebra: NumpyAlgebra) -> tuple[np.ndarray, ...]:
    definition = definition_of(op, generation)
    values = inputs(op, definition, fields, np.random.default_rng(1))
    evaluate = bind(definition, fields, op.dst[0].type if op.dst else "")
    with quiet():
        result = evaluate(algebra, *values)
    assert isinstance(result, tuple) == (len(definition.writes) > 1)
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize(("generation", "op"), OPCODES, ids=name_of)
def test_every_alu_opcode_is_defined_or_owned_by_the_engine(generation: str, op: OpSpec) -> None:
    assert (semantics.lookup(op.mnemonic, generation) is not None) != (op.mnemonic in OWNED[generation])


def test_no_meaning_and_no_ownership_is_left_without_an_opcode() -> None:
    known: set[str] = set()
    for generation in OWNED:
        known |= {op.mnemonic for op in (*opcodes(generation), *load_table(generation).ops["VINTERP"].values())}
        assert {definition.mnemonic for definition in semantics.definitions(generation)} <= known
        assert set(OWNED[generation]) <= known


def expected_size(op: OpSpec, name: str, result: np.ndarray) -> int:
    """Bytes of one element of a result that a ``writes`` name stands for."""
    if name in ("scc", "exec"):
        return 1 if result.dtype == np.bool_ else op.dst[0].bits // 8
    spec = op.dst[1 if name == "dst1" else 0]
    if spec.type == "mask":
        return 1
    return 4 if spec.bits > 64 else spec.bits // 8


@pytest.mark.parametrize("flag", ["", "clamp", "omod"])
@pytest.mark.parametrize(("generation", "op"), COMPUTED, ids=name_of)
def test_results_have_the_width_and_shape_of_the_destination(generation: str, op: OpSpec, flag: str) -> None:
    definition = definition_of(op, generation)
    fields = {flag: 1} if flag in op.flags else {}
    for name, result in zip(definition.writes, results(op, generation, fields, NumpyAlgebra()), strict=True):
        size = expected_size(op, name, result)
        assert result.dtype.itemsize == size, (name, result.dtype)
        if name == "dst" and op.dst[0].bits > 64:  # a matrix
            assert result.shape == (op.dst[0].bits // 32, WAVES, LANES)
        elif is_scalar(op):
            assert result.shape == (WAVES, 1)
        else:
            assert result.shape == (WAVES, LANES)


@pytest.mark.parametrize(("generation", "op"), [item for item in ON_GFX1100 if item[1].encoding.startswith("V")])
def test_every_vector_instruction_runs_in_every_mode(generation: str, op: OpSpec) -> None:
    mode = FloatMode(
        round32=Rounding.DOWN, round64=Rounding.ZERO, flush_inputs32=True, flush_outputs64=True, ieee=False
    )
    plain = results(op, generation, {}, NumpyAlgebra())
    fields = {"omod": 1} if "omod" in op.flags else {}
    for kept, moded in zip(plain, results(op, generation, fields, NumpyAlgebra(mode)), strict=True):
        assert (kept.dtype, kept.shape) == (moded.dtype, moded.shape)


@pytest.mark.parametrize(
    "definition",
    list(dict.fromkeys((*semantics.definitions(), *semantics.definitions("gfx12")))),
    ids=lambda d: d.mnemonic,
)
def test_accuracy_is_exact_or_an_approximation_with_its_bound(definition: Definition) -> None:
    assert re.fullmatch(r"exact|approximate: \S.+", definition.accuracy)


def test_both_halves_of_a_dual_instruction_are_found_by_their_dual_name() -> None:
    assert semantics.lookup("v_dual_add_f32") is semantics.lookup("v_add_f32")
    assert semantics.lookup("v_dual_dot2acc_f32_bf16") is semantics.lookup("v_dot2acc_f32_bf16")
    assert semantics.lookup("ds_load_b32") is None


def modules() -> list[ModuleType]:
    return [member for member in vars(semantics).values() if inspect.ismodule(member)]


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.__name__.rsplit(".", 1)[1])
def test_semantics_depend_on_no_implementation_of_the_algebra(module: ModuleType) -> None:
    """A definition that named NumPy, or looked at a value, could not be translated."""
    tree = ast.parse(inspect.getsource(module))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if "numpy" in name or "llvm" in name]
    called = {
        node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not called & {"any", "all", "item", "tolist", "astype", "view"}


def test_values_of_every_kind_have_a_dtype() -> None:
    assert {kind: dtype.itemsize * 8 for kind, dtype in DTYPES.items()} == {kind: int(kind[1:]) for kind in DTYPES}
