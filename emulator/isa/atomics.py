"""Read-modify-write of memory by many lanes, with the result that running the lanes one after the other gives.

Lanes that meet at one address are told apart by a stable sort. Sums, logic and extremes are then run over the lanes of
an address at once; other operations take as many rounds as the busiest address has lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.algebra import FloatMode

Array = NDArray[Any]
Indices = NDArray[np.int64]
ROUNDS = 24  # more lanes than this at one address: go over the addresses instead of the lanes


@dataclass(frozen=True, slots=True)
class AtomicOp:
    """``apply(memory, data, compare)`` is the new value; all are arrays of dtype ``kind`` ("u", "i" or "f") and width.

    ``scan`` is the associative function whose running application over an address's lanes gives the same (None when
    there is no such function); ``sources`` counts the data operands, the second being the comparand. ``plain`` is what
    does the same for operands so large that no denormal can come of them.
    """

    kind: str
    apply: Callable[[Array, Array, Array], Array]
    scan: np.ufunc | None = None
    negate: bool = False  # data enters the scan negated
    sources: int = 1
    plain: AtomicOp | None = None


def _where(condition: Array, x: Array, y: Array) -> Array:
    return np.where(condition, x, y)


def _wrap(memory: Array, data: Array, other: Array) -> Array:
    return _where(memory >= data, memory - data, memory + other)


def _conditional_exchange(memory: Array, data: Array, other: Array) -> Array:
    """Each dword is replaced where bit 31 of its data is set, by the rest of the data (DS_CONDXCHG32_RTN_B64)."""
    result = np.empty_like(memory)
    halves, old, new = (array.view(np.uint32) for array in (result, memory, np.ascontiguousarray(data)))
    halves[...] = np.where(new >> np.uint32(31) != 0, new & np.uint32(0x7FFFFFFF), old)
    return result


def _extremum_number(better: Callable[[Array, Array], Array], memory: Array, data: Array) -> Array:
    """minimumNumber and maximumNumber (RDNA4 pseudo code of DS_MIN_NUM_F32): -0 below +0, a number before a NaN."""
    word = np.dtype(f"i{memory.itemsize}")
    quiet = word.type(1 << {4: 22, 8: 51}[memory.itemsize])
    absent, missing = np.isnan(memory), np.isnan(data)
    order_memory, order_data = (np.where(x.view(word) < 0, -2, -1) for x in (memory, data))
    equal = (memory == data) & (memory == 0)
    chosen = _where(better(data, memory) | equal & better(order_data, order_memory), data, memory)
    chosen = _where(missing, memory, _where(absent, data, chosen))
    return _where(missing & absent, (np.ascontiguousarray(data).view(word) | quiet).view(memory.dtype), chosen)


def _extremum(better: Callable[[Array, Array], Array], memory: Array, data: Array) -> Array:
    """Minimum or maximum of gfx11: a signalling NaN wins and is made quiet (RDNA3 ISA manual, 13.3 "NaN Handling")."""
    word = np.dtype(f"u{memory.itemsize}")
    quiet = word.type(1 << {4: 22, 8: 51}[memory.itemsize])
    result = _extremum_number(better, memory, data)
    for value in (memory, data):
        bits = np.ascontiguousarray(value).view(word)
        result = _where(np.isnan(value) & (bits & quiet == 0), (bits | quiet).view(memory.dtype), result)
    return result


def _flush(x: Array) -> Array:
    return np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, np.copysign(x.dtype.type(0), x), x)


def _flushing(op: AtomicOp, inputs: bool, outputs: bool) -> AtomicOp:
    """A float operation that takes denormals for zeroes, or does not give any."""

    def apply(memory: Array, data: Array, other: Array) -> Array:
        if inputs:
            memory, data, other = _flush(memory), _flush(data), _flush(other)
        result = op.apply(memory, data, other)
        return _flush(result) if outputs else result

    return AtomicOp(op.kind, apply, sources=op.sources, plain=op if op.scan is not None else None)


def _comparing_flushed(op: AtomicOp) -> AtomicOp:
    """An extremum that compares without denormals, and keeps the bits of what it picks."""

    def apply(memory: Array, data: Array, other: Array) -> Array:
        old, new = _flush(memory), _flush(data)
        result = op.apply(old, new, other)
        bits, old_bits, new_bits = (np.ascontiguousarray(x).view(f"u{x.itemsize}") for x in (result, old, new))
        return _where(bits == old_bits, memory, _where(bits == new_bits, data, result))

    return AtomicOp(op.kind, apply, sources=op.sources)


def _add_pairs(kind: str) -> Callable[[Array, Array, Array], Array]:
    """Two f16 or bf16 sums in a dword, each rounded to nearest even."""

    def apply(memory: Array, data: Array, other: Array) -> Array:
        old, new = (np.ascontiguousarray(array).view(np.uint16) for array in (memory, data))
        if kind == "f16":
            return (old.view(np.float16) + new.view(np.float16)).view(memory.dtype)
        wide = [(half.astype(np.uint32) << np.uint32(16)).view(np.float32) for half in (old, new)]
        total = wide[0] + wide[1]
        bits = total.view(np.uint32)
        rounded = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
        kept = _where(np.isnan(total), bits | np.uint32(0x400000), rounded) >> np.uint32(16)
        return kept.astype(np.uint16).view(memory.dtype)

    return apply


ATOMICS: dict[str, AtomicOp] = {
    "swap": AtomicOp("u", lambda m, d, c: d),
    "cmpswap": AtomicOp("u", lambda m, d, c: _where(m == c, d, m), sources=2),
    "cmpswap_f": AtomicOp("f", lambda m, d, c: _where(m == c, d, m), sources=2),
    "add": AtomicOp("u", lambda m, d, c: m + d, np.add),
    "sub": AtomicOp("u", lambda m, d, c: m - d, np.add, negate=True),
    "rsub": AtomicOp("u", lambda m, d, c: d - m),
    "csub": AtomicOp("u", lambda m, d, c: _where(m < d, np.zeros_like(m), m - d)),
    "sub_clamp": AtomicOp("u", lambda m, d, c: _where(m < d, np.zeros_like(m), m - d)),
    "cond_sub": AtomicOp("u", lambda m, d, c: _where(m >= d, m - d, m)),
    "min_i": AtomicOp("i", lambda m, d, c: _where(d < m, d, m), np.minimum),
    "min_u": AtomicOp("u", lambda m, d, c: _where(d < m, d, m), np.minimum),
    "max_i": AtomicOp("i", lambda m, d, c: _where(d >= m, d, m), np.maximum),
    "max_u": AtomicOp("u", lambda m, d, c: _where(d >= m, d, m), np.maximum),
    "and": AtomicOp("u", lambda m, d, c: m & d, np.bitwise_and),
    "or": AtomicOp("u", lambda m, d, c: m | d, np.bitwise_or),
    "xor": AtomicOp("u", lambda m, d, c: m ^ d, np.bitwise_xor),
    "inc": AtomicOp("u", lambda m, d, c: _where(m >= d, np.zeros_like(m), m + m.dtype.type(1))),
    "dec": AtomicOp("u", lambda m, d, c: _where((m == 0) | (m > d), d, m - m.dtype.type(1))),
    "mskor": AtomicOp("u", lambda m, d, c: (m & ~d) | c, sources=2),
    "wrap": AtomicOp("u", _wrap, sources=2),
    "condxchg32": AtomicOp("u", _conditional_exchange),
    "min_f": AtomicOp("f", lambda m, d, c: _extremum(np.less, m, d)),
    "max_f": AtomicOp("f", lambda m, d, c: _extremum(np.greater, m, d)),
    "min_num_f": AtomicOp("f", lambda m, d, c: _extremum_number(np.less, m, d)),
    "max_num_f": AtomicOp("f", lambda m, d, c: _extremum_number(np.greater, m, d)),
    "pk_add_f16": AtomicOp("u", _add_pairs("f16")),
    "pk_add_bf16": AtomicOp("u", _add_pairs("bf16")),
    "add_f": AtomicOp("f", lambda m, d, c: m + d, np.add),  # np.add.accumulate adds strictly in order
}

# Variants that flush inputs ("i") or outputs ("o").
ATOMICS |= {f"{name}.i": _comparing_flushed(ATOMICS[name]) for name in ("min_f", "max_f")}
ATOMICS |= {f"{name}.i": _flushing(ATOMICS[name], True, False) for name in ("cmpswap_f", "min_num_f", "max_num_f")}
ATOMICS |= {f"add_f.{flags}": _flushing(ATOMICS["add_f"], "i" in flags, "o" in flags) for flags in ("i", "o", "io")}
NAMES = {id(op): name for name, op in ATOMICS.items()}


def in_mode(op: AtomicOp, size_bytes: int, local: bool, mode: FloatMode, generation: str) -> AtomicOp:
    """The variant of a float operation that the mode asks for.

    LDS follows the mode, but a 64-bit sum does not. In memory a 32-bit sum of gfx11 flushes its inputs in every mode
    and 64-bit operations but comparisons keep denormals (ROCm rocjitsu, amdisa profile: scalar_atomic_denorm_modes).
    FLAT counts as memory wherever it reaches.
    """
    name, wide = NAMES[id(op)], size_bytes == 8
    flushes = (mode.flush_inputs64, mode.flush_outputs64) if wide else (mode.flush_inputs32, mode.flush_outputs32)
    if name == "add_f":
        inputs, outputs = flushes if local else (generation == "gfx11", False)
        flags = "" if wide else "i" * inputs + "o" * outputs
    else:
        flags = "i" * (flushes[0] and (local or not wide or name == "cmpswap_f"))
    return ATOMICS.get(f"{name}.{flags}", op) if flags else op


def dtype_of(op: AtomicOp, size_bytes: int) -> np.dtype[Any]:
    """The element type in which ``op`` of this width works."""
    return np.dtype(f"{op.kind}{size_bytes}")


def perform(op: AtomicOp, memory: Array, index: Indices, data: Array, compare: Array, want_old: bool) -> Array | None:
    """Apply ``op`` at ``memory[index[i]]`` for each i in order; all arrays have the operation's dtype.

    Returns the value that each i found, or None unless ``want_old``.
    """
    if op.plain is not None and _stays_normal(memory[index], data):
        op = op.plain
    if len(index) == 1:
        old = memory[index]
        memory[index] = op.apply(old, data, compare)
        return old
    if not want_old and op.scan is not None:
        op.scan.at(memory, index, np.negative(data) if op.negate else data)  # in order, equal indices included
        return None
    order = np.argsort(index, kind="stable")
    target = index[order]
    first = np.empty(len(index), np.bool_)
    first[0] = True
    np.not_equal(target[1:], target[:-1], out=first[1:])
    if first.all():
        old = memory[index]
        memory[index] = op.apply(old, data, compare)
        return old
    starts = np.flatnonzero(first)
    data, compare = data[order], compare[order]
    lengths = np.diff(starts, append=len(index))
    if int(lengths.max()) > ROUNDS and op.scan is not None and len(starts) < int(lengths.max()):
        found = _scan(op, op.scan, memory, target, starts, data)
    else:
        found = _rounds(op, memory, target, starts, lengths, data, compare)
    old = np.empty_like(found)
    old[order] = found
    return old


def _stays_normal(memory: Array, data: Array) -> bool:
    """Whether no sum of these can be denormal: a difference is no smaller than the last place of its terms."""
    info = np.finfo(data.dtype)
    least = info.smallest_normal / info.eps
    return all(bool(((np.abs(x) >= least) | (x == 0)).all()) for x in (memory, data))


def _rounds(
    op: AtomicOp, memory: Array, target: Indices, starts: Indices, lengths: Indices, data: Array, compare: Array
) -> Array:
    """One lane of every address at a time; inputs are sorted by address."""
    found = np.empty_like(data)
    rank = 0
    while len(starts):
        place = starts + rank
        at = target[place]
        old = memory[at]
        found[place] = old
        memory[at] = op.apply(old, data[place], compare[place])
        rank += 1
        more = lengths > rank
        starts, lengths = starts[more], lengths[more]
    return found


def _scan(op: AtomicOp, scan: np.ufunc, memory: Array, target: Indices, starts: Indices, data: Array) -> Array:
    """All lanes of one address at a time; inputs are sorted by address."""
    found = np.empty_like(data)
    operands = np.negative(data) if op.negate else data
    bounds = [*starts.tolist(), len(target)]
    for begin, end in pairwise(bounds):
        at = target[begin]
        running = scan.accumulate(np.concatenate((memory[at : at + 1], operands[begin:end])))
        found[begin:end] = running[:-1]
        memory[at] = running[-1]
    return found
