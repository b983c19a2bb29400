"""A real card through the files of sysfs, for root, on a machine whose IOMMU leaves the card alone.

Written after the kernel's documentation and tried on made-up files only, not on silicon. Two things this path cannot
give: interrupts, so that waits poll; and safety when the process is killed, because bus mastering stays on and the card
may go on writing to memory that the kernel has given to others.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from amdrv.errors import DeviceLost, InvalidArgument, NotFound, Refused
from amdrv.facts.pci import EXTENDED_CONFIG_BYTES, Command, Config
from amdrv.ioctl import sysfs_reset
from amdrv.ioctl.lock import DeviceLock, note_folder
from amdrv.ioctl.pci_function import (
    DOORBELL_BAR,
    REGISTER_BAR,
    VRAM_BAR,
    DmaMemory,
    PciFunction,
    ResetKind,
    Traffic,
    check_range,
)
from amdrv.ioctl.survey import SYSFS, PciCard, survey
from amdrv.ioctl.sysfs_dma import LockedMemory

ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
PASSED_THROUGH = "identity"  # Linux Documentation/ABI/testing/sysfs-kernel-iommu_groups
ROOT_HINT = "run as root; if it was root, kernel lockdown (Secure Boot) may forbid it"
SPIN_S = 50e-6  # of a wait, before it sleeps
SPIN_STEP_S = 5e-6
NAP_MAX_S = 1e-3
SAME_DEADLINE_S = 100e-6


def obstacle(card: PciCard, sysfs: Path = SYSFS) -> str:
    """Why this process cannot drive ``card`` now, and what to do about it; "" when it can. Touches no card."""
    if card.driver:
        unbind = f"echo {card.address} > /sys/bus/pci/drivers/{card.driver}/unbind"
        return f"the kernel driver {card.driver} is bound to it; unbind it first: {unbind}"
    if not card.accessible:
        return f"its register BAR cannot be opened; {ROOT_HINT}"
    return iommu_obstacle(card.iommu_group, sysfs)


def iommu_obstacle(group: str | None, sysfs: Path = SYSFS) -> str:
    """Why the card cannot be given physical addresses; "" when it can. An unknown state counts as translating."""
    if group is None:
        return ""
    try:
        kind = (sysfs / "kernel" / "iommu_groups" / group / "type").read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        kind = "unknown"
    if kind == PASSED_THROUGH:
        return ""
    return (
        f"an IOMMU stands before it (group {group}, type {kind}) and VFIO is not supported yet; "
        "start the kernel with iommu=pt"
    )


class SysfsFunction(PciFunction):
    """One user's connection to the card at a bus address, "pci:0000:03:00.0".

    Making one touches no card. Raises InvalidArgument for a malformed address, NotFound, Refused for a function that is
    not an AMD GPU. The first access raises Refused, saying why, when the card cannot be driven.
    """

    def __init__(self, name: str, sysfs: Path = SYSFS, notes: Path | None = None) -> None:
        address = name.removeprefix("pci:")
        if not ADDRESS.fullmatch(address):
            raise InvalidArgument(f"{name!r} is not a card's name; it looks like pci:0000:03:00.0")
        self.name = name
        self.traffic = Traffic()
        self._sysfs = sysfs
        self._address = address
        self._folder = sysfs / "bus" / "pci" / "devices" / address
        card = self._look()
        self.ids = card.ids
        self._bars = card.bars
        self._iommu_group = card.iommu_group
        self._lock = DeviceLock(name, self._folder / "config", (notes or note_folder()) / f"amdrv-{address}")
        self._config = -1
        self._maps: dict[int, tuple[memoryview, memoryview, memoryview]] = {}  # as bytes, 32-bit and 64-bit words
        self._dma: set[LockedMemory] = set()
        self._mutex = threading.RLock()
        self._wait_started = 0.0
        self._wait_deadline = 0.0
        self._nap_s = SPIN_S

    def _look(self) -> PciCard:
        """The card as sysfs describes it now."""
        if not self._folder.is_dir():
            raise NotFound(f"{self.name}: no real card has this address; amdrv status lists the cards that there are")
        for card in survey(self._sysfs):
            if card.address == self._address:
                return card
        raise Refused(f"{self.name}: not an AMD GPU; amdrv status lists the cards that there are")

    # -- ownership ----------------------------------------------------------------------------------------------------

    def acquire(self, command: str) -> None:
        with self._mutex:
            self._check_drivable()
            self._lock.acquire(command)

    def release(self) -> None:
        """Bus mastering goes off before memory that the card might still use is given back."""
        with self._mutex:
            if self._dma and self._lock.held:  # a forked child leaves its parent's card alone
                self._stop_dma()
            for memory in list(self._dma):
                memory.close()
            for views in self._maps.values():
                for view in views:  # the mapping goes with the last part of it that a caller still has
                    view.release()
            self._maps.clear()
            if self._config >= 0:
                os.close(self._config)
                self._config = -1
            self._lock.release()

    def _stop_dma(self) -> None:
        with suppress(OSError, Refused, DeviceLost):
            command = self.read_config(Config.COMMAND, 2)
            self.write_config(Config.COMMAND, 2, command & ~Command.MASTER)
            self.read_config(Config.COMMAND, 2)

    def _check_drivable(self) -> None:
        why_not = obstacle(self._look(), self._sysfs)
        if why_not:
            raise Refused(f"{self.name}: {why_not}")

    def _check_owned(self, what: str) -> None:
        if not self._lock.held:
            raise Refused(f"{self.name}: {what} is for the card's owner; acquire it first")

    # -- configuration space ------------------------------------------------------------------------------------------

    def read_config(self, offset: int, width: int) -> int:
        self._check_config(offset, width)
        self.traffic.config_reads += 1
        with self._explained(f"reading configuration space at {offset:#x}"):
            data = os.pread(self._open_config(), width, offset)
        if len(data) != width:
            raise Refused(f"{self.name}: configuration space ends before {offset:#x}; {ROOT_HINT}")
        return int.from_bytes(data, "little")

    def write_config(self, offset: int, width: int, value: int) -> None:
        self._check_config(offset, width)
        self.traffic.config_writes += 1
        data = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        with self._explained(f"writing configuration space at {offset:#x}"):
            written = os.pwrite(self._open_config(), data, offset)
        if written != width:
            raise Refused(f"{self.name}: configuration space ends before {offset:#x}; {ROOT_HINT}")

    def _check_config(self, offset: int, width: int) -> None:
        if width not in (1, 2, 4):
            raise InvalidArgument(f"{self.name}: configuration space is accessed by 1, 2 or 4 bytes, not {width}")
        if offset < 0 or offset + width > EXTENDED_CONFIG_BYTES or offset % width:
            raise InvalidArgument(f"{self.name}: no {width} bytes at {offset:#x} of configuration space")

    def _open_config(self) -> int:
        with self._mutex:
            if self._config < 0:
                self._check_drivable()
                self._config = os.open(self._folder / "config", os.O_RDWR | os.O_CLOEXEC)
            return self._config

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn the system's errors into sentences."""
        try:
            yield
        except PermissionError as error:
            raise Refused(f"{self.name}: {what} is not permitted; {ROOT_HINT}") from error
        except FileNotFoundError as error:
            raise NotFound(f"{self.name}: {what} failed: {error.filename} is not there") from error
        except OSError as error:
            kind = DeviceLost if error.errno in (errno.EIO, errno.ENODEV) else Refused
            raise kind(f"{self.name}: {what} failed: {error.strerror}") from error

    # -- BARs ---------------------------------------------------------------------------------------------------------

    def bar_size(self, bar: int) -> int:
        return self._bars.get(bar, 0)

    def read32(self, bar: int, offset: int) -> int:
        check_range(self.name, bar, self.bar_size(bar), offset, 4, 4)
        if bar not in (REGISTER_BAR, VRAM_BAR):
            raise Refused(f"{self.name}: BAR{bar} cannot be read")
        _, words, _ = self._mapped(bar)
        if bar == REGISTER_BAR:
            self.traffic.reads += 1
        value: int = words[offset >> 2]
        return value

    def write32(self, bar: int, offset: int, value: int) -> None:
        check_range(self.name, bar, self.bar_size(bar), offset, 4, 4)
        _, words, _ = self._mapped(bar)
        if bar == REGISTER_BAR:
            self.traffic.writes += 1
        elif bar == DOORBELL_BAR:
            self.traffic.doorbells += 1
        words[offset >> 2] = value & 0xFFFF_FFFF

    def write64(self, bar: int, offset: int, value: int) -> None:
        check_range(self.name, bar, self.bar_size(bar), offset, 8, 8)
        if bar != DOORBELL_BAR:
            raise Refused(f"{self.name}: 64-bit writes go to the doorbell BAR only")
        _, _, pairs = self._mapped(bar)
        self.traffic.doorbells += 1
        pairs[offset >> 3] = value & 0xFFFF_FFFF_FFFF_FFFF

    def memory(self, bar: int, offset: int, size_bytes: int) -> memoryview:
        if bar != VRAM_BAR:
            raise Refused(f"{self.name}: BAR{bar} is not memory")
        check_range(self.name, bar, self.bar_size(bar), offset, size_bytes)
        return self._mapped(bar)[0][offset : offset + size_bytes]

    def _mapped(self, bar: int) -> tuple[memoryview, memoryview, memoryview]:
        """The BAR as bytes, 32-bit words and 64-bit words.

        A register takes one access of its own width. Copying bytes may be done in any pieces, and a ctypes field reads
        what it is about to write; an element of a memoryview with a native format is moved with one fixed-size copy,
        which compilers make one load or store.
        """
        views = self._maps.get(bar)
        if views is not None:
            return views
        with self._mutex:
            if bar not in self._maps:
                if bar not in (VRAM_BAR, DOORBELL_BAR, REGISTER_BAR):
                    raise Refused(f"{self.name}: BAR{bar} is not memory that can be mapped")
                with self._explained(f"mapping BAR{bar}"):
                    self._check_drivable()
                    self._enable()
                    whole = memoryview(self._map(bar))
                self._maps[bar] = whole, whole.cast("I"), whole.cast("Q")
            return self._maps[bar]

    def _map(self, bar: int) -> mmap.mmap:
        path = self._folder / f"resource{bar}"
        # Write combining for memory, as the kernel's driver has it: Linux 6.12 amdgpu_ttm.c: amdgpu_ttm_init. Accesses
        # to the other BARs, which are uncached, drain the processor's combining buffers.
        combining = self._folder / f"resource{bar}_wc"
        if bar == VRAM_BAR and combining.exists():
            path = combining
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return mmap.mmap(descriptor, self.bar_size(bar), mmap.MAP_SHARED)
        except ValueError as error:
            raise Refused(f"{self.name}: {path} is shorter than BAR{bar}, {self.bar_size(bar):#x} bytes") from error
        finally:
            os.close(descriptor)

    def _enable(self) -> None:
        """Power the function up and have it answer at its BARs. Linux drivers/pci/pci-sysfs.c: enable_store."""
        path = self._folder / "enable"
        if path.read_text(encoding="ascii").strip() == "0":
            path.write_text("1", encoding="ascii")

    # -- DMA and interrupts -------------------------------------------------------------------------------------------

    def alloc_dma(self, size_bytes: int) -> DmaMemory:
        self._check_owned("DMA memory")
        with self._mutex:
            why_not = iommu_obstacle(self._iommu_group, self._sysfs)  # the domain may have changed since
            if why_not:
                raise Refused(f"{self.name}: {why_not}")
            memory = LockedMemory(size_bytes, self._dma.discard)
            self._dma.add(memory)
            return memory

    def enable_interrupts(self) -> bool:
        """False: sysfs delivers no interrupts to a process."""
        return False

    # -- time ---------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return time.monotonic()

    @property
    def virtual_s(self) -> float | None:
        return None

    def sleep(self, seconds: float) -> None:
        time.sleep(max(seconds, 0.0))

    def relax(self, remaining_s: float) -> None:
        """Spin for the first 50 µs of a wait, then sleep, longer each time up to 1 ms."""
        now = time.monotonic()
        deadline = now + remaining_s
        if abs(deadline - self._wait_deadline) > SAME_DEADLINE_S:  # another wait than last time
            self._wait_started, self._nap_s = now, SPIN_S
        self._wait_deadline = deadline
        if now - self._wait_started < SPIN_S:
            until = now + min(SPIN_STEP_S, remaining_s)
            while time.monotonic() <= until:
                continue
            return
        time.sleep(max(0.0, min(self._nap_s, remaining_s)))
        self._nap_s = min(2 * self._nap_s, NAP_MAX_S)

    # -- the rest -----------------------------------------------------------------------------------------------------

    def reset(self, kind: ResetKind) -> None:
        self._check_owned("a reset")
        with self._mutex, self._explained(f"{kind.value} reset"):
            self._check_drivable()
            if kind is ResetKind.FUNCTION:
                sysfs_reset.function_reset(self.name, self._folder)
            else:
                sysfs_reset.bus_reset(self.name, self._folder)
