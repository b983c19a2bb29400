"""How to start a card, decided from what was found on it. Pure functions; nothing here touches the device.

    full              nothing runs on the card: load everything
    warm              our own clean state, with exactly the wanted firmware: touch almost nothing
    reset then full   something runs that is not ours, not clean, or not what is wanted
    refuse            starting it is not ours to do, or needs a reset that was not allowed
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from amdrv.boot.record import BootRecord, state_word
from amdrv.memory.layout import LAYOUT_VERSION


class PlanKind(enum.Enum):
    """The four ways a start can go."""

    WARM = "warm"
    FULL = "full"
    RESET_THEN_FULL = "reset then full"
    REFUSE = "refuse"


class BootStep(enum.Enum):
    """What the executor can do. A step's name is what the boot report shows."""

    RESET = "mode1 reset"
    CLAIM = "mark as in use"
    BUS_INTERFACE = "bus interface"
    DOORBELLS = "doorbells and flushes"
    ADDRESS_SPACE = "address space"
    MEMORY_HUB = "memory hub"
    INTERRUPTS = "interrupt ring"
    FIRMWARE = "firmware"
    POWER = "power management"
    GRAPHICS_CORE = "graphics core"
    GRAPHICS_HUB = "graphics hub"
    COMPUTE_ENGINE = "compute engine"
    TRANSLATION = "address translation"
    BUS_MASTERING = "bus mastering"
    RECORD = "boot record"


# Order: Linux 6.12 amdgpu_discovery.c adds soc21, gmc, ih, psp, smu, gfx. Bus mastering comes when both hubs translate.
FULL_STEPS = (
    BootStep.BUS_INTERFACE,
    BootStep.ADDRESS_SPACE,
    BootStep.MEMORY_HUB,
    BootStep.INTERRUPTS,
    BootStep.FIRMWARE,
    BootStep.POWER,
    BootStep.GRAPHICS_CORE,
    BootStep.GRAPHICS_HUB,
    BootStep.COMPUTE_ENGINE,
    BootStep.BUS_MASTERING,
    BootStep.RECORD,
)
STEPS = {
    PlanKind.WARM: (
        BootStep.CLAIM,
        BootStep.DOORBELLS,
        BootStep.ADDRESS_SPACE,
        BootStep.TRANSLATION,
        BootStep.INTERRUPTS,
        BootStep.BUS_MASTERING,
    ),
    PlanKind.FULL: FULL_STEPS,
    PlanKind.RESET_THEN_FULL: (BootStep.RESET, *FULL_STEPS),
    PlanKind.REFUSE: (),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What this driver is going to run on the card."""

    firmware_digest: bytes
    map_digest: bytes
    vram_bytes: int
    layout_version: int = LAYOUT_VERSION


@dataclass(frozen=True, slots=True)
class Engines:
    """State that is worth reading only on a card that we started."""

    faults_pending: bool
    compute_engine_runs: bool
    hubs_translate: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """What was read from the card before anything was written to it."""

    secure_os_alive: bool
    record: BootRecord | None
    record_problem: str  # why there is no usable record, when something like one is there
    nonce: int  # as the scratch register has it
    state: int
    engines: Engines | None = None  # None: not looked at, because the card is not ours
    virtual_function: bool = False
    reset_allowed: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and why."""

    kind: PlanKind
    reason: str

    @property
    def steps(self) -> tuple[BootStep, ...]:
        """The executor's steps, in order."""
        return STEPS[self.kind]


def is_ours(secure_os_alive: bool, record: BootRecord | None, nonce: int) -> bool:
    """Whether the record is of the firmware that runs now: only then is more of the card's state worth reading."""
    return secure_os_alive and record is not None and record.nonce == nonce


def plan(observed: Observed, wanted: Wanted) -> Plan:
    """Decide."""
    if observed.virtual_function:
        return Plan(PlanKind.REFUSE, "this is an SR-IOV virtual function, which only its host's driver can start")
    if not observed.secure_os_alive:
        return Plan(PlanKind.FULL, "no firmware runs on the card")
    obstacle = why_not_warm(observed, wanted)
    if obstacle is None:
        return Plan(PlanKind.WARM, "the same firmware runs, and the last owner closed the card")
    if not observed.reset_allowed:
        return Plan(PlanKind.REFUSE, f"{obstacle}; starting it needs a reset, which was not allowed")
    return Plan(PlanKind.RESET_THEN_FULL, obstacle)


def why_not_warm(observed: Observed, wanted: Wanted) -> str | None:
    """What stands against taking over a card on which firmware runs; None when nothing does."""
    record = observed.record
    if record is None:
        shown = f" ({observed.record_problem})" if observed.record_problem else ""
        return f"firmware runs that this driver did not load{shown}"
    if record.nonce != observed.nonce:
        return "the boot record is older than the firmware that runs"
    if observed.state != state_word(record.nonce, clean=True):
        return "the last owner did not close the card"
    if record.layout_version != wanted.layout_version or record.vram_bytes != wanted.vram_bytes:
        return "another version of the driver laid out the card's memory"
    if record.map_digest != wanted.map_digest:
        return "the discovery table is not the one the card was started with"
    if record.firmware_digest != wanted.firmware_digest:
        return "other firmware images are wanted than those that run"
    engines = observed.engines
    if engines is None:
        return "the state of the engines is not known"
    for obstacle, stands in (
        ("a page fault is pending", engines.faults_pending),
        ("the compute engine does not run", not engines.compute_engine_runs),
        ("address translation is off", not engines.hubs_translate),
    ):
        if stands:
            return obstacle
    return None
