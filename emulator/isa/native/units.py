"""Units in memory: found by where their code is, checked against it after an invalidation, made better in time.

A unit is found by the arena index and the virtual address of its first byte. As an instruction cache does, it stays
what it is when memory changes; after ``invalidate`` its bytes are compared with memory before it is used again. Units
are position independent: code that begins alike is looked for among all units, and on disk, before it is translated.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np

from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.dispatch import Access, MemoryViolation, ShaderFault, ShaderMemory
from amdrv.emulator.isa.native import flow, jit
from amdrv.emulator.isa.native.cache import ObjectCache, StoredUnit
from amdrv.emulator.isa.native.flow import CodeReader
from amdrv.emulator.isa.native.frame import Shape
from amdrv.emulator.isa.native.library import Library
from amdrv.emulator.isa.native.pipeline import Effort, compile_module
from amdrv.emulator.isa.native.unit import signed, translate

PAGE_BYTES = 4096
HEAD_BYTES = 256
QUICK, GOOD = int(Effort.QUICK), int(Effort.GOOD)
# A computed jump to code not farther away than this becomes an entry of the unit that it comes from.
REACH_BYTES = 1 << 20
ENTRIES_MAX = 12
UNITS_MAX = 1024
BOUND_MAX = 8192  # places in memory whose unit is known
# Better code for more than this takes LLVM too long to pay.
GOOD_INSTRUCTIONS_MAX = 5000
WORTH_S = 0.004  # a unit that has run for so long is compiled better
MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class CompileRecord:
    """One unit made ready."""

    tier: int  # 1: quickly; 2: well
    instructions: int
    seconds: float  # translation and compilation; loading if it was cached
    cached: bool  # whether it was found on disk


class Cell:
    """Eight bytes of memory with the address of a unit's function, read by compiled code whenever it calls it."""

    def __init__(self) -> None:
        self._word = ctypes.c_uint64()

    @property
    def address(self) -> int:
        """Host address of the cell."""
        return ctypes.addressof(self._word)

    def point_to(self, function: int) -> None:
        """Let the next call go to ``function``."""
        self._word.value = function


@dataclass(slots=True)
class Unit:
    """Code of one shape ready to run, wherever it lies in memory."""

    shape: Shape
    key: str  # digest of its beginning and of what else decides how it is compiled
    stored: StoredUnit
    cell: Cell = field(default_factory=Cell)
    loaded: list[jit.Loaded] = field(default_factory=list)  # code that waves may be in
    seconds: float = 0.0  # that it has run for
    improving: bool = False  # it is being compiled better, or it has turned out that it can't be
    used: int = 0

    @property
    def tier(self) -> int:
        """1 or 2."""
        return self.stored.tier

    @property
    def entries(self) -> frozenset[tuple[int, int]]:
        """(place, MODE) at which waves can come in."""
        return self.stored.entries


@dataclass(slots=True)
class Bound:
    """A unit at a place in memory; valid until the next invalidation."""

    unit: Unit
    base: int
    generation: int


class FrozenMemory:
    """Just the code that a unit was made from, at its place: what it is translated from again."""

    def __init__(self, ranges: Iterable[tuple[int, bytes]]) -> None:
        self._pages: dict[int, int] = {}
        pieces = list(ranges)
        for va, code in pieces:
            for page in range(va // PAGE_BYTES, (va + len(code) - 1) // PAGE_BYTES + 1):
                self._pages.setdefault(page, len(self._pages))
        self.arena = np.zeros(PAGE_BYTES * len(self._pages), np.uint8)
        for va, code in pieces:
            for at in range(0, len(code), PAGE_BYTES):
                self._place(va + at, code[at : at + PAGE_BYTES])

    def _place(self, va: int, code: bytes) -> None:
        inside = min(len(code), PAGE_BYTES - va % PAGE_BYTES)
        for start, part in ((va, code[:inside]), (va + inside, code[inside:])):
            if part:
                index = self._pages[start // PAGE_BYTES] * PAGE_BYTES + start % PAGE_BYTES
                self.arena[index : index + len(part)] = np.frombuffer(part, np.uint8)

    def extent(self, va: int, access: Access) -> tuple[int, int, int]:
        """See ShaderMemory."""
        number = self._pages.get(va // PAGE_BYTES)
        if number is None:
            raise MemoryViolation(va, access)
        first = va & -PAGE_BYTES
        return first, first + PAGE_BYTES, number * PAGE_BYTES - first

    def translate(
        self, va: np.ndarray[tuple[int, ...], np.dtype[np.uint64]], access: Access
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """See ShaderMemory."""
        flat = [int(address) + self.extent(int(address), access)[2] for address in va.reshape(-1)]
        return np.array(flat, np.int64).reshape(va.shape)


class Units:
    """All units of one engine.

    ``improve`` is called with a unit that is worth better code; ``translating`` is entered while waves wait for code.
    """

    def __init__(
        self,
        decoder: Decoder,
        linker: jit.Linker,
        library: Callable[[int], tuple[Library, jit.LoadedLibrary]],
        cache: ObjectCache | None,
        improve: Callable[[Unit], None],
        translating: AbstractContextManager[None],
    ) -> None:
        self.log: list[CompileRecord] = []
        self._decoder, self._linker, self._library, self._cache = decoder, linker, library, cache
        self._improve, self._translating = improve, translating
        self._lock = threading.RLock()
        self._generation = 0
        self._uses = 0
        self._bound: dict[tuple[int, int, int, int], Bound] = {}
        self._by_key: dict[str, list[Unit]] = {}
        self._by_cell: dict[int, Unit] = {}

    def invalidate(self) -> None:
        """Code may have changed: compare before using it again."""
        self._generation += 1

    def of_cell(self, cell: int) -> Unit:
        """The unit whose cell is at a host address."""
        return self._by_cell[cell]

    def find(self, memory: ShaderMemory, pc: int, mode: int, shape: Shape) -> Unit:
        """The unit for waves that start at ``pc``. Raises ShaderFault when no code can be fetched there."""
        with self._lock:
            bound = self._bind(memory, pc, mode, shape)
            if (0, mode) not in bound.unit.entries:
                self._extend(memory, bound, 0, mode)
            self._uses += 1
            bound.unit.used = self._uses
            return bound.unit

    def find_entry(self, memory: ShaderMemory, base: int, pc: int, mode: int, shape: Shape) -> tuple[Unit, int]:
        """(unit, its base) in which a wave that comes from the unit at ``base`` goes on at ``pc``."""
        with self._lock, self._translating:
            bound = self._bind(memory, base, mode, shape)
            place = pc - base & MASK
            if (place, mode) in bound.unit.entries:
                return bound.unit, base
            near = min(place, -place & MASK) <= REACH_BYTES
            full = len(bound.unit.stored.sites) >= flow.MAX_INSTRUCTIONS
            if near and not full and len(bound.unit.stored.added) < ENTRIES_MAX:
                self._extend(memory, bound, place, mode)
                if (place, mode) in bound.unit.entries:
                    return bound.unit, base
            return self.find(memory, pc, mode, shape), pc

    def note_time(self, unit: Unit, seconds: float) -> None:
        """A unit has run; one that has run for long is worth better code."""
        unit.seconds += seconds
        if unit.seconds < WORTH_S or unit.improving or unit.tier >= GOOD:
            return
        with self._lock:
            if not unit.improving and unit.tier < GOOD:
                unit.improving = True
                if len(unit.stored.sites) <= GOOD_INSTRUCTIONS_MAX:
                    self._improve(unit)

    def trim(self) -> None:
        """Forget the units that were not used for longest; called while no wave runs."""
        with self._lock:
            if len(self._bound) > BOUND_MAX:
                self._bound.clear()
            if len(self._by_cell) <= UNITS_MAX:
                return
            last = sorted(self._by_cell.values(), key=lambda unit: unit.used)[: len(self._by_cell) - UNITS_MAX // 2]
            gone = {id(unit) for unit in last}
            self._bound = {key: bound for key, bound in self._bound.items() if id(bound.unit) not in gone}
            self._by_cell = {cell: unit for cell, unit in self._by_cell.items() if id(unit) not in gone}
            kept = ((key, [unit for unit in units if id(unit) not in gone]) for key, units in self._by_key.items())
            self._by_key = {key: units for key, units in kept if units}

    # Finding.

    def _bind(self, memory: ShaderMemory, base: int, mode: int, shape: Shape) -> Bound:
        index = _fetch_index(memory, base)
        where = (index, base, shape.lanes, shape.vgprs)
        bound = self._bound.get(where)
        if bound is not None and bound.generation == self._generation:
            return bound
        if bound is not None and self._matches(memory, base, bound.unit.stored):
            bound.generation = self._generation
            return bound
        key = self._key(memory, index, base, shape)
        unit = self._known(memory, key, base) or self._from_disk(memory, key, base, shape)
        if unit is None:
            stored, loaded = self._make(CodeReader(memory, self._decoder), base, {(0, mode)}, frozenset(), shape, key)
            unit = self._adopt(shape, key, stored, loaded)
        bound = self._bound[where] = Bound(unit, base, self._generation)
        return bound

    def _key(self, memory: ShaderMemory, index: int, base: int, shape: Shape) -> str:
        head = memory.arena[index : index + min(HEAD_BYTES, PAGE_BYTES - base % PAGE_BYTES)].tobytes()
        digest = hashlib.sha256(jit.identity())
        digest.update(f"{self._decoder.arch} {shape.lanes} {shape.vgprs} {len(head)} ".encode() + head)
        return digest.hexdigest()

    def _known(self, memory: ShaderMemory, key: str, base: int) -> Unit | None:
        units = self._by_key.get(key, ())
        return next((unit for unit in units if self._matches(memory, base, unit.stored)), None)

    def _from_disk(
        self, memory: ShaderMemory, key: str, base: int, shape: Shape, added: frozenset[tuple[int, int]] = frozenset()
    ) -> Unit | None:
        if self._cache is None:
            return None
        for stored in self._cache.load_units(key):
            if not added <= stored.added or not self._matches(memory, base, stored):
                continue
            started = time.perf_counter()
            try:
                loaded = self._load(stored, shape)
            except RuntimeError:
                continue  # an object that does not load is as good as none
            seconds = time.perf_counter() - started
            self.log.append(CompileRecord(stored.tier, len(stored.sites), seconds, cached=True))
            return self._adopt(shape, key, stored, loaded)
        return None

    def _matches(self, memory: ShaderMemory, base: int, stored: StoredUnit) -> bool:
        """Whether memory holds the code that a unit was made from."""
        for place, code in stored.ranges:
            if _read_code(memory, base + place & MASK, len(code)) != code:
                return False
        # What could not be fetched then must not be there now.
        return all(_read_code(memory, base + place & MASK, 1) is None for place in stored.holes)

    # Making.

    def _extend(self, memory: ShaderMemory, bound: Bound, place: int, mode: int) -> None:
        """Make the code of a unit anew with one more entry."""
        unit = bound.unit
        added = unit.stored.added | {(place, mode)}
        found = self._from_disk(memory, unit.key, bound.base, unit.shape, added)
        if found is not None:
            stored, loaded = found.stored, found.loaded[-1]
        else:
            starts = {entry for entry in unit.entries if entry[0] == 0}
            reader = CodeReader(memory, self._decoder)
            stored, loaded = self._make(reader, bound.base, starts | added, added, unit.shape, unit.key)
        unit.improving = False
        self.replace(unit, stored, loaded)

    def _make(
        self,
        reader: CodeReader,
        base: int,
        entries: set[tuple[int, int]] | frozenset[tuple[int, int]],
        added: frozenset[tuple[int, int]],
        shape: Shape,
        key: str,
    ) -> tuple[StoredUnit, jit.Loaded]:
        """Translate and compile in the first tier."""
        started = time.perf_counter()
        ir, stored = self.translate(reader, base, entries, added, shape, QUICK)
        stored = replace(stored, code=compile_module(ir, Effort.QUICK))
        seconds = time.perf_counter() - started
        loaded = self._load(stored, shape)
        self.log.append(CompileRecord(QUICK, len(stored.sites), seconds, cached=False))
        if self._cache is not None:
            self._cache.store_unit(key, stored)
        return stored, loaded

    def translate(
        self,
        reader: CodeReader,
        base: int,
        entries: set[tuple[int, int]] | frozenset[tuple[int, int]],
        added: frozenset[tuple[int, int]],
        shape: Shape,
        tier: int,
    ) -> tuple[str, StoredUnit]:
        """(module text, unit without an object) of the code that ``entries`` (places) reach."""
        library, _ = self._library(shape.lanes)
        places = {(base + place & MASK, mode) for place, mode in entries}
        unit = translate(reader, base, places, shape, library, tier)
        stored = StoredUnit(
            tier=tier,
            ranges=tuple((signed(va - base), code) for va, code in unit.ranges),
            sites=tuple(unit.sites),
            entries=unit.entries,
            added=added,
            calls=tuple(jit.declared(unit.ir)),
            leaves=unit.leaves,
            ends_at_once=unit.ends_at_once,
            holes=unit.holes,
            code=b"",
        )
        return unit.ir, stored

    def improved(self, unit: Unit, before: StoredUnit, stored: StoredUnit, seconds: float) -> None:
        """Better code for what ``unit`` was when it was ``before``: waves run it from their next call on."""
        loaded = self._load(stored, unit.shape)
        with self._lock:
            self.log.append(CompileRecord(stored.tier, len(stored.sites), seconds, cached=False))
            if self._cache is not None:
                self._cache.store_unit(unit.key, stored)
            if unit.stored is before:
                self.replace(unit, stored, loaded)

    def replace(self, unit: Unit, stored: StoredUnit, loaded: jit.Loaded) -> None:
        """Let a unit's cell lead to other code; waves may still be in the old one."""
        unit.stored = stored
        unit.loaded.append(loaded)
        unit.cell.point_to(loaded.addresses["unit"])

    def _adopt(self, shape: Shape, key: str, stored: StoredUnit, loaded: jit.Loaded) -> Unit:
        unit = Unit(shape, key, stored)
        self.replace(unit, stored, loaded)
        self._by_key.setdefault(key, []).append(unit)
        self._by_cell[unit.cell.address] = unit
        return unit

    def _load(self, stored: StoredUnit, shape: Shape) -> jit.Loaded:
        _, library = self._library(shape.lanes)
        _, loaded = self._linker.load([stored.code], ["unit"], library.require(stored.calls))
        return loaded


def _fetch_index(memory: ShaderMemory, pc: int) -> int:
    try:
        return pc + memory.extent(pc, Access.EXECUTE)[2]
    except MemoryViolation as violation:
        detail = f"instruction fetch: {violation}"
        raise ShaderFault("memory violation", detail, pc=pc, va=violation.va, access=Access.EXECUTE) from violation


def _read_code(memory: ShaderMemory, va: int, size_bytes: int) -> bytes | None:
    """Bytes that can be executed, or None."""
    parts: list[bytes] = []
    while size_bytes > 0:
        try:
            _, end, delta = memory.extent(va, Access.EXECUTE)
        except MemoryViolation:
            return None
        step = min(size_bytes, end - va)
        parts.append(memory.arena[va + delta : va + delta + step].tobytes())
        va, size_bytes = va + step & MASK, size_bytes - step
    return b"".join(parts)
