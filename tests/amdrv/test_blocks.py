"""Contract of the bus interface, the hubs, the interrupt ring, power management and the compute engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amdrv.blocks.gfx import HQD_REGISTERS, Gfx, QueueSpec, compute_mqd
from amdrv.blocks.gmc import GC_HUB, MM_HUB, Gmc, Hub, hub_program
from amdrv.blocks.ih import Ih
from amdrv.blocks.nbio import Nbio
from amdrv.blocks.smu import Smu, SmuRejected, decode_metrics
from amdrv.blocks.waves import Waves
from amdrv.discovery import GcInfo
from amdrv.errors import DeviceLost, InvalidArgument, Timeout, Unsupported
from amdrv.facts.ih import ENTRY
from amdrv.facts.mqd_v11 import V11_COMPUTE_MQD
from amdrv.facts.smu_v13_0_0 import METRICS, Clock, Message
from amdrv.memory.layout import IH_RING, IH_WPTR, SMU_TABLE

FB_START = 0x80_0000_0000
ONES = 0xFFFFFFFF


# -- bus interface -----------------------------------------------------------------------------------------------------


# Linux 6.12 hdp_v6_0.c: hdp_v6_0_flush_hdp
def test_flush_writes_the_remapped_register_and_reads_another_back(function, mmio) -> None:
    Nbio(mmio).flush_hdp()
    assert [(kind, at) for kind, at, _ in function.log] == [("w", 0x7F000), ("r", 0xDE3 * 4)]


def test_register_beyond_the_aperture_goes_through_index_and_data(function, mmio, registers) -> None:
    register = registers["NBIO", "S2A_DOORBELL_ENTRY_0_CTRL"]
    assert register.address >= function.bar_size(5)
    mmio.write(register, 0x30000007)
    assert [(kind, at, value) for kind, at, value in function.log] == [
        ("w", 0x50, register.address),
        ("r", 0x50, register.address),
        ("w", 0x54, 0x30000007),
        ("r", 0x54, 0x30000007),
    ]


def test_straps_beside_the_changed_one_are_kept(function, mmio, registers) -> None:
    strap = registers["NBIO", "RCC_DEV0_EPF2_STRAP2"]
    space = {strap.address: ONES}
    function.on_read[0x54] = lambda: space.get(function.registers[0x50], 0)
    function.on_write[0x54] = lambda value: space.update({function.registers[0x50]: value})
    Nbio(mmio).configure()
    assert space[strap.address] == ONES & ~strap.fields["STRAP_NO_SOFT_RESET_DEV0_F2"].mask


# -- hubs --------------------------------------------------------------------------------------------------------------


def programmed(design, addresses, registers) -> dict[str, int]:
    """Register values after a hub's program, from reset values."""
    block = registers.block(design.ip)
    values = {}
    for write in hub_program(design, addresses):
        register = block[design.prefix + write.name]
        base = register.reset_value if write.value is None else write.value
        values[write.name] = int(register.decode(base).replace(**write.fields))
    return values


# Values: Linux 6.12 gfxhub_v3_0.c applied to gc_11_0_0_default.h by hand.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MC_VM_MX_L1_TLB_CNTL", 0x1859),
        ("VM_L2_CNTL", 0x00080E01),
        ("VM_L2_CNTL2", 0x3),
        ("VM_L2_CNTL3", 0x80130009),
        ("VM_L2_CNTL4", 0x1),
        ("VM_L2_CNTL5", 0x3FE0),
        ("VM_CONTEXT0_CNTL", 0x01FFFE07),
        ("VM_L2_PROTECTION_FAULT_CNTL", 0x3FFFFFFC),
        ("VM_L2_PROTECTION_FAULT_CNTL2", 0x000E0000),
        ("MC_VM_AGP_BOT", 0xFFFFFF),
        ("MC_VM_SYSTEM_APERTURE_LOW_ADDR", FB_START >> 18),
        ("MC_VM_SYSTEM_APERTURE_HIGH_ADDR", (FB_START + (256 << 20) - 1) >> 18),
        ("VM_CONTEXT0_PAGE_TABLE_END_ADDR_LO32", ONES),
        ("VM_CONTEXT0_PAGE_TABLE_END_ADDR_HI32", 0xF),
        ("VM_L2_CONTEXT1_IDENTITY_APERTURE_LOW_ADDR_HI32", 0xF),
        ("VM_INVALIDATE_ENG17_ADDR_RANGE_LO32", ONES),
        ("VM_INVALIDATE_ENG17_ADDR_RANGE_HI32", 0x1F),
    ],
)
def test_hub_registers_get_the_kernels_values(addresses, registers, name: str, value: int) -> None:
    assert programmed(GC_HUB, addresses, registers)[name] == value


def test_both_hubs_are_programmed_alike_but_for_what_their_design_says(addresses) -> None:
    gc, mm = (hub_program(design, addresses) for design in (GC_HUB, MM_HUB))
    assert [(w.name, w.fields) for w in gc] == [(w.name, w.fields) for w in mm]
    assert [w.name for w, v in zip(gc, mm, strict=True) if w.value != v.value] == ["VM_L2_CNTL3"]


def test_hub_with_known_reset_values_is_not_read_and_the_other_keeps_unknown_bits(
    function, mmio, addresses, registers
) -> None:
    Hub(mmio, GC_HUB).program(addresses)
    assert function.traffic.reads == 0
    control = registers["MMHUB", "MMVM_L2_CNTL"]
    function.registers[control.address] = 1 << 31
    Hub(mmio, MM_HUB).program(addresses)
    assert function.registers[control.address] & 1 << 31


@pytest.mark.parametrize("design", [GC_HUB, MM_HUB])
def test_hub_translates_once_it_is_programmed_and_not_with_one_thing_changed(
    function, mmio, addresses, registers, design
) -> None:
    hub = Hub(mmio, design)
    assert not hub.translates(addresses)
    hub.program(addresses)
    assert hub.translates(addresses)
    block = registers.block(design.ip)
    for name, bit in (
        ("VM_CONTEXT0_CNTL", 0),
        ("VM_CONTEXT0_CNTL", 1),
        ("VM_CONTEXT0_PAGE_TABLE_BASE_ADDR_LO32", 12),
        ("MC_VM_MX_L1_TLB_CNTL", 0),
        ("MC_VM_MX_L1_TLB_CNTL", 3),
    ):
        address = block[design.prefix + name].address
        function.registers[address] ^= 1 << bit
        assert not hub.translates(addresses), name
        function.registers[address] ^= 1 << bit
    assert hub.translates(addresses)


# Linux 6.12 gmc_v11_0.c: gmc_v11_0_flush_gpu_tlb
def test_invalidation_of_the_memory_hub_holds_the_semaphore_around_the_request(function, mmio, registers) -> None:
    mm = registers.block("MMHUB")
    function.answer(mm.MMVM_INVALIDATE_ENG17_SEM, 0, 0, 1)
    function.answer(mm.MMVM_INVALIDATE_ENG17_ACK, 0, 1)
    Hub(mmio, MM_HUB).invalidate()
    assert function.order(
        mm.MMVM_INVALIDATE_ENG17_SEM, mm.MMVM_INVALIDATE_ENG17_REQ, mm.MMVM_L2_BANK_SELECT_RESERVED_CID2
    ) == ["MMVM_INVALIDATE_ENG17_REQ", "MMVM_INVALIDATE_ENG17_SEM", "MMVM_L2_BANK_SELECT_RESERVED_CID2"]
    assert function.writes(mm.MMVM_INVALIDATE_ENG17_REQ) == [0x00F80001]
    assert function.writes(mm.MMVM_INVALIDATE_ENG17_SEM) == [0]
    assert function.log[-1][:2] == ("r", mm.MMVM_L2_BANK_SELECT_RESERVED_CID2.address)


def test_invalidation_of_the_graphics_hub_is_one_request(function, mmio, registers) -> None:
    gc = registers.block("GC")
    function.answer(gc.GCVM_INVALIDATE_ENG17_ACK, 1)
    Hub(mmio, GC_HUB).invalidate()
    assert [(kind, at) for kind, at, _ in function.log] == [
        ("w", gc.GCVM_INVALIDATE_ENG17_REQ.address),
        ("r", gc.GCVM_INVALIDATE_ENG17_ACK.address),
    ]


def test_invalidation_without_an_acknowledge_is_a_named_timeout(mmio) -> None:
    with pytest.raises(Timeout, match=r"graphics hub to acknowledge.*ENG17_ACK"):
        Hub(mmio, GC_HUB).invalidate()


def test_device_that_is_gone_is_told_from_one_that_is_slow(function, mmio, registers) -> None:
    function.answer(registers["GC", "GCVM_INVALIDATE_ENG17_ACK"], ONES)
    with pytest.raises(DeviceLost):
        Hub(mmio, GC_HUB).invalidate()


def test_fault_status_is_decoded_and_cleared(function, mmio, registers) -> None:
    gc = registers.block("GC")
    status = gc.GCVM_L2_PROTECTION_FAULT_STATUS.encode(CID=8, RW=1, VMID=0, PERMISSION_FAULTS=5, WALKER_ERROR=2)
    function.registers[gc.GCVM_L2_PROTECTION_FAULT_STATUS.address] = status
    function.registers[gc.GCVM_L2_PROTECTION_FAULT_ADDR_LO32.address] = 0x00001234
    function.registers[gc.GCVM_L2_PROTECTION_FAULT_ADDR_HI32.address] = 0x2
    (fault,) = Gmc(mmio).take_faults()
    assert (fault.address, fault.client, fault.write) == (0x2_0000_1234_000, "TCP", True)
    assert (fault.permission_faults, fault.walker_error, fault.hub) == (5, 2, "graphics hub")
    assert function.writes(gc.GCVM_L2_PROTECTION_FAULT_CNTL)[-1] & 1


def test_no_fault_is_no_fault(mmio) -> None:
    assert Gmc(mmio).take_faults() == []


def test_card_whose_memory_has_no_place_is_not_supported(function, mmio, registers) -> None:
    with pytest.raises(Unsupported, match="start-up firmware"):
        Gmc(mmio).read_device_memory()
    function.registers[registers["MMHUB", "MMMC_VM_FB_LOCATION_BASE"].address] = 0x8000
    function.registers[registers["MMHUB", "MMMC_VM_FB_OFFSET"].address] = 0x40
    assert Gmc(mmio).read_device_memory() == (FB_START, 0x40 << 24)


# -- interrupt ring ----------------------------------------------------------------------------------------------------


def arrive(vram, at: int, *clients: int) -> None:
    """Entries that the block would write at ``at``, and its write pointer."""
    for client in clients:
        entry = b"".join(d.to_bytes(4, "little") for d in ENTRY.encode(CLIENT_ID=client, SOURCE_ID=7, DATA0=client))
        vram.write(IH_RING.offset + at % IH_RING.size_bytes, entry)
        at += 32
    vram.write(IH_WPTR.offset, (at % IH_RING.size_bytes).to_bytes(4, "little"))


def test_interrupt_ring_is_described_before_it_is_enabled(function, mmio, vram, registers) -> None:
    Ih(mmio, vram).start(FB_START, messages=True)
    oss = registers.block("OSSSYS")
    off, clearing, on = function.writes(oss.IH_RB_CNTL)
    assert not off & 1 and clearing & 1 and on & 1
    assert clearing ^ on == 1 << 31  # the overflow flag is cleared by an edge
    value = oss.IH_RB_CNTL.decode(on)
    assert (value.RB_SIZE, value.MC_SPACE, value.ENABLE_INTR, value.RPTR_REARM) == (16, 4, 1, 1)
    assert function.writes(oss.IH_RB_BASE) == [(FB_START + IH_RING.offset) >> 8 & ONES]
    assert function.order(oss.IH_RB_BASE, oss.IH_RB_CNTL)[-1] == "IH_RB_CNTL"
    assert function.traffic.reads == 0


def test_interrupts_come_out_in_order_and_once(function, mmio, vram, registers) -> None:
    ih = Ih(mmio, vram)
    ih.start(FB_START, messages=True)
    function.log.clear()
    assert ih.drain() == []
    assert function.log == []
    arrive(vram, 0, 10, 20, 18)
    assert [(i.client, i.source, i.data[0]) for i in ih.drain()] == [(10, 7, 10), (20, 7, 20), (18, 7, 18)]
    assert function.writes(registers["OSSSYS", "IH_RB_RPTR"]) == [96]
    assert ih.drain() == []


def test_interrupt_ring_wraps_around(mmio, vram) -> None:
    ih = Ih(mmio, vram)
    ih.start(FB_START, messages=False)
    at = 0
    for _ in range(3):
        count = IH_RING.size_bytes // 32 // 2 + 5
        arrive(vram, at, *[10] * count)
        assert len(ih.drain()) == count
        at = (at + 32 * count) % IH_RING.size_bytes


# Linux 6.12 ih_v6_0.c: ih_v6_0_get_wptr
def test_overflow_goes_on_with_the_oldest_entry_that_is_left(function, mmio, vram, registers) -> None:
    ih = Ih(mmio, vram)
    ih.start(FB_START, messages=True)
    arrive(vram, 0, 10, 11, 12)
    vram.write(IH_WPTR.offset, (64 | 1).to_bytes(4, "little"))
    function.registers[registers["OSSSYS", "IH_RB_WPTR"].address] = 64 | 1
    entries = ih.drain()
    assert len(entries) == IH_RING.size_bytes // 32 - 1
    assert [e.client for e in entries[-2:]] == [10, 11]
    clearing, on = function.writes(registers["OSSSYS", "IH_RB_CNTL"])[-2:]
    assert clearing ^ on == 1 << 31


# -- power management --------------------------------------------------------------------------------------------------


class Mailbox:
    """A power management firmware that answers each message with a result and a value."""

    def __init__(self, function, registers) -> None:
        self.regs = {n: registers["MP1", f"MP1_SMN_C2PMSG_{n}"] for n in (53, 54, 66, 75, 82, 90)}
        self.sent: list[tuple[int, int]] = []
        self.debug: list[int] = []
        self.result = 1
        self.value = 0
        self.function = function
        function.on_write[self.regs[66].address] = self.message
        function.on_write[self.regs[75].address] = self.debug_message

    def message(self, number: int) -> None:
        self.sent.append((number, self.function.registers[self.regs[82].address]))
        self.function.registers[self.regs[90].address] = self.result
        self.function.registers[self.regs[82].address] = self.value

    def debug_message(self, number: int) -> None:
        self.debug.append(number)
        self.function.registers[self.regs[54].address] = 1


@pytest.fixture
def mailbox(function, registers) -> Mailbox:
    return Mailbox(function, registers)


@pytest.fixture
def smu(mmio, vram) -> Smu:
    return Smu(mmio, vram, FB_START)


# Linux 6.12 smu_cmn.c: __smu_cmn_send_msg
def test_message_clears_the_answer_gives_the_argument_and_asks_last(smu: Smu, mailbox: Mailbox, function) -> None:
    mailbox.value = 0x4E8700
    assert smu.ask(Message.GetSmuVersion, 5) == 0x4E8700
    assert mailbox.sent == [(2, 5)]
    regs = mailbox.regs
    assert function.order(regs[90], regs[82], regs[66]) == [f"MP1_SMN_C2PMSG_{n}" for n in (90, 82, 66)]


@pytest.mark.parametrize(
    ("result", "meaning"),
    [(0xFF, "failed"), (0xFE, "does not know"), (0xFD, "before it"), (0xFC, "busy"), (0x7, "not a")],
)
def test_every_other_answer_is_an_error_that_says_what_it_means(
    smu: Smu, mailbox: Mailbox, result: int, meaning: str
) -> None:
    mailbox.result = result
    with pytest.raises(SmuRejected, match=rf"EnableAllSmuFeatures\(0x0\) with {result:#x}: .*{meaning}"):
        smu.send(Message.EnableAllSmuFeatures)


def test_silent_firmware_is_a_named_timeout(smu: Smu) -> None:
    with pytest.raises(Timeout, match=r"GetSmuVersion .*C2PMSG_90"):
        smu.ask(Message.GetSmuVersion)


def test_start_says_where_tables_go_and_switches_features_on(smu: Smu, mailbox: Mailbox, function) -> None:
    function.on_read[0x54] = lambda: 1  # SMN 0x3b10024: takes messages
    smu.start()
    assert function.registers[0x50] == 0x3B10024
    table = FB_START + SMU_TABLE.offset
    assert mailbox.sent[1:] == [(0xE, table >> 32), (0xF, table & ONES), (0x6, 0)]


def test_mode1_reset_waits_half_a_second_without_touching_the_card(smu: Smu, mailbox: Mailbox, function) -> None:
    smu.mode1_reset()
    assert mailbox.sent == [(0x2F, 0)] and mailbox.debug == []
    assert function.sleeps == [0.5]
    assert function.log[-1][:2] == ("r", mailbox.regs[90].address)


def test_mode1_reset_goes_through_the_debug_mailbox_when_the_other_hangs(smu: Smu, mailbox: Mailbox, function) -> None:
    del function.on_write[mailbox.regs[66].address]
    smu.mode1_reset()
    assert mailbox.debug == [2]
    assert function.sleeps == [0.5]


def test_mode1_reset_that_takes_the_registers_away_is_not_asked_for_twice(smu: Smu, mailbox: Mailbox) -> None:
    mailbox.result = ONES
    smu.mode1_reset()
    assert mailbox.debug == []


def test_frequency_levels_are_counted_first(smu: Smu, mailbox: Mailbox, function) -> None:
    answers = iter([3, 500, 800, 0x80000000 | 1250])
    inner = function.on_write[mailbox.regs[66].address]

    def message(number: int) -> None:
        mailbox.value = next(answers)
        inner(number)

    function.on_write[mailbox.regs[66].address] = message
    assert smu.frequency_levels(Clock.UCLK) == [500, 800, 1250]
    assert [argument & 0xFFFF for _, argument in mailbox.sent] == [0xFF, 0, 1, 2]


# Linux 6.12 smu_v13_0_0_ppt.c: smu_v13_0_0_get_gpu_metrics
@pytest.mark.parametrize(("activity", "clock"), [(15, 50), (16, 2400)])
def test_metrics_tell_the_clock_that_fits_the_load(activity: int, clock: int) -> None:
    table = METRICS.pack(
        AverageGfxActivity=activity,
        AverageGfxclkFrequencyPreDs=2400,
        AverageGfxclkFrequencyPostDs=50,
        AvgTemperature=(40, 55, 0, 0, 60),
        AverageSocketPower=31,
    )
    metrics = decode_metrics(table)
    assert metrics.clocks_mhz["graphics"] == clock
    assert metrics.temperatures_c == {"edge": 40, "hotspot": 55, "memory": 60}
    assert metrics.socket_power_w == 31


# -- compute engine ----------------------------------------------------------------------------------------------------

SPEC = QueueSpec(
    ring_va=0x2000_0010_0000,
    ring_bytes=1 << 20,
    rptr_va=0x2000_0020_0000,
    wptr_va=0x2000_0020_0008,
    eop_va=0x2000_0030_0000,
    eop_bytes=4096,
    mqd_address=FB_START + 0x1000,
    doorbell=3,
)


# Linux 6.12 gfx_v11_0.c: gfx_v11_0_compute_mqd_init
def test_descriptor_describes_the_queue(registers) -> None:
    gc = registers.block("GC")
    mqd = compute_mqd(gc, SPEC)

    def field(register: str, member: str):
        return gc[register].decode(V11_COMPUTE_MQD.get(mqd, member))

    assert V11_COMPUTE_MQD.get(mqd, "header") == 0xC0310800
    control = field("CP_HQD_PQ_CONTROL", "cp_hqd_pq_control")
    assert 2 << control.QUEUE_SIZE == (1 << 20) // 4
    doorbell = field("CP_HQD_PQ_DOORBELL_CONTROL", "cp_hqd_pq_doorbell_control")
    assert (doorbell.DOORBELL_OFFSET, doorbell.DOORBELL_EN) == (6, 1)
    assert 2 << field("CP_HQD_EOP_CONTROL", "cp_hqd_eop_control").EOP_SIZE == 1024
    base = V11_COMPUTE_MQD.get(mqd, "cp_hqd_pq_base_hi") << 32 | V11_COMPUTE_MQD.get(mqd, "cp_hqd_pq_base_lo")
    assert base << 8 == SPEC.ring_va
    assert V11_COMPUTE_MQD.get(mqd, "cp_hqd_vmid") == 0
    assert V11_COMPUTE_MQD.get(mqd, "compute_static_thread_mgmt_se7") == ONES


def test_queue_registers_are_loaded_in_their_bank_and_activated_last(function, mmio, registers) -> None:
    gc = registers.block("GC")
    mqd = compute_mqd(gc, SPEC)
    Gfx(mmio).load_queue(2, mqd)
    written = [(at, value) for kind, at, value in function.log if kind == "w"]
    assert written[0] == (gc.GRBM_GFX_CNTL.address, 1 << 2 | 2 << 8)
    assert written[-1] == (gc.GRBM_GFX_CNTL.address, 0)
    assert written[-2] == (gc.CP_HQD_ACTIVE.address, 1)
    # The descriptor's dwords from 0x80 on are the registers from CP_MQD_BASE_ADDR on, one for one.
    for name, member in HQD_REGISTERS:
        assert gc[name].dword - gc.CP_MQD_BASE_ADDR.dword == V11_COMPUTE_MQD.dword(member) - 0x80, name
        assert function.registers[gc[name].address] == V11_COMPUTE_MQD.get(mqd, member)


@pytest.mark.parametrize(
    "change",
    [{"ring_bytes": 3000}, {"ring_bytes": 512}, {"ring_va": 0x80}, {"eop_bytes": 5000}, {"wptr_va": 4}, {"rptr_va": 2}],
)
def test_queue_that_the_hardware_cannot_hold_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument):
        replace(SPEC, **change)


def test_unloading_drains_and_waits_and_resetting_kills_waves(function, mmio, registers) -> None:
    gc = registers.block("GC")
    for unload, how in ((Gfx(mmio).unload_queue, 1), (Gfx(mmio).reset_queue, 2)):
        function.log.clear()
        function.answer(gc.CP_HQD_ACTIVE, 1, 1, 0)
        unload(1)
        assert function.writes(gc.CP_HQD_DEQUEUE_REQUEST) == [how]
        assert function.writes(gc.SPI_COMPUTE_QUEUE_RESET) == ([1] if how == 2 else [])
        assert function.writes(gc.GRBM_GFX_CNTL)[-1] == 0


def test_queue_that_does_not_leave_is_a_named_timeout_and_the_bank_is_left(function, mmio, registers) -> None:
    gc = registers.block("GC")
    function.answer(gc.CP_HQD_ACTIVE, 1)
    with pytest.raises(Timeout, match="compute queue 3 to leave the hardware"):
        Gfx(mmio).reset_queue(3)
    assert function.writes(gc.GRBM_GFX_CNTL)[-1] == 0
    assert function.writes(gc.RLC_SAFE_MODE)[-1] == 1  # out of safe mode again


def test_idle_queue_is_not_asked_to_leave(function, mmio, registers) -> None:
    Gfx(mmio).unload_queue(0)
    assert function.writes(registers["GC", "CP_HQD_DEQUEUE_REQUEST"]) == []


# Linux 6.12 gfx_v11_0.c: gfx_v11_0_config_gfx_rs64
def test_engine_starts_at_its_firmwares_address(function, mmio, registers) -> None:
    gc = registers.block("GC")
    Gfx(mmio).start_mec(0x0007_0000_0000_3000)
    assert function.writes(gc.CP_MEC_RS64_PRGRM_CNTR_START) == [0x3000 >> 2]
    assert function.writes(gc.CP_MEC_RS64_PRGRM_CNTR_START_HI) == [0x70000 >> 2]
    reset, released, running = (gc.CP_MEC_RS64_CNTL.decode(v) for v in function.writes(gc.CP_MEC_RS64_CNTL))
    assert (reset.MEC_HALT, reset.MEC_PIPE0_RESET) == (1, 1)
    assert (released.MEC_HALT, released.MEC_PIPE0_RESET) == (1, 0)
    assert (running.MEC_HALT, running.MEC_PIPE0_ACTIVE, running.MEC_PIPE0_RESET) == (0, 1, 0)


@pytest.mark.parametrize(
    ("control", "bootload", "runs"),
    [(1 << 26, 1 << 31, True), (1 << 26 | 1 << 30, 1 << 31, False), (0, 1 << 31, False), (1 << 26, 0, False)],
)
def test_engine_runs_only_when_started_and_loaded(
    function, mmio, registers, control: int, bootload: int, runs: bool
) -> None:
    function.registers[registers["GC", "CP_MEC_RS64_CNTL"].address] = control
    function.registers[registers["GC", "RLC_RLCS_BOOTLOAD_STATUS"].address] = bootload
    assert Gfx(mmio).mec_runs() is runs


def test_fused_off_units_and_arrays_are_not_counted(function, mmio, registers) -> None:
    gc = registers.block("GC")
    info = GcInfo(6, 2, 8, 32, 16, 32, 64, (1, 2), {})
    function.registers[gc.CC_GC_SA_UNIT_DISABLE.address] = gc.CC_GC_SA_UNIT_DISABLE.encode(SA_DISABLE=0b10)
    inactive = gc.CC_GC_SHADER_ARRAY_CONFIG.encode(INACTIVE_WGPS=0xFFF1)  # bits beyond the built WGPs mean nothing
    function.registers[gc.CC_GC_SHADER_ARRAY_CONFIG.address] = inactive
    assert Gfx(mmio).count_compute_units(info) == 11 * 6
    assert function.writes(gc.GRBM_GFX_INDEX)[-1] == 0xE0000000


def test_autoload_that_does_not_complete_is_a_named_timeout(mmio) -> None:
    with pytest.raises(Timeout, match="RLC autoload"):
        Gfx(mmio).wait_for_autoload()


# -- waves -------------------------------------------------------------------------------------------------------------

INFO = GcInfo(2, 2, 4, 32, 3, 32, 64, (1, 2), {})


def stand(function, registers, place: tuple[int, int, int], wave: int, status: int, pc: int) -> None:
    """A wave at (engine, array, instance) that shows itself through the index and data registers."""
    gc = registers.block("GC")

    def data() -> int:
        select = gc.GRBM_GFX_INDEX.decode(function.registers.get(gc.GRBM_GFX_INDEX.address, 0))
        index = gc.SQ_IND_INDEX.decode(function.registers[gc.SQ_IND_INDEX.address])
        if (*place, wave) != (select.SE_INDEX, select.SA_INDEX, select.INSTANCE_INDEX, index.WAVE_ID):
            return 0
        return {0x102: status, 0x108: pc & ONES, 0x109: pc >> 32}.get(index.INDEX, 0)

    function.on_read[gc.SQ_IND_DATA.address] = data


@pytest.mark.parametrize("halt", [1 << 13, 1 << 23])
def test_halted_wave_is_found_wherever_it_stands(function, mmio, registers, halt: int) -> None:
    stand(function, registers, (1, 0, 1 << 2 | 3), 2, 1 << 16 | halt, 0x2000_1234_5678)
    found = Waves(mmio).find_halted(INFO)
    assert found is not None
    assert (found.engine, found.array, found.wgp, found.simd, found.wave) == (1, 0, 1, 3, 2)
    assert found.pc == 0x2000_1234_5678
    assert function.writes(registers["GC", "GRBM_GFX_INDEX"])[-1] == 0xE0000000


@pytest.mark.parametrize("status", [0, 1 << 16, 1 << 13])
def test_wave_that_is_absent_or_runs_is_not_halted(function, mmio, registers, status: int) -> None:
    stand(function, registers, (0, 0, 0), 0, status, 0x1000)
    assert Waves(mmio).find_halted(INFO) is None


def test_wave_that_runs_is_found_where_it_will_do(function, mmio, registers) -> None:
    stand(function, registers, (1, 0, 3), 2, 1 << 16, 0x1000)
    found = Waves(mmio).find_halted(INFO, or_running=True)
    assert found is not None and found.pc == 0x1000


def test_a_halted_waves_registers_are_read_where_it_stands(function, mmio, registers) -> None:
    gc = registers.block("GC")
    place = (1, 0, 1 << 2 | 3, 2)
    # soc21_enum.h: SGPRs from 0x200 on, VGPRs from 0x400 on; ixSQ_WAVE_EXEC_LO and _HI are 0x27e and 0x27f
    held = {(0x108, 0): 0x1000, (0x102, 0): 1 << 16 | 1 << 13, (0x205, 0): 55, (0x403, 7): 37,
            (0x27E, 0): 0xF0, (0x27F, 0): 0xA}  # fmt: skip

    def data() -> int:
        select = gc.GRBM_GFX_INDEX.decode(function.registers.get(gc.GRBM_GFX_INDEX.address, 0))
        index = gc.SQ_IND_INDEX.decode(function.registers[gc.SQ_IND_INDEX.address])
        if place != (select.SE_INDEX, select.SA_INDEX, select.INSTANCE_INDEX, index.WAVE_ID):
            return 0
        return held.get((index.INDEX, index.WORKITEM_ID), 0)

    function.on_read[gc.SQ_IND_DATA.address] = data
    wave = Waves(mmio).find_halted(INFO)
    assert wave is not None
    assert (wave.scalar(5), wave.vector(3, 7), wave.vector(3, 6)) == (55, 37, 0)
    assert wave.exec_mask == 0xA_0000_00F0
    assert function.writes(registers["GC", "GRBM_GFX_INDEX"])[-1] == 0xE0000000
