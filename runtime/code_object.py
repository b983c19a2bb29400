"""Code objects: what ``Device.load`` takes, as values. Nothing here touches a device.

Source: LLVM AMDGPUUsage "Kernel Descriptor" and AMDHSAKernelDescriptor.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from amdrv.errors import MalformedInput, NotFound
from amdrv.runtime import elf_image, metadata, offload_bundle, targets
from amdrv.runtime.elf_image import Image

DESCRIPTOR_BYTES = 64
DESCRIPTOR_ALIGN = 64
ENTRY_ALIGN = 256
WORKGROUP_ITEMS_MAX = 1024  # where nothing says less
KERNARG_BYTES_MAX = 1 << 16  # far more than any compiler allows
VGPRS_MAX = 256  # that an instruction can name
DESCRIPTOR_SUFFIX = ".kd"
# group, private, kernarg bytes, reserved, entry offset, 20 reserved bytes, rsrc3, rsrc1, rsrc2, properties, preload
DESCRIPTOR = struct.Struct("<IIIIq20xIIIHH4x")

# kernel_code_properties
PRIVATE_SEGMENT_BUFFER = 1 << 0
DISPATCH_PTR = 1 << 1
QUEUE_PTR = 1 << 2
KERNARG_SEGMENT_PTR = 1 << 3
DISPATCH_ID = 1 << 4
FLAT_SCRATCH_INIT = 1 << 5
PRIVATE_SEGMENT_SIZE = 1 << 6
WAVEFRONT_SIZE32 = 1 << 10
USES_DYNAMIC_STACK = 1 << 11

# SGPRs that each property takes, in register order (AMDGPUUsage "SGPR Register Set Up Order")
USER_SGPRS: tuple[tuple[int, int], ...] = (
    (PRIVATE_SEGMENT_BUFFER, 4),
    (DISPATCH_PTR, 2),
    (QUEUE_PTR, 2),
    (KERNARG_SEGMENT_PTR, 2),
    (DISPATCH_ID, 2),
    (FLAT_SCRATCH_INIT, 2),
    (PRIVATE_SEGMENT_SIZE, 1),
)


@dataclass(frozen=True, slots=True)
class KernelDescriptor:
    """The 64 bytes that tell the command processor how to start a kernel."""

    group_segment_bytes: int  # LDS of a workgroup, without what a launch adds
    private_segment_bytes: int  # scratch of a work-item
    kernarg_bytes: int
    entry_offset: int  # from the descriptor to the first instruction
    rsrc1: int
    rsrc2: int
    rsrc3: int
    properties: int
    kernarg_preload: int  # low 7 bits: dwords, rest: offset in dwords

    @property
    def wavefront_size(self) -> int:
        """Lanes of a wave: 32 or 64."""
        return 32 if self.properties & WAVEFRONT_SIZE32 else 64

    @property
    def vgprs(self) -> int:
        """VGPRs that COMPUTE_PGM_RSRC1.VGPRS asks for on gfx11: in units of 8 for wave32, of 4 for wave64."""
        return ((self.rsrc1 & 0x3F) + 1) * (8 if self.wavefront_size == 32 else 4)

    @property
    def user_sgprs(self) -> int:
        """SGPRs that the enabled properties ask for."""
        return sum(count for bit, count in USER_SGPRS if self.properties & bit) + (self.kernarg_preload & 0x7F)

    @property
    def user_sgpr_count(self) -> int:
        """SGPRs that COMPUTE_PGM_RSRC2.USER_SGPR makes the hardware load."""
        return self.rsrc2 >> 1 & 0x1F


@dataclass(frozen=True, slots=True)
class KernelCode:
    """One kernel of a code object. Offsets count from the start of the image."""

    name: str
    descriptor: KernelDescriptor
    descriptor_offset: int
    entry_offset: int
    code_bytes: int  # 0 when the file does not say
    arguments: tuple[metadata.Argument, ...] | None  # None when the file carries no metadata
    kernarg_bytes: int
    kernarg_align: int
    max_flat_workgroup_size: int
    reqd_workgroup_size: tuple[int, int, int] | None
    uses_dynamic_stack: bool


@dataclass(frozen=True, slots=True)
class CodeObject:
    """A parsed code object: its image and its kernels by name."""

    image: Image
    kernels: dict[str, KernelCode]

    @property
    def target(self) -> targets.Target:
        """The processor it was compiled for."""
        return self.image.target

    @property
    def version(self) -> int:
        """Code object version, 3 to 6."""
        return self.image.version

    def kernel(self, name: str) -> KernelCode:
        """The kernel called ``name``; raises NotFound listing those there are."""
        try:
            return self.kernels[name]
        except KeyError:
            held = ", ".join(sorted(self.kernels)) or "no kernels"
            raise NotFound(f"no kernel {name!r} in this code object; it holds {held}") from None


def parse(data: bytes, arch: str | None = None) -> CodeObject:
    """Parse an ELF code object (versions 3 to 6, linked or relocatable) or an offload bundle.

    With ``arch`` ("gfx1100") the code must be for that processor, and a bundle is opened for it. Raises MalformedInput
    naming what is damaged, Unsupported naming both architectures when they differ.
    """
    data = bytes(data)
    if offload_bundle.is_bundle(data):
        if arch is None:
            raise MalformedInput("offload bundle: say for which architecture to open it")
        data = offload_bundle.select(data, arch)
    image = elf_image.read(data)
    if arch is not None:
        targets.require(image.target, arch, "code object")
    memory = image.relocate(0)
    described = metadata.read(image.notes)
    if described is None:
        descriptors = [symbol for symbol in image.symbols if symbol.endswith(DESCRIPTOR_SUFFIX)]
        kernels = [_undescribed(symbol, image, memory) for symbol in descriptors]
    else:
        kernels = [_described(entry, image, memory) for entry in described]
    for kernel in kernels:
        if kernel.kernarg_bytes > KERNARG_BYTES_MAX:
            shown = f"{kernel.kernarg_bytes} bytes of arguments, more than {KERNARG_BYTES_MAX}"
            raise MalformedInput(f"kernel {kernel.name!r} has {shown}")
    return CodeObject(image, {kernel.name: kernel for kernel in kernels})


def _described(entry: metadata.KernelMetadata, image: Image, memory: bytes) -> KernelCode:
    descriptor, descriptor_offset = _descriptor(entry.symbol, image, memory)
    if entry.wavefront_size not in (0, descriptor.wavefront_size):
        raise MalformedInput(
            f"kernel {entry.name!r}: metadata say wave{entry.wavefront_size}, "
            f"its descriptor says wave{descriptor.wavefront_size}"
        )
    return KernelCode(
        name=entry.name,
        descriptor=descriptor,
        descriptor_offset=descriptor_offset,
        entry_offset=_entry(entry.name, descriptor, descriptor_offset, image),
        code_bytes=_code_bytes(entry.symbol, image),
        arguments=entry.arguments,
        kernarg_bytes=max(entry.kernarg_bytes, descriptor.kernarg_bytes),
        kernarg_align=max(entry.kernarg_align, 1),
        max_flat_workgroup_size=entry.max_flat_workgroup_size or WORKGROUP_ITEMS_MAX,
        reqd_workgroup_size=entry.reqd_workgroup_size,
        uses_dynamic_stack=entry.uses_dynamic_stack or bool(descriptor.properties & USES_DYNAMIC_STACK),
    )


def _undescribed(symbol: str, image: Image, memory: bytes) -> KernelCode:
    """A kernel of an object without metadata: all that is known stands in its descriptor."""
    descriptor, descriptor_offset = _descriptor(symbol, image, memory)
    name = symbol.removesuffix(DESCRIPTOR_SUFFIX)
    return KernelCode(
        name=name,
        descriptor=descriptor,
        descriptor_offset=descriptor_offset,
        entry_offset=_entry(name, descriptor, descriptor_offset, image),
        code_bytes=_code_bytes(symbol, image),
        arguments=None,
        kernarg_bytes=descriptor.kernarg_bytes,
        kernarg_align=8,
        max_flat_workgroup_size=WORKGROUP_ITEMS_MAX,
        reqd_workgroup_size=None,
        uses_dynamic_stack=bool(descriptor.properties & USES_DYNAMIC_STACK),
    )


def _descriptor(name: str, image: Image, memory: bytes) -> tuple[KernelDescriptor, int]:
    symbol = image.symbols.get(name)
    if symbol is None or symbol.absolute:
        raise MalformedInput(f"code object: the kernel descriptor symbol {name!r} is not defined")
    offset = symbol.value
    if offset + DESCRIPTOR_BYTES > len(memory):
        raise MalformedInput(f"code object: kernel descriptor {name!r} at {offset:#x} is beyond the image's end")
    if offset % DESCRIPTOR_ALIGN:
        raise MalformedInput(
            f"code object: kernel descriptor {name!r} at {offset:#x} is misaligned; put .p2align 6 before its directive"
        )
    group, private, kernarg, _, entry, rsrc3, rsrc1, rsrc2, properties, preload = DESCRIPTOR.unpack_from(memory, offset)
    descriptor = KernelDescriptor(group, private, kernarg, entry, rsrc1, rsrc2, rsrc3, properties, preload)
    if descriptor.user_sgprs > descriptor.user_sgpr_count:
        raise MalformedInput(
            f"code object: kernel descriptor {name!r} enables {descriptor.user_sgprs} user SGPRs "
            f"and loads {descriptor.user_sgpr_count}"
        )
    return descriptor, offset


def _entry(name: str, descriptor: KernelDescriptor, descriptor_offset: int, image: Image) -> int:
    entry = descriptor_offset + descriptor.entry_offset
    if entry % ENTRY_ALIGN:
        raise MalformedInput(f"kernel {name!r}: its entry point at {entry:#x} is not {ENTRY_ALIGN}-byte aligned")
    if not any(start <= entry < end for start, end in image.executable):
        raise MalformedInput(f"kernel {name!r}: its entry point at {entry:#x} is not in executable memory")
    return entry


def _code_bytes(descriptor_symbol: str, image: Image) -> int:
    code = image.symbols.get(descriptor_symbol.removesuffix(DESCRIPTOR_SUFFIX))
    return code.size_bytes if code is not None and not code.absolute else 0
