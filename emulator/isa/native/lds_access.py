"""Library functions for loads and stores of LDS.

inline    lds_load.B.wN(ptr ctx, iN mask, <N x i32> address, i32 offset) -> {<N x i32> × dwords}
              B = 8, 16, 32, 64, 96, 128 bits at address + offset; zero-extended, and zero beyond the end.
inline    lds_load_pair.B.wN(ptr ctx, iN mask, <N x i32> address, i32 offset, i32 offset) -> {<N x i32> × 2 dwords}
              B = 32, 64: two elements of each lane.
inline    lds_store.B.wN(ptr ctx, iN mask, <N x i32> address, i32 offset, <N x i32> × dwords) -> void
inline    lds_store_pair.B.wN(ptr ctx, iN mask, <N x i32> address, i32 offset, i32 offset, <N x i32> × 2 dwords) -> void

Addresses are classified once for each instruction, in groups of 16 lanes: tiles in LDS are usually 16 elements wide. A
group is contiguous when its lanes are an element apart, and uniform when they agree; the rest goes to
``lds_scattered``. Nothing else looks at a workgroup's LDS while one of its waves runs, so a masked store is a load, a
selection and a store. What loads give to lanes that are not in the mask is open.
"""

from __future__ import annotations

from amdrv.emulator.isa.native.ir_text import constants, deinterleave, interleave, shuffle, splat, vector
from amdrv.emulator.isa.native.lds_scattered import GROUP, SIZES, concatenate, dwords_of, loaded, loaded_type
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.tlb import context_field

PAIRED = (4, 8)
CONTIGUOUS = (1, 2, 4, 8)  # larger elements are as fast one by one


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    result = []
    for size in SIZES:
        result += [_load(lanes, size, 1), _store(lanes, size, 1)]
    for size in PAIRED:
        result += [_load(lanes, size, 2), _store(lanes, size, 2)]
    return result


def _name(what: str, size: int, elements: int, lanes: int) -> str:
    return f"{what}{'_pair' if elements > 1 else ''}.{8 * size}.w{lanes}"


def _arguments(lanes: int, elements: int) -> str:
    offsets = "".join(f", i32 %offset.{element}" for element in range(elements))
    return f"ptr %ctx, i{lanes} %mask, {vector(lanes)} %address{offsets}"


# Classification.


def _classify(lanes: int, size: int, elements: int) -> str:
    """IR for each group g: whether it has no lane in the mask (%empty.g), the address of its first one (%at.g), where
    lane 0 of the group would be if it were contiguous (%start.g); and %rest, the addresses less these starts.
    """
    groups = lanes // GROUP
    lines = [context_field("lds", "ptr"), context_field("lds_bytes", "i32")]
    for group in range(groups):
        shifted = "%mask"
        if group:
            shifted = f"%mask.{group}"
            lines.append(f"\n  {shifted} = lshr i{lanes} %mask, {GROUP * group}")
        lines.append(f"""
  %part.{group} = trunc i{lanes} {shifted} to i16
  %empty.{group} = icmp eq i16 %part.{group}, 0
  %count.{group} = call i16 @llvm.cttz.i16(i16 %part.{group}, i1 false)
  %inside.{group} = and i16 %count.{group}, 15
  %first.{group} = zext i16 %inside.{group} to i32
  %lane.{group} = or i32 %first.{group}, {GROUP * group}
  %at.{group} = extractelement {vector(lanes)} %address, i32 %lane.{group}
  %ahead.{group} = mul i32 %first.{group}, {size}
  %start.{group} = sub i32 %at.{group}, %ahead.{group}""")
    if elements == 2:
        lines.append("\n  %reach = call i32 @llvm.umax.i32(i32 %offset.0, i32 %offset.1)")
    else:
        lines.append("\n  %reach = add i32 %offset.0, 0")
    lines.append(_by_group("starts", "start", lanes))
    lines.append(f"\n  %rest = sub {vector(lanes)} %address, %starts\n  %idle = xor i{lanes} %mask, -1")
    return "".join(lines)


def _by_group(target: str, scalars: str, lanes: int) -> str:
    """IR that gives each lane its group's scalar."""
    groups, previous, lines = lanes // GROUP, "poison", []
    for group in range(groups):
        name = f"%{target}.{group}"
        lines.append(f"\n  {name} = insertelement {vector(groups)} {previous}, i32 %{scalars}.{group}, i64 {group}")
        previous = name
    order = [lane // GROUP for lane in range(lanes)]
    return "".join(lines) + shuffle(target, "i32", groups, (previous, "poison"), order)


def _test(lanes: int, prefix: str, expected: str, bases: str, span: int) -> str:
    """IR for %<prefix>: all lanes' %rest is as expected, and ``span`` bytes from the bases on are in range."""
    mask = f"i{lanes}"
    lines = [
        f"""
  %{prefix}.eq = icmp eq {vector(lanes)} %rest, {expected}
  %{prefix}.bits = bitcast {vector(lanes, "i1")} %{prefix}.eq to {mask}
  %{prefix}.any = or {mask} %{prefix}.bits, %idle
  %{prefix}.all = icmp eq {mask} %{prefix}.any, -1
  %{prefix}.need = add i32 %reach, {span - 1}
  %{prefix}.limit = call i32 @llvm.usub.sat.i32(i32 %lds_bytes, i32 %{prefix}.need)"""
    ]
    previous = f"%{prefix}.all"
    for group in range(lanes // GROUP):
        name = f"%{prefix}.ok.{group}" if group < lanes // GROUP - 1 else f"%{prefix}"
        lines.append(f"""
  %{prefix}.in.{group} = icmp ult i32 %{bases}.{group}, %{prefix}.limit
  %{prefix}.fit.{group} = or i1 %{prefix}.in.{group}, %empty.{group}
  {name} = and i1 {previous}, %{prefix}.fit.{group}""")
        previous = name
    return "".join(lines)


def _test_contiguous(lanes: int, size: int) -> str:
    steps = constants([size * (lane % GROUP) for lane in range(lanes)])
    return (
        _test(lanes, "line", steps, "start", GROUP * size)
        + f"""
  %some = icmp ne i{lanes} %mask, 0
  %straight = and i1 %line, %some"""
    )


def _lines(lanes: int) -> str:
    """IR for %place.g, where a contiguous group begins; an empty group shares that of another."""
    groups = lanes // GROUP
    lines, fallback = [], f"%start.{groups - 1}"
    for group in reversed(range(groups - 1)):
        lines.append(f"\n  %spare.{group} = select i1 %empty.{group}, i32 {fallback}, i32 %start.{group}")
        fallback = f"%spare.{group}"
    for group in range(groups):
        lines.append(f"\n  %place.{group} = select i1 %empty.{group}, i32 {fallback}, i32 %start.{group}")
    return "".join(lines)


def _pointer(name: str, place: str, offset: str) -> str:
    return f"""
  %{name}.sum = add i32 {place}, {offset}
  %{name}.wide = zext i32 %{name}.sum to i64
  %{name} = getelementptr i8, ptr %lds, i64 %{name}.wide"""


# Loads.


def _load(lanes: int, size: int, elements: int) -> Function:
    dwords = dwords_of(size) * elements
    returned = loaded_type(lanes, dwords)
    head = f"define {returned} @{_name('lds_load', size, elements, lanes)}({_arguments(lanes, elements)}) {{"
    text = head + _classify(lanes, size, elements)
    ways = ["same", "slow"]
    if size in CONTIGUOUS:
        text += f"""{_test_contiguous(lanes, size)}
  br i1 %straight, label %line.load, label %other
line.load:{_lines(lanes)}{_load_lines(lanes, size, elements)}
  br label %done
other:"""
        ways.insert(0, "line")
    text += f"""{_by_group("aheads", "ahead", lanes)}{_test(lanes, "same", "%aheads", "at", size)}
  br i1 %same, label %same.load, label %slow.load
same.load:{_load_uniform(lanes, size, elements)}
  br label %done
slow.load:{_call_gather(lanes, size, elements)}
  br label %done
done:"""
    for dword in range(dwords):
        sources = ", ".join(f"[%{way}.{dword}, %{way}.load]" for way in ways)
        text += f"\n  %value.{dword} = phi {vector(lanes)} {sources}"
    values = [f"%value.{dword}" for dword in range(dwords)]
    return Function(f"{text}{loaded(lanes, values)}\n}}", inline=True)


def _load_lines(lanes: int, size: int, elements: int) -> str:
    """IR that loads contiguous groups to %line.0, …"""
    groups, lines, dwords = lanes // GROUP, [], dwords_of(size)
    raw = vector(GROUP * dwords) if size >= 4 else vector(GROUP, f"i{8 * size}")
    element_type, width = ("i32", GROUP * dwords) if size >= 4 else (f"i{8 * size}", GROUP)
    for element in range(elements):
        parts = []
        for group in range(groups):
            name = f"line.{element}.{group}"
            lines.append(_pointer(f"{name}.at", f"%place.{group}", f"%offset.{element}"))
            lines.append(f"\n  %{name} = load {raw}, ptr %{name}.at, align 1")
            parts.append(f"%{name}")
        whole = concatenate(f"line.{element}.whole", parts, element_type, width, lines)
        if size < 4:
            lines.append(f"\n  %line.{element} = zext {vector(lanes, element_type)} {whole} to {vector(lanes)}")
        else:
            lines.append(_renamed(deinterleave("line.raw.", whole, lanes, dwords), element))
            lines += [
                f"\n  %line.{element * dwords + dword} = freeze {vector(lanes)} %line.raw{element}.{dword}"
                for dword in range(dwords)
            ]
    return "".join(lines)


def _renamed(text: str, element: int) -> str:
    return text.replace("%line.raw.", f"%line.raw{element}.")


def _load_uniform(lanes: int, size: int, elements: int) -> str:
    """IR that loads one element for each group to %same.0, …"""
    groups, lines, dwords = lanes // GROUP, [], dwords_of(size)
    word = f"i{min(8 * size, 32)}"
    for element in range(elements):
        for group in range(groups):
            name = f"same.{element}.{group}"
            lines.append(_pointer(f"{name}.at", f"%at.{group}", f"%offset.{element}"))
            lines.append(f"\n  %{name}.safe = select i1 %empty.{group}, ptr %lds, ptr %{name}.at")
            for dword in range(dwords):
                at, scalar = f"%{name}.at{dword}", f"same.{element}.{dword}.{group}"
                lines.append(f"\n  {at} = getelementptr i8, ptr %{name}.safe, i64 {4 * dword}")
                if size >= 4:
                    lines.append(f"\n  %{scalar} = load i32, ptr {at}, align 1")
                else:
                    lines.append(f"\n  %{scalar}.raw = load {word}, ptr {at}, align 1")
                    lines.append(f"\n  %{scalar} = zext {word} %{scalar}.raw to i32")
        for dword in range(dwords):
            lines.append(
                _by_group(f"same.{element}.{dword}.all", f"same.{element}.{dword}", lanes)
                + f"\n  %same.{element * dwords + dword} = freeze {vector(lanes)} %same.{element}.{dword}.all"
            )
    return "".join(lines)


def _call_gather(lanes: int, size: int, elements: int) -> str:
    """IR that loads anything to %slow.0, …"""
    lines, dwords = [], dwords_of(size)
    returned = loaded_type(lanes, dwords)
    for element in range(elements):
        lines.append(splat(f"offsets.{element}", f"%offset.{element}", lanes))
        lines.append(f"""
  %where.{element} = add {vector(lanes)} %address, %offsets.{element}
  %found.{element} = call {returned} @lds_gather.{8 * size}.w{lanes}(ptr %ctx, {vector(lanes)} %where.{element})""")
        lines += [
            f"\n  %slow.{element * dwords + dword} = extractvalue {returned} %found.{element}, {dword}"
            for dword in range(dwords)
        ]
    return "".join(lines)


# Stores.


def _data(lanes: int, dwords: int) -> list[str]:
    return [f"{vector(lanes)} %data.{dword}" for dword in range(dwords)]


def _store(lanes: int, size: int, elements: int) -> Function:
    dwords = dwords_of(size)
    data = _data(lanes, dwords * elements)
    arguments = ", ".join([_arguments(lanes, elements), *data])
    text = f"define void @{_name('lds_store', size, elements, lanes)}({arguments}) {{"
    if size in CONTIGUOUS:
        text += f"""{_classify(lanes, size, elements)}{_test_contiguous(lanes, size)}
  br i1 %straight, label %line.store, label %slow.store
line.store:{_lines(lanes)}{_store_lines(lanes, size, elements)}
  ret void
slow.store:"""
    for element in range(elements):
        values = ", ".join(data[element * dwords : (element + 1) * dwords])
        arguments = f"ptr %ctx, i{lanes} %mask, {vector(lanes)} %where.{element}, {values}"
        text += f"""{splat(f"offsets.{element}", f"%offset.{element}", lanes)}
  %where.{element} = add {vector(lanes)} %address, %offsets.{element}
  call void @lds_scatter.{8 * size}.w{lanes}({arguments})"""
    return Function(f"{text}\n  ret void\n}}", inline=True)


def _store_lines(lanes: int, size: int, elements: int) -> str:
    """IR that stores contiguous groups one after the other."""
    lines, dwords = [], dwords_of(size)
    word = f"i{min(8 * size, 32)}"
    width = GROUP * dwords
    for group in range(lanes // GROUP):
        order = constants([lane // dwords for lane in range(width)])
        lines.append(f"""
  %kept.{group} = bitcast i16 %part.{group} to <16 x i1>
  %keep.{group} = shufflevector <16 x i1> %kept.{group}, <16 x i1> poison, {vector(width)} {order}""")
    for element in range(elements):
        values = [f"%data.{element * dwords + dword}" for dword in range(dwords)]
        whole = f"%flat.{element}"
        if size < 4:
            lines.append(f"\n  {whole} = trunc {vector(lanes)} {values[0]} to {vector(lanes, word)}")
        else:
            lines.append(interleave(whole[1:], values, lanes))
        for group in range(lanes // GROUP):
            name = f"line.{element}.{group}"
            span = range(width * group, width * (group + 1))
            kind = vector(width, word)
            lines.append(shuffle(f"{name}.new", word, lanes * dwords, (whole, "poison"), span))
            lines.append(_pointer(f"{name}.at", f"%place.{group}", f"%offset.{element}"))
            lines.append(f"""
  %{name}.old = load {kind}, ptr %{name}.at, align 1
  %{name} = select {vector(width, "i1")} %keep.{group}, {kind} %{name}.new, {kind} %{name}.old
  store {kind} %{name}, ptr %{name}.at, align 1""")
    return "".join(lines)
