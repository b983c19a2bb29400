"""From what the hardware reports to an error that a person can act on. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from amdrv.errors import GpuFault
from amdrv.runtime.address_book import AddressBook
from amdrv.runtime.stopped_code import StoppedCode
from amdrv.runtime.stopped_wave import LaneAccess

NAMES_MAX = 5
SURVIVES = "the queue was rebuilt; the device, modules and buffer contents stay valid"
CLOSED = "the work was ended and the device closed"
EXECUTE = "execute"
MISALIGNED = "misaligned access"


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


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a wave was stopped, and what it was about to do, as far as its registers tell."""

    pc: int
    code: StoppedCode
    workgroup: tuple[int, int, int] | None = None
    access: LaneAccess | None = None  # the one that went wrong


def main_fault(faults: Sequence[Fault]) -> Fault:
    """The fault that says most: one mistake shows in several places, and the memory hub knows an address."""
    return next((fault for fault in faults if fault.address is not None), faults[0])


def explain(
    device: str,
    faults: Sequence[Fault],
    unfinished: Sequence[str],
    book: AddressBook,
    stop: Stop | None,
    locate: Callable[[int], str | None],
    aftermath: str = SURVIVES,
) -> GpuFault:
    """The error for ``faults``, which stopped the first of the ``unfinished`` kernels.

    ``stop`` is where a wave was stopped, where that is known; ``locate`` turns its pc into ``kernel+0x1c``, and
    ``aftermath`` says what became of the device.
    """
    main = main_fault(faults)
    culprit = stop.access if stop is not None else None
    kind = MISALIGNED if culprit is not None and culprit.misaligned and main.address is None else main.kind
    place = locate(stop.pc) if stop is not None else None
    kernel = place.partition("+")[0] if place else unfinished[0] if unfinished else None
    parts = [f"{device}: {kind}" + (f" in kernel {kernel!r}" if kernel else "")]
    address, access = _what_was_asked(main, stop)
    if address is not None:
        by = f" by {main.client}" if main.client and main.address is not None else ""
        lane = f" in lane {culprit.lane}" if culprit is not None and culprit.lane is not None else ""
        space = culprit.space if culprit is not None else ""
        what = f"{f'{space} at ' if space else ''}{address:#x}{by}{lane}"
        parts.append(f"{f'{access} of' if access else 'access to'} {what}")
        if not space:
            parts.append(book.describe(address))
    details = dict.fromkeys(fault.detail for fault in faults if fault.detail)
    parts.extend(details)
    if stop is not None:
        stopped = describe(stop, place)
        parts.append(stopped)
        details[stopped] = None
    if len(unfinished) > 1:
        parts.append(f"dropped behind it: {names(unfinished[1:])}")
    parts.append(aftermath)
    return GpuFault(
        "; ".join(parts),
        kind=kind,
        address=address,
        vmid=main.vmid,
        access=access,
        client=main.client,
        pc=stop.pc if stop is not None else None,
        mnemonic=stop.code.mnemonic if stop is not None else "",
        lane=culprit.lane if culprit is not None else None,
        workgroup=stop.workgroup if stop is not None else None,
        detail="; ".join(details),
    )


def _what_was_asked(main: Fault, stop: Stop | None) -> tuple[int | None, str]:
    """(address, kind of access): a hub knows the page, and of that 48 bits; a wave's registers know all of it."""
    if stop is not None and main.access == EXECUTE:
        return stop.pc, EXECUTE
    if stop is not None and stop.access is not None:
        return stop.access.va, stop.access.access
    return main.address, main.access


def describe(stop: Stop, place: str | None) -> str:
    """Where a wave is: "at pc 0x1000 = kernel+0x4 in workgroup (1, 0, 0): s_nop 0"."""
    where = f"at pc {stop.pc:#x}" + (f" = {place}" if place else "")
    group = f" in workgroup {stop.workgroup}" if stop.workgroup is not None else ""
    return where + group + (f": {stop.code.text}" if stop.code.text else "")


def dropped(kernel: str, because: str) -> GpuFault:
    """The error of a launch that never ran to its end because of another."""
    return GpuFault(f"kernel {kernel!r} was dropped: {because}", kind="dropped")


def names(kernels: Sequence[str]) -> str:
    """A short list of kernel names, with a count when there are many."""
    shown = ", ".join(kernels[:NAMES_MAX])
    more = len(kernels) - NAMES_MAX
    return f"{shown} and {more} more" if more > 0 else shown
