"""Caches of the graphics core: a driver that leaves one invalidation or write-back out gets old bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import amdrv
from amdrv import emulator
from amdrv.facts.pm4 import ACQUIRE_MEM, RELEASE_MEM, PacketLayout
from amdrv.runtime import packets

numbers = itertools.count(7200)
Packet = tuple[int, ...]

COPY = """
declare i32 @llvm.amdgcn.workitem.id.x()
define amdgpu_kernel void @copy(ptr addrspace(1) %to, ptr addrspace(1) %from) {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %from.at = getelementptr i32, ptr addrspace(1) %from, i32 %i
  %to.at = getelementptr i32, ptr addrspace(1) %to, i32 %i
  %value = load i32, ptr addrspace(1) %from.at
  store i32 %value, ptr addrspace(1) %to.at
  ret void
}
define amdgpu_kernel void @spread(ptr addrspace(1) %to, ptr addrspace(4) %scalar) {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %to.at = getelementptr i32, ptr addrspace(1) %to, i32 %i
  %value = load i32, ptr addrspace(4) %scalar
  store i32 %value, ptr addrspace(1) %to.at
  ret void
}
"""
STORE = """
declare i32 @llvm.amdgcn.workitem.id.x()
define amdgpu_kernel void @store(ptr addrspace(1) %to) {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %to.at = getelementptr i32, ptr addrspace(1) %to, i32 %i
  store i32 VALUE, ptr addrspace(1) %to.at
  ret void
}
"""
LANES = 32


@pytest.fixture
def name() -> Iterator[str]:
    """A card of its own."""
    chosen = f"emu:gfx1100#{next(numbers)}"
    emulator.card(chosen, vram_bytes=1 << 30)
    yield chosen
    emulator.unplug(chosen)


def without(monkeypatch: pytest.MonkeyPatch, *fields: str) -> None:
    """A driver whose packets lack some cache actions."""
    for name, layout in (("acquire_mem", ACQUIRE_MEM), ("release_mem", RELEASE_MEM)):
        monkeypatch.setattr(packets, name, _clearing(getattr(packets, name), layout, fields))


def _clearing(make: Callable[..., Packet], layout: PacketLayout, fields: tuple[str, ...]) -> Callable[..., Packet]:
    def build(*given: int, **more: bool) -> Packet:
        decoded = layout.decode(make(*given, **more)[1:])
        return layout.build(**{name: 0 if name in fields else value for name, value in decoded.items()})

    return build


def ints(*values: int) -> np.ndarray:
    return np.array(values * (LANES // len(values)), np.int32)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [((), 2), (("GL2_INV",), 1), (("GL1_INV",), 1), (("GLV_INV",), 1), (("GLI_INV",), 2)],
    ids=lambda value: "+".join(value) or "nothing" if isinstance(value, tuple) else "",
)
def test_vector_loads_see_what_the_host_changed_after_all_three_levels_were_invalidated(
    name: str, missing: tuple[str, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *missing)
    with amdrv.open(name) as dev:
        copy = dev.load(amdrv.compile_llvm(COPY))["copy"]
        source, target = dev.array(ints(1)), dev.array(ints(0))
        copy.launch(1, LANES, (target, source)).wait()
        assert (target.numpy(np.int32) == 1).all()
        source.write(ints(2))
        copy.launch(1, LANES, (target, source)).wait()
        assert (target.numpy(np.int32) == expected).all()


ALL, RANGE = 0, 2  # of GL1_RANGE and GL2_RANGE: Linux 6.12 nvd.h, PACKET3_ACQUIRE_MEM_GCR_CNTL_GL2_RANGE


@pytest.mark.parametrize(
    ("near", "far", "covers", "size", "expected"),
    [
        (ALL, ALL, "nothing", 0, 2),  # the range does not count: "ignore range" (PAL gfx9Barrier.cpp)
        (RANGE, RANGE, "source", 1, 2),
        (RANGE, RANGE, "source", 0, 1),
        (ALL, RANGE, "other", 4096, 1),
        (RANGE, ALL, "other", 4096, 1),
    ],
)
def test_invalidation_of_a_range_leaves_the_rest_old(
    name: str, near: int, far: int, covers: str, size: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with amdrv.open(name) as dev:
        careful, limited = (dev.load(amdrv.compile_llvm(COPY))["copy"] for _ in range(2))
        source, target, other = dev.array(ints(1)), dev.array(ints(0)), dev.alloc(1 << 21)
        careful.launch(1, LANES, (target, source)).wait()
        base = {"source": source.va, "other": other.va + (1 << 20), "nothing": 0}[covers]
        whole = ACQUIRE_MEM.decode(packets.acquire_mem()[1:])
        limits = {"COHER_BASE": base >> 8, "COHER_SIZE": size, "GL1_RANGE": near, "GL2_RANGE": far}
        monkeypatch.setattr(packets, "acquire_mem", lambda: ACQUIRE_MEM.build(**whole | limits))
        source.write(ints(2))
        limited.launch(1, LANES, (target, source)).wait()
        assert (target.numpy(np.int32) == expected).all()


@pytest.mark.parametrize(("missing", "expected"), [((), 2), (("GLK_INV",), 1), (("GL2_INV", "GLV_INV"), 2)])
def test_scalar_loads_see_what_vector_stores_changed_after_the_scalar_cache_was_invalidated(
    name: str, missing: tuple[str, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *missing)
    with amdrv.open(name) as dev:
        module = dev.load(amdrv.compile_llvm(COPY))
        scalar, target, news = dev.array(ints(1)), dev.array(ints(0)), dev.array(ints(2))
        module["spread"].launch(1, LANES, (target, scalar)).wait()
        assert (target.numpy(np.int32) == 1).all()
        module["copy"].launch(1, LANES, (scalar, news)).wait()
        assert (scalar.numpy(np.int32) == 2).all()
        module["spread"].launch(1, LANES, (target, scalar)).wait()
        assert (target.numpy(np.int32) == expected).all()


@pytest.mark.parametrize(("missing", "expected"), [((), 2), (("GLI_INV",), 1)])
def test_new_code_at_an_old_place_runs_after_the_instruction_cache_was_invalidated(
    name: str, missing: tuple[str, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *missing)
    with amdrv.open(name) as dev:
        target = dev.array(ints(0))
        places = []
        for value in (1, 2):
            module = dev.load(amdrv.compile_llvm(STORE.replace("VALUE", str(value))))
            places.append(module.va + module["store"].code.entry_offset)
            module["store"].launch(1, LANES, (target,)).wait()
            module.free()
            dev.synchronize()
        assert places[0] == places[1]
        assert (target.numpy(np.int32) == expected).all()


@pytest.mark.parametrize(("missing", "expected"), [((), 2), (("GL2_WB",), 1)])
def test_host_sees_what_was_written_back(
    name: str, missing: tuple[str, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *missing)
    with amdrv.open(name) as dev:
        copy = dev.load(amdrv.compile_llvm(COPY))["copy"]
        source, target = dev.array(ints(2)), dev.array(ints(1))
        copy.launch(1, LANES, (target, source)).wait()
        assert (target.numpy(np.int32) == expected).all()


def test_stores_that_were_not_written_back_are_in_the_cache_for_later_kernels_and_reach_memory_with_a_later_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with amdrv.open(name) as dev:
        first, second, third = dev.array(ints(7)), dev.array(ints(0)), dev.array(ints(0))
        with monkeypatch.context() as patched:
            without(patched, "GL2_WB")
            careless = dev.load(amdrv.compile_llvm(COPY))["copy"]
            careless.launch(1, LANES, (second, first)).wait()
            careless.launch(1, LANES, (third, second)).wait()
        assert (third.numpy(np.int32) == 0).all()
        careful = dev.load(amdrv.compile_llvm(COPY))["copy"]
        fourth = dev.array(ints(0))
        careful.launch(1, LANES, (fourth, third)).wait()
        for buffer in (second, third, fourth):
            assert (buffer.numpy(np.int32) == 7).all()


def test_write_back_of_a_range_leaves_the_rest_in_the_cache(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with amdrv.open(name) as dev:
        careless, limited = (dev.load(amdrv.compile_llvm(COPY))["copy"] for _ in range(2))
        source, other = dev.array(ints(7)), dev.array(ints(0))
        first, second = (dev.alloc(1 << 16) for _ in range(2))
        with monkeypatch.context() as patched:
            without(patched, "GL2_WB")
            careless.launch(1, LANES, (first, source)).wait()
            careless.launch(1, LANES, (second, source)).wait()
            whole = ACQUIRE_MEM.decode(packets.acquire_mem()[1:])
            limits = {"COHER_BASE": first.va >> 8, "COHER_SIZE": 1, "GL2_RANGE": RANGE, "GL2_WB": 1}
            patched.setattr(packets, "acquire_mem", lambda: ACQUIRE_MEM.build(**whole | limits))
            limited.launch(1, LANES, (other, source)).wait()
        shown = [buffer.numpy(np.int32, (LANES,)).tolist() for buffer in (first, second)]
        assert shown == [[7] * LANES, [0] * LANES]


def test_relaxed_card_forgives_all_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator.card(name).relaxed = True
    without(monkeypatch, "GL2_INV", "GL1_INV", "GLV_INV", "GLK_INV", "GL2_WB")
    with amdrv.open(name) as dev:
        copy = dev.load(amdrv.compile_llvm(COPY))["copy"]
        source, target = dev.array(ints(1)), dev.array(ints(0))
        for value in (1, 2):
            source.write(ints(value))
            copy.launch(1, LANES, (target, source)).wait()
            assert (target.numpy(np.int32) == value).all()


def test_caches_are_empty_after_a_reset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        without(patched, "GL2_WB")
        with amdrv.open(name) as dev:
            careless = dev.load(amdrv.compile_llvm(COPY))["copy"]
            careless.launch(1, LANES, (dev.array(ints(1)), dev.array(ints(2)))).wait()
            dev.reset("mode1")
    with amdrv.open(name) as dev:
        copy = dev.load(amdrv.compile_llvm(COPY))["copy"]
        source, target = dev.array(ints(3)), dev.array(ints(0))
        copy.launch(1, LANES, (target, source)).wait()
        assert (target.numpy(np.int32) == 3).all()
