"""The compiler's parts by themselves: nodes, rules, positions, the checker, memory planning."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.errors import InvalidArgument, OutOfMemory, Unsupported
from amdrv.runtime.host_code import compile_object
from amdrv.runtime.object_cache import ObjectCache
from amdrv.tensor import Tensor, devices, dtypes, engine, gpu, host, ir, simplify, spec, symbolic
from amdrv.tensor.arrange_panels import PANEL_BYTES_MAX
from amdrv.tensor.ir import Axis, Node, Op
from amdrv.tensor.lower import Kernel
from amdrv.tensor.memory_plan import Interval, place
from amdrv.tensor.patterns import Rule, RuleSet, const, node, var
from amdrv.tensor.rewrite import Step, rewrite


def range_of(number: int, size: int) -> Node:
    return Node(Op.RANGE, dtypes.index, (), (number, size, Axis.LOOP))


def evaluate(found: Node, values: dict[Node, int]) -> int:
    if found.op is Op.CONST:
        return found.arg
    if found.op is Op.RANGE:
        return values[found]
    a, b = (evaluate(source, values) for source in found.src)
    return {
        Op.ADD: lambda: a + b, Op.MUL: lambda: a * b, Op.IDIV: lambda: a // b, Op.MOD: lambda: a % b,
        Op.LT: lambda: a < b, Op.EQ: lambda: a == b, Op.MAX: lambda: max(a, b), Op.MIN: lambda: min(a, b),
    }[found.op]()  # fmt: skip


# -- nodes -------------------------------------------------------------------------------------------------------------


def test_equal_nodes_are_the_same_object() -> None:
    assert range_of(0, 4) is range_of(0, 4)
    assert ir.const(dtypes.float32, 1) + ir.const(dtypes.float32, 2) is ir.const(dtypes.float32, 1) + ir.const(
        dtypes.float32, 2
    )


def test_constants_that_only_compare_equal_are_different() -> None:
    assert ir.const(dtypes.float32, 0.0) is not ir.const(dtypes.float32, -0.0)
    assert ir.const(dtypes.int32, 1) is not ir.const(dtypes.bool_, True)
    assert ir.const(dtypes.uint8, 257).arg == 1 and ir.const(dtypes.int8, 200).arg == -56


def test_sources_come_before_their_users() -> None:
    a, b = range_of(0, 4), range_of(1, 5)
    order = list(ir.toposort([symbolic.add(symbolic.scale(a, 5), b)]))
    assert all(order.index(source) < order.index(found) for found in order for source in found.src)


# -- rules -------------------------------------------------------------------------------------------------------------

X, Y = (Node(Op.PARAM, dtypes.int32, (), (slot, 8)) for slot in range(2))


def test_rules_apply_bottom_up_until_none_does_and_are_traced() -> None:
    x, c, d = var("x"), const("c"), const("d")
    rules = RuleSet(
        [
            Rule("add zero", x + 0, x),
            Rule("collect", (x + c) + d, lambda x, c, d: x + (c.arg + d.arg)),
        ]
    )
    trace: list[Step] = []
    assert rewrite(((X + 2) + 3) + 0, rules, trace) is X + 5
    assert [step.rule for step in trace] == ["collect", "add zero"]


def test_commutative_patterns_match_either_way_and_repeated_names_want_the_same_node() -> None:
    x, y = var("x"), var("y")
    double = Rule("double", x + x, lambda x: x * 2)
    factor = Rule("factor", x * y + x, x * y)
    assert double.apply(X + X) is X * 2 and double.apply(X + Y) is None
    assert (factor.apply(X * Y + X) is X * Y and factor.apply(X + Y * X) is Y * X) or X * Y


def test_rules_that_undo_each_other_are_reported() -> None:
    x, y = var("x"), var("y")
    rules = RuleSet([Rule("turn", node(Op.SUB, x, y), lambda x, y: y - x)])
    with pytest.raises(InvalidArgument, match="undo"):
        rewrite(X - Y, rules)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((X * 1) + 0, X),
        (-X * 1, -X),
        (Node(Op.NEG, X.dtype, (-X,)), X),
        (ir.const(dtypes.int32, 2) * 3, ir.const(dtypes.int32, 6)),
        (X - 0, X),
    ],
)  # fmt: skip
def test_simplification(before: Node, after: Node) -> None:
    assert simplify.simplify(before) is after


# -- positions ---------------------------------------------------------------------------------------------------------

SIZES = (3, 4, 5)


# Kind → (position as the compiler simplifies it, as a plain function), from two such pairs, a positive number and any.
MOVES = {
    "add": lambda a, f, b, g, n, m: (symbolic.add(a, b), lambda v: f(v) + g(v)),
    "scale": lambda a, f, b, g, n, m: (symbolic.scale(a, m), lambda v: f(v) * m),
    "divide": lambda a, f, b, g, n, m: (symbolic.divide(a, n), lambda v: f(v) // n),
    "modulo": lambda a, f, b, g, n, m: (symbolic.modulo(a, n), lambda v: f(v) % n),
    "offset": lambda a, f, b, g, n, m: (symbolic.offset(a, m), lambda v: f(v) + m),
}


@st.composite
def positions(draw: st.DrawFn) -> tuple[Node, object]:
    """A position as the compiler simplifies it, and as a plain function of the ranges."""
    ranges = [range_of(k, n) for k, n in enumerate(SIZES)]
    pool: list[tuple[Node, object]] = [(r, lambda v, k=k: v[k]) for k, r in enumerate(ranges)]
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["add", "scale", "divide", "modulo", "offset"]))
        a, f = draw(st.sampled_from(pool))
        b, g = draw(st.sampled_from(pool))
        n = draw(st.integers(1, 24))
        m = draw(st.integers(-30, 30))
        pool.append(MOVES[kind](a, f, b, g, n, m))
    return pool[-1]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(positions())
def test_simplified_positions_have_the_same_value_and_stay_in_their_bounds(pair: tuple[Node, object]) -> None:
    found, plain = pair
    low, high = symbolic.bounds(found)
    for i in range(SIZES[0]):
        for j in range(SIZES[1]):
            for k in range(SIZES[2]):
                value = evaluate(
                    found, {range_of(n, s): v for n, (s, v) in enumerate(zip(SIZES, (i, j, k), strict=True))}
                )
                assert value == plain((i, j, k))  # type: ignore[operator]
                assert low <= value <= high


def test_reshaping_there_and_back_leaves_ranges() -> None:
    i, j = range_of(0, 12), range_of(1, 35)
    flat = symbolic.add(symbolic.scale(i, 35), j)
    assert symbolic.divide(flat, 35) is i
    assert symbolic.modulo(flat, 35) is j
    assert symbolic.add(symbolic.scale(symbolic.divide(j, 5), 5), symbolic.modulo(j, 5)) is j
    assert symbolic.less(flat, 420) is symbolic.TRUE and symbolic.at_least(flat, 420) is symbolic.FALSE


# -- the checker -------------------------------------------------------------------------------------------------------


def kernel_of(value: Node) -> Kernel:
    """A kernel that computes four elements."""
    store = Node(Op.STORE, value.dtype, (Node(Op.PARAM, value.dtype, (), (0, 4)), range_of(0, 4), value))
    return Kernel(Node(Op.SINK, dtypes.bool_, (store,)), (X,), (X,))


def test_graphs_are_checked_before_they_are_scheduled() -> None:
    a, b = (Tensor(np.ones(n, np.float32), device="CPU").node for n in (2, 3))
    with pytest.raises(Unsupported, match=r"tensor graph: <add float32.* wants sources of one shape"):
        Tensor._of(a + b, "CPU").numpy()


@pytest.mark.parametrize("write", [lambda k: host.write_ir(k, host.machine()), lambda k: gpu.write_ir(k, "gfx1100")])
def test_a_kernel_that_fails_is_shown_with_the_stage(write: Callable[[Kernel], object]) -> None:
    one = ir.const(dtypes.float32, 1.0)
    with pytest.raises(Unsupported, match=r"(?s)stage: emit\): no instruction for shl of float32.* = store\("):
        write(kernel_of(Node(Op.SHL, dtypes.float32, (one, one))))
    twice = Node(Op.ADD, dtypes.int32, (one, one))
    with pytest.raises(Unsupported, match=r"(?s)stage: arrange\): kernel: <add int32.* wants two.* = store\("):
        write(kernel_of(twice))
    with pytest.raises(Unsupported, match=r"(?s)stage: decompose\): ValueError: .* = exp\("):
        write(kernel_of(Node(Op.EXP, dtypes.int32, (ir.const(dtypes.int32, 1),))))
    with pytest.raises(Unsupported, match=r"(?s)stage: lower\): kernel: <add int32"):
        engine.compiled([kernel_of(twice)], devices.backend("CPU"))


FLOAT, PARAM, ALONG = ir.const(dtypes.float32, 1.0), Node(Op.PARAM, dtypes.float32, (), (0, 8)), range_of(0, 8)
MALFORMED_KERNELS = {
    "two types": (Op.ADD, (FLOAT, ir.const(dtypes.int32, 1)), None, "two sources of the result's type"),
    "a comparison": (Op.LT, (FLOAT, FLOAT), None, "two of one type → bool"),
    "one source too many": (Op.EXP, (FLOAT, FLOAT), None, "one source of the result's type"),
    "no condition": (Op.WHERE, (FLOAT, FLOAT, FLOAT), None, "a bool and two"),
    "another size": (Op.BITCAST, (ir.const(dtypes.float64, 1.0),), None, "as many bits"),
    "a view": (Op.RESHAPE, (FLOAT,), (1,), "to be in a tensor graph"),
    "nothing to reduce": (Op.REDUCE, (FLOAT,), Op.ADD, "ranges to reduce"),
    "a loop that is reduced": (Op.REDUCE, (FLOAT, ALONG), Op.ADD, "ranges to reduce"),
    "no reduction": (Op.REDUCE, (FLOAT, Node(Op.RANGE, dtypes.index, (), (1, 4, Axis.REDUCE))), Op.SUB, "reduce"),
    "a position that is none": (Op.LOAD, (PARAM, FLOAT, symbolic.TRUE), None, r"\(param, position, gate\)"),
    "no gate": (Op.LOAD, (PARAM, ALONG, FLOAT), None, r"\(param, position, gate\)"),
    "another type to store": (Op.STORE, (PARAM, ALONG, symbolic.TRUE), None, "value of its type"),
    "two factors": (Op.MULADD, (FLOAT, FLOAT), None, "three sources"),
}
THREE = Node(Op.BUFFER, dtypes.float32, (), ((0, None), (3,)))
MALFORMED_GRAPHS = {
    "two shapes": (Op.ADD, (THREE, Node(Op.BUFFER, dtypes.float32, (), ((1, None), (4,)))), None, "one shape"),
    "a range": (Op.PARAM, (), (0, 8), "to be in a kernel"),
    "an axis that is not there": (Op.REDUCE, (THREE,), (Op.ADD, (1,)), "axes of the source"),
    "an axis twice": (Op.REDUCE, (THREE,), (Op.ADD, (0, 0)), "axes of the source"),
    "more of three": (Op.EXPAND, (THREE,), (6,), "axes of length one"),
    "values that do not fit": (Op.SCATTER, (THREE, FLOAT, THREE.cast(dtypes.int32)), Op.ADD, "indices' shape"),
}


@pytest.mark.parametrize("name", [*MALFORMED_KERNELS, *MALFORMED_GRAPHS])
def test_the_checker_names_what_is_wrong(name: str) -> None:
    op, src, arg, wanted = (MALFORMED_KERNELS | MALFORMED_GRAPHS)[name]
    found = Node(op, dtypes.float32, src, arg)
    with pytest.raises(Unsupported, match=rf"<{op} float32.*> wants .*{wanted}"):
        spec.check_kernel([found]) if name in MALFORMED_KERNELS else spec.check_graph(found)


# -- memory ------------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(1, 5000)), max_size=20))
def test_arrays_that_are_needed_together_do_not_share_bytes(given_intervals: list[tuple[int, int, int]]) -> None:
    intervals = [Interval(first, first + length, size) for first, length, size in given_intervals]
    offsets, total = place(intervals)
    for k, a in enumerate(intervals):
        assert offsets[k] + a.size_bytes <= total
        for other, b in list(enumerate(intervals))[:k]:
            if a.first <= b.last and b.first <= a.last:
                apart = offsets[k] + a.size_bytes <= offsets[other] or offsets[other] + b.size_bytes <= offsets[k]
                assert apart


def test_damaged_objects_on_disk_are_compiled_again(tmp_path: Path) -> None:
    cache = ObjectCache("a compiler", tmp_path)
    asked: list[str] = []

    def compile_ir(ir: str) -> bytes:
        asked.append(ir)
        return b"code of " + ir.encode()

    assert [cache.compiled("x", compile_ir) for _ in range(3)] == [b"code of x"] * 3
    assert asked == ["x"]
    (stored,) = tmp_path.iterdir()
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    assert cache.compiled("x", compile_ir) == b"code of x"
    assert ObjectCache("another compiler", tmp_path).compiled("x", compile_ir) == b"code of x"
    assert asked == ["x", "x", "x"]
    assert ObjectCache("a compiler", tmp_path / "missing" / stored.name).compiled("x", compile_ir) == b"code of x"


def test_an_object_of_another_module_or_a_folder_in_its_place_is_compiled_again(tmp_path: Path) -> None:
    cache = ObjectCache("a compiler", tmp_path)
    assert cache.compiled("x", lambda _: b"code of x") == b"code of x"
    (own,) = tmp_path.iterdir()
    foreign = own.read_bytes()
    own.unlink()
    assert cache.compiled("y", lambda _: b"code of y") == b"code of y"
    (other,) = tmp_path.iterdir()
    other.write_bytes(foreign)
    assert cache.compiled("y", lambda _: b"code of y") == b"code of y"
    other.unlink()
    other.mkdir()
    assert cache.compiled("y", lambda _: b"code of y") == b"code of y"
    assert list(tmp_path.iterdir()) == [other]  # nothing is left lying about


def test_code_that_llvm_refuses_is_shown_with_its_stage() -> None:
    with pytest.raises(Unsupported, match=r"(?s)host code.*define void @f\(\) \{ nonsense \}"):
        compile_object("define void @f() { nonsense }")


def test_memory_that_is_not_there_is_an_error_of_the_family() -> None:
    with pytest.raises(OutOfMemory, match="bytes for a tensor; this machine has"):
        Tensor.full((1 << 40, 1 << 20), 1.0, device="CPU").contiguous().realize()


def test_a_chain_of_arrays_needs_room_for_two() -> None:
    _, total = place([Interval(k, k + 1, 1024) for k in range(20)])
    assert total == 2048


@pytest.mark.parametrize("depth", [512, 6912, 40000])
def test_columns_that_are_not_beside_each_other_are_copied_however_long_they_are(depth: int) -> None:
    left, right = (Tensor(np.zeros(shape, np.float32), device="CPU") for shape in ((128, depth), (depth, 220)))
    graph, _ = engine.canonical([(right.transpose() @ left.transpose()).contiguous().node])
    (step,) = engine.plan(graph, left.backend).steps
    assert step.kernel is not None
    (function,) = host.write_ir(step.kernel, host.machine()).functions
    found = re.search(r"%panel0 = alloca \[(\d+) x float\]", function)
    assert found is not None
    assert int(found[1]) * 4 <= PANEL_BYTES_MAX
