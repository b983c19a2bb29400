"""A device on a GPU of bytes and packets: what reaches the GPU, in which order, and what trouble costs."""

from __future__ import annotations

import gc
import struct

import numpy as np
import pytest

from amdrv.errors import DeviceLost, GpuFault, InvalidArgument, NotFound, OutOfMemory, Timeout
from amdrv.faults import FaultRecord
from amdrv.runtime.compile import compile_llvm
from amdrv.runtime.device import Device

ARGS = (0x1000, 0x2000, 2.0, 100)


def page_fault(address: int) -> FaultRecord:
    """What the driver reports for a write to ``address``."""
    return FaultRecord("page fault", address=address, vmid=0, access="write", client="TCP", detail="no valid entry")


# -- buffers -------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(device) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    buffer = device.array(values)
    assert buffer.size == len(buffer) == values.nbytes
    assert (buffer.numpy(np.float32, (3, 4)) == values).all()
    assert buffer.read() == values.tobytes()
    buffer.write(b"\1\2\3\4", offset=8)
    assert buffer.read(6, offset=6) == values.tobytes()[6:8] + b"\1\2\3\4"


def test_arrays_of_any_type_and_layout_are_copied_in_c_order(device) -> None:
    import ml_dtypes

    for array in (np.arange(6).reshape(2, 3).T, np.array(7, np.int16), np.ones(3, ml_dtypes.bfloat16)):
        buffer = device.array(array)
        assert (buffer.numpy(array.dtype, array.shape) == array).all()


def test_numpy_gives_a_copy(device) -> None:
    buffer = device.array(np.zeros(4, np.int32))
    copy = buffer.numpy(np.int32)
    copy[:] = 5
    assert not buffer.numpy(np.int32).any()
    buffer.write(np.ones(4, np.int32))
    assert (copy == 5).all()


@pytest.mark.parametrize("size", [0, -1, 1.5, "4", None, True])
def test_a_buffer_has_a_positive_number_of_bytes(device, size: object) -> None:
    with pytest.raises(InvalidArgument, match="positive number of bytes"):
        device.alloc(size)


def test_out_of_bounds_is_refused(device) -> None:
    buffer = device.alloc(16)
    for call in (
        lambda: buffer.write(bytes(17)),
        lambda: buffer.write(b"x", offset=16),
        lambda: buffer.write(b"x", offset=-1),
        lambda: buffer.read(17),
        lambda: buffer.read(offset=17),
        lambda: buffer.numpy(np.float32, 5),
        lambda: buffer.numpy(np.float32, (-1, -4)),
    ):
        with pytest.raises(InvalidArgument):
            call()
    with pytest.raises(InvalidArgument, match="no whole number"):
        device.alloc(10).numpy(np.float64)
    for wrong in (np.array([object()]), "text", 3):
        with pytest.raises(InvalidArgument):
            buffer.write(wrong)
    with pytest.raises(InvalidArgument, match="no bytes"):
        device.array(np.empty(0))


def test_a_freed_buffer_says_so(device) -> None:
    buffer = device.alloc(16)
    buffer.free()
    for call in (buffer.read, lambda: buffer.write(b"x"), lambda: buffer.va, buffer.numpy):
        with pytest.raises(InvalidArgument, match="was freed"):
            call()
    with pytest.raises(InvalidArgument, match="freed already"):
        buffer.free()


def test_memory_of_a_freed_or_forgotten_buffer_comes_back(device, gpu) -> None:
    before = gpu.memory.vram_free
    first, second = device.alloc(4096), device.alloc(4096)
    first.free()
    del second
    gc.collect()
    device.synchronize()
    assert gpu.memory.vram_free == before


def test_memory_is_not_reused_while_queued_work_may_use_it(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    buffer = device.alloc(4096)
    free = gpu.memory.vram_free
    kernel.launch(1, 64, (buffer, buffer, 1.0, 1))
    buffer.free()
    others = [device.alloc(16)]
    assert gpu.memory.vram_free == free - 16
    device.synchronize()
    others.append(device.alloc(16))
    assert gpu.memory.vram_free == free + 4096 - 32


def test_out_of_memory_waits_for_what_queued_work_still_holds(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    big = device.alloc(gpu.memory.vram_free - 4096)
    kernel.launch(1, 64, (big, big, 1.0, 1))
    del big
    assert device.alloc(1 << 20).size == 1 << 20
    with pytest.raises(OutOfMemory):
        device.alloc(1 << 40)
    assert device.alloc(16).size == 16


# -- launches ------------------------------------------------------------------------------------------------------


def test_a_launch_reaches_the_gpu_with_its_arguments(device, gpu, saxpy: bytes) -> None:
    module = device.load(saxpy)
    y, x = device.alloc(64), device.alloc(64)
    launch = module["saxpy"].launch(grid=(3, 2), block=(64,), args=(y, x, 2.5, np.uint32(7)))
    assert not launch.done
    launch.wait()
    assert launch.done
    (dispatch,) = gpu.dispatches
    assert dispatch.grid == (3, 2, 1)
    assert dispatch.register("COMPUTE_NUM_THREAD_X", 3) == (64, 1, 1)
    code = module.code.kernel("saxpy")
    low, high = dispatch.register("COMPUTE_PGM_LO", 2)
    assert (high << 32 | low) << 8 == module.va + code.entry_offset
    users = dispatch.register("COMPUTE_USER_DATA_0", code.descriptor.user_sgprs)
    kernarg_va = users[-2] | users[-1] << 32 if len(users) == 2 else users[0] | users[1] << 32
    block = gpu.memory.at(kernarg_va, code.kernarg_bytes)
    assert struct.unpack_from("<QQfI", block) == (y.va, x.va, 2.5, 7)
    assert struct.unpack_from("<III3H", block, 24) == (3, 2, 1, 64, 1, 1)


def test_code_is_on_the_device_as_relocated(device, gpu, data) -> None:
    module = device.load((data / "globals.hsaco").read_bytes())
    image = module.code.image
    memory = bytes(gpu.memory.at(module.va, image.size_bytes))
    assert memory[: len(image.contents)] == image.relocate(module.va)
    assert not any(memory[len(image.contents) :])


def test_publishing_is_packets_then_flush_then_write_pointer_then_doorbell(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    gpu.events.clear()
    kernel.launch(1, 64, ARGS)
    kernel.launch(1, 64, ARGS)
    # The module was written through the host data path; the second launch has nothing of the kind before it.
    assert gpu.events == ["flush", "doorbell", "publish", "doorbell"]


def test_work_is_done_in_order_and_timed(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    first, second = (kernel.launch(1, 64, ARGS, timed=True) for _ in range(2))
    assert second.wait() is second
    assert first.done
    assert first.seconds == second.seconds == 50 / 100e6
    with pytest.raises(InvalidArgument, match="timed=True"):
        _ = kernel.launch(1, 64, ARGS).seconds


def test_times_survive_the_reuse_of_their_memory(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    first = kernel.launch(1, 64, ARGS, timed=True)
    for _ in range(4000):
        kernel.launch(1, 64, ARGS, timed=True)
    device.synchronize()
    assert first.seconds == 50 / 100e6


def test_thousands_of_launches_go_round_the_rings(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    for number in range(5000):
        kernel.launch(1, 64, (number, 0, 0.0, 0))
    device.synchronize()
    assert len(gpu.dispatches) == 5000
    assert gpu.queues == 1


def test_interrupts_do_not_pile_up_while_nobody_waits(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    pending, most = 0, 0
    take = gpu.take_faults

    def count(thorough: bool = True) -> list[FaultRecord]:
        nonlocal pending
        pending = 0
        return take(thorough)

    gpu.take_faults = count
    for _ in range(6000):
        kernel.launch(1, 64, ARGS)
        gpu.work()  # a GPU that is faster than its host
        pending += 1
        most = max(most, pending)
    assert most < 8192 // 2


def test_a_fault_that_was_noticed_in_passing_is_raised_by_the_next_wait(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    gpu.on_dispatch = lambda dispatch: gpu._faults.append(page_fault(0x10)) if not gpu.dispatches[1:] else None
    for _ in range(2048):
        kernel.launch(1, 64, ARGS)
        gpu.work()
    assert not gpu._faults
    with pytest.raises(GpuFault, match="page fault"):
        device.synchronize()


def test_a_full_queue_waits_a_bounded_time(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    gpu.on_dispatch = lambda dispatch: "hang"
    with pytest.raises(Timeout, match="'saxpy'"):
        for _ in range(5000):
            kernel.launch(1, 64, ARGS)
    gpu.on_dispatch = lambda dispatch: None
    kernel.launch(1, 64, ARGS).wait()


def test_the_dispatch_packet_is_there_for_kernels_that_read_it(device, gpu) -> None:
    code = compile_llvm(
        "declare ptr addrspace(4) @llvm.amdgcn.dispatch.ptr()\n"
        "define amdgpu_kernel void @k(ptr addrspace(1) %p) {\n %d = call ptr addrspace(4) @llvm.amdgcn.dispatch.ptr()\n"
        " %a = getelementptr i8, ptr addrspace(4) %d, i64 12\n %v = load i32, ptr addrspace(4) %a\n"
        " store i32 %v, ptr addrspace(1) %p\n ret void\n}"
    )
    kernel = device.load(code)["k"]
    kernel.launch((5, 1, 2), (32, 2), (0,)).wait()
    low, high, args_low, args_high = gpu.dispatches[0].register("COMPUTE_USER_DATA_0", 4)
    packet = bytes(gpu.memory.at(high << 32 | low, 64))
    assert struct.unpack_from("<3H2x3I", packet, 4) == (32, 2, 1, 160, 2, 2)
    assert struct.unpack_from("<Q", packet, 40) == (args_high << 32 | args_low,)


SCRATCH = """
define amdgpu_kernel void @k(ptr addrspace(1) %p, i32 %i) {
  %a = alloca [1000 x i32], align 4, addrspace(5)
  %q = getelementptr i32, ptr addrspace(5) %a, i32 %i
  store volatile i32 1, ptr addrspace(5) %q
  %v = load volatile i32, ptr addrspace(5) %a
  store i32 %v, ptr addrspace(1) %p
  ret void
}
"""


def test_scratch_is_there_grows_and_is_kept(device, gpu) -> None:
    small = device.load(compile_llvm(SCRATCH.replace("1000", "8")))["k"]
    large = device.load(compile_llvm(SCRATCH))["k"]
    seen = []

    def look(dispatch) -> None:
        (tmpring,) = dispatch.register("COMPUTE_TMPRING_SIZE")
        fields = gpu.registers.gc.COMPUTE_TMPRING_SIZE.decode(tmpring)
        low, high = dispatch.register("COMPUTE_DISPATCH_SCRATCH_BASE_LO", 2)
        base, wave_bytes = (high << 32 | low) << 8, fields.WAVESIZE * 256
        gpu.memory.at(base, wave_bytes * fields.WAVES * 6)  # as much memory is there as the hardware may use
        assert dispatch.register("COMPUTE_PGM_RSRC2")[0] & 1  # SCRATCH_EN
        seen.append((base, wave_bytes))

    gpu.on_dispatch = look
    order = (small, large, small)
    launches = [kernel.launch(1, 64, (0, 0)) for kernel in order]
    launches[-1].wait()
    for kernel, (_, wave_bytes) in zip(order, seen, strict=True):
        assert wave_bytes >= kernel.code.descriptor.private_segment_bytes * 32
    bases = [base for base, _ in seen]
    assert bases[0] != bases[1] == bases[2]


def test_a_kernel_without_scratch_gets_none(device, gpu, saxpy: bytes) -> None:
    device.load(saxpy)["saxpy"].launch(1, 64, ARGS).wait()
    assert gpu.dispatches[0].register("COMPUTE_TMPRING_SIZE") == (0,)


def test_dynamic_lds_is_allocated_and_limited(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    kernel.launch(1, 64, ARGS, shared_bytes=1025).wait()
    rsrc2 = gpu.registers.gc.COMPUTE_PGM_RSRC2.decode(gpu.dispatches[0].register("COMPUTE_PGM_RSRC2")[0])
    assert rsrc2.LDS_SIZE == 3
    with pytest.raises(InvalidArgument, match="a workgroup can have 65536"):
        kernel.launch(1, 64, ARGS, shared_bytes=65537)


def test_bad_launches_are_refused_before_anything_is_queued(device, gpu, saxpy: bytes) -> None:
    module = device.load(saxpy)
    kernel = module["saxpy"]
    gpu.events.clear()
    with Device(type(gpu)()) as other:
        foreign = other.alloc(16)
        for grid, block, args in (
            (0, 64, ARGS),
            (1, 0, ARGS),
            (1, 2048, ARGS),
            ((1 << 32, 1), 1, ARGS),
            (1, 64, ARGS[:3]),
            (1, 64, (*ARGS, 1)),
            (1, 64, ("y", *ARGS[1:])),
            (1, 64, (*ARGS[:3], 1 << 33)),
            (1, 64, (foreign, *ARGS[1:])),
        ):
            with pytest.raises(InvalidArgument):
                kernel.launch(grid, block, args)
    with pytest.raises(NotFound, match="saxpy"):
        module["missing"]
    with pytest.raises(KeyError):
        module["missing"]
    assert gpu.events == []


def test_modules_tell_their_kernels_and_when_they_are_gone(device, saxpy: bytes) -> None:
    module = device.load(saxpy)
    assert module.kernels == ("saxpy",) and list(module) == ["saxpy"] and "saxpy" in module and len(module) == 1
    kernel = module["saxpy"]
    assert module.locate(module.va + 0x1C) == "saxpy+0x1c"
    assert module.locate(module.va - 1) is None
    module.free()
    with pytest.raises(InvalidArgument, match="was freed"):
        kernel.launch(1, 64, ARGS)
    with pytest.raises(InvalidArgument, match="was freed"):
        module.free()


def test_code_for_another_chip_is_refused(device, data) -> None:
    from amdrv.errors import MalformedInput, Unsupported

    with pytest.raises(Unsupported, match="gfx1201"):
        device.load((data / "saxpy_gfx1201.hsaco").read_bytes())
    with pytest.raises(MalformedInput):
        device.load(b"nonsense")
    with pytest.raises(InvalidArgument, match="bytes"):
        device.load("text")


# -- trouble -------------------------------------------------------------------------------------------------------


def test_a_fault_is_told_in_the_programs_words_and_costs_only_queued_work(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    buffer = device.array(np.arange(4, dtype=np.int32))
    gpu.on_dispatch = lambda dispatch: page_fault(buffer.va + 16 + 4096) if dispatch.grid[0] == 2 else None
    ended, culprit, behind = (kernel.launch(grid, 64, ARGS) for grid in (1, 2, 3))
    with pytest.raises(GpuFault) as caught:
        device.synchronize()
    text = str(caught.value)
    assert "page fault in kernel 'saxpy'" in text
    assert f"write of {buffer.va + 4112:#x} by TCP" in text
    assert "4096 bytes past the end of a buffer (16 bytes" in text
    assert "dropped behind it: saxpy" in text and "stay valid" in text
    assert (caught.value.kind, caught.value.address, caught.value.access) == ("page fault", buffer.va + 4112, "write")
    ended.wait()
    with pytest.raises(GpuFault, match="page fault"):
        culprit.wait()
    with pytest.raises(GpuFault, match="was dropped"):
        behind.wait()
    assert gpu.events.count("recover") == 1 and gpu.queues == 2
    device.synchronize()  # told once
    assert (buffer.numpy(np.int32) == np.arange(4)).all()
    kernel.launch(1, 64, ARGS).wait()


def test_the_instruction_of_a_halted_wave_is_told_by_kernel_and_offset(device, gpu, saxpy: bytes) -> None:
    module = device.load(saxpy)
    gpu.pc = module.va + module.code.kernel("saxpy").entry_offset + 0x48
    gpu.on_dispatch = lambda dispatch: page_fault(0x10)
    module["saxpy"].launch(1, 64, ARGS)
    with pytest.raises(GpuFault, match=rf"at pc {gpu.pc:#x} = saxpy\+0x48") as caught:
        device.synchronize()
    assert caught.value.pc == gpu.pc


def test_scratch_gets_smaller_when_memory_is_short(device, gpu) -> None:
    kernel = device.load(compile_llvm(SCRATCH))["k"]
    hog = device.alloc(gpu.memory.vram_free - (30 << 20))
    kernel.launch(1, 64, (0, 0)).wait()
    fields = gpu.registers.gc.COMPUTE_TMPRING_SIZE.decode(gpu.dispatches[0].register("COMPUTE_TMPRING_SIZE")[0])
    assert fields.WAVES == 32  # one workgroup of 1024 work-items
    hog.free()


def test_a_fault_is_raised_by_the_next_read(device, gpu, saxpy: bytes) -> None:
    buffer = device.alloc(16)
    gpu.on_dispatch = lambda dispatch: FaultRecord("illegal instruction", client="SQ", detail="wave 0")
    device.load(saxpy)["saxpy"].launch(1, 64, ARGS)
    with pytest.raises(GpuFault, match=r"illegal instruction in kernel 'saxpy'; wave 0"):
        buffer.read()
    assert len(buffer.read()) == 16


def test_a_fault_that_lets_the_queue_go_on_is_still_raised(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    gpu.on_dispatch = lambda dispatch: gpu._faults.append(page_fault(0x10))
    kernel.launch(1, 64, ARGS)
    with pytest.raises(GpuFault, match="null pointer"):
        device.synchronize()
    gpu.on_dispatch = lambda dispatch: None
    kernel.launch(1, 64, ARGS).wait()


def test_a_kernel_that_never_ends_costs_the_queue_only(device, gpu, saxpy: bytes) -> None:
    kernel = device.load(saxpy)["saxpy"]
    buffer = device.array(np.arange(4, dtype=np.int32))
    gpu.on_dispatch = lambda dispatch: "hang"
    endless, behind = kernel.launch(1, 64, ARGS), kernel.launch(1, 64, ARGS)
    with pytest.raises(Timeout, match=r"after 2 s waiting for kernel 'saxpy' to end.*'saxpy' was running.*stay valid"):
        device.synchronize(timeout_s=2.0)
    with pytest.raises(Timeout):
        endless.wait()
    with pytest.raises(GpuFault, match="dropped"):
        behind.wait()
    gpu.on_dispatch = lambda dispatch: None
    kernel.launch(1, 64, ARGS).wait()
    assert (buffer.numpy(np.int32) == np.arange(4)).all()


def test_a_device_that_left_the_bus_is_lost_whatever_its_registers_say(device, gpu, saxpy: bytes) -> None:
    buffer = device.alloc(16)

    def vanish(dispatch) -> FaultRecord:
        gpu.function.off_the_bus = True
        return page_fault((1 << 64) - 1)

    gpu.on_dispatch = vanish
    launch = device.load(saxpy)["saxpy"].launch(1, 64, ARGS)
    with pytest.raises(DeviceLost, match="all ones"):
        device.synchronize()
    for call in (buffer.read, lambda: device.alloc(16)):
        with pytest.raises(DeviceLost, match="does not answer any more"):
            call()
    with pytest.raises(GpuFault, match="dropped"):
        launch.wait()
    device.close()
    assert gpu.closed


def test_a_device_that_does_not_recover_is_lost(device, gpu, saxpy: bytes) -> None:
    buffer = device.alloc(16)
    gpu.on_dispatch = lambda dispatch: "hang"

    def stuck() -> None:
        raise Timeout("the compute engine to stop", 1.0)

    gpu.recover = stuck
    device.load(saxpy)["saxpy"].launch(1, 64, ARGS)
    with pytest.raises(DeviceLost, match=r"did not recover.*the compute engine to stop"):
        device.synchronize(1.0)
    with pytest.raises(DeviceLost, match="did not recover"):
        buffer.read()
    device.close()
    assert gpu.closed


# -- resets and the end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["queue", "engine"])
def test_a_small_reset_drops_work_and_keeps_memory(device, gpu, saxpy: bytes, level: str) -> None:
    kernel = device.load(saxpy)["saxpy"]
    buffer = device.array(np.arange(4, dtype=np.int32))
    launch = kernel.launch(1, 64, ARGS)
    device.reset(level)
    with pytest.raises(GpuFault, match=f"level {level}"):
        launch.wait()
    assert (buffer.numpy(np.int32) == np.arange(4)).all()
    kernel.launch(1, 64, ARGS).wait()


@pytest.mark.parametrize("level", ["mode1", "function"])
def test_a_large_reset_takes_the_memory_and_says_so(device, gpu, saxpy: bytes, level: str) -> None:
    module = device.load(saxpy)
    buffer = device.alloc(16)
    device.reset(level)
    for call in (
        buffer.read,
        lambda: buffer.va,
        lambda: device.alloc(16),
        lambda: module["saxpy"].launch(1, 64, ARGS),
        device.synchronize,
        lambda: device.load(saxpy),
        lambda: device.reset("queue"),
    ):
        with pytest.raises(DeviceLost, match=f"level {level}.*open the device again"):
            call()
    assert not device.usable


def test_close_waits_for_work_and_then_refuses_more(device, gpu, saxpy: bytes) -> None:
    buffer = device.alloc(16)
    launch = device.load(saxpy)["saxpy"].launch(1, 64, ARGS)
    device.close()
    assert gpu.closed and len(gpu.dispatches) == 1
    assert launch.done and launch.wait() is launch
    for call in (buffer.read, lambda: buffer.va, lambda: device.alloc(16), device.synchronize):
        with pytest.raises(InvalidArgument, match="was closed"):
            call()
    device.close()


def test_work_that_failed_unnoticed_is_told_at_close(gpu, saxpy: bytes) -> None:
    gpu.on_dispatch = lambda dispatch: page_fault(0x10)
    with pytest.raises(GpuFault, match="page fault"), Device(gpu) as device:
        device.load(saxpy)["saxpy"].launch(1, 64, ARGS)
    assert gpu.closed


def test_an_error_on_its_way_is_not_hidden_by_one_at_close(gpu, saxpy: bytes) -> None:
    gpu.on_dispatch = lambda dispatch: page_fault(0x10)
    with pytest.raises(KeyError, match="mine"), Device(gpu) as device:
        device.load(saxpy)["saxpy"].launch(1, 64, ARGS)
        raise KeyError("mine")
    assert gpu.closed


def test_a_forgotten_device_is_closed(gpu) -> None:
    device = Device(gpu)
    buffer = device.alloc(16)
    del device
    gc.collect()
    assert not gpu.closed
    del buffer
    gc.collect()
    assert gpu.closed


def test_starting_the_queue_counts_as_part_of_the_boot(device, gpu) -> None:
    assert gpu.events[0] == "step compute queue"
    assert (device.arch, device.name, device.boot) == ("gfx1100", "Radeon Imaginary", "boot report")


def test_a_forgotten_device_with_a_module_and_unretired_work_is_closed(gpu, saxpy: bytes) -> None:
    def forget() -> None:
        device = Device(gpu)
        device.load(saxpy)["saxpy"].launch(1, 64, (device.alloc(16), 0x2000, 1.0, 1))

    forget()
    gc.collect()
    assert gpu.closed


@pytest.mark.parametrize("mine", [False, True])
def test_endless_work_at_close_is_told_truly_and_hides_no_error(gpu, saxpy: bytes, mine: bool) -> None:
    gpu.on_dispatch = lambda dispatch: "hang"
    with pytest.raises(KeyError if mine else Timeout) as caught, Device(gpu) as device:
        launch = device.load(saxpy)["saxpy"].launch(1, 64, ARGS)
        if mine:
            raise KeyError("mine")
    assert gpu.closed and "stay valid" not in str(launch.error)
    assert "the work was ended and the device closed" in str(launch.error if mine else caught.value)
    with pytest.raises(InvalidArgument, match="was closed"), device:
        pass


@pytest.mark.parametrize("timeout_s", ["x", None, float("nan"), float("inf"), -1, True, 10**400])
def test_a_timeout_is_a_finite_number_of_seconds(device, saxpy: bytes, timeout_s: object) -> None:
    launch = device.load(saxpy)["saxpy"].launch(1, 64, ARGS)
    for wait in (device.synchronize, launch.wait, lambda value: device.wait_for(1, value)):
        with pytest.raises(InvalidArgument, match="finite number of seconds"):
            wait(timeout_s)


@pytest.mark.parametrize(
    "wrong",
    [
        {"args": 5},
        {"args": None},
        {"grid": np.array([1, 1])},
        {"grid": True},
        {"block": (True, 1)},
        {"shared_bytes": "x"},
        {"shared_bytes": 1.5},
    ],
)
def test_launches_with_values_of_the_wrong_type_are_refused(device, saxpy: bytes, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="kernel 'saxpy'"):
        device.load(saxpy)["saxpy"].launch(**({"grid": 1, "block": 64, "args": ARGS} | wrong))


@pytest.mark.parametrize("wrong", [{"dtype": "zz"}, {"shape": ("a",)}, {"shape": (1.5,)}, {"shape": 1.5}])
def test_copies_of_no_type_or_shape_are_refused(device, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        device.alloc(16).numpy(**wrong)


@pytest.mark.parametrize("values", [[[1, 2], [3]], "abc", ["a"], b"abc", None, {}])
def test_arrays_are_of_numbers(device, values: object) -> None:
    with pytest.raises(InvalidArgument):
        device.array(values)
