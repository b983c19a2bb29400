"""Contract of the boot planner: every combination of what can be found has a decision and a reason."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from amdrv.boot.planner import STEPS, BootStep, Engines, Observed, PlanKind, Wanted, is_ours, plan
from amdrv.boot.record import BootRecord, state_word

NONCE = 0x1234_5678
FIRMWARE = bytes(range(32))
MAP = bytes(range(32, 64))
RECORD = BootRecord(NONCE, FIRMWARE, MAP, vram_bytes=1 << 30, tmr_bytes=1 << 24, compute_units=96, smu_version=1)
WANTED = Wanted(FIRMWARE, MAP, vram_bytes=1 << 30)
GOOD = Observed(
    secure_os_alive=True,
    record=RECORD,
    record_problem="",
    nonce=NONCE,
    state=state_word(NONCE, clean=True),
    engines=Engines(faults_pending=False, compute_engine_runs=True, hubs_translate=True),
)
FAULTY = Engines(faults_pending=True, compute_engine_runs=True, hubs_translate=True)


def test_our_own_clean_state_with_the_wanted_firmware_is_warm() -> None:
    decided = plan(GOOD, WANTED)
    assert decided.kind is PlanKind.WARM
    assert BootStep.FIRMWARE not in decided.steps and BootStep.RESET not in decided.steps


def test_card_without_firmware_is_started_without_a_reset() -> None:
    decided = plan(replace(GOOD, secure_os_alive=False), WANTED)
    assert (decided.kind, decided.reason) == (PlanKind.FULL, "no firmware runs on the card")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"record": None}, "did not load"),
        ({"record": None, "record_problem": "checksum 0x1, expected 0x2"}, "checksum 0x1"),
        ({"nonce": NONCE + 1}, "older than the firmware"),
        ({"nonce": 0}, "older than the firmware"),
        ({"state": state_word(NONCE, clean=False)}, "did not close"),
        ({"state": 0}, "did not close"),
        ({"state": state_word(NONCE + 1, clean=True)}, "did not close"),
        ({"record": replace(RECORD, layout_version=99)}, "another version of the driver"),
        ({"record": replace(RECORD, vram_bytes=1 << 29)}, "another version of the driver"),
        ({"record": replace(RECORD, map_digest=bytes(32))}, "discovery table"),
        ({"record": replace(RECORD, firmware_digest=bytes(32))}, "other firmware images"),
        ({"engines": None}, "not known"),
        ({"engines": FAULTY}, "page fault"),
        ({"engines": replace(GOOD.engines, compute_engine_runs=False)}, "compute engine"),
        ({"engines": replace(GOOD.engines, hubs_translate=False)}, "address translation"),
    ],
)
def test_one_thing_wrong_with_running_firmware_means_a_reset_and_says_which(
    change: dict[str, object], reason: str
) -> None:
    decided = plan(replace(GOOD, **change), WANTED)
    assert decided.kind is PlanKind.RESET_THEN_FULL
    assert reason in decided.reason
    assert decided.steps[0] is BootStep.RESET
    refused = plan(replace(GOOD, **change, reset_allowed=False), WANTED)
    assert refused.kind is PlanKind.REFUSE
    assert reason in refused.reason
    assert refused.steps == ()


def test_virtual_function_is_refused_whatever_else_is_found() -> None:
    for alive in (False, True):
        assert plan(replace(GOOD, virtual_function=True, secure_os_alive=alive), WANTED).kind is PlanKind.REFUSE


def test_decision_of_every_combination() -> None:
    """Warm exactly when all is well, a reset exactly when firmware runs and something is not."""
    engines = [None, *(Engines(*bits) for bits in itertools.product((False, True), repeat=3))]
    cases = itertools.product(
        (False, True),  # secure OS alive
        (None, RECORD, replace(RECORD, firmware_digest=bytes(32)), replace(RECORD, layout_version=0)),
        (0, NONCE),
        (0, state_word(NONCE, clean=True), state_word(NONCE, clean=False)),
        engines,
        (False, True),  # virtual function
        (False, True),  # reset allowed
    )
    for alive, record, nonce, state, engine, virtual, allowed in cases:
        decided = plan(Observed(alive, record, "", nonce, state, engine, virtual, allowed), WANTED)
        well = (
            record is RECORD
            and nonce == NONCE
            and state == state_word(NONCE, clean=True)
            and engine == Engines(faults_pending=False, compute_engine_runs=True, hubs_translate=True)
        )
        if virtual:
            expected = PlanKind.REFUSE
        elif not alive:
            expected = PlanKind.FULL
        elif well:
            expected = PlanKind.WARM
        else:
            expected = PlanKind.RESET_THEN_FULL if allowed else PlanKind.REFUSE
        assert decided.kind is expected
        assert decided.reason


def test_bus_mastering_comes_after_everything_that_makes_the_hubs_translate() -> None:
    for steps in STEPS.values():
        if BootStep.BUS_MASTERING in steps:
            at = steps.index(BootStep.BUS_MASTERING)
            hubs = {BootStep.MEMORY_HUB, BootStep.GRAPHICS_HUB, BootStep.TRANSLATION, BootStep.ADDRESS_SPACE}
            assert all(steps.index(step) < at for step in hubs if step in steps)
            assert {BootStep.GRAPHICS_HUB, BootStep.TRANSLATION} & set(steps)


def test_warm_start_is_marked_as_in_use_before_anything_is_changed() -> None:
    assert STEPS[PlanKind.WARM][0] is BootStep.CLAIM


@pytest.mark.parametrize(
    ("alive", "record", "nonce", "ours"),
    [(True, RECORD, NONCE, True), (False, RECORD, NONCE, False), (True, None, NONCE, False), (True, RECORD, 1, False)],
)
def test_engines_are_looked_at_only_on_a_card_we_started(
    alive: bool, record: BootRecord | None, nonce: int, ours: bool
) -> None:
    assert is_ours(alive, record, nonce) is ours
