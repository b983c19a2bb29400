"""Programs that go wrong, through the public surface: each is a fault that says where, which lane, what and why, or a
refusal; and the device works on."""

from __future__ import annotations

import random
import re
import struct
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

import amdrv
import amdrv.emulator
from amdrv.emulator.isa.dispatch import Dispatch, ShaderFault
from amdrv.emulator.isa.table import load_table
from amdrv.runtime.device import Device

NAME = "emu:gfx1100#175"  # a card of this file's own
S_ENDPGM, S_CODE_END = 0xBFB00000, 0xBF9F0000
PLAIN = """
define amdgpu_kernel void @k(ptr addrspace(1) %p, i64 %q) ATTRIBUTES {
  store volatile i64 %q, ptr addrspace(1) %p
  ret void
}
"""
# p[i * step] of every work-item i, with an operation on it
STEPS = """
declare i32 @llvm.amdgcn.workitem.id.x()
define amdgpu_kernel void @k(ptr addrspace(1) %p, i64 %step) {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %wide = zext i32 %i to i64
  %offset = mul i64 %wide, %step
  %at = getelementptr i8, ptr addrspace(1) %p, i64 %offset
  OPERATION
  ret void
}
"""
STORE = STEPS.replace("OPERATION", "store i32 %i, ptr addrspace(1) %at")
ATOMIC = STEPS.replace("OPERATION", "%x = atomicrmw add ptr addrspace(1) %at, i32 1 seq_cst")
CALL = """
define amdgpu_kernel void @k(i64 %p) {
  %function = inttoptr i64 %p to ptr
  call void %function()
  ret void
}
"""
LOAD = """
define amdgpu_kernel void @k(ptr addrspace(1) %p, ptr addrspace(4) %q) {
  %x = load i32, ptr addrspace(4) %q
  store i32 %x, ptr addrspace(1) %p
  ret void
}
"""
# Private memory of every work-item i at i * step
PRIVATE = """
declare i32 @llvm.amdgcn.workitem.id.x()
define amdgpu_kernel void @k(i32 %step) {
  %room = alloca [64 x i32], addrspace(5)
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %offset = mul i32 %i, %step
  %at = getelementptr i8, ptr addrspace(5) %room, i32 %offset
  store volatile i32 %i, ptr addrspace(5) %at
  ret void
}
"""
# Every lane loads at offset i * step + 16 of a buffer that begins at p.
BUFFER = """
declare i32 @llvm.amdgcn.workitem.id.x()
declare ptr addrspace(8) @llvm.amdgcn.make.buffer.rsrc.p8.p1(ptr addrspace(1), i16, i64, i32)
declare i32 @llvm.amdgcn.raw.ptr.buffer.load.i32(ptr addrspace(8), i32, i32, i32)
define amdgpu_kernel void @k(ptr addrspace(1) %p, i32 %step) {
  %all = call ptr addrspace(8) @llvm.amdgcn.make.buffer.rsrc.p8.p1(ptr addrspace(1) %p, i16 0, i64 65536, i32 FORMAT)
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %offset = mul i32 %i, %step
  %x = call i32 @llvm.amdgcn.raw.ptr.buffer.load.i32(ptr addrspace(8) %all, i32 %offset, i32 16, i32 0)
  store i32 %x, ptr addrspace(1) %p
  ret void
}
"""
WHICH_GROUP = """
declare i32 @llvm.amdgcn.workgroup.id.x()
declare i32 @llvm.amdgcn.workgroup.id.y()
declare i32 @llvm.amdgcn.workgroup.id.z()
define amdgpu_kernel void @k(i64 %bad) {
  %x = call i32 @llvm.amdgcn.workgroup.id.x()
  %y = call i32 @llvm.amdgcn.workgroup.id.y()
  %z = call i32 @llvm.amdgcn.workgroup.id.z()
  %xy = mul i32 %x, %y
  %xyz = mul i32 %xy, %z
  %last = icmp eq i32 %xyz, 6
  br i1 %last, label %go, label %end
go:
  DO
  br label %go
end:
  ret void
}
"""
TRAP = "declare void @llvm.trap()\ndefine amdgpu_kernel void @k() {\n call void @llvm.trap()\n ret void\n}"
ENDLESS = """
define amdgpu_kernel void @k(ptr addrspace(1) %p) {
  br label %again
again:
  %x = load volatile i32, ptr addrspace(1) %p
  br label %again
}
"""
RECURSION = """
define void @deeper(i32 %n) noinline {
  %room = alloca [64 x i32], addrspace(5)
  store volatile i32 %n, ptr addrspace(5) %room
  %next = add i32 %n, 1
  %stop = icmp eq i32 %next, 0
  br i1 %stop, label %end, label %call
call:
  call void @deeper(i32 %next)
  br label %end
end:
  %again = load volatile i32, ptr addrspace(5) %room
  ret void
}
define amdgpu_kernel void @k() {
  call void @deeper(i32 0)
  ret void
}
"""


@pytest.fixture(scope="module")
def opened() -> Iterator[Device]:
    """One open card for the file."""
    with amdrv.open(NAME) as device:
        yield device


@pytest.fixture
def dev(opened: Device) -> Iterator[Device]:
    """The open card, which computes correctly after every test."""
    yield opened
    check = opened.alloc(64 * 4)
    opened.load(amdrv.compile_llvm(STORE))["k"].launch(1, 64, (check, 4))
    assert check.numpy(np.int32).tolist() == list(range(64))


def plain(attributes: str = "") -> bytes:
    return amdrv.compile_llvm(PLAIN.replace("ATTRIBUTES", attributes))


def program(words: Sequence[int], attributes: str = "") -> bytes:
    """A code object whose kernel is made of these dwords; s[0:1] hold the address of its arguments."""
    code = plain(attributes)
    start = text_start(code)
    room = (code.index(struct.pack("<I", S_ENDPGM), start) - start) // 4 + 32  # LLVM pads with more s_code_end
    assert len(words) <= room
    filled = [*words, *[S_ENDPGM] * (room - len(words))]
    return code[:start] + struct.pack(f"<{room}I", *filled) + code[start + 4 * room :]


def text_start(code: bytes) -> int:
    """Where in the file the machine code begins: the section with code in it."""
    table, count = int.from_bytes(code[40:48], "little"), int.from_bytes(code[60:62], "little")
    for number in range(count):
        _, kind, flags, _, offset, size = struct.unpack_from("<IIQQQQ", code, table + 64 * number)
        if kind == 1 and flags & 4 and size:
            return int(offset)
    raise AssertionError("no code in the object")


def fault_of(dev: Device, code: bytes, block: int, args: Sequence[object]) -> amdrv.GpuFault:
    dev.load(code)["k"].launch(1, block, args)
    with pytest.raises(amdrv.GpuFault) as caught:
        dev.synchronize(10.0)
    return caught.value


# -- faults --------------------------------------------------------------------------------------------------------


def test_a_page_fault_tells_instruction_lane_and_exact_address(dev: Device) -> None:
    target = dev.alloc(4096)
    fault = fault_of(dev, amdrv.compile_llvm(STORE), 64, (target.va + 8, 1024))
    assert (fault.kind, fault.access, fault.client) == ("page fault", "write", "TCP")
    assert (fault.mnemonic, fault.lane, fault.address) == ("global_store_b32", 4, target.va + 8 + 4 * 1024)
    assert f"write of {target.va + 4104:#x} by TCP in lane 4" in str(fault)
    assert "global_store_b32" in str(fault) and "k+0x" in str(fault)


def test_lanes_of_a_wave64_are_counted_to_63(dev: Device) -> None:
    target = dev.alloc(4096)
    wave64 = STORE.replace("i64 %step) {", 'i64 %step) "target-features"="+wavefrontsize64,-wavefrontsize32" {')
    fault = fault_of(dev, amdrv.compile_llvm(wave64), 64, (target, 100))
    assert (fault.lane, fault.address) == (41, target.va + 4100)


@pytest.mark.parametrize("address", [0x1234_5678_9ABC_DEF0, 0xFFF0_0000_0000_0010, 0x8000_0000_0000])
def test_an_address_that_no_page_table_covers_is_shown_whole(dev: Device, address: int) -> None:
    fault = fault_of(dev, amdrv.compile_llvm(STORE), 1, (address, 4))
    assert (fault.kind, fault.access, fault.address, fault.lane) == ("page fault", "write", address, 0)
    target = dev.alloc(4)
    fault = fault_of(dev, amdrv.compile_llvm(LOAD), 1, (target, address))
    assert (fault.access, fault.address, fault.lane) == ("read", address & ~3, None)
    assert fault.mnemonic == "s_load_b32"


@pytest.mark.parametrize("address", [0x10000, 0xDEAD_BEEF_0000_0100])
def test_execution_of_what_is_not_there_is_an_execute_fault_at_its_pc(dev: Device, address: int) -> None:
    fault = fault_of(dev, amdrv.compile_llvm(CALL), 1, (address,))
    assert (fault.kind, fault.access, fault.address, fault.pc) == ("page fault", "execute", address, address)
    assert f"execute of {address:#x}" in str(fault)


def test_a_branch_out_of_the_code_is_a_fault(dev: Device) -> None:
    # s_getpc_b64 s[2:3]; s_add_u32 s2, s2, 0x1000000; s_addc_u32 s3, s3, 0; s_setpc_b64 s[2:3]
    fault = fault_of(dev, program((0xBE824700, 0x8002FF02, 0x01000000, 0x82038003, 0xBE804802)), 1, (0, 0))
    assert (fault.kind, fault.access) == ("page fault", "execute")


def test_a_misaligned_atomic_is_a_fault_of_its_own_kind(dev: Device) -> None:
    target = dev.alloc(4096)
    fault = fault_of(dev, amdrv.compile_llvm(ATOMIC), 64, (target, 6))
    assert (fault.kind, fault.lane, fault.address) == ("misaligned access", 1, target.va + 6)
    assert fault.mnemonic == "global_atomic_add_u32" and "misaligned access in kernel 'k'" in str(fault)


def test_a_misaligned_atomic_of_lds_names_the_lane_and_the_place(dev: Device) -> None:
    ds_add_u32 = (0xD8000002, 0x00000000)  # ds_add_u32 v0, v0 offset:2
    fault = fault_of(dev, program(ds_add_u32), 64, (0, 0))
    assert (fault.kind, fault.lane, fault.address, fault.mnemonic) == ("misaligned access", 0, 2, "ds_add_u32")
    assert "write of LDS at 0x2 in lane 0" in str(fault)


def test_private_memory_beyond_its_end_names_the_lane_and_the_place(dev: Device) -> None:
    fault = fault_of(dev, amdrv.compile_llvm(PRIVATE), 64, (64,))
    assert (fault.mnemonic, fault.access, fault.lane, fault.address) == ("scratch_store_b32", "write", 5, 0x140)
    assert "write of private memory at 0x140 by TCP in lane 5" in str(fault)


def test_a_buffer_load_names_its_lane(dev: Device) -> None:
    target = dev.alloc(4096)
    code = amdrv.compile_llvm(BUFFER.replace("FORMAT", str(0x31016FAC)))
    fault = fault_of(dev, code, 64, (target, 1024))
    assert (fault.mnemonic, fault.lane, fault.address) == ("buffer_load_b32", 4, target.va + 4096 + 16)


@pytest.mark.parametrize("arch", ["gfx1100", "gfx1201"])
def test_the_workgroup_of_what_faults_or_does_not_end_is_named(arch: str) -> None:
    with amdrv.open(f"emu:{arch}#174") as device:
        broken = WHICH_GROUP.replace("DO", "%at = inttoptr i64 %bad to ptr\n  store volatile i32 0, ptr %at")
        device.load(amdrv.compile_llvm(broken, arch=arch))["k"].launch((2, 3, 4), 32, (0x1000,))
        with pytest.raises(amdrv.GpuFault) as fault:
            device.synchronize(10.0)
        endless = WHICH_GROUP.replace("DO", "fence seq_cst")
        kernel = device.load(amdrv.compile_llvm(endless, arch=arch))["k"]
        kernel.launch((2, 3, 4), 32, (0,))
        with pytest.raises(amdrv.Timeout) as timeout:
            device.synchronize(0.3)
    amdrv.emulator.unplug(f"emu:{arch}#174")
    assert fault.value.workgroup == timeout.value.workgroup == (1, 2, 3)
    assert "in workgroup (1, 2, 3)" in str(fault.value) and "in workgroup (1, 2, 3)" in str(timeout.value)
    assert timeout.value.pc is not None and timeout.value.mnemonic.startswith("s_")


def test_a_programs_own_message_does_not_stop_it(dev: Device) -> None:
    dev.load(program((0xBEFD0080, 0xBFB60001)))["k"].launch(1, 64, (0, 0))  # s_mov_b32 m0, 0; s_sendmsg INTERRUPT
    dev.synchronize(10.0)


def test_a_trap_is_a_trap(dev: Device) -> None:
    fault = fault_of(dev, amdrv.compile_llvm(TRAP), 64, ())
    assert (fault.kind, fault.mnemonic) == ("trap", "s_trap")
    assert "s_trap 2" in str(fault) and "illegal" not in str(fault)


@pytest.mark.parametrize(
    ("words", "mnemonic"),
    [
        ((0xF0000000, 0), "image_load"),
        ((0xF8000000, 0), "exp"),
        ((0xCD000000, 0), "v_interp_p10_f32"),
        ((0xCE000000,), "lds_param_load"),
        ((S_CODE_END,), "s_code_end"),
        ((0xBE804A00,), "s_rfe_b64"),
    ],
)
def test_an_instruction_that_is_no_compute_work_is_illegal_and_named(
    dev: Device, words: tuple[int, ...], mnemonic: str
) -> None:
    fault = fault_of(dev, program(words), 1, (0, 0))
    assert (fault.kind, fault.mnemonic) == ("illegal instruction", mnemonic)
    assert mnemonic in str(fault) and "k+0x0" in str(fault)


def test_dual_issue_is_illegal_in_wave64(dev: Device) -> None:
    dual = (0xCA100102, 0x01020101)  # v_dual_mov_b32 v1, v2 :: v_dual_mov_b32 v2, v1
    dev.load(program(dual))["k"].launch(1, 1, (0, 0)).wait()
    wave64 = '"target-features"="+wavefrontsize64,-wavefrontsize32"'
    assert fault_of(dev, program(dual, wave64), 1, (0, 0)).kind == "illegal instruction"


def test_a_stack_that_grows_for_ever_is_a_fault(dev: Device) -> None:
    fault = fault_of(dev, amdrv.compile_llvm(RECURSION, opt=0), 1, ())
    assert fault.kind in ("page fault", "memory violation")
    assert fault.pc is not None


def test_an_endless_loop_ends_with_the_wait(dev: Device) -> None:
    dev.load(program((0xBFA0FFFF,)))["k"].launch(1, 64, (0, 0))  # s_branch to itself
    with pytest.raises(amdrv.Timeout, match="waiting for kernel 'k' to end"):
        dev.synchronize(timeout_s=0.2)


# -- refusals ------------------------------------------------------------------------------------------------------


def test_more_registers_than_there_are_are_refused(dev: Device) -> None:
    code = bytearray(plain())
    at = descriptor(code)
    rsrc1 = int.from_bytes(code[at + 48 : at + 52], "little")
    code[at + 48 : at + 52] = (rsrc1 | 0x3F).to_bytes(4, "little")
    with pytest.raises(amdrv.Unsupported, match="wants 512 vector registers for a wave; gfx1100 has 256"):
        dev.load(bytes(code))


@pytest.mark.parametrize(("offset", "what"), [(0, "LDS"), (4, "scratch")])
def test_more_memory_than_a_workgroup_can_have_is_refused_at_launch(dev: Device, offset: int, what: str) -> None:
    code = bytearray(plain())
    at = descriptor(code) + offset
    code[at : at + 4] = (1 << 24).to_bytes(4, "little")
    with pytest.raises(amdrv.InvalidArgument, match=f"bytes of {what}"):
        dev.load(bytes(code))["k"].launch(1, 64, (0, 0))


def test_arguments_of_absurd_size_are_refused(dev: Device) -> None:
    code = bytearray(plain())
    at = descriptor(code) + 8
    code[at : at + 4] = (0xFFFF_FFFF).to_bytes(4, "little")
    with pytest.raises(amdrv.MalformedInput, match="4294967295 bytes of arguments"):
        dev.load(bytes(code))


def descriptor(code: bytes) -> int:
    """Where in the file the kernel's descriptor is: the only 64-byte object of .rodata."""
    table, count = int.from_bytes(code[40:48], "little"), int.from_bytes(code[60:62], "little")
    for number in range(count):
        _, kind, flags, _, offset, size = struct.unpack_from("<IIQQQQ", code, table + 64 * number)
        if kind == 1 and flags == 2 and size == 64:
            return int(offset)
    raise AssertionError("no descriptor in the object")


# -- anything at all -----------------------------------------------------------------------------------------------


def damaged(code: bytes, rng: random.Random) -> bytes:
    """``code`` with a few bytes, words or stretches of it changed, or cut short."""
    data = bytearray(code)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(data)) & ~7
        kind = rng.randrange(5)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 8] = rng.choice((0, 1, 2**32 - 1, 2**63, 2**64 - 1, 1 << rng.randrange(64))).to_bytes(
                8, "little"
            )
        elif kind == 2:
            data[at : at + 4] = rng.getrandbits(32).to_bytes(4, "little")
        elif kind == 3:
            source = rng.randrange(len(data))
            data[at : at + 32] = data[source : source + 32]
        elif rng.random() < 0.3:
            del data[at + 1 :]
    return bytes(data)


def test_damaged_objects_are_refused_or_fault_and_nothing_else_happens(dev: Device) -> None:
    rng = random.Random(20260917)
    target = dev.alloc(1 << 16)
    sources = [amdrv.compile_llvm(STORE), amdrv.compile_llvm(RECURSION, opt=0), plain()]
    outcomes: set[str] = set()
    for _ in range(300):
        try:
            module = dev.load(damaged(rng.choice(sources), rng))
            for name in module.kernels:
                arguments = module[name].code.arguments or ()
                values = [
                    target if a.kind == "global_buffer" else bytes(a.size_bytes) for a in arguments if not a.hidden
                ]
                module[name].launch(2, rng.choice((1, 64, 256)), values)
                dev.synchronize(0.5)
            outcomes.add("ran")
        except amdrv.AmdrvError as error:
            assert not isinstance(error, amdrv.DeviceLost)
            outcomes.add(type(error).__name__)
    assert {"ran", "MalformedInput", "GpuFault"} <= outcomes


def random_words(rng: random.Random) -> list[int]:
    """Sixteen dwords: noise, or instructions with noise in their fields."""
    if rng.random() < 0.3:
        return [rng.getrandbits(32) for _ in range(16)]
    table = load_table("gfx11")
    words: list[int] = []
    while len(words) < 14:
        encoding = rng.choice(list(table.encodings.values()))
        raw = encoding.value
        for name, low, mask in encoding.fields:
            ops = table.ops[encoding.name]
            raw |= ((rng.choice(list(ops)) if name == "op" and ops else rng.randint(0, mask)) & mask) << low
        words += [raw >> 32 * word & 0xFFFFFFFF for word in range(encoding.dwords)]
    return words


def test_random_bytes_as_code_end_or_fault_or_time_out(dev: Device) -> None:
    rng = random.Random(7)
    target = dev.alloc(1 << 16)
    witness = dev.array(np.arange(1024, dtype=np.uint32))
    outcomes: set[str] = set()
    for _ in range(150):
        try:
            dev.load(program(random_words(rng)))["k"].launch(2, rng.choice((1, 64, 96)), (target, 0))
            dev.synchronize(0.3)
            outcomes.add("ended")
        except (amdrv.GpuFault, amdrv.Timeout) as error:
            outcomes.add(getattr(error, "kind", "timeout"))
    assert {"ended", "illegal instruction", "page fault"} <= outcomes
    assert (witness.numpy(np.uint32) == np.arange(1024)).all()


WHERE = r"at pc 0x\w+ = k\+0x\w+ in workgroup \([01], 0, 0\): (global_load|s_)"


def endless(device: Device) -> amdrv.Timeout:
    """What a kernel that does not end is told with."""
    kernel = device.load(amdrv.compile_llvm(ENDLESS))["k"]
    room = device.alloc(64)
    for timeout_s in (0.2, 2.0, 20.0):
        kernel.launch(2, 64, (room,))
        with pytest.raises(amdrv.Timeout) as caught:
            device.synchronize(timeout_s=timeout_s)
        if "a wave of it" in str(caught.value):
            break
    return caught.value


def test_time_out_names_the_instruction_of_a_wave_that_still_ran(dev: Device) -> None:
    assert re.search("'k' was running, a wave of it " + WHERE, str(endless(dev)))


def test_interpreted_wave_that_still_runs_is_named_too() -> None:
    name = "emu:gfx1100#176"
    amdrv.emulator.card(name, interpreted=True)
    with amdrv.open(name) as device:
        assert re.search("a wave of it " + WHERE, str(endless(device)))
    amdrv.emulator.unplug(name)


def test_fault_of_a_dispatch_that_was_given_up_is_not_blamed_on_later_work(
    dev: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = dev.load(amdrv.compile_llvm(STORE))["k"]
    engine = amdrv.emulator.card(NAME).shader_engine
    release = threading.Event()

    def late(dispatch: Dispatch, *_: object, **__: object) -> None:
        release.wait(20)
        raise ShaderFault("illegal instruction", "late", pc=dispatch.pc)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run", late)
        kernel.launch(1, 64, (dev.alloc(256), 4))
        with pytest.raises(amdrv.Timeout):
            dev.synchronize(timeout_s=0.2)
    later = kernel.launch(1, 64, (dev.alloc(256), 4))
    release.set()
    later.wait()
