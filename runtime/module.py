"""Code on the device: modules, and the kernels in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from amdrv.errors import InvalidArgument, Unsupported
from amdrv.runtime.code_object import VGPRS_MAX, CodeObject, KernelCode
from amdrv.runtime.kernarg import Packer
from amdrv.runtime.launch import Launch
from amdrv.runtime.packets import UNSUPPORTED_PROPERTIES, LaunchTemplate

if TYPE_CHECKING:
    from amdrv.runtime.device import Device

ZEROS = bytes(1 << 20)


class Module:
    """A loaded code object. Made by ``Device.load``; given back by ``free`` or when forgotten."""

    def __init__(self, device: Device, code: CodeObject) -> None:
        """Place ``code`` in device memory. Raises Unsupported for a kernel that this chip cannot start, OutOfMemory."""
        for kernel in code.kernels.values():
            _refuse_unsupported(kernel, device.arch)
        self.device = device
        self.code = code
        image = code.image
        label = f"code of {', '.join(code.kernels) or 'no kernels'}"
        self._allocation, self._give_back = device.allocate(max(image.size_bytes, 1), label, owner=self)
        self._allocation.write(0, image.relocate(self._allocation.va))
        for offset in range(len(image.contents), image.size_bytes, len(ZEROS)):
            self._allocation.write(offset, ZEROS[: image.size_bytes - offset])
        device.memory_written(self._allocation)
        self._freed = False
        self._templates: dict[tuple[str, bool], LaunchTemplate] = {}
        self._packers: dict[str, Packer] = {}

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels, in the order of the code object."""
        return tuple(self.code.kernels)

    @property
    def va(self) -> int:
        """Device address of the image. Raises InvalidArgument after ``free``, DeviceLost after a reset."""
        self.check_usable()
        return self._allocation.va

    def check_usable(self) -> None:
        """Raise unless the code is there: InvalidArgument after ``free``, DeviceLost after a reset or close."""
        if self._freed:
            raise InvalidArgument(f"the module with {', '.join(self.kernels) or 'no kernels'} was freed")
        self.device.check_usable()

    def __getitem__(self, name: str) -> Kernel:
        """The kernel called ``name``; raises NotFound (a KeyError) listing those there are."""
        return Kernel(self, self.code.kernel(name))

    def __contains__(self, name: object) -> bool:
        return name in self.code.kernels

    def __iter__(self) -> Iterator[str]:
        return iter(self.kernels)

    def __len__(self) -> int:
        return len(self.code.kernels)

    def template(self, kernel: KernelCode, timed: bool) -> LaunchTemplate:
        """The prebuilt packets of a kernel's launch, built on first use."""
        found = self._templates.get((kernel.name, timed))
        if found is None:
            found = self.device.launch_template(kernel, self.va + kernel.entry_offset, timed)
            self._templates[kernel.name, timed] = found
        return found

    def packer(self, kernel: KernelCode) -> Packer:
        """What fills a kernel's arguments, built on first use."""
        found = self._packers.get(kernel.name)
        if found is None:
            found = self._packers[kernel.name] = Packer(kernel)
        return found

    def kernel_at(self, pc: int) -> KernelCode | None:
        """The kernel that a device address inside this module's code belongs to, None outside."""
        offset = pc - self._allocation.va
        if not 0 <= offset < self.code.image.size_bytes:
            return None
        before = [kernel for kernel in self.code.kernels.values() if kernel.entry_offset <= offset]
        return max(before, key=lambda kernel: kernel.entry_offset, default=None)

    def locate(self, pc: int) -> str | None:
        """``kernel+0x1c`` for a device address inside this module's code, None outside."""
        kernel = self.kernel_at(pc)
        return None if kernel is None else f"{kernel.name}+{pc - self._allocation.va - kernel.entry_offset:#x}"

    def free(self) -> None:
        """Give the memory back, once the work queued so far has ended. Freeing twice is an InvalidArgument."""
        self.check_usable()
        self._freed = True
        self._give_back()

    def __repr__(self) -> str:
        return f"<Module {', '.join(self.kernels)} at {self._allocation.va:#x} on {self.device.name}>"


class Kernel:
    """A kernel that can be launched. Made by indexing a module."""

    def __init__(self, module: Module, code: KernelCode) -> None:
        self.name = code.name
        self.module = module
        self.code = code

    def launch(
        self,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[object] = (),
        *,
        shared_bytes: int = 0,
        timed: bool = False,
    ) -> Launch:
        """Queue the kernel behind the work queued so far and return without waiting for it.

        ``grid`` counts workgroups, ``block`` the work-items of one: 1 to 3 integers each. ``args`` are the explicit
        arguments: buffers (or raw device addresses, or None) for pointers, integers, floats, NumPy scalars, bytes.
        ``shared_bytes`` is dynamic LDS beyond what the kernel has. ``timed`` makes ``Launch.seconds`` work. Raises
        InvalidArgument for what the kernel or the hardware does not take, GpuFault or Timeout for earlier work when
        the queue is full.
        """
        return self.module.device.launch(self, grid, block, args, shared_bytes, timed)

    def __repr__(self) -> str:
        return f"<Kernel {self.name} of {self.module!r}>"


def _refuse_unsupported(kernel: KernelCode, arch: str) -> None:
    if kernel.descriptor.vgprs > VGPRS_MAX:
        wants = f"kernel {kernel.name!r} wants {kernel.descriptor.vgprs} vector registers for a wave"
        raise Unsupported(f"{wants}; {arch} has {VGPRS_MAX}")
    for bit, what in UNSUPPORTED_PROPERTIES.items():
        if kernel.descriptor.properties & bit:
            raise Unsupported(f"kernel {kernel.name!r} wants {what} in its registers, which {arch} does not have")
    if kernel.descriptor.kernarg_preload & 0x7F:
        raise Unsupported(f"kernel {kernel.name!r} wants its arguments preloaded in registers, which {arch} cannot do")
