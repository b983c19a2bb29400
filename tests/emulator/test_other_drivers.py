"""What drivers other than this project's ask of the card: Linux 6.1 to 7.3, and tinygrad's AM.

Each contract here failed once with one of them on the card.
"""

from __future__ import annotations

from typing import Any

import pytest

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.models.mec_11_0 import Mec
from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.emulator.models.psp_images import LoadedImage
from amdrv.emulator.models.psp_status import Status
from amdrv.emulator.models.smu_13_0_0 import Smu
from amdrv.emulator.models.vmhub import VmHub
from amdrv.emulator.shell import Card
from amdrv.facts import mes_v12, pm4
from amdrv.facts import sdma_v6_0 as sdma
from amdrv.facts.doorbells import Doorbell
from amdrv.facts.ih_ids import GfxSource
from amdrv.facts.later_linux import INVALIDATE_TLBS, MES_INVALIDATE_TLBS, RESERVATION, InvalidateBy, ReservationQuery
from amdrv.facts.mes_v12 import SchedulerOpcode
from amdrv.facts.psp import COMMAND_BUFFER, RING_FRAME, FwType
from amdrv.facts.sdma_v6_0 import Opcode
from amdrv.facts.smu_v13_0_0 import Message, Result

EVERY_CHIP = pytest.mark.parametrize("rig", sorted(CHIPS), indirect=True)
NAVI48 = pytest.mark.parametrize("rig", ["gfx1201"], indirect=True)
QUEUE = (1, 0, 0)
EQUAL, REGISTERS, WRITE_FIRST = 3, 0, 1  # WAIT_REG_MEM
VRAM_BYTES = 64 << 20


# -- the command processor --------------------------------------------------------------------------------------------


def unprivileged_queue(rig: Any, ring_type: Any) -> Any:
    """A compute queue without PRIV_STATE, as AM sets its up and amdkfd its processes'."""
    rig.start_mec()
    ring = ring_type(rig, 2 * Doorbell.MEC_RING0)
    control = rig.register("CP_HQD_PQ_CONTROL").encode(QUEUE_SIZE=7)
    rig.activate(QUEUE, rig.compute_mqd(ring, cp_hqd_pq_control=control))
    return ring


def write_and_wait(rig: Any, first: str, second: str) -> tuple[int, ...]:
    """Write all ones to one register, then wait until another is all ones (ops_amd.py: memory_barrier)."""
    dwords = rig.register(first).address // 4 | rig.register(second).address // 4 << 32
    return tuple(
        pm4.WAIT_REG_MEM.build(
            FUNCTION=EQUAL, OPERATION=WRITE_FIRST, MEM_SPACE=REGISTERS, ADDRESS=dwords, REFERENCE=0xFFFF_FFFF,
            MASK=0xFFFF_FFFF,
        )
    )  # fmt: skip


@EVERY_CHIP
def test_any_queue_may_flush_the_host_data_path_and_wait_for_it(rig: Any, ring_type: Any) -> None:
    ring, target = unprivileged_queue(rig, ring_type), rig.memory.take()
    names = ("NBIO.BIF_BX_PF0_GPU_HDP_FLUSH_REQ", "NBIO.BIF_BX_PF0_GPU_HDP_FLUSH_DONE")
    after = pm4.WRITE_DATA.build(0xCAFE, DST_SEL=pm4.MemoryTarget.MEMORY, ADDRESS=rig.mc(target))
    ring.submit(write_and_wait(rig, *names), after)
    assert rig.idle()
    assert rig.memory.word(target) == 0xCAFE


@EVERY_CHIP
def test_another_register_of_the_bus_interface_is_not_for_an_unprivileged_queue(rig: Any, ring_type: Any) -> None:
    ring = unprivileged_queue(rig, ring_type)
    names = ("NBIO.BIF_BX_PF0_HDP_MEM_COHERENCY_FLUSH_CNTL", "NBIO.BIF_BX_PF0_GPU_HDP_FLUSH_DONE")
    ring.submit(write_and_wait(rig, *names))
    assert rig.idle()
    assert [entry["SOURCE_ID"] for entry in rig.interrupts()] == [GfxSource.CP_PRIV_REG_FAULT]


def set_register(rig: Any, name: str) -> tuple[int, ...]:
    window = pm4.SET_WINDOWS[pm4.Opcode.SET_UCONFIG_REG].start
    return pm4.header(pm4.Opcode.SET_UCONFIG_REG, 2), rig.register(name).dword - window, 0x5


@EVERY_CHIP
@pytest.mark.parametrize(
    ("name", "opened"),
    [("SCRATCH_REG1", True), ("SQ_PERFCOUNTER0_SELECT", True), ("CP_MEC_RS64_CNTL", False), ("RLC_SRM_CNTL", False)],
)
def test_unprivileged_queue_reaches_scratch_and_counters_but_no_engines_control(
    rig: Any, ring_type: Any, name: str, opened: bool
) -> None:
    ring, before = unprivileged_queue(rig, ring_type), rig.read(name)
    ring.submit(set_register(rig, name))
    assert rig.idle()
    assert (rig.read(name) != before) is opened
    faults = [] if opened else [GfxSource.CP_PRIV_REG_FAULT]
    assert [entry["SOURCE_ID"] for entry in rig.interrupts()] == faults


@EVERY_CHIP
def test_descriptor_need_not_be_flushed_before_its_queue_is_switched_on(rig: Any, ring_type: Any) -> None:
    """AM stores the descriptor, writes the registers, CP_HQD_ACTIVE last, and flushes after that."""
    rig.start_mec()
    mqd = rig.compute_mqd(ring_type(rig, 2 * Doorbell.MEC_RING0))
    memory = rig.card.vram_view(mqd, 4096)
    wanted = bytes(memory)
    memory[:] = bytes(4096)
    rig.card.bar0_view(mqd, 4096)[:] = wanted
    assert bytes(memory) == bytes(4096)  # it waits in the host data path
    rig.select(*QUEUE)
    registers = ("CP_MQD_BASE_ADDR", "CP_MQD_BASE_ADDR_HI")
    for name, value in zip(registers, (rig.mc(mqd) & 0xFFFF_FFFF, rig.mc(mqd) >> 32), strict=True):
        rig.write(name, value)
    rig.card.model(Mec)._activation_error(QUEUE)
    assert bytes(memory) == wanted


# -- the scheduler ----------------------------------------------------------------------------------------------------

PASID, VMID = 0x77, 9


def invalidation(rig: Any, ring_type: Any, **fields: int) -> tuple[bool, dict[str, list[int]]]:
    """Whether the scheduler answered, and which VMIDs each hub was told to forget."""
    rig.start_mes()
    ring = ring_type(rig, 2 * Doorbell.MES_RING0, 1024)
    rig.activate((3, 0, 0), rig.compute_mqd(ring))
    told: dict[str, list[int]] = {}
    for hub in rig.card.models(VmHub):
        hub.invalidate = lambda vmids, ip=hub.ip: told.setdefault(ip, []).extend(vmids)  # type: ignore[method-assign]
    for suffix in ("", "_MM"):
        rig.card.model(IhModel)._pasids[suffix][VMID].value = PASID
    return rig.scheduler(ring).send(INVALIDATE_TLBS, MES_INVALIDATE_TLBS, **fields), told


@NAVI48
@pytest.mark.parametrize(("hub", "ip"), [(0, "GC"), (1, "MMHUB")])
def test_scheduler_makes_one_hub_forget_the_translations_of_a_process(
    rig: Any, ring_type: Any, hub: int, ip: str
) -> None:
    fields = {"inv_sel": InvalidateBy.PASID, "inv_sel_id": PASID, "hub_id": hub}
    assert invalidation(rig, ring_type, **fields) == (True, {ip: [VMID]})


@NAVI48
def test_scheduler_makes_a_hub_forget_the_translations_of_a_vmid(rig: Any, ring_type: Any) -> None:
    fields = {"inv_sel": InvalidateBy.VMID, "inv_sel_id": 5, "hub_id": 0}
    assert invalidation(rig, ring_type, **fields) == (True, {"GC": [5]})


@NAVI48
def test_scheduler_does_not_answer_for_a_hub_that_is_not_there(rig: Any, ring_type: Any) -> None:
    assert invalidation(rig, ring_type, inv_sel=InvalidateBy.VMID, inv_sel_id=5, hub_id=7) == (False, {})


@NAVI48
def test_scheduler_gives_up_a_hanging_queue_at_once(rig: Any, ring_type: Any) -> None:
    """Linux 6.1 waits for a tenth of a second only; a queue that runs is given one second."""
    rig.start_mes()
    rig.start_mec()
    ring = ring_type(rig, 2 * Doorbell.MES_RING0, 1024)
    rig.activate((3, 0, 0), rig.compute_mqd(ring))
    scheduler, user = rig.scheduler(ring), unprivileged_queue(rig, ring_type)
    user.submit((0xC000_FF00, 0))  # no such packet
    assert rig.idle()
    with rig.card.lock:
        started_ns = rig.card.clock.now_ns
    fields = {"doorbell_offset": user.doorbell_dword, "unmap_legacy_queue": 1}
    assert scheduler.send(mes_v12.REMOVE_QUEUE, SchedulerOpcode.REMOVE_QUEUE, **fields)
    assert rig.card.clock.now_ns - started_ns < 0.5e9


# -- the copy engines -------------------------------------------------------------------------------------------------


@EVERY_CHIP
def test_copy_engine_writes_a_register_as_its_own_driver_asks(rig: Any, ring_type: Any) -> None:
    """sdma_v6_0_ring_emit_wreg: a dword index and BYTE_EN; sdma_v7_0_ring_emit_wreg: a byte address, and no BYTE_EN."""
    register = rig.register("SCRATCH_REG0")
    start_copy_engine(rig, ring := ring_type(rig, 2 * Doorbell.SDMA_ENGINE0, unit_bytes=4))
    if rig.card.chip.arch == "gfx1100":
        packet = sdma.SRBM_WRITE.encode(op=Opcode.SRBM_WRITE, byte_en=0xF, addr=register.dword, data=0xCAFE)
    else:
        packet = (Opcode.SRBM_WRITE, register.address, 0xCAFE)
    ring.submit(packet)
    assert rig.idle()
    assert rig.read("SCRATCH_REG0") == 0xCAFE


@EVERY_CHIP
def test_reset_request_ends_what_a_copy_queue_waits_for(rig: Any, ring_type: Any) -> None:
    """Linux 6.17 mes_v12_0_reset_queue_mmio: the bit reads zero when the queue is off."""
    start_copy_engine(rig, ring := ring_type(rig, 2 * Doorbell.SDMA_ENGINE0, unit_bytes=4))
    place = rig.mc(rig.memory.take())
    ring.submit(sdma.POLL_REGMEM.encode(op=Opcode.POLL_REGMEM, func=EQUAL, mem_poll=1, addr=place, value=1, mask=1))
    request = rig.sdma(0, "QUEUE_RESET_REQ").address
    assert rig.card.worker.busy
    rig.card.write_register(request, 1)
    assert rig.wait(lambda: rig.card.read_register(request) == 0)
    assert rig.idle()
    assert not rig.card.read_register(rig.sdma(0, "QUEUE0_RB_CNTL").address) & 1


def start_copy_engine(rig: Any, ring: Any) -> None:
    """sdma_v6_0_gfx_resume, for queue 0 of the first engine."""
    values = {
        "QUEUE0_RB_BASE": rig.mc(ring.ring) >> 8 & 0xFFFF_FFFF,
        "QUEUE0_RB_BASE_HI": rig.mc(ring.ring) >> 40,
        "QUEUE0_DOORBELL_OFFSET": rig.sdma(0, "QUEUE0_DOORBELL_OFFSET").encode(OFFSET=ring.doorbell_dword),
        "QUEUE0_DOORBELL": rig.sdma(0, "QUEUE0_DOORBELL").encode(ENABLE=1),
        "F32_CNTL": 0,
        "QUEUE0_RB_CNTL": rig.sdma(0, "QUEUE0_RB_CNTL").encode(RB_ENABLE=1, RB_SIZE=8, RB_PRIV=1),
    }
    for name, value in values.items():
        rig.card.write_register(rig.sdma(0, name).address, value)


# -- firmware ---------------------------------------------------------------------------------------------------------


def ask_psp(arch: str, command: int) -> dict[str, int]:
    """The response to a command without arguments."""
    card = Card("test", CHIPS[arch], vram_bytes=VRAM_BYTES)
    response = card.model(Psp)._commands.prepare(COMMAND_BUFFER.pack(cmd_id=command)).execute()
    return {name: RESERVATION.get(response, name) for name in RESERVATION.members}


def test_secure_os_of_navi48_tells_what_it_keeps_at_the_end_of_memory() -> None:
    answer = ask_psp("gfx1201", ReservationQuery.FW_RESERV_ADDR)
    base = answer["reserve_base_address_hi"] << 32 | answer["reserve_base_address_lo"]
    # psp_update_fw_reservation finds it valid when it reaches to the end.
    assert (answer["status"], base + answer["reserve_size"]) == (0, VRAM_BYTES)
    assert answer["reserve_size"] >= CHIPS["gfx1201"].tmr_bytes
    assert ask_psp("gfx1201", ReservationQuery.FW_RESERV_EXT_ADDR)["reserve_size"] == 0


@pytest.mark.parametrize("arch", sorted(CHIPS))
def test_ring_frame_need_not_be_flushed_before_the_write_pointer(arch: str) -> None:
    """AM flushes images only (ip.py: _ring_submit)."""
    card = Card("test", CHIPS[arch], vram_bytes=VRAM_BYTES)
    ring, buffer, fence = 0x10_0000, 0x11_0000, 0x12_0000
    address = card.chip.fb_base
    frame = RING_FRAME.pack(
        cmd_buf_addr_lo=address + buffer & 0xFFFF_FFFF, cmd_buf_addr_hi=address + buffer >> 32,
        fence_addr_lo=address + fence & 0xFFFF_FFFF, fence_addr_hi=address + fence >> 32, fence_value=7,
    )  # fmt: skip
    engine = card.model(Psp)._ring
    engine._running, engine._address, engine._size_dwords = True, address + ring, 1024
    assert bytes(card.bar0_view(fence, 4)) == bytes(4)
    card.bar0_view(ring, len(frame))[:] = frame
    engine._registers.wptr.value = 16
    engine.kick()
    card.sleep(0.1)
    assert int.from_bytes(card.vram_view(fence, 4), "little") == 7


def test_secure_os_of_navi31_does_not_know_that_question() -> None:
    assert ask_psp("gfx1100", ReservationQuery.FW_RESERV_ADDR)["status"] == Status.UNKNOWN_COMMAND


@pytest.fixture(params=sorted(CHIPS))
def smu_card(request: pytest.FixtureRequest) -> Card:
    """A card whose power management firmware has just started."""
    card = Card("test", CHIPS[request.param], vram_bytes=VRAM_BYTES)
    card.model(Smu).firmware_loaded(LoadedImage(FwType.SMU, "SMU", 1, 4096, bytes(32), 0))
    card.sleep(1.0)
    return card


def mailbox(card: Card, number: int) -> int:
    return card.registers.block("MP1")[f"MP1_SMN_C2PMSG_{number}"].address


def test_smu_has_an_answer_ready_before_its_first_message(smu_card: Card) -> None:
    """Linux 6.1 smu_cmn_send_smc_msg_with_param waits for that of the message before, the first time too."""
    assert smu_card.read_register(mailbox(smu_card, 90)) == Result.OK


def test_smu_that_is_told_of_an_unload_without_the_magic_number_goes_on(smu_card: Card) -> None:
    for message in (Message.PrepareMp1ForUnload, Message.GetSmuVersion):
        smu_card.write_register(mailbox(smu_card, 90), 0)
        smu_card.write_register(mailbox(smu_card, 82), 0)
        smu_card.write_register(mailbox(smu_card, 66), message)
        smu_card.sleep(0.01)
        assert smu_card.read_register(mailbox(smu_card, 90)) == Result.OK


@pytest.mark.parametrize("arch", sorted(CHIPS))
def test_mode1_reset_is_over_within_half_a_second(arch: str) -> None:
    """AM reads the secure OS's sign of life half a second after the message, on both chips."""
    timings = CHIPS[arch].timings
    assert timings.smu_reset_delay + timings.mode1 + timings.boot_rom < 0.5


# -- registers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", sorted(CHIPS))
@pytest.mark.parametrize("dword", [7, 0x3219])  # BIOS_SCRATCH_7 before its base is known; a gap among CP_HQD
def test_place_without_a_register_has_a_name_reads_zero_and_keeps_nothing(arch: str, dword: int) -> None:
    card = Card("test", CHIPS[arch], vram_bytes=VRAM_BYTES)
    card.write_register(4 * dword, 0xFFFF_FFFF)
    assert card.read_register(4 * dword) == 0
    assert "RESERVED" in card.space.name_at(4 * dword)
    assert card.unmodelled() == []


@pytest.mark.parametrize("arch", sorted(CHIPS))
def test_memory_controllers_have_the_base_address_that_drivers_count_from(arch: str) -> None:
    """umc_8_10_0_offset.h puts the error counters into segment 2; Linux reads past the entry when there is none."""
    bases = CHIPS[arch].bases["UMC"]
    assert all(len(segments) == 3 for segments in bases.values())


def test_error_counters_of_a_memory_channel_keep_what_is_written() -> None:
    card = Card("test", CHIPS["gfx1100"], vram_bytes=VRAM_BYTES)
    # umc_v8_10_err_cnt_init_per_channel, for channel 1 of controller 1 of node 5.
    address = 4 * (card.chip.bases["UMC"][0][2] + 0x329 + 5 * 0x80_0000 + 0x4000 + 0x400)
    nbio = card.registers.block("NBIO")
    card.write_register(nbio["BIF_BX_PF0_RSMU_INDEX"].address, address & 0xFFFF_FFFF)
    card.write_register(nbio["BIF_BX_PF0_RSMU_DATA"].address, 0x1234)
    assert card.read_register(nbio["BIF_BX_PF0_RSMU_DATA"].address) == 0x1234
    assert card.unmodelled() == []


@EVERY_CHIP
def test_thread_trace_may_be_switched_off_and_one_that_is_switched_on_is_unmodelled(rig: Any) -> None:
    control = rig.register("SQ_THREAD_TRACE_CTRL")
    rig.write("SQ_THREAD_TRACE_CTRL", rig.read("SQ_THREAD_TRACE_CTRL") & ~control.encode(MODE=3))
    assert not rig.card.unmodelled()
    rig.write("SQ_THREAD_TRACE_CTRL", control.encode(MODE=1))
    assert rig.card.unmodelled() == [("GC.SQ_THREAD_TRACE_CTRL", 1)]
