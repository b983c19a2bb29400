"""The operations of tensor graphs and kernels, their kinds, and what a range of a kernel becomes."""

from __future__ import annotations

from enum import StrEnum


class Op(StrEnum):
    """Every operation; ``spec.py`` says what each wants."""

    # leaves
    CONST = "const"  # arg: Python scalar
    BUFFER = "buffer"  # tensor graph. arg: (serial of the storage, shape)
    IOTA = "iota"  # tensor graph. arg: (shape, axis): the position along the axis
    RANGE = "range"  # kernel. arg: (number, size, Axis)
    PARAM = "param"  # kernel. arg: (slot, number of elements): the buffer in that slot
    SHARED = "shared"  # kernel. arg: (number, number of elements): memory of a workgroup, or of a thread inside loops
    # elementwise, both stages
    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    DIV = "div"  # true division, floats
    IDIV = "idiv"  # floor division, integers
    MOD = "mod"  # sign of the divisor
    TRUNCDIV = "truncdiv"  # kernel: towards zero, integers; not by zero
    REM = "rem"  # kernel: what TRUNCDIV leaves
    POW = "pow"
    MAX = "max"
    MIN = "min"
    AND = "and"
    OR = "or"
    XOR = "xor"
    SHL = "shl"
    SHR = "shr"
    LT = "lt"
    EQ = "eq"
    NEG = "neg"
    SQRT = "sqrt"
    EXP = "exp"
    EXP2 = "exp2"
    LOG = "log"
    LOG2 = "log2"
    SIN = "sin"
    COS = "cos"
    ERF = "erf"
    FLOOR = "floor"
    RINT = "rint"  # to nearest, ties to even
    WHERE = "where"
    CAST = "cast"
    BITCAST = "bitcast"
    # movement: which element of the source an element of the result is
    RESHAPE = "reshape"  # arg: shape
    PERMUTE = "permute"  # arg: axes
    EXPAND = "expand"  # arg: shape; axes of length one repeat, and a scalar repeats everywhere
    PAD = "pad"  # arg: (before, after, between) per axis; zeros
    SLICE = "slice"  # arg: (start, step, length) per axis
    WINDOW = "window"  # arg: (axis, size, stride, dilation); a new last axis
    TAKE = "take"  # source and one index array for each of its leading axes
    SCATTER = "scatter"  # (base, values, indices as of TAKE): values combined with elements by arg, a reduction
    # the rest of the tensor graph
    REDUCE = "reduce"  # tensor graph: arg (op, axes), axes become 1. Kernel: sources (value, *ranges), arg op
    DETACH = "detach"  # the same values, through which no gradient goes
    CONTIGUOUS = "contiguous"  # a buffer of its own
    COPY = "copy"  # the sources one after the other. arg: (device, number); with another number it is another copy
    SHARD = "shard"  # arg: (group, axis): in parts along the axis, or copies for axis None
    SINK = "sink"  # several results
    # the rest of a kernel
    LOAD = "load"  # (param, position, gate); zero where the gate is false
    STORE = "store"  # (param, position, value). arg: None, or the reduction that combines it with what is there
    MULADD = "muladd"  # one rounding
    MATRIX = "matrix"  # a step of a matrix product, on matrix cores; also what a reduction combines such steps with
    PART = "part"  # arg: which element of a vector, or of the results that a matrix product has in each lane


UNARY = frozenset({Op.NEG, Op.SQRT, Op.EXP, Op.EXP2, Op.LOG, Op.LOG2, Op.SIN, Op.COS, Op.ERF, Op.FLOOR, Op.RINT})
COMPARE = frozenset({Op.LT, Op.EQ})
BINARY = frozenset(
    {Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.IDIV, Op.MOD, Op.POW, Op.MAX, Op.MIN, Op.AND, Op.OR, Op.XOR, Op.SHL, Op.SHR}
    | {Op.TRUNCDIV, Op.REM}
)
ELEMENTWISE = UNARY | COMPARE | BINARY | {Op.WHERE, Op.CAST, Op.BITCAST}
MOVEMENT = frozenset({Op.RESHAPE, Op.PERMUTE, Op.EXPAND, Op.PAD, Op.SLICE, Op.WINDOW})
REDUCTIONS = frozenset({Op.ADD, Op.MUL, Op.MAX, Op.MIN})


class Axis(StrEnum):
    """What a range of a kernel becomes."""

    LOOP = "loop"  # one trip for each element
    REDUCE = "reduce"  # its trips are combined
    LANE = "lane"  # all elements at once, in a vector
    ITEM = "item"  # GPU: work-item in its workgroup
    GROUP = "group"  # GPU: workgroup
