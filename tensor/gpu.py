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
from amdrv.runtime.graph import LaunchRequest
from amdrv.runtime.module import Kernel as LoadedKernel
from amdrv.runtime.object_cache import ObjectCache
from amdrv.tensor import dtypes, spec, symbolic
from amdrv.tensor.arrange_gpu import for_gpu
from amdrv.tensor.arrange_matrix import CORES, PARTS, TILES, MatrixTile
from amdrv.tensor.decompose import decompose
from amdrv.tensor.emit import Dialect, Emitter, Scope, write_nest
from amdrv.tensor.ir import Node, Op
from amdrv.tensor.lower import Kernel
from amdrv.tensor.optimise import Layout
from amdrv.tensor.storage import Program

GLOBAL = "ptr addrspace(1)"
SHARED = "ptr addrspace(3)"
DIALECT = Dialect(pointer=GLOBAL, index_bits=32, masks=False)
FENCED = '!0 = !{!"amdgpu-synchronize-as", !"local"}'  # what a barrier is about: arrays are not waited for


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
        fragments = node.src[0].src
        lanes, dtype = self.lanes(node.src[0]), fragments[0].dtype
        operand, result = self.vector(dtype, lanes), f"<{PARTS} x float>"
        kind = "f16" if dtype is dtypes.float16 else "bf16"
        name = f"llvm.amdgcn.wmma.f32.16x16x16.{kind}.v8f32.{self.mangled(dtype, lanes)}"
        for pair in zip(fragments[::2], fragments[1::2], strict=True):
            operands = [(operand, self.value(source)) for source in pair]
            total = self.into(scope, self.call(name, result, [*operands, (result, total)]))
        return total

    def _reduce_group(self, group: list[Node]) -> None:
        if group[0].arg is not Op.MATRIX:
            super()._reduce_group(group)
            return
        self._bring(self._layout.first)
        super()._reduce_group(group)
        self.declared["declare void @llvm.fake.use(...)"] = None
        for node in group:
            # Else LLVM may move the last step into a branch behind it, where some of the wave's lanes rest.
            self.line(f"call void (...) @llvm.fake.use(<{PARTS} x float> {self.value(node)})")

    def trip(self, group: Sequence[Node], totals: Sequence[str], scope: Scope) -> list[str]:
        """A product's loop multiplies what is in the workgroup's memory while the next slice is on its way there."""
        following = self._layout.next if group[0].arg is Op.MATRIX else ()
        for store in following:
            self.value(store.src[2])
        totals = super().trip(group, totals, scope)
        self._bring(following)
        return totals

    def _bring(self, stores: Sequence[Node]) -> None:
        self.store_all(stores)
        if stores:
            self.barrier()

    def pointer(self, node: Node) -> str:
        return SHARED if node.src[0].op is Op.SHARED else super().pointer(node)

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

    def put(self, node: Node, value: str, place: str, lanes: int = 1, how: str = "") -> None:
        """Work-items combine values with the same element at the same time: each tries until no other came between."""
        if node.arg is None:
            super().put(node, value, place, lanes, how)
            return
        bits, dtype = f"i{node.dtype.bits}", node.dtype
        how = f'syncscope("agent") monotonic, align {dtype.size_bytes}'
        first = self.into(self.scope, f"load atomic {bits}, {GLOBAL} {place} {how}")
        before, name = self.label, self.fresh("again")
        self.line(f"br label %{name}")
        self.block(name)
        old = self.into(self.scope, f"phi {bits} [{first}, %{before}], [%{name}.seen, %{name}]")
        number = self.into(self.scope, f"bitcast {bits} {old} to {self.type_of(dtype)}")
        number = self.into(self.scope, self.alu(node.arg, dtype, 1, [number, value]))
        new = self.into(self.scope, f"bitcast {self.type_of(dtype)} {number} to {bits}")
        order = 'syncscope("agent") monotonic monotonic'
        pair = self.into(self.scope, f"cmpxchg {GLOBAL} {place}, {bits} {old}, {bits} {new} {order}")
        self.line(f"%{name}.seen = extractvalue {{{bits}, i1}} {pair}, 0")
        done = self.into(self.scope, f"extractvalue {{{bits}, i1}} {pair}, 1")
        self.line(f"br i1 {done}, label %{name}.end, label %{name}")
        self.block(f"{name}.end")

    def barrier(self) -> None:
        """All work-items come here before any goes on, and see what the others wrote to the workgroup's memory."""
        self.line('fence syncscope("workgroup") release, !mmra !0')
        self.line(self.call("llvm.amdgcn.s.barrier", "void", ()))
        self.line('fence syncscope("workgroup") acquire, !mmra !0')


def write_ir(kernel: Kernel, arch: str, rank: int = 0, tiles: Sequence[MatrixTile] = TILES) -> tuple[str, Layout]:
    """LLVM IR of a kernel for a processor such as gfx1100. ``rank`` among ``tiles``: see ``optimise.ranked``."""
    with spec.stage("decompose", kernel.body.src):
        stores = decompose(kernel.body).src
    with spec.stage("arrange", stores):
        layout = for_gpu(stores, CORES.get(arch[:6]), rank, tiles)
        stores = (*layout.nest.stores, *layout.first, *layout.next)
        spec.check_kernel(stores)
    with spec.stage("emit", stores):
        return _write(kernel.name, stores, layout, len(kernel.buffers)), layout


def _write(name: str, stores: tuple[Node, ...], layout: Layout, buffers: int) -> str:
    emitter = GpuEmitter(Node(Op.SINK, stores[0].dtype, stores), layout)
    shared = ""
    for node in emitter.name_sources([*stores, layout.inside]):
        emitter.params[node] = f"@shared{node.arg[0]}"
        kind = emitter.memory_type(node.dtype)
        shared += f"@shared{node.arg[0]} = internal addrspace(3) global [{node.arg[1]} x {kind}] poison, align 16\n"
    for node, which in ((layout.group, "workgroup"), (layout.item, "workitem")):
        number = emitter.into(emitter.scope, emitter.call(f"llvm.amdgcn.{which}.id.x", "i32", ()))
        wide = emitter.index_type == "i64"
        emitter.bind(node, emitter.into(emitter.scope, f"zext i32 {number} to i64") if wide else number)
    if guarded := layout.inside is not symbolic.TRUE:
        emitter.line(f"br i1 {emitter.value(layout.inside)}, label %inside, label %outside")
        emitter.block("inside")
    write_nest(emitter, layout.nest)
    if guarded:
        emitter.line("br label %outside")
        emitter.block("outside")
    items = layout.item.arg[1]
    arguments = ", ".join(f"{GLOBAL} noalias %p{slot}" for slot in range(buffers))
    shared += f"@shared = internal addrspace(3) global [{items} x i64] poison\n" if emitter.uses_shared else ""
    head = f"define amdgpu_kernel void @{name}({arguments}) #0 {{\nentry:\n"
    size = f'"amdgpu-flat-work-group-size"="{items},{items}"'
    attributes = f'attributes #0 = {{ nounwind {size} "uniform-work-group-size"="true" }}'
    text = [*emitter.declared, shared + head + emitter.text + "\n  ret void\n}", attributes, FENCED, ""]
    return "\n".join(text)


class GpuProgram:
    """A kernel loaded on a device."""

    def __init__(self, ir: str, loaded: LoadedKernel, groups: int, items: int) -> None:
        self.ir = ir
        self._loaded, self._groups, self._items = loaded, groups, items

    def run(self, addresses: Sequence[int]) -> None:
        self._loaded.launch(self._groups, self._items, tuple(addresses))

    def request(self, slots: Sequence[int]) -> LaunchRequest:
        """Its launch, for a graph."""
        return LaunchRequest(self._loaded, self._groups, self._items, (0,) * len(slots))


class GpuTape:
    """Programs to repeat, as a graph of the runtime."""

    def __init__(self, device: Device, calls: Sequence[tuple[Program, Sequence[int]]]) -> None:
        self._graph = device.graph([program.request(slots) for program, slots in calls])  # type: ignore[attr-defined]
        self._slots = np.array([slot for _, slots in calls for slot in slots], np.intp)

    def run(self, addresses: NDArray[np.uint64]) -> None:
        self._graph.replay(addresses[self._slots])


class GpuBackend:
    """An open device."""

    name = "AMD"

    def __init__(self, device: Device, cache: Path | None = None) -> None:
        # The table of backends must not keep a forgotten device open.
        self._device = weakref.ref(device)
        self.programs: dict[Node, Program] = {}
        self.cache = ObjectCache((llvmlite.__version__, binding.llvm_version_info, device.arch), cache)

    @property
    def device(self) -> Device:
        """The device. Raises Unsupported when it was forgotten."""
        found = self._device()
        if found is None:
            raise Unsupported("the device of this tensor is gone")
        return found

    def __repr__(self) -> str:
        device = self._device()
        return self.name if device is None else f"{self.name} ({device.gpu.function.name})"

    def allocate(self, size_bytes: int) -> GpuMemory:
        """Memory with undefined contents."""
        return GpuMemory(self.device, size_bytes)

    def compile(self, kernels: Sequence[Kernel], rank: int = 0) -> list[Program]:
        """A code object for each kernel, loaded."""
        return [self._compile(kernel, rank) for kernel in kernels]

    def _compile(self, kernel: Kernel, rank: int) -> GpuProgram:
        ir, layout = write_ir(kernel, self.device.arch, rank)
        try:
            code = self.cache.compiled(ir, lambda text: compile_llvm(text, self.device.arch))
        except AmdrvError as error:
            raise Unsupported(f"LLVM refuses a kernel (stage: {self.device.arch} code): {error}\n{ir}") from error
        return GpuProgram(ir, self.device.load(code)[kernel.name], layout.group.arg[1], layout.item.arg[1])

    def tape(self, calls: Sequence[tuple[Program, Sequence[int]]]) -> GpuTape:
        """Programs to repeat, with one submission."""
        return GpuTape(self.device, calls)

    def synchronize(self) -> None:
        """Return when what was queued has run."""
        self.device.synchronize()
