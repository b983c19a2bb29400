"""From what the hardware reports to an error that a person can act on. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from amdrv.errors import GpuFault
from amdrv.runtime.address_book import AddressBook

NAMES_MAX = 5
SURVIVES = "the queue was rebuilt; the device, modules and buffer contents stay valid"


class Fault(Protocol):
    """What is read of a driver's fault record."""

    @property
    def kind(self) -> str:
        """ "page fault", "illegal instruction", …"""

    @property
    def address(self) -> int | None:
        """Device address of the access."""

    @property
    def vmid(self) -> int | None:
        """Address space of the access."""

    @property
    def access(self) -> str:
        """ "read", "write", "execute" or ""."""

    @property
    def client(self) -> str:
        """Who made the access, for example "TCP"."""

    @property
    def detail(self) -> str:
        """Anything else that is known."""


def explain(
    device: str,
    faults: Sequence[Fault],
    unfinished: Sequence[str],
    book: AddressBook,
    pc: int | None,
    locate: Callable[[int], str | None],
    instruction: str = "",
) -> GpuFault:
    """The error for ``faults``, which stopped the first of the ``unfinished`` kernels.

    ``pc`` is the address of the instruction that a wave was stopped at, where that is known; ``locate`` turns it into
    ``kernel+0x1c``, and ``instruction`` is what stands there, as text or as bits.
    """
    # One mistake shows in several places: the memory hub knows the address, the shader that a wave stopped.
    main = next((fault for fault in faults if fault.address is not None), faults[0])
    place = locate(pc) if pc is not None else None
    kernel = place.partition("+")[0] if place else unfinished[0] if unfinished else None
    parts = [f"{device}: {main.kind}" + (f" in kernel {kernel!r}" if kernel else "")]
    if main.address is not None:
        access = f"{main.access} of " if main.access else "access to "
        by = f" by {main.client}" if main.client else ""
        parts.append(f"{access}{main.address:#x}{by}; {book.describe(main.address)}")
    details = dict.fromkeys(fault.detail for fault in faults if fault.detail)
    parts.extend(details)
    if pc is not None:
        stopped = f"at pc {pc:#x}" + (f" = {place}" if place else "") + (f": {instruction}" if instruction else "")
        parts.append(stopped)
        details[stopped] = None
    if len(unfinished) > 1:
        parts.append(f"dropped behind it: {names(unfinished[1:])}")
    parts.append(SURVIVES)
    return GpuFault(
        "; ".join(parts),
        kind=main.kind,
        address=main.address,
        vmid=main.vmid,
        access=main.access,
        client=main.client,
        pc=pc,
        detail="; ".join(details),
    )


def dropped(kernel: str, because: str) -> GpuFault:
    """The error of a launch that never ran to its end because of another."""
    return GpuFault(f"kernel {kernel!r} was dropped: {because}", kind="dropped")


def names(kernels: Sequence[str]) -> str:
    """A short list of kernel names, with a count when there are many."""
    shown = ", ".join(kernels[:NAMES_MAX])
    more = len(kernels) - NAMES_MAX
    return f"{shown} and {more} more" if more > 0 else shown
