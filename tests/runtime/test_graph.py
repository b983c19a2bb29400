"""Graphs: launches that are queued together, again and again, on an emulated card."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import amdrv
from amdrv.errors import GpuFault, InvalidArgument
from amdrv.runtime.device import Device
from amdrv.runtime.graph import LaunchRequest
from amdrv.runtime.module import Kernel, Module

ITEMS = 64
# y[i] = x[i] * 3, y[i] = x[i] + 1, and y[i] = a table on the stack, looked up with x[i]: this one wants scratch.
SOURCE = """
declare i32 @llvm.amdgcn.workitem.id.x()
define amdgpu_kernel void @triple(ptr addrspace(1) %x, ptr addrspace(1) %y) {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %from = getelementptr i32, ptr addrspace(1) %x, i32 %i
  %to = getelementptr i32, ptr addrspace(1) %y, i32 %i
  %value = load i32, ptr addrspace(1) %from
  %new = mul i32 %value, 3
  store i32 %new, ptr addrspace(1) %to
  ret void
}
define amdgpu_kernel void @next(ptr addrspace(1) %x, i32 %step, ptr addrspace(1) %y) {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %from = getelementptr i32, ptr addrspace(1) %x, i32 %i
  %to = getelementptr i32, ptr addrspace(1) %y, i32 %i
  %value = load i32, ptr addrspace(1) %from
  %new = add i32 %value, %step
  store i32 %new, ptr addrspace(1) %to
  ret void
}
"""
STACK = """
define amdgpu_kernel void @stack{size}(ptr addrspace(1) %x, ptr addrspace(1) %y) {{
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %from = getelementptr i32, ptr addrspace(1) %x, i32 %i
  %to = getelementptr i32, ptr addrspace(1) %y, i32 %i
  %value = load i32, ptr addrspace(1) %from
  %table = alloca [{size} x i32], addrspace(5)
  %index = and i32 %value, 15
  %at = getelementptr i32, ptr addrspace(5) %table, i32 %index
  %new = mul i32 %value, 5
  store volatile i32 %new, ptr addrspace(5) %at
  %again = load volatile i32, ptr addrspace(5) %at
  store i32 %again, ptr addrspace(1) %to
  ret void
}}
"""


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with amdrv.open("emu:gfx1100#21") as opened:
        yield opened


@pytest.fixture(scope="module")
def module(device: Device) -> Module:
    source = SOURCE + STACK.format(size=16) + STACK.format(size=1024)
    return device.load(amdrv.compile_llvm(source, device.arch))


def request(kernel: Kernel, *args: object) -> LaunchRequest:
    return LaunchRequest(kernel, 1, ITEMS, args)


def test_each_launch_sees_what_the_ones_before_it_wrote_in_every_replay(device: Device, module: Module) -> None:
    values = np.arange(ITEMS, dtype=np.int32)
    x, y = device.array(values), device.array(values)
    graph = device.graph([request(module["triple"], x, y), request(module["next"], y, 1, x)])
    for _ in range(5):  # more than there are copies, without waiting
        graph.replay()
    wanted = values.copy()
    for _ in range(5):
        wanted = wanted * 3 + 1
    np.testing.assert_array_equal(x.numpy(np.int32), wanted)


def test_pointers_change_from_one_replay_to_the_next_and_other_arguments_stay(device: Device, module: Module) -> None:
    sources = [device.array(np.full(ITEMS, k, np.int32)) for k in range(4)]
    results = [device.array(np.zeros(ITEMS, np.int32)) for _ in range(4)]
    between = device.alloc(4 * ITEMS)
    graph = device.graph([request(module["triple"], sources[0], between), request(module["next"], between, 7, 0)])
    assert graph.pointer_count == 4
    for source, result in zip(sources, results, strict=True):
        graph.replay(np.array([source.va, between.va, between.va, result.va], np.uint64))
    for k, result in enumerate(results):
        np.testing.assert_array_equal(result.numpy(np.int32), np.full(ITEMS, 3 * k + 7))


def test_a_replay_is_one_submission(device: Device, module: Module) -> None:
    x = device.array(np.zeros(ITEMS, np.int32))
    launch = device.graph([request(module["next"], x, 1, x)] * 40).replay()
    assert device.graph([request(module["next"], x, 1, x)]).replay().timeline == launch.timeline + 1
    np.testing.assert_array_equal(x.numpy(np.int32), 41)


def test_another_number_of_pointers_is_refused(device: Device, module: Module) -> None:
    x = device.alloc(4 * ITEMS)
    graph = device.graph([request(module["triple"], x, x)])
    with pytest.raises(InvalidArgument, match="2 pointers, 3 were given"):
        graph.replay(np.zeros(3, np.uint64))
    with pytest.raises(InvalidArgument, match="at least one launch"):
        device.graph([])


def test_scratch_memory_that_grew_after_recording_is_used(device: Device, module: Module) -> None:
    values = np.arange(ITEMS, dtype=np.int32)
    x, y = device.array(values), device.array(np.zeros(ITEMS, np.int32))
    graph = device.graph([request(module["stack16"], x, y)])
    graph.replay()
    before = device.scratch_va
    module["stack1024"].launch(1, ITEMS, (x, y))
    assert device.scratch_va != before
    y.write(np.zeros(ITEMS, np.int32))
    graph.replay()
    np.testing.assert_array_equal(y.numpy(np.int32), values * 5)


def test_a_graph_outlives_a_fault_of_its_own(device: Device, module: Module) -> None:
    x, y = device.array(np.ones(ITEMS, np.int32)), device.array(np.zeros(ITEMS, np.int32))
    graph = device.graph([request(module["triple"], x, y)])
    with pytest.raises(GpuFault, match="kernel 'triple'"):
        graph.replay(np.array([0x10, y.va], np.uint64)).wait()
    for _ in range(3):
        graph.replay(np.array([x.va, y.va], np.uint64))
    np.testing.assert_array_equal(y.numpy(np.int32), 3)
