"""Survives a client that shortens a file which the card has mapped.

A touch of a page that a file no longer has is SIGBUS, and the end of the process. Python's signal handlers come too
late for that: they run when the faulting instruction is done, and it never is. So the handler is a few instructions
made by LLVM: for an address inside the arena it puts an empty page there and lets the instruction go on; for any other
it steps aside, and the process ends as it would have.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal

import llvmlite.binding as llvm

from amdrv.emulator.arena import MAP_FIXED, MAP_NORESERVE, PAGE_BYTES, READ_WRITE, Arena

SIGACTION_MASK_BYTES = 128  # glibc and musl alike, bits/sigaction.h
SA_SIGINFO = 4
FAULT_ADDRESS_OFFSET = 16  # si_addr in siginfo_t of 64-bit Linux
EMPTY_PAGE_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE

HANDLER = """
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare ptr @signal(i32, ptr)

define void @on_bus_error(i32 %number, ptr %info, ptr %context) {{
  %place = getelementptr i8, ptr %info, i64 {address_offset}
  %address = load i64, ptr %place
  %offset = sub i64 %address, {start}
  %inside = icmp ult i64 %offset, {size}
  br i1 %inside, label %mend, label %give_up

mend:
  %page = and i64 %address, -{page}
  %at = inttoptr i64 %page to ptr
  %mapped = call ptr @mmap(ptr %at, i64 {page}, i32 {protection}, i32 {flags}, i32 -1, i64 0)
  %result = ptrtoint ptr %mapped to i64
  %failed = icmp eq i64 %result, -1
  br i1 %failed, label %give_up, label %done

give_up:
  %before = call ptr @signal(i32 %number, ptr null)
  br label %done

done:
  ret void
}}
"""


class _Sigaction(ctypes.Structure):
    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_char * SIGACTION_MASK_BYTES),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class Guard:
    """While it is held, an arena's missing pages become empty ones."""

    def __init__(self, arena: Arena) -> None:
        start, size = arena.extent()
        text = HANDLER.format(
            address_offset=FAULT_ADDRESS_OFFSET,
            start=start,
            size=size,
            page=PAGE_BYTES,
            protection=READ_WRITE,
            flags=EMPTY_PAGE_FLAGS,
        )
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine()
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
        self._engine.finalize_object()
        action = _Sigaction(handler=self._engine.get_function_address("on_bus_error"), flags=SA_SIGINFO)
        self._before = _Sigaction()
        _exchange(action, self._before)

    def release(self) -> None:
        """Put back what was there before."""
        _exchange(self._before, None)


def _exchange(new: _Sigaction, old: _Sigaction | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sigaction(int(signal.SIGBUS), ctypes.byref(new), None if old is None else ctypes.byref(old)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
