"""A GPU as a device: kernels as AMDGPU code objects, laid out by ``arrange_gpu``."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path

import llvmlite
import numpy as np
from llvmlite import binding
from numpy.typing import NDArray

from amdrv.errors import AmdrvError, Unsupported
from amdrv.runtime.compile import compile_llvm
from amdrv.runtime.device import Device
from amdrv.runtime.module import Kernel as LoadedKernel
from amdrv.tensor.arrange_gpu import Layout, for_gpu
from amdrv.tensor.arrange_matrix import PARTS
from amdrv.tensor.decompose import decompose
from amdrv.tensor.emit import Dialect, Emitter, Scope, write_nest
from amdrv.tensor.ir import Axis, Node, Op, toposort
from amdrv.tensor.lower import Kernel
from amdrv.tensor.object_cache import ObjectCache
from amdrv.tensor.storage import Program

GLOBAL = "ptr addrspace(1)"
SHARED = "ptr addrspace(3)"
DIALECT = Dialect(pointer=GLOBAL, index_bits=32)
ENTRY = "kernel"
MATRIX_LANES = {"gfx110": 16, "gfx115": 16, "gfx120": 8}  # see arrange_matrix


class GpuMemory:
    """A buffer of the runtime."""

    def __init__(self, device: Device, size_bytes: int) -> None:
        self._buffer = device.alloc(size_bytes)
        self.size_bytes = size_bytes

    @property
    def address(self) -> int:
        return self._buffer.va

    def write(self, data: NDArray[np.uint8], offset: int = 0) -> None:
        self._buffer.write(data, offset)

    def read(self, size_bytes: int, offset: int = 0) -> NDArray[np.uint8]:
        return np.frombuffer(self._buffer.read(size_bytes, offset), np.uint8).copy()


class GpuEmitter(Emitter):
    """Adds what work-items of a workgroup do together."""

    def __init__(self, body: Node, layout: Layout) -> None:
        super().__init__(body, DIALECT)
        self._layout = layout
        self.uses_shared = False

    def _width(self, node: Node) -> int:
        return PARTS if node.arg is Op.MATRIX else super()._width(node)

    def _identity(self, node: Node) -> str:
        return "zeroinitializer" if node.arg is Op.MATRIX else super()._identity(node)

    def _combine(self, node: Node, total: str, scope: Scope) -> str:
        if node.arg is not Op.MATRIX:
            return super()._combine(node, total, scope)
        lanes = self.lanes(node.src[0])
        half, result = f"<{lanes} x half>", f"<{PARTS} x float>"
        operands = [(half, self.operand(source, lanes, scope)) for source in node.src[0].src]
        name = f"llvm.amdgcn.wmma.f32.16x16x16.f16.v8f32.v{lanes}f16"
        return self.into(scope, self.call(name, result, [*operands, (result, total)]))

    def across_items(self, node: Node, total: str) -> str:
        """Every work-item gets the combination of all: each exchanges with the one whose number differs in one bit."""
        self.uses_shared = True
        kind = self.type_of(node.dtype)
        stored = "i8" if kind == "i1" else kind
        item = self.value(self._layout.item)
        index = self.index_type
        own = self.into(self.scope, f"getelementptr i64, {SHARED} @shared, {index} {item}")
        step = self._layout.item.arg[1] // 2
        while step:
            value = self.into(self.scope, f"zext i1 {total} to i8") if kind == "i1" else total
            self.line(f"store {stored} {value}, {SHARED} {own}, align 8")
            self.barrier()
            partner = self.into(self.scope, f"xor {index} {item}, {step}")
            place = self.into(self.scope, f"getelementptr i64, {SHARED} @shared, {index} {partner}")
            other = self.into(self.scope, f"load {stored}, {SHARED} {place}, align 8")
            if kind == "i1":
                other = self.into(self.scope, f"icmp ne i8 {other}, 0")
            self.barrier()
            total = self.into(self.scope, self.alu(node.arg, node.dtype, 1, [total, other]))
            step //= 2
        return total

    def barrier(self) -> None:
        """All work-items come here before any goes on, and see what the others wrote."""
        self.line('fence syncscope("workgroup") release')
        self.line(self.call("llvm.amdgcn.s.barrier", "void", ()))
        self.line('fence syncscope("workgroup") acquire')


def write_ir(kernel: Kernel, arch: str) -> tuple[str, Layout]:
    """LLVM IR of a kernel for a processor such as gfx1100."""
    layout = for_gpu(decompose(kernel.body).src, MATRIX_LANES.get(arch[:6], 0))
    nest = layout.nest
    emitter = GpuEmitter(Node(Op.SINK, nest.stores[0].dtype, nest.stores), layout)
    for node in toposort([*nest.stores, layout.inside]):
        if node.op is Op.PARAM:
            emitter.params[node] = f"%p{node.arg[0]}"
        elif node.op is Op.RANGE and node.arg[2] is Axis.LANE:
            emitter.bind(node, f"<{', '.join(f'{emitter.index_type} {k}' for k in range(node.arg[1]))}>")
    for node, name in ((layout.group, "workgroup.id.x"), (layout.item, "workitem.id.x")):
        number = emitter.into(emitter.scope, emitter.call(f"llvm.amdgcn.{name}", "i32", ()))
        wide = emitter.index_type == "i64"
        emitter.bind(node, emitter.into(emitter.scope, f"zext i32 {number} to i64") if wide else number)
    if layout.inside.op is not Op.CONST:
        emitter.line(f"br i1 {emitter.value(layout.inside)}, label %inside, label %outside")
        emitter.block("inside")
    write_nest(emitter, nest)
    emitter.line("br label %outside" if layout.inside.op is not Op.CONST else "ret void")
    if layout.inside.op is not Op.CONST:
        emitter.block("outside")
        emitter.line("ret void")
    items = layout.item.arg[1]
    arguments = ", ".join(f"{GLOBAL} noalias %p{slot}" for slot in range(len(kernel.buffers)))
    shared = f"@shared = internal addrspace(3) global [{items} x i64] poison\n" if emitter.uses_shared else ""
    head = f"define amdgpu_kernel void @{ENTRY}({arguments}) #0 {{\nentry:\n"
    size = f'"amdgpu-flat-work-group-size"="{items},{items}"'
    attributes = f'attributes #0 = {{ nounwind {size} "uniform-work-group-size"="true" }}'
    return "\n".join([*emitter.declared, shared + head + emitter.text + "\n}", attributes, ""]), layout


class GpuProgram:
    """A kernel loaded on a device."""

    def __init__(self, ir: str, loaded: LoadedKernel, groups: int, items: int) -> None:
        self.ir = ir
        self._loaded, self._groups, self._items = loaded, groups, items

    def run(self, addresses: Sequence[int]) -> None:
        self._loaded.launch(self._groups, self._items, tuple(addresses))


class GpuBackend:
    """An open device."""

    name = "AMD"

    def __init__(self, device: Device, cache: Path | None = None) -> None:
        # The table of backends must not keep a forgotten device open.
        self._device = weakref.ref(device)
        self.programs: dict[Node, Program] = {}
        self._cache = ObjectCache((llvmlite.__version__, binding.llvm_version_info, device.arch), cache)

    @property
    def device(self) -> Device:
        """The device. Raises Unsupported when it was forgotten."""
        found = self._device()
        if found is None:
            raise Unsupported("the device of this tensor is gone")
        return found

    def allocate(self, size_bytes: int) -> GpuMemory:
        """Memory with undefined contents."""
        return GpuMemory(self.device, size_bytes)

    def compile(self, kernels: Sequence[Kernel]) -> list[Program]:
        """A code object for each kernel, loaded."""
        return [self._compile(kernel) for kernel in kernels]

    def _compile(self, kernel: Kernel) -> GpuProgram:
        ir, layout = write_ir(kernel, self.device.arch)
        try:
            code = self._cache.compiled(ir, lambda text: compile_llvm(text, self.device.arch))
        except AmdrvError as error:
            raise Unsupported(f"LLVM refuses a kernel (stage: {self.device.arch} code): {error}\n{ir}") from error
        return GpuProgram(ir, self.device.load(code)[ENTRY], layout.group.arg[1], layout.item.arg[1])

    def synchronize(self) -> None:
        """Return when what was queued has run."""
        self.device.synchronize()
