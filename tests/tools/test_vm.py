"""Linux with its own driver on the emulated cards: a stock kernel and its amdgpu module, without parameters, in QEMU.

Only where QEMU and the other parts have been fetched: ./tools/test vm.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VM = Path(__file__).parents[2] / "tools" / "vm"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Expected:
    """What differs from card to card."""

    arch: str
    name: str
    video_bios: str
    vram_bytes: int
    lowered_limit: int


CARDS = (
    Expected("gfx1100", "AMD Radeon RX 7900 XTX", "AMDRV-NAVI31-000", 25753026560, 345_000_000),
    Expected("gfx1201", "AMD Radeon RX 9070", "AMDRV-NAVI48-000", 17112760320, 294_000_000),
)


@pytest.fixture(scope="module", params=CARDS, ids=lambda card: card.arch)
def card(request: pytest.FixtureRequest) -> Any:
    """The card in the machine."""
    return request.param


@pytest.fixture(scope="module")
def life(card: Expected) -> Any:
    """One boot: the driver loads, programs run, the driver is taken off the card and put on it again."""
    sys.path.insert(0, str(VM))
    try:
        import machine
        import packages
        import parts
    finally:
        sys.path.remove(str(VM))
    try:
        found = parts.gather(parts.default_folder(), card.arch, fetch=False)
    except packages.Unavailable as reason:
        pytest.skip(str(reason))
    return machine.live(found, card.arch)


def test_the_stock_driver_comes_up_on_a_fresh_card(life: Any) -> None:
    assert life.said(r"vm: loaded at"), life.console[-4000:]
    before = life.console.partition("vm: loaded at")[0]
    assert "Initialized amdgpu" in before, before[-4000:]


def test_the_machines_firmware_and_the_driver_take_the_video_bios_from_the_expansion_rom(
    life: Any, card: Expected
) -> None:
    assert life.said("Video device with shadowed ROM")
    assert len(life.said("Fetched VBIOS from ROM BAR")) == 2
    assert life.said(f"ATOM BIOS: {card.video_bios}")


def test_the_driver_complains_about_nothing_but_the_stray_store(life: Any) -> None:
    # Of what the driver says at its worst: "*ERROR*", "failed", and the kernel's own warnings with a stack.
    assert life.said(r"(?i)amdgpu.*(\*ERROR\*|failed|timeout)|cut here|Call Trace") == []
    assert len(life.said("amdgpu.*page fault")) == 1


def test_every_ring_works_with_indirect_buffers(life: Any) -> None:
    # The scheduler's self test says so for queues of its own, at each load; a kernel ring that fails is an error.
    passed = [line.partition("ring ")[2].partition("_")[0] for line in life.said("ib test pass")]
    assert passed == ["gfx", "compute", "sdma"] * 2


def test_rocminfo_lists_the_agent(life: Any, card: Expected) -> None:
    assert life.said(rf"^  Name: +{card.arch} *$")
    assert life.said(rf"^ +Name: +amdgcn-amd-amdhsa--{card.arch} *$")
    assert life.said("vm: rocminfo ends with 0")
    assert life.said(f"Marketing Name: +{card.name}")


def between(life: Any, first: str, last: str) -> str:
    """What the guest said from the end of one program to the end of a later one."""
    return str(life.console.partition(f"vm: {first} ends with")[2].partition(f"vm: {last} ends with")[0])


def test_a_kernel_that_rocr_dispatches_gives_the_right_answer(life: Any, card: Expected) -> None:
    assert f"vm: scale on {card.arch} right" in between(life, "rocminfo", "scale")


def test_sensors_and_limits_are_there(life: Any, card: Expected) -> None:
    for line in (
        f"mem_info_vram_total {card.vram_bytes}",
        "profiles can be read",
        f"limit lowered to {card.lowered_limit}",
        "level set to high",
    ):
        assert life.said(f"vm: {line}"), between(life, "scale", "sensors")
    (temperature,) = life.said("vm: temp1_input")
    assert 20_000 < int(temperature.split()[-1]) < 100_000


def test_a_stray_store_is_reported_with_its_client_and_costs_its_process_only(life: Any, card: Expected) -> None:
    said = between(life, "sensors", "stray")
    assert "Faulty UTCL2 client ID: TCP" in said
    assert "Memory access fault by GPU node-1" in said
    assert f"vm: scale on {card.arch} right" in said


def test_a_kernel_that_never_ends_goes_with_its_process(life: Any, card: Expected) -> None:
    said = between(life, "stray", "spin")
    assert f"vm: scale on {card.arch} right" in said
    assert "reset" not in said


def test_the_whole_card_is_reset_and_set_up_again(life: Any, card: Expected) -> None:
    said = between(life, "spin", "recover")
    assert "VRAM is lost due to GPU reset!" in said and "GPU reset(1) succeeded!" in said
    assert f"vm: scale on {card.arch} right" in said


def test_interrupts_arrive_as_messages_of_msix(life: Any) -> None:
    (line,) = life.said("vm: interrupts .*PCI-MSIX.*amdgpu")
    assert int(line.split(":")[2].split()[0]) > 20


def test_a_used_card_is_reset_through_the_smu_and_comes_up_again(life: Any) -> None:
    assert life.said("MODE1 reset")
    assert life.said("vm: bound again")
    assert len(life.said("Initialized amdgpu")) == 2


def test_the_guest_ends_by_itself(life: Any) -> None:
    assert life.ended


def test_the_driver_uses_no_register_that_nobody_models(life: Any) -> None:
    assert life.unmodelled == set()
