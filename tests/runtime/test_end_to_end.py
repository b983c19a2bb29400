"""Kernels on the emulated card, through every layer: compiler, loader, queue, packets, machine code and back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import amdrv
from amdrv.runtime.device import Device

NAME = "emu:gfx1100#71"  # a card of this file's own
N = 1000


@pytest.fixture(scope="module")
def opened() -> Iterator[Device]:
    """One open card for the file."""
    with amdrv.open(NAME) as device:
        yield device


@pytest.fixture
def dev(opened: Device) -> Iterator[Device]:
    """The open card, which every test must leave usable and idle."""
    yield opened
    opened.synchronize(5.0)


def operands() -> tuple[np.ndarray, np.ndarray]:
    """Two vectors."""
    random = np.random.default_rng(7)
    return random.random(N, np.float32), random.random(N, np.float32)


def run_saxpy(dev: Device, code: bytes) -> None:
    """Load ``code``, launch its saxpy, compare with NumPy."""
    y, x = operands()
    on_y, on_x = dev.array(y), dev.array(x)
    dev.load(code)["saxpy"].launch(grid=8, block=128, args=(on_y, on_x, 2.5, N)).wait()
    assert np.array_equal(on_y.numpy(np.float32), y + np.float32(2.5) * x)


def test_a_relocatable_object_runs(dev: Device, saxpy: bytes) -> None:
    run_saxpy(dev, saxpy)


@pytest.mark.parametrize("name", ["saxpy_v5", "saxpy_v6", "saxpy_gfx11_generic"])
def test_a_linked_object_runs(dev: Device, data: Path, name: str) -> None:
    run_saxpy(dev, (data / f"{name}.hsaco").read_bytes())


VERSIONED = """
define amdgpu_kernel void @k(ptr addrspace(1) %p) {
  store i32 7, ptr addrspace(1) %p
  ret void
}
!llvm.module.flags = !{!0}
!0 = !{i32 1, !"amdhsa_code_object_version", i32 FLAG}
"""


@pytest.mark.parametrize(("version", "flag"), [(3, 400), (4, 400), (5, 500), (6, 600)])
def test_an_object_of_each_version_runs(dev: Device, version: int, flag: int) -> None:
    code = bytearray(amdrv.compile_llvm(VERSIONED.replace("FLAG", str(flag))))
    if version == 3:  # which LLVM does not write any more; without target features it differs in its number only
        code[8] = 1
    module = dev.load(bytes(code))
    assert module.code.version == version
    out = dev.array(np.zeros(1, np.int32))
    module["k"].launch(1, 1, (out,)).wait()
    assert out.numpy(np.int32).tolist() == [7]


@pytest.mark.parametrize("linked", [False, True])
def test_globals_pointers_and_calls_are_relocated(dev: Device, data: Path, linked: bool) -> None:
    source, object_file = data / "globals.ll", data / "globals.hsaco"
    code = object_file.read_bytes() if linked else amdrv.compile_llvm(source.read_text())
    out = dev.array(np.zeros(4, np.int32))
    dev.load(code)["gather"].launch(1, 4, (out,)).wait()
    # helper(ext[i] + table[i] + zero[i] + *(pointer + i)) with helper(v) = 3 v
    assert out.numpy(np.int32).tolist() == [3 * (2 * i + 10 * i) for i in (1, 2, 3, 4)]


SHAPE = """
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workitem.id.y()
declare i32 @llvm.amdgcn.workgroup.id.x()
declare i32 @llvm.amdgcn.workgroup.id.y()
declare i32 @llvm.amdgcn.workgroup.id.z()
declare ptr addrspace(4) @llvm.amdgcn.dispatch.ptr()
declare ptr addrspace(4) @llvm.amdgcn.implicitarg.ptr()
define amdgpu_kernel void @shape(ptr addrspace(1) %out) {
  %x = call i32 @llvm.amdgcn.workitem.id.x()
  %y = call i32 @llvm.amdgcn.workitem.id.y()
  %gx = call i32 @llvm.amdgcn.workgroup.id.x()
  %gy = call i32 @llvm.amdgcn.workgroup.id.y()
  %gz = call i32 @llvm.amdgcn.workgroup.id.z()
  %packet = call ptr addrspace(4) @llvm.amdgcn.dispatch.ptr()
  %hidden = call ptr addrspace(4) @llvm.amdgcn.implicitarg.ptr()
  %size.at = getelementptr i8, ptr addrspace(4) %packet, i64 12
  %size = load i32, ptr addrspace(4) %size.at
  %count.at = getelementptr i8, ptr addrspace(4) %hidden, i64 4
  %count = load i32, ptr addrspace(4) %count.at
  %gy.n = mul i32 %gz, 3
  %row = add i32 %gy.n, %gy
  %col.n = mul i32 %row, 2
  %group = add i32 %col.n, %gx
  %base = mul i32 %group, 8
  %y.n = mul i32 %y, 4
  %item = add i32 %y.n, %x
  %i = add i32 %base, %item
  %v = mul i32 %size, 1000
  %w = add i32 %v, %count
  %at = getelementptr i32, ptr addrspace(1) %out, i32 %i
  store i32 %w, ptr addrspace(1) %at
  ret void
}
"""


def test_every_work_item_of_three_dimensions_knows_the_launch(dev: Device) -> None:
    out = dev.array(np.zeros(2 * 3 * 2 * 8 + 8, np.int32))
    dev.load(amdrv.compile_llvm(SHAPE))["shape"].launch((2, 3, 2), (4, 2), (out,)).wait()
    values = out.numpy(np.int32)
    # The dispatch packet's grid size in x is 2 x 4 work-items; the hidden block count in y is 3.
    assert (values[:96] == 8003).all() and not values[96:].any()


DYNAMIC_LDS = """
@shared = external addrspace(3) global [0 x i32], align 4
declare i32 @llvm.amdgcn.workitem.id.x()
declare void @llvm.amdgcn.s.barrier()
define amdgpu_kernel void @reverse(ptr addrspace(1) %p) #0 {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %at = getelementptr i32, ptr addrspace(1) %p, i32 %i
  %v = load i32, ptr addrspace(1) %at
  %s = getelementptr [0 x i32], ptr addrspace(3) @shared, i32 0, i32 %i
  store i32 %v, ptr addrspace(3) %s
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %j = sub i32 255, %i
  %t = getelementptr [0 x i32], ptr addrspace(3) @shared, i32 0, i32 %j
  %w = load i32, ptr addrspace(3) %t
  store i32 %w, ptr addrspace(1) %at
  ret void
}
attributes #0 = { "amdgpu-flat-work-group-size"="256,256" }
"""


def test_dynamic_lds_is_shared_by_a_workgroup(dev: Device) -> None:
    values = np.arange(256, dtype=np.int32)
    buffer = dev.array(values)
    dev.load(amdrv.compile_llvm(DYNAMIC_LDS))["reverse"].launch(1, 256, (buffer,), shared_bytes=1024).wait()
    assert (buffer.numpy(np.int32) == values[::-1]).all()


SCRATCH = """
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workgroup.id.x()
define amdgpu_kernel void @private(ptr addrspace(1) %out, i32 %pick) {
  %item = call i32 @llvm.amdgcn.workitem.id.x()
  %group = call i32 @llvm.amdgcn.workgroup.id.x()
  %base = mul i32 %group, 64
  %i = add i32 %base, %item
  %a = alloca [300 x i32], align 4, addrspace(5)
  br label %loop
loop:
  %k = phi i32 [ 0, %0 ], [ %k.next, %loop ]
  %e = getelementptr i32, ptr addrspace(5) %a, i32 %k
  %v = add i32 %k, %i
  store volatile i32 %v, ptr addrspace(5) %e
  %k.next = add i32 %k, 1
  %more = icmp ult i32 %k.next, 20
  br i1 %more, label %loop, label %done
done:
  %q = getelementptr i32, ptr addrspace(5) %a, i32 %pick
  %r = load volatile i32, ptr addrspace(5) %q
  %at = getelementptr i32, ptr addrspace(1) %out, i32 %i
  store i32 %r, ptr addrspace(1) %at
  ret void
}
"""


def test_private_arrays_live_in_scratch_of_each_work_item(dev: Device) -> None:
    out = dev.array(np.zeros(256, np.int32))
    dev.load(amdrv.compile_llvm(SCRATCH))["private"].launch(4, 64, (out, 13)).wait()
    assert (out.numpy(np.int32) == np.arange(256) + 13).all()


def test_launches_see_what_earlier_ones_wrote(dev: Device, saxpy: bytes) -> None:
    kernel = dev.load(saxpy)["saxpy"]
    y, x = dev.array(np.zeros(64, np.float32)), dev.array(np.ones(64, np.float32))
    for _ in range(100):
        kernel.launch(1, 64, (y, x, 1.0, 64))
    assert (y.numpy(np.float32) == 100).all()


def test_writes_are_ordered_with_launches(dev: Device, saxpy: bytes) -> None:
    kernel = dev.load(saxpy)["saxpy"]
    y, x = dev.array(np.zeros(64, np.float32)), dev.array(np.ones(64, np.float32))
    kernel.launch(1, 64, (y, x, 1.0, 64))
    x.write(np.full(64, 10, np.float32))
    kernel.launch(1, 64, (y, x, 1.0, 64))
    assert (y.numpy(np.float32) == 11).all()


def test_code_loaded_where_other_code_was_is_the_code_that_runs(dev: Device) -> None:
    out = dev.array(np.zeros(1, np.int32))
    text = "define amdgpu_kernel void @k(ptr addrspace(1) %p) {{\n store i32 {}, ptr addrspace(1) %p\n ret void\n}}"
    places = set()
    for value in (1, 2, 3):
        module = dev.load(amdrv.compile_llvm(text.format(value)))
        places.add(module.va)
        module["k"].launch(1, 1, (out,)).wait()
        assert out.numpy(np.int32)[0] == value
        module.free()
        dev.synchronize()
    assert len(places) < 3  # or nothing was shown


def test_a_timed_launch_took_time(dev: Device, saxpy: bytes) -> None:
    y, x = dev.alloc(4 * N), dev.alloc(4 * N)
    launch = dev.load(saxpy)["saxpy"].launch(8, 128, (y, x, 1.0, N), timed=True)
    assert 0 < launch.seconds < 10


def test_threads_may_share_a_device(dev: Device, saxpy: bytes) -> None:
    kernel = dev.load(saxpy)["saxpy"]
    x = dev.array(np.ones(64, np.float32))
    sums = {}

    def work(number: int) -> None:
        y = dev.array(np.full(64, number, np.float32))
        for _ in range(10):
            kernel.launch(1, 64, (y, x, 1.0, 64))
        sums[number] = y.numpy(np.float32)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((sums[number] == number + 10).all() for number in range(4))


# -- trouble -------------------------------------------------------------------------------------------------------


def test_a_page_fault_names_kernel_address_and_neighbour_and_costs_the_queue_only(dev: Device, saxpy: bytes) -> None:
    module = dev.load(saxpy)
    kept = dev.array(np.arange(8, dtype=np.int32))
    victim, x = dev.alloc(4096), dev.array(np.ones(2048, np.float32))
    culprit = module["saxpy"].launch(grid=16, block=128, args=(victim, x, 1.0, 2048))
    behind = module["saxpy"].launch(grid=1, block=64, args=(victim, x, 1.0, 64))
    with pytest.raises(amdrv.GpuFault) as caught:
        dev.synchronize()
    fault = caught.value
    assert fault.kind == "page fault" and fault.client == "TCP"
    assert fault.address is not None and victim.va + 4096 <= fault.address < victim.va + 8192
    assert "in kernel 'saxpy'" in str(fault)
    assert f"past the end of a buffer (4096 bytes at {victim.va:#x})" in str(fault)
    assert fault.pc is not None and module.va <= fault.pc < module.va + module.code.image.size_bytes
    with pytest.raises(amdrv.GpuFault):
        culprit.wait()
    with pytest.raises(amdrv.GpuFault, match="dropped"):
        behind.wait()
    assert (kept.numpy(np.int32) == np.arange(8)).all()
    run_saxpy(dev, saxpy)


def test_a_null_pointer_is_recognised(dev: Device, saxpy: bytes) -> None:
    x = dev.alloc(256)
    dev.load(saxpy)["saxpy"].launch(1, 64, (None, x, 1.0, 64))
    with pytest.raises(amdrv.GpuFault, match="null pointer"):
        x.read()
    run_saxpy(dev, saxpy)


def test_an_unknown_instruction_is_a_fault(dev: Device, saxpy: bytes) -> None:
    clean = amdrv.compile_llvm("define amdgpu_kernel void @k() {\n ret void\n}")
    s_endpgm = bytes.fromhex("0000b0bf")
    assert clean.count(s_endpgm) == 1
    dev.load(clean)["k"].launch(1, 1).wait()
    dev.load(clean.replace(s_endpgm, b"\xff\xff\xff\xff"))["k"].launch(1, 1)
    with pytest.raises(amdrv.GpuFault, match="illegal instruction") as caught:
        dev.synchronize()
    assert "k+0x0" in str(caught.value)
    run_saxpy(dev, saxpy)


ENDLESS = """
define amdgpu_kernel void @spin(ptr addrspace(1) %p) {
  br label %loop
loop:
  %v = load volatile i32, ptr addrspace(1) %p
  %again = icmp eq i32 %v, 0
  br i1 %again, label %loop, label %end
end:
  ret void
}
"""


def test_a_kernel_that_never_ends_times_out_and_the_device_works_on(dev: Device, saxpy: bytes) -> None:
    flag = dev.array(np.zeros(1, np.int32))
    dev.load(amdrv.compile_llvm(ENDLESS))["spin"].launch(1, 1, (flag,))
    with pytest.raises(amdrv.Timeout, match="waiting for kernel 'spin' to end"):
        dev.synchronize(timeout_s=0.3)
    run_saxpy(dev, saxpy)
    assert flag.numpy(np.int32)[0] == 0


def test_out_of_memory_is_refused_and_costs_nothing(dev: Device, saxpy: bytes) -> None:
    with pytest.raises(amdrv.OutOfMemory):
        dev.alloc(1 << 40)
    run_saxpy(dev, saxpy)


def test_a_card_that_leaves_the_bus_is_lost_and_can_be_opened_when_it_is_back(saxpy: bytes) -> None:
    name = "emu:gfx1100#74"
    faults = amdrv.emulator.card(name).faults
    with amdrv.open(name) as device:
        run_saxpy(device, saxpy)
        y = device.alloc(256)
        faults.off_the_bus = True
        device.load(saxpy)["saxpy"].launch(1, 64, (y, y, 1.0, 64))
        with pytest.raises(amdrv.DeviceLost, match="all ones"):
            device.synchronize(1.0)
        with pytest.raises(amdrv.DeviceLost):
            y.read()
    faults.off_the_bus = False
    with amdrv.open(name) as device:
        assert device.boot.kind == "cold"
        run_saxpy(device, saxpy)


def test_memory_that_the_bus_does_not_show_works_like_any_other(saxpy: bytes) -> None:
    name = "emu:gfx1100#75"
    amdrv.emulator.card(name, vram_bytes=1 << 30, bar0_bytes=256 << 20)
    with amdrv.open(name) as device:
        hidden = device.alloc(300 << 20)
        assert hidden._allocation.view is None
        x = np.arange(64, dtype=np.float32)
        hidden.write(x, offset=4096)
        on_x = device.array(x)
        device.load(saxpy)["saxpy"].launch(1, 64, (hidden.va + 4096, on_x, 2.0, 64))
        assert np.array_equal(hidden.numpy(np.float32, 64, offset=4096), 3 * x)


# -- opening again -------------------------------------------------------------------------------------------------


def test_memory_survives_no_close_but_the_card_stays_warm(saxpy: bytes) -> None:
    name = "emu:gfx1100#72"
    with amdrv.open(name) as first:
        assert first.boot.kind == "cold"
        assert first.boot.steps[-1].name == "compute queue"
        assert first.name.endswith("(emulated)") and first.arch == "gfx1100"
        with pytest.raises(amdrv.DeviceBusy, match="pid"):
            amdrv.open(name)
        run_saxpy(first, saxpy)
    with amdrv.open(name) as second:
        assert second.boot.kind == "warm"
        assert second.boot.reads <= 60 and second.boot.writes <= 150
        run_saxpy(second, saxpy)
        buffer = second.alloc(16)
        second.reset(level="mode1")
        with pytest.raises(amdrv.DeviceLost, match="mode1"):
            buffer.read()
    with amdrv.open(name) as third:
        assert third.boot.kind == "cold"
        run_saxpy(third, saxpy)


def test_the_default_device_is_opened_once_and_again_after_it_was_closed(
    monkeypatch: pytest.MonkeyPatch, saxpy: bytes
) -> None:
    monkeypatch.setenv("AMDRV_DEVICE", "emu:gfx1100#73")
    amdrv.default_device().close()  # whichever other tests have left open
    device = amdrv.default_device()
    assert amdrv.default_device() is device
    run_saxpy(device, saxpy)
    device.close()
    again = amdrv.default_device()
    assert again is not device and again.boot.kind == "warm"
    run_saxpy(again, saxpy)
    again.close()
