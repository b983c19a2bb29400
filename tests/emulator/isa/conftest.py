"""A bench for shader code: memory, a compiler and a launch, without command processor or driver."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from llvmlite import binding as llvm
from numpy.typing import NDArray

from amdrv.emulator.isa.dispatch import Access, Dispatch, DispatchStats, MemoryViolation
from amdrv.emulator.isa.interpreter import Interpreter
from amdrv.runtime import code_object

if TYPE_CHECKING:
    from amdrv.emulator.isa.native.engine import Translator

PAGE = 4096
BASE = 0x7F00_0000_0000  # virtual address of the first page
INITIATOR_W32 = 1 << 15
SHARED_BASE, PRIVATE_BASE = 1 << 48, 2 << 48
# USER_SGPR=8 and TGID_X/Y/Z_EN, for code written by hand.
PLAIN_RSRC2 = 8 << 1 | 7 << 7 | 2 << 11
# FLOAT_MODE: keep all denormals, round to nearest; DX10_CLAMP and IEEE.
PLAIN_FLOATS = 0xF0 << 12 | 1 << 21 | 1 << 23
S_CODE_END = b"\x00\x00\x9f\xbf"


class PagedMemory:
    """Pages in a shuffled order, so that virtual neighbours are not neighbours in the arena."""

    def __init__(self, pages: int = 16384) -> None:
        self.arena = np.zeros(pages * PAGE, np.uint8)
        self._frames = [int(frame) for frame in np.random.default_rng(1).permutation(pages)]
        self._table = np.full(pages * 2, -1, np.int64)  # arena index by page number
        self._writable = np.zeros(pages * 2, np.bool_)
        self._next = 1
        self.translations = 0

    def allocate(self, size_bytes: int, *, writable: bool = True) -> int:
        """Map zeroed pages; an unmapped page follows them."""
        first = self._next
        for page in range(first, first + -(-size_bytes // PAGE)):
            self._table[page] = self._frames.pop() * PAGE
            self._writable[page] = writable
        self._next = first + -(-size_bytes // PAGE) + 1
        return BASE + first * PAGE

    def translate(self, va: NDArray[np.uint64], access: Access) -> NDArray[np.int64]:
        self.translations += va.size
        page = (va.astype(np.int64) - BASE) >> 12
        inside = (page >= 0) & (page < len(self._table))
        index = np.where(inside, self._table[np.where(inside, page, 0)], -1)
        allowed = index >= 0
        if access is Access.WRITE:
            allowed = allowed & self._writable[np.where(inside, page, 0)]
        if not allowed.all():
            first = int(np.flatnonzero(~allowed.reshape(-1))[0])
            bad = int(va.reshape(-1)[first])
            raise MemoryViolation(bad, access, "unmapped" if index.reshape(-1)[first] < 0 else "read-only")
        return index + (va & np.uint64(PAGE - 1)).astype(np.int64)

    def extent(self, va: int, access: Access) -> tuple[int, int, int]:
        first = va & ~(PAGE - 1)
        index = int(self.translate(np.array([va], np.uint64), access)[0])
        return first, first + PAGE, index - va

    def write(self, va: int, data: bytes) -> None:
        index = self.translate(va + np.arange(len(data), dtype=np.uint64), Access.READ)
        self.arena[index] = np.frombuffer(data, np.uint8)

    def read(self, va: int, size_bytes: int) -> bytes:
        index = self.translate(va + np.arange(size_bytes, dtype=np.uint64), Access.READ)
        return self.arena[index].tobytes()


@dataclass
class Kernel:
    """A loaded kernel: entry point and what its descriptor says (LLVM AMDGPUUsage, "Kernel Descriptor")."""

    pc: int
    rsrc: tuple[int, int, int]
    lds_bytes: int
    private_bytes: int
    properties: int

    @property
    def wave32(self) -> bool:
        return bool(self.properties >> 10 & 1)


@dataclass
class Bench:
    """Compile, load, launch."""

    memory: PagedMemory = field(default_factory=PagedMemory)
    engine: Interpreter | Translator = field(default_factory=Interpreter)
    interrupts: list[int] = field(default_factory=list)
    stats: DispatchStats = field(default_factory=DispatchStats)
    ticks: int = 1000
    arch: str = "gfx1100"

    def array(self, data: NDArray[np.generic], *, writable: bool = True) -> int:
        va = self.memory.allocate(max(data.nbytes, 1), writable=writable)
        self.memory.write(va, data.tobytes())
        return va

    def read(self, va: int, dtype: str, *shape: int) -> NDArray[np.generic]:
        count = int(np.prod(shape))
        return np.frombuffer(self.memory.read(va, count * np.dtype(dtype).itemsize), dtype).reshape(shape)

    def load(self, ir: str, name: str = "k", features: str = "") -> Kernel:
        """Compile LLVM IR text for the bench's processor and place its text section in memory."""
        blob = compile_ir(ir, features, self.arch)
        elf = ELFFile(io.BytesIO(blob))
        text, rodata = elf.get_section_by_name(".text"), elf.get_section_by_name(".rodata")
        symbols = {symbol.name: symbol["st_value"] for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
        constants = next((s for s in elf.iter_sections() if s.name.startswith(".rodata.cst")), None)
        code = bytearray(text.data())
        va = self.memory.allocate(len(code) + 256 + PAGE)
        relocations = elf.get_section_by_name(".rela.text")
        if relocations is not None:
            _relocate(elf, code, va, relocations, constants)
        self.memory.write(va, bytes(code) + S_CODE_END * 64)
        descriptor = rodata.data()[symbols[f"{name}.kd"] :][:64]
        lds, private = struct.unpack_from("<II", descriptor, 0)
        rsrc3, rsrc1, rsrc2, properties = struct.unpack_from("<IIII", descriptor, 44)
        return Kernel(va + symbols[name], (rsrc1, rsrc2, rsrc3), lds, private, properties & 0xFFFF)

    def load_object(self, blob: bytes, name: str) -> Kernel:
        """Place a linked code object's image in memory."""
        code = code_object.parse(blob, self.arch)
        kernel = code.kernel(name)
        va = self.memory.allocate(code.image.size_bytes + PAGE)
        self.memory.write(va, code.image.relocate(va))
        found = kernel.descriptor
        return Kernel(
            va + kernel.entry_offset, (found.rsrc1, found.rsrc2, found.rsrc3), found.group_segment_bytes,
            found.private_segment_bytes, found.properties,
        )  # fmt: skip

    def assemble(self, code: str | Sequence[int], *, vgprs: int = 32) -> Kernel:
        """Code given as a listing or as dwords; wave32, kernel arguments at s[0:1], workgroup ids from s8 on."""
        dwords = words(code) if isinstance(code, str) else code
        va = self.memory.allocate(len(dwords) * 4 + 256)
        self.memory.write(va, struct.pack(f"<{len(dwords)}I", *dwords) + S_CODE_END * 64)
        return Kernel(va, (vgprs // 8 - 1 | PLAIN_FLOATS, PLAIN_RSRC2, 0), 0, 0, 1 << 10 | 1 << 3)

    def run_wave(
        self,
        listing: str,
        *,
        vgprs: dict[int, NDArray[np.generic]],
        read: Sequence[int],
        read_sgprs: Sequence[int] = (),
        sgprs: dict[int, int] | None = None,
        exec_mask: int = -1,
        lanes: int = 32,
        lds_bytes: int = 0,
    ) -> tuple[list[NDArray[np.uint32]], list[int]]:
        """Run one wave: set VGPRs (at most 16) and SGPRs (4 to 15), then EXEC, then run ``listing``; read some back.

        v0 is the lane number and stays free to use; s[0:1] and s[2:3] hold buffers, v200 and EXEC serve the frame.
        """
        source = np.zeros((16, lanes), np.uint32)
        for number, values in enumerate(vgprs.values()):
            source[number] = values.view(np.uint32) if values.itemsize == 4 else values.astype(np.uint32)
        out_rows = len(read) + len(read_sgprs)
        inputs, outputs = self.array(source), self.array(np.zeros((out_rows, lanes), np.uint32))
        code = frame(listing, list(vgprs), list(read), list(read_sgprs), exec_mask, lanes)
        kernel = self.assemble(code, vgprs=208 if lanes == 32 else 104 * 2)
        pairs = [inputs & 0xFFFFFFFF, inputs >> 32, outputs & 0xFFFFFFFF, outputs >> 32]
        user = tuple(pairs + [(sgprs or {}).get(register, 0) for register in range(4, 16)])
        rsrc2 = 16 << 1 | -(-lds_bytes // 512) << 15
        dispatch = Dispatch(
            pc=kernel.pc,
            rsrc1=(208 // (8 if lanes == 32 else 4) - 1) | PLAIN_FLOATS,
            rsrc2=rsrc2,
            rsrc3=0,
            user_data=user,
            initiator=1 | (INITIATOR_W32 if lanes == 32 else 0),
            start=(0, 0, 0),
            groups=(1, 1, 1),
            threads=(lanes, 1, 1),
            shared_base=SHARED_BASE,
            private_base=PRIVATE_BASE,
        )
        self.stats = self.engine.run(
            dispatch, self.memory, cancelled=lambda: False, realtime=self._tick, interrupt=self.interrupts.append
        )
        result = self.read(outputs, "u4", out_rows, lanes)
        return [result[number].copy() for number in range(len(read))], [int(row[0]) for row in result[len(read) :]]

    def launch(
        self,
        kernel: Kernel,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *args: object,
        lds_bytes: int = 0,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> DispatchStats:
        """Run to the end; arguments are ints (pointers, i64), np scalars, or bytes."""
        kernarg = self.memory.allocate(PAGE)
        self.memory.write(kernarg, pack_arguments(args))
        lanes = 32 if kernel.wave32 else 64
        rsrc1, rsrc2, rsrc3 = kernel.rsrc
        rsrc2 |= -(-(kernel.lds_bytes + lds_bytes) // 512) << 15
        tmpring = scratch = 0
        if kernel.private_bytes:
            wave_units = -(-kernel.private_bytes * lanes // 256)
            waves = 64
            tmpring = waves | wave_units << 12
            scratch = self.memory.allocate(wave_units * 256 * waves * 6)
        full = lambda values: tuple(values) + (1,) * (3 - len(values))  # noqa: E731
        dispatch = Dispatch(
            pc=kernel.pc,
            rsrc1=rsrc1,
            rsrc2=rsrc2,
            rsrc3=rsrc3,
            user_data=self._user_data(kernel, kernarg),
            initiator=1 | (INITIATOR_W32 if kernel.wave32 else 0),
            start=(0, 0, 0),
            groups=full(grid),
            threads=full(block),
            tmpring_size=tmpring,
            scratch_base=scratch,
            shared_base=SHARED_BASE,
            private_base=PRIVATE_BASE,
        )
        self.stats = self.engine.run(
            dispatch, self.memory, cancelled=cancelled, realtime=self._tick, interrupt=self.interrupts.append
        )
        return self.stats

    def _tick(self) -> int:
        self.ticks += 100
        return self.ticks

    @staticmethod
    def _user_data(kernel: Kernel, kernarg: int) -> tuple[int, ...]:
        """User SGPRs that the descriptor enables, in their order; only the kernarg pointer has a value here."""
        data: list[int] = []
        for bit, dwords in ((0, 4), (1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (6, 1)):
            if kernel.properties >> bit & 1:
                data += [kernarg & 0xFFFFFFFF, kernarg >> 32] if bit == 3 else [0] * dwords
        return tuple(data + [0] * (16 - len(data)))


def pack_arguments(args: Sequence[object]) -> bytes:
    """Kernel arguments at their natural alignment."""
    packed = b""
    for arg in args:
        scalar = np.int64(arg) if isinstance(arg, int) else arg
        blob = scalar if isinstance(scalar, bytes) else scalar.tobytes()  # type: ignore[attr-defined]
        align = min(len(blob), 8) or 1
        packed += b"\0" * (-len(packed) % align) + blob
    return packed


def frame(
    listing: str, inputs: list[int], outputs: list[int], sgprs: list[int], exec_mask: int, lanes: int
) -> list[int]:
    """Code that loads VGPRs from s[0:1], sets EXEC, runs a listing and stores registers to s[2:3], a row each."""
    row = 4 * lanes
    code = [0x31900082]  # v_lshlrev_b32 v200, 2, v0
    for number, register in enumerate(inputs):
        code += [0xDC520000 | number * row, register << 24 | 0x000000C8]  # global_load_b32 vN, v200, s[0:1]
    code += [0xBEFE00FF, exec_mask & 0xFFFFFFFF]  # s_mov_b32 exec_lo, mask
    if lanes == 64:
        code += [0xBEFF00FF, exec_mask >> 32 & 0xFFFFFFFF]  # s_mov_b32 exec_hi, mask
    code += words(listing)
    code += [0xBEFE01C1]  # s_mov_b64 exec, -1
    for number, register in enumerate(outputs):
        code += [0xDC6A0000 | number * row, 0x000200C8 | register << 8]  # global_store_b32 v200, vN, s[2:3]
    for number, register in enumerate(sgprs, start=len(outputs)):
        code += [0x7F920200 | register]  # v_mov_b32 v201, sN
        code += [0xDC6A0000 | number * row, 0x0002C9C8]  # global_store_b32 v200, v201, s[2:3]
    code += [0xBFB00000]
    return code


def words(listing: str) -> list[int]:
    """The dwords of a listing: hexadecimal words, two or more spaces, then the assembly (as llvm-mc 22 encodes it)."""
    lines = [line.strip() for line in listing.strip().splitlines()]
    return [int(word, 16) for line in lines for word in line.split("  ")[0].split()]


def compile_ir(ir: str, features: str, arch: str = "gfx1100") -> bytes:
    """Object code for ``arch``; the IR names no target of its own."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = "amdgcn-amd-amdhsa"
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=arch, features=features, opt=2, reloc="pic")
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{ir}')
    module.verify()
    return bytes(machine.emit_object(module))


R_REL32_LO, R_REL32_HI = 10, 11


def _relocate(elf: ELFFile, code: bytearray, va: int, relocations: object, constants: object) -> None:
    """PC-relative references between functions and to constants that follow the text."""
    symtab = elf.get_section_by_name(".symtab")
    extra = len(code) + -len(code) % 256
    placed: dict[int, int] = {}
    for relocation in relocations.iter_relocations():  # type: ignore[attr-defined]
        symbol = symtab.get_symbol(relocation["r_info_sym"])
        section = symbol["st_shndx"]
        if section not in placed:
            data = elf.get_section(section).data()
            if elf.get_section(section).name == ".text":
                placed[section] = 0
            else:
                code += bytes(extra - len(code)) + data
                placed[section] = extra
                extra = len(code) + -len(code) % 256
        value = placed[section] + symbol["st_value"] + relocation["r_addend"] - relocation["r_offset"]
        value &= 0xFFFF_FFFF_FFFF_FFFF
        word = value >> 32 if relocation["r_info_type"] == R_REL32_HI else value & 0xFFFFFFFF
        struct.pack_into("<I", code, relocation["r_offset"], word)


@pytest.fixture(scope="session")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    """One for all tests: what they call of the library is compiled once."""
    return make_translator("gfx1100", tmp_path_factory)


@pytest.fixture(scope="session")
def gfx1201_translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    """The same for gfx1201."""
    return make_translator("gfx1201", tmp_path_factory)


def make_translator(arch: str, folders: pytest.TempPathFactory) -> Translator:
    """A translator that keeps what it compiles for as long as the tests run."""
    from amdrv.emulator.isa.native import jit
    from amdrv.emulator.isa.native.cache import ObjectCache
    from amdrv.emulator.isa.native.engine import Translator

    if reason := jit.unavailable():
        pytest.skip(reason)
    return Translator(arch, threads=2, cache=ObjectCache(folders.mktemp("native") / "cache"))


def with_engine(name: str, request: pytest.FixtureRequest, arch: str = "gfx1100") -> Iterator[Bench]:
    """A bench with the interpreter or the translator; nothing may fall back from one to the other."""
    if name == "interpreter":
        yield Bench(engine=Interpreter(arch), arch=arch)
        return
    engine: Translator = request.getfixturevalue("translator" if arch == "gfx1100" else f"{arch}_translator")
    engine.invalidate_code()  # another memory
    engine.interpreted = 0
    yield Bench(engine=engine, arch=arch)
    assert not engine.interpreted


@pytest.fixture(params=["interpreter", "translator"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench with either engine: both pass the same tests."""
    yield from with_engine(request.param, request)


@pytest.fixture(params=["interpreter", "translator"])
def gfx1201_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench for gfx1201 with either engine."""
    yield from with_engine(request.param, request, "gfx1201")


@pytest.fixture(
    params=[(engine, arch) for arch in ("gfx1100", "gfx1201") for engine in ("interpreter", "translator")],
    ids=lambda both: "-".join(both),
)
def compiling_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench for programs that a compiler writes, with either engine of both generations."""
    engine, arch = request.param
    yield from with_engine(engine, request, arch)
