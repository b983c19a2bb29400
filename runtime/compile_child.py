"""The process that runs LLVM: a fatal error of LLVM ends whoever calls it, so that is never the user's process.

Run as a script; imports nothing of amdrv, so that it starts fast. Reads requests from standard input and answers on
the descriptor that was standard output; LLVM's own messages go to standard error.

Request: REQUEST header, processor name, IR text. Reply: REPLY header, then machine code (DONE) or a message.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from typing import BinaryIO

import llvmlite.binding as llvm

TRIPLE = "amdgcn-amd-amdhsa"
REQUEST = struct.Struct("<IIB")  # bytes of the processor name, bytes of the IR, optimisation level
REPLY = struct.Struct("<BI")  # status, bytes that follow
DONE, BAD_IR = 0, 1
KERNEL = re.compile(r'define .*\bamdgpu_kernel .*?@([\w.$-]+|"[^"\\]+")\(')
METADATA_NODE = re.compile(r"^!(\d+) = ", re.MULTILINE)


class BadIr(Exception):
    """The text is not valid LLVM IR for this target."""


def compile_ir(text: str, processor: str, level: int) -> bytes:
    """Relocatable ELF for ``processor``; raises BadIr with LLVM's message."""
    # A context of its own, so that type names of one module do not leak into the next.
    context = llvm.create_context()
    try:
        module = llvm.parse_assembly(text, context)
    except RuntimeError as error:
        raise BadIr(str(error)) from None
    if not module.triple:
        module.triple = TRIPLE
    elif not module.triple.startswith("amdgcn"):
        raise BadIr(f"the module is for {module.triple!r}; leave the triple out or use {TRIPLE}")
    if annotated := annotate(module):
        module = llvm.parse_assembly(annotated, context)
    target = llvm.Target.from_triple(module.triple)
    machine = target.create_target_machine(cpu=processor, opt=level, reloc="pic")
    if not module.data_layout:
        module.data_layout = str(machine.target_data)
    try:
        module.verify()
    except RuntimeError as error:
        raise BadIr(str(error)) from None
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=level))
    builder.getModulePassManager().run(module, builder)
    # emit_object changes the module: it must not be used again.
    code: bytes = machine.emit_object(module)
    return code


def annotate(module: llvm.ModuleRef) -> str:
    """The module's text with ``!kernel_arg_type`` added to kernels that have none; "" when there is nothing to add.

    LLVM writes it into the code object as ``.type_name``, which is how a launch can tell a float from an integer.
    """
    text = str(module)
    number = max((int(found) for found in METADATA_NODE.findall(text)), default=-1)
    nodes = []
    lines = text.split("\n")
    for position, line in enumerate(lines):
        found = KERNEL.match(line)
        if found is None or "!kernel_arg_type" in line or not line.endswith(" {"):
            continue
        number += 1
        arguments = module.get_function(found[1].strip('"')).arguments
        names = ", ".join(f'!"{argument.type}"' for argument in arguments)
        nodes.append(f"!{number} = !{{{names}}}")
        lines[position] = f"{line[:-2]} !kernel_arg_type !{number} {{"
    return "\n".join([*lines, *nodes, ""]) if nodes else ""


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """``size`` bytes; ends the process when the parent has gone."""
    data = stream.read(size)
    if len(data) < size:
        sys.exit(0)
    return data


def main() -> None:
    """Answer requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever LLVM prints must not reach the reply stream
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    requests = sys.stdin.buffer
    while True:
        name_bytes, text_bytes, level = REQUEST.unpack(read_exactly(requests, REQUEST.size))
        processor = read_exactly(requests, name_bytes).decode()
        text = read_exactly(requests, text_bytes).decode()
        try:
            status, payload = DONE, compile_ir(text, processor, level)
        except BadIr as error:
            status, payload = BAD_IR, str(error).encode()
        replies.write(REPLY.pack(status, len(payload)) + payload)
        replies.flush()


if __name__ == "__main__":
    main()
