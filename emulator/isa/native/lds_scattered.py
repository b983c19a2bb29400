"""Library functions for LDS at any addresses, lane by lane.

lds_gather.B.wN(ptr ctx, <N x i32> address) -> {<N x i32> × dwords}
    B = 8, 16, 32, 64, 96, 128 bits of every lane; zero-extended, and zero beyond the end.
lds_scatter.B.wN(ptr ctx, iN mask, <N x i32> address, <N x i32> × dwords) -> void
    Stores of the lanes in the mask, in order; nothing is stored beyond the end.

The buffer goes on for at least 64 bytes behind the last one (Context.lds_limit): lanes that must not store do it there.
A load that all groups of 16 lanes make alike, as those of matrix operands do, is made once.
"""

from __future__ import annotations

import re

from amdrv.emulator.isa.native.ir_text import deinterleave, interleave, shuffle, splat, vector
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.tlb import context_field

GROUP = 16
_POINTER_NAME = re.compile(r"%(safe|wide|at)\.")
SIZES = (1, 2, 4, 8, 12, 16)


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    return [make(lanes, size) for size in SIZES for make in (_gather, _scatter)]


def dwords_of(size_bytes: int) -> int:
    """Registers that an element of a lane fills."""
    return -(-size_bytes // 4)


def loaded_type(lanes: int, dwords: int) -> str:
    """What loads return."""
    return f"{{{', '.join([vector(lanes)] * dwords)}}}"


def loaded(lanes: int, values: list[str]) -> str:
    """IR that returns loaded registers."""
    kind, previous, lines = loaded_type(lanes, len(values)), "poison", []
    for number, value in enumerate(values):
        lines.append(f"\n  %result.{number} = insertvalue {kind} {previous}, {vector(lanes)} {value}, {number}")
        previous = f"%result.{number}"
    return "".join(lines) + f"\n  ret {kind} {previous}"


def concatenate(name: str, parts: list[str], element: str, width: int, lines: list[str]) -> str:
    """Write the concatenation of vectors of ``width`` elements; returns its name."""
    step = 0
    while len(parts) > 1:
        joined = []
        for number in range(0, len(parts), 2):
            target = f"{name}.{step}.{number}"
            lines.append(shuffle(target, element, width, (parts[number], parts[number + 1]), range(2 * width)))
            joined.append(f"%{target}")
        parts, width, step = joined, 2 * width, step + 1
    return parts[0]


def _inside(lanes: int, size: int) -> str:
    """IR for %inside, the lanes in range."""
    return f"""{context_field("lds", "ptr")}{context_field("lds_bytes", "i32")}
  %limit = call i32 @llvm.usub.sat.i32(i32 %lds_bytes, i32 {size - 1}){splat("limits", "%limit", lanes)}
  %inside = icmp ult {vector(lanes)} %address, %limits"""


def _pointer(lanes: int, lane: int) -> str:
    """IR for %at.<lane>, from %safe."""
    return f"""
  %safe.{lane} = extractelement {vector(lanes)} %safe, i64 {lane}
  %wide.{lane} = zext i32 %safe.{lane} to i64
  %at.{lane} = getelementptr i8, ptr %lds, i64 %wide.{lane}"""


def _transpose(prefix: str, rows: list[str], lines: list[str]) -> list[str]:
    """Write the transposition of every four by four dwords of four vectors of 16, in two steps within 128 bits.

    Where row k has the elements of lanes k, k + 4, k + 8 and k + 12, the result has a vector for each dword, and the
    other way round.
    """

    def unpack(name: str, x: str, y: str, high: int, dwords: int) -> str:
        places = [[base + 2 * high, base + 2 * high + 1] for base in range(0, GROUP, 4)]
        if dwords == 1:
            order = [place + side for pair in places for place in pair for side in (0, GROUP)]
        else:
            order = [place + side for pair in places for side in (0, GROUP) for place in pair]
        lines.append(shuffle(f"{prefix}.{name}", "i32", GROUP, (x, y), order))
        return f"%{prefix}.{name}"

    near = [unpack(f"near{high}", rows[0], rows[1], high, 1) for high in (0, 1)]
    far = [unpack(f"far{high}", rows[2], rows[3], high, 1) for high in (0, 1)]
    return [unpack(f"out{2 * pair + high}", near[pair], far[pair], high, 2) for pair in (0, 1) for high in (0, 1)]


# Loads.


def _gather(lanes: int, size: int) -> Function:
    kind, dwords = vector(lanes), dwords_of(size)
    returned = loaded_type(lanes, dwords)
    lines = [f"define {returned} @lds_gather.{8 * size}.w{lanes}(ptr %ctx, {kind} %address) {{"]
    lines.append(f"""{_inside(lanes, size)}
  %safe = select {vector(lanes, "i1")} %inside, {kind} %address, {kind} zeroinitializer""")
    if size >= 8:
        _repeat(lanes, size, lines)
    rows = _load_lanes("each", lanes, lanes, size, lines)
    _return_inside("each", lanes, rows, lines)
    lines.append("\n}")
    return Function("".join(lines))


def _return_inside(prefix: str, lanes: int, rows: list[str], lines: list[str]) -> None:
    values = []
    for dword, row in enumerate(rows):
        values.append(f"%{prefix}.value.{dword}")
        select = f"select {vector(lanes, 'i1')} %inside, {vector(lanes)} {row}, {vector(lanes)} zeroinitializer"
        lines.append(f"\n  {values[-1]} = {select}")
    lines.append(loaded(lanes, values).replace("%result", f"%{prefix}.result"))


def _repeat(lanes: int, size: int, lines: list[str]) -> None:
    """Write the way for groups of lanes that all load the same; what follows is for others."""
    again = [lane % GROUP for lane in range(lanes)]
    lines.append(shuffle("repeated", "i32", lanes, ("%address", "poison"), again))
    lines.append(f"""
  %differ = icmp ne {vector(lanes)} %address, %repeated
  %differ.bits = bitcast {vector(lanes, "i1")} %differ to i{lanes}
  %alike = icmp eq i{lanes} %differ.bits, 0
  br i1 %alike, label %once, label %each
once:""")
    own: list[str] = []
    rows = []
    for dword, row in enumerate(_load_lanes("once", lanes, GROUP, size, own)):
        own.append(shuffle(f"once.all.{dword}", "i32", GROUP, (row, "poison"), again))
        rows.append(f"%once.all.{dword}")
    _return_inside("once", lanes, rows, own)
    lines += [_POINTER_NAME.sub(r"%once.\1.", line) for line in own]
    lines.append("\neach:")


def _load_lanes(prefix: str, lanes: int, count: int, size: int, lines: list[str]) -> list[str]:
    """Write loads of the first ``count`` lanes' elements; returns the registers."""
    word = f"i{8 * size}" if size <= 4 else vector(2 if size == 8 else 4)  # of 96 bits, 32 more are loaded
    for lane in range(count):
        lines.append(f"{_pointer(lanes, lane)}\n  %{prefix}.word.{lane} = load {word}, ptr %at.{lane}, align 1")
    words = [f"%{prefix}.word.{lane}" for lane in range(count)]
    if size > 8:
        return _join_quads(prefix, words, lines)[: dwords_of(size)]
    if size == 8:
        whole = concatenate(f"{prefix}.whole", words, "i32", 2, lines)
        lines.append(deinterleave(f"{prefix}.raw.", whole, count, 2))
        return [f"%{prefix}.raw.{dword}" for dword in range(2)]
    previous = "poison"
    for lane, value in enumerate(words):
        name = f"%{prefix}.all.{lane}"
        lines.append(f"\n  {name} = insertelement {vector(count, word)} {previous}, {word} {value}, i64 {lane}")
        previous = name
    if size == 4:
        return [previous]
    lines.append(f"\n  %{prefix}.raw = zext {vector(count, word)} {previous} to {vector(count)}")
    return [f"%{prefix}.raw"]


def _join_quads(prefix: str, words: list[str], lines: list[str]) -> list[str]:
    """Elements of four dwords, one a lane, as four registers."""
    parts: list[list[str]] = [[], [], [], []]
    for start in range(0, len(words), GROUP):
        rows = [
            concatenate(f"{prefix}.row.{start}.{k}", words[start + k : start + GROUP : 4], "i32", 4, lines)
            for k in range(4)
        ]
        for part, vector_of in zip(parts, _transpose(f"{prefix}.{start}", rows, lines), strict=True):
            part.append(vector_of)
    return [concatenate(f"{prefix}.raw.{d}", part, "i32", GROUP, lines) for d, part in enumerate(parts)]


# Stores.


def _scatter(lanes: int, size: int) -> Function:
    kind, flags, dwords = vector(lanes), vector(lanes, "i1"), dwords_of(size)
    data = "".join(f", {kind} %data.{dword}" for dword in range(dwords))
    lines = [f"define void @lds_scatter.{8 * size}.w{lanes}(ptr %ctx, i{lanes} %mask, {kind} %address{data}) {{"]
    lines.append(f"""{_inside(lanes, size)}{splat("behind", "%lds_bytes", lanes)}
  %active = bitcast i{lanes} %mask to {flags}
  %storing = and {flags} %active, %inside
  %safe = select {flags} %storing, {kind} %address, {kind} %behind""")
    word = f"i{8 * size}" if size <= 4 else vector(dwords)
    values = _words(lanes, size, lines)
    for lane, value in enumerate(values):
        lines.append(f"{_pointer(lanes, lane)}\n  store {word} {value}, ptr %at.{lane}, align 1")
    return Function(f"{''.join(lines)}\n  ret void\n}}")


def _words(lanes: int, size: int, lines: list[str]) -> list[str]:
    """Write each lane's element out of the data registers."""
    dwords = dwords_of(size)
    values = [f"%word.{lane}" for lane in range(lanes)]
    if size > 8:
        for start in range(0, lanes, GROUP):
            _split_quads(lanes, start, dwords, lines)
    elif size == 8:
        lines.append(interleave("whole", ["%data.0", "%data.1"], lanes))
        for lane in range(lanes):
            lines.append(shuffle(f"word.{lane}", "i32", 2 * lanes, ("%whole", "poison"), (2 * lane, 2 * lane + 1)))
    else:
        word = f"i{8 * size}"
        if size < 4:
            lines.append(f"\n  %short = trunc {vector(lanes)} %data.0 to {vector(lanes, word)}")
        source = "%short" if size < 4 else "%data.0"
        for lane, value in enumerate(values):
            lines.append(f"\n  {value} = extractelement {vector(lanes, word)} {source}, i64 {lane}")
    return values


def _split_quads(lanes: int, start: int, dwords: int, lines: list[str]) -> None:
    """Write the elements %word.<lane> of three or four dwords of a group of lanes."""
    rows = ["poison"] * 4
    for dword in range(dwords):
        rows[dword] = f"%own.{start}.{dword}"
        span = range(start, start + GROUP)
        lines.append(shuffle(rows[dword][1:], "i32", lanes, (f"%data.{dword}", "poison"), span))
    for k, row in enumerate(_transpose(f"quad.{start}", rows, lines)):
        for part in range(4):
            places = range(4 * part, 4 * part + dwords)
            lines.append(shuffle(f"word.{start + 4 * part + k}", "i32", GROUP, (row, "poison"), places))
