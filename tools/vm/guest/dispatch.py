#!/usr/bin/python3
"""Runs in the guest: one kernel, through ROCr, with data in device memory; says whether it is right.

Only what Debian's libhsa-runtime64 offers, by ctypes. Numbers: HSA Runtime Programmer's Reference Manual 1.2, hsa.h and
hsa_ext_amd.h of the package's headers.
"""

import ctypes
import struct
import sys
import time
from pathlib import Path

FOLDER, KERNEL = Path("/lib/vm"), b"kernel.kd"
FACTOR, GROUPS, GROUP_ITEMS = 3.0, 4, 256
ITEMS = GROUPS * GROUP_ITEMS
AGENT_INFO_NAME, AGENT_INFO_DEVICE, DEVICE_GPU = 0, 17, 1
POOL_INFO_SEGMENT, POOL_INFO_GLOBAL_FLAGS, SEGMENT_GLOBAL = 0, 1, 0
KERNARG, FINE_GRAINED, COARSE_GRAINED = 1, 2, 4
KERNEL_OBJECT = 22
QUEUE_MULTI, PROFILE_FULL, ROUNDING_DEFAULT = 0, 1, 0
LESS_THAN, WAIT_BLOCKED = 2, 0
NO_LIMIT = 0xFFFF_FFFF
# Type kernel dispatch, barrier, system scope acquire and release; one dimension.
HEADER = 2 | 1 << 8 | 2 << 9 | 2 << 11 | 1 << 16
PACKET = struct.Struct("<IHHHHIIIIIQQQQ")

hsa = ctypes.CDLL("libhsa-runtime64.so.1")
Visitor = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p)
u64, pointer = ctypes.c_uint64, ctypes.c_void_p


class Queue(ctypes.Structure):
    """hsa_queue_t."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("features", ctypes.c_uint32),
        ("base", pointer),
        ("doorbell", u64),
        ("size", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("id", u64),
    )


def call(name: str, *arguments: object) -> None:
    """Call a function of the runtime and end the program when it fails."""
    status = getattr(hsa, name)(*arguments)
    if status:
        text = ctypes.c_char_p()
        hsa.hsa_status_string(status, ctypes.byref(text))
        sys.exit(f"vm: {name} fails: {status:#x} {(text.value or b'').decode()}")


def visit(name: str, *first: object) -> list[int]:
    """Handles that one of the runtime's iterations comes by."""
    found: list[int] = []

    def note(handle: int, _data: object) -> int:
        found.append(handle)
        return 0

    call(name, *first, Visitor(note), None)
    return found


def info(name: str, handle: int, attribute: int) -> int:
    """A 32-bit attribute."""
    value = ctypes.c_uint32()
    call(name, u64(handle), attribute, ctypes.byref(value))
    return value.value


def pool_of(agent: int, flags: int) -> int:
    """The agent's memory pool that has one of ``flags``."""
    for pool in visit("hsa_amd_agent_iterate_memory_pools", u64(agent)):
        if info("hsa_amd_memory_pool_get_info", pool, POOL_INFO_SEGMENT) == SEGMENT_GLOBAL and flags & info(
            "hsa_amd_memory_pool_get_info", pool, POOL_INFO_GLOBAL_FLAGS
        ):
            return pool
    sys.exit("vm: an agent lacks a memory pool")


def allocate(pool: int, size_bytes: int, agent: int) -> int:
    """Memory that the agent reaches."""
    place = pointer()
    call("hsa_amd_memory_pool_allocate", u64(pool), ctypes.c_size_t(size_bytes), 0, ctypes.byref(place))
    call("hsa_amd_agents_allow_access", 1, (u64 * 1)(agent), None, place)
    return place.value or 0


def kernel_object(agent: int, name: str) -> int:
    """Load a code object; address of the kernel's descriptor."""
    code = (FOLDER / f"{name}.co").read_bytes()
    reader, executable, symbol, place = u64(), u64(), u64(), u64()
    call("hsa_code_object_reader_create_from_memory", code, ctypes.c_size_t(len(code)), ctypes.byref(reader))
    call("hsa_executable_create_alt", PROFILE_FULL, ROUNDING_DEFAULT, None, ctypes.byref(executable))
    call("hsa_executable_load_agent_code_object", executable, u64(agent), reader, None, None)
    call("hsa_executable_freeze", executable, None)
    call("hsa_executable_get_symbol_by_name", executable, KERNEL, ctypes.byref(u64(agent)), ctypes.byref(symbol))
    call("hsa_executable_symbol_get_info", symbol, KERNEL_OBJECT, ctypes.byref(place))
    return place.value


def wait(signal: ctypes.c_uint64) -> None:
    """Until the signal is below one; then it is no longer needed."""
    hsa.hsa_signal_wait_scacquire(signal, LESS_THAN, ctypes.c_int64(1), u64(2**63), WAIT_BLOCKED)
    call("hsa_signal_destroy", signal)


def new_signal() -> ctypes.c_uint64:
    """A signal that is one."""
    signal = u64()
    call("hsa_signal_create", ctypes.c_int64(1), 0, None, ctypes.byref(signal))
    return signal


def copy(target: int, target_agent: int, source: int, source_agent: int, size_bytes: int) -> None:
    """By a copy engine."""
    done = new_signal()
    call(
        "hsa_amd_memory_async_copy",
        *(pointer(target), u64(target_agent), pointer(source), u64(source_agent), ctypes.c_size_t(size_bytes)),
        *(0, None, done),
    )
    wait(done)


def dispatch(agent: int, kernel: int, arguments: int) -> None:
    """One packet on a queue of our own, and wait for it."""
    queue = ctypes.POINTER(Queue)()
    call("hsa_queue_create", u64(agent), 64, QUEUE_MULTI, None, None, NO_LIMIT, NO_LIMIT, ctypes.byref(queue))
    done = new_signal()
    hsa.hsa_queue_add_write_index_relaxed.restype = u64
    index = hsa.hsa_queue_add_write_index_relaxed(queue, u64(1))
    packet = PACKET.pack(HEADER, GROUP_ITEMS, 1, 1, 0, ITEMS, 1, 1, 0, 0, kernel, arguments, 0, done.value)
    place = queue.contents.base + index % queue.contents.size * PACKET.size
    ctypes.memmove(place + 4, packet[4:], PACKET.size - 4)
    ctypes.c_uint32.from_address(place).value = HEADER
    hsa.hsa_signal_store_screlease(u64(queue.contents.doorbell), ctypes.c_int64(index))
    wait(done)
    call("hsa_queue_destroy", queue)


def main(kernel: str) -> int:
    """The whole way: host memory, device memory, the kernel of that name, back. Right is what "scale" does."""
    call("hsa_init")
    agents = visit("hsa_iterate_agents")
    (gpu,) = (agent for agent in agents if info("hsa_agent_get_info", agent, AGENT_INFO_DEVICE) == DEVICE_GPU)
    (host,) = (agent for agent in agents if agent != gpu)
    name = ctypes.create_string_buffer(64)
    call("hsa_agent_get_info", u64(gpu), AGENT_INFO_NAME, name)
    started = time.monotonic()
    size_bytes = 4 * ITEMS
    system = pool_of(host, FINE_GRAINED)
    staging, result = allocate(system, size_bytes, gpu), allocate(system, size_bytes, gpu)
    values = allocate(pool_of(gpu, COARSE_GRAINED), size_bytes, gpu)
    arguments = allocate(pool_of(host, KERNARG), 4096, gpu)
    (ctypes.c_float * ITEMS).from_address(staging)[:] = [float(n) for n in range(ITEMS)]
    copy(values, gpu, staging, host, size_bytes)
    ctypes.memmove(arguments, struct.pack("<Qf", values, FACTOR), 12)
    dispatch(gpu, kernel_object(gpu, kernel), arguments)
    copy(result, host, values, gpu, size_bytes)
    seen = list((ctypes.c_float * ITEMS).from_address(result))
    right = seen == [FACTOR * n for n in range(ITEMS)]
    verdict = f"{'right' if right else 'WRONG'} in {time.monotonic() - started:.2f} s"
    print(f"vm: {kernel} on {name.value.decode()} {verdict}: {seen[-2:]}", flush=True)
    call("hsa_shut_down")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
