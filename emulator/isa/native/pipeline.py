"""From IR text to an object for this host; run as a script, a server that does it for another process.

Better code takes LLVM long, and llvmlite lets one thread at a time into LLVM: a child compiles the second tier.
The child gets REQUEST frames with IR text on its standard input and answers each with a REPLY frame on its standard
output: an object, or a message. This file imports nothing but llvmlite, and that only when something is compiled.
"""

from __future__ import annotations

import enum
import functools
import struct
import sys
from typing import Any, BinaryIO

REQUEST = struct.Struct("<BI")  # effort, bytes of text
REPLY = struct.Struct("<BI")  # status, bytes of what follows
DONE, FAILED = 0, 1


class Effort(enum.IntEnum):
    """How much work goes into code. The first two are the tiers of units."""

    LIBRARY = 0  # compiled once for all
    QUICK = 1
    GOOD = 2


class BadModule(Exception):
    """LLVM does not accept a module."""


@functools.cache
def target() -> tuple[str, str]:
    """(processor, features) of this host, as LLVM names them."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features().flatten()
    # Scalarised gathers are faster than the instruction on processors that have it, Zen 4 among them.
    return binding.get_host_cpu_name(), features + ",+prefer-no-gather"


def target_machine(opt: int) -> Any:
    """A target machine for code that is loaded into this process."""
    from llvmlite import binding

    cpu, features = target()
    native = binding.Target.from_triple(binding.get_process_triple())
    return native.create_target_machine(
        cpu=cpu, features=features, opt=opt, reloc="pic", codemodel="jitdefault", jit=True
    )


CODEGEN = {Effort.LIBRARY: 2, Effort.QUICK: 0, Effort.GOOD: 1}


@functools.cache
def _machine(effort: Effort) -> Any:
    return target_machine(CODEGEN[effort])


def compile_module(ir: str, effort: Effort) -> bytes:
    """The object of a module given as text. Raises BadModule for text that LLVM does not parse or verify."""
    from llvmlite import binding

    machine = _machine(effort)
    context = binding.create_context()
    module = None
    # A module must be gone before its context is: it is not left to the garbage collector.
    try:
        module = binding.parse_assembly(ir, context)
        module.verify()
        if effort is not Effort.QUICK:
            _optimise(machine, module)
        return bytes(machine.emit_object(module))
    except RuntimeError as error:
        raise BadModule(str(error)) from error
    finally:
        if module is not None:
            module.close()
        context.close()


def _optimise(machine: Any, module: Any) -> None:
    """What pays for code made of vector operations: O2 runs as fast, but takes several times as long to get there."""
    from llvmlite import binding

    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=2))
    inliner = binding.create_new_module_pass_manager()
    inliner.add_always_inliner_pass()
    inliner.add_global_dead_code_eliminate_pass()
    inliner.run(module, builder)
    passes = binding.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)


def main() -> None:
    """Serve requests until standard input ends."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while head := requests.read(REQUEST.size):
        effort, size_bytes = REQUEST.unpack(head)
        _answer(requests.read(size_bytes).decode(), Effort(effort), replies)


def _answer(ir: str, effort: Effort, replies: BinaryIO) -> None:
    try:
        status, payload = DONE, compile_module(ir, effort)
    except BadModule as error:
        status, payload = FAILED, str(error).encode()
    replies.write(REPLY.pack(status, len(payload)) + payload)
    replies.flush()


if __name__ == "__main__":
    main()
