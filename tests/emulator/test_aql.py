"""AQL queues: dispatches from kernel descriptors, barriers, signals, vendor packets, errors, as a runtime uses them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from amdrv.emulator.models.mec_11_0 import Mec
from amdrv.facts import aql, pm4
from amdrv.facts.aql import PacketType, QueueError, VendorFormat
from amdrv.facts.mqd_v11 import V11_COMPUTE_MQD

DOORBELL = 0x20
SLOTS = 16
WAVE32 = 1 << 10
KERNARG = 1 << 3
# s_load_b64 s[4:5], s[0:1], 0; v_and_b32 v0, 0x3ff, v0; v_lshl_add_u32 v1, s2, 5, v0; v_lshlrev_b32 v2, 2, v1;
# s_waitcnt lgkmcnt(0); global_store_b32 v2, v1, s[4:5]; s_endpgm            (llvm-mc 22, gfx1100)
STORE_IDS = (
    0xF4040100, 0xF8000000, 0x360000FF, 0x000003FF, 0xD6460001, 0x04010A02, 0x30040282, 0xBF89FC07, 0xDC6A0000,
    0x00040102, 0xBFB00000,
)  # fmt: skip
SYSTEM_SCOPES = 2 << aql.ACQUIRE_SHIFT | 2 << aql.RELEASE_SHIFT


class Runtime:
    """One AQL queue: ring, amd_queue_t, a kernel, signals."""

    def __init__(self, rig: Any, ring_type: Any) -> None:
        self.rig = rig
        rig.start_mec()
        self.ring = ring_type(rig, DOORBELL, SLOTS * aql.PACKET_BYTES // 4)
        self.queue = rig.memory.take()
        self.code = rig.memory.take()
        self.kernarg = rig.memory.take()
        self.out = rig.memory.take()
        self._signals = rig.memory.take()
        self._next_signal = 0
        self.index = 0
        self.inactive = self.signal(0)
        self.set(rsrc2=0x84, properties=KERNARG | WAVE32)  # two user SGPRs, workgroup id x
        rig.memory.put(self.code + 256, STORE_IDS)
        rig.memory.put(self.kernarg, (rig.mc(self.out) & 0xFFFF_FFFF, rig.mc(self.out) >> 32))
        for slot in range(SLOTS):
            rig.memory.put(self.ring.ring + slot * aql.PACKET_BYTES, (aql.HEADER_INVALID,))
        packed = aql.QUEUE.pack(
            read_dispatch_id_field_base_byte_offset=aql.QUEUE.offset("read_dispatch_id"),
            queue_inactive_signal=rig.mc(self.inactive),
        )
        rig.card.vram_view(self.queue, len(packed))[:] = packed
        report = rig.mc(self.queue) + aql.QUEUE.offset("read_dispatch_id")
        control = rig.register("CP_HQD_PQ_CONTROL").encode(
            QUEUE_SIZE=self.ring.size_dwords.bit_length() - 2, NO_UPDATE_RPTR=1, SLOT_BASED_WPTR=2
        )
        self.mqd = rig.compute_mqd(
            self.ring,
            cp_hqd_aql_control=1,
            cp_hqd_pq_control=control,
            cp_hqd_pq_rptr_report_addr_lo=report & 0xFFFF_FFFF,
            cp_hqd_pq_rptr_report_addr_hi=report >> 32,
        )
        rig.select(1, 0)
        rig.write("CP_HQD_AQL_CONTROL", 1)
        rig.activate((1, 0, 0), self.mqd)
        rig.select(1, 0)
        assert rig.read("CP_HQD_ACTIVE") == 1

    def set(self, *, rsrc2: int, properties: int) -> None:
        """The kernel's descriptor."""
        packed = aql.KERNEL_DESCRIPTOR.pack(
            kernel_code_entry_byte_offset=256,
            compute_pgm_rsrc1=0x00AC0000,
            compute_pgm_rsrc2=rsrc2,
            kernel_code_properties=properties,
        )
        self.rig.card.vram_view(self.code, len(packed))[:] = packed

    def signal(self, value: int, *, event: int = 0) -> int:
        """VRAM offset of a new signal; with ``event`` it has a mailbox behind it."""
        offset = self._signals + self._next_signal
        self._next_signal += 128
        mailbox = self.rig.mc(offset + 64) if event else 0
        packed = aql.SIGNAL.pack(kind=1, value=value, event_mailbox_ptr=mailbox, event_id=event)
        self.rig.card.vram_view(offset, len(packed))[:] = packed
        return offset

    def value(self, signal: int) -> int:
        raw = bytes(self.rig.card.vram_view(signal + aql.SIGNAL.offset("value"), 8))
        return int.from_bytes(raw, "little", signed=True)

    def set_value(self, signal: int, value: int) -> None:
        where = self.rig.card.vram_view(signal + aql.SIGNAL.offset("value"), 8)
        where[:] = value.to_bytes(8, "little", signed=True)

    def put(self, packet: bytes | bytearray, *, live: bool = True) -> int:
        """A packet into the next slot; without ``live`` its header stays invalid. Returns its VRAM offset."""
        slot = self.ring.ring + self.index % SLOTS * aql.PACKET_BYTES
        self.rig.card.vram_view(slot + 4, 60)[:] = packet[4:]
        header = packet[:4] if live else bytes((aql.HEADER_INVALID, 0, *packet[2:4]))
        self.rig.card.vram_view(slot, 4)[:] = header
        self.index += 1
        where = self.queue + aql.QUEUE.offset("write_dispatch_id")
        self.rig.card.vram_view(where, 8)[:] = self.index.to_bytes(8, "little")
        return int(slot)

    def doorbell(self) -> None:
        self.rig.card.write_doorbell(4 * DOORBELL, 8, self.index - 1)

    def submit(self, *packets: bytes | bytearray) -> None:
        for packet in packets:
            self.put(packet)
        self.doorbell()

    def dispatch(self, items: int, *, signal: int = 0, **changed: Any) -> bytearray:
        values: dict[str, Any] = {
            "header": PacketType.KERNEL_DISPATCH | SYSTEM_SCOPES,
            "setup": 1,
            "workgroup_size": (32, 1, 1),
            "grid_size": (items, 1, 1),
            "kernel_object": self.rig.mc(self.code),
            "kernarg_address": self.rig.mc(self.kernarg),
            "completion_signal": self.rig.mc(signal) if signal else 0,
        }
        return aql.KERNEL_DISPATCH.pack(**(values | changed))

    def barrier(self, kind: int, *signals: int, completion: int) -> bytearray:
        return aql.BARRIER.pack(
            header=kind | SYSTEM_SCOPES,
            dep_signal=tuple(self.rig.mc(signal) for signal in signals),
            completion_signal=self.rig.mc(completion),
        )

    def results(self, count: int) -> list[int]:
        return [self.rig.memory.word(self.out + 4 * n) for n in range(count)]

    def read_index(self) -> int:
        return int(self.rig.memory.word(self.queue + aql.QUEUE.offset("read_dispatch_id"), 8))


@pytest.fixture
def runtime(rig: Any, ring_type: Any) -> Runtime:
    return Runtime(rig, ring_type)


def test_dispatch_runs_its_kernel_and_counts_its_signal_down(runtime: Runtime) -> None:
    signal = runtime.signal(1)
    runtime.submit(runtime.dispatch(96, signal=signal))
    assert runtime.rig.wait(lambda: runtime.value(signal) == 0)
    assert runtime.results(97) == [*range(96), 0]


def test_partial_last_workgroup_runs_only_its_items(runtime: Runtime) -> None:
    signal = runtime.signal(1)
    runtime.submit(runtime.dispatch(40, signal=signal))
    assert runtime.rig.wait(lambda: runtime.value(signal) == 0)
    assert runtime.results(48) == [*range(40), *(0,) * 8]


def test_done_packet_is_invalid_and_counted_in_the_read_index(runtime: Runtime) -> None:
    slot = runtime.put(runtime.dispatch(32))
    runtime.doorbell()
    assert runtime.rig.idle()
    assert runtime.rig.memory.word(slot) & 0xFFFF == aql.HEADER_INVALID
    assert runtime.read_index() == 1


def test_queue_wraps(runtime: Runtime) -> None:
    signal = runtime.signal(3 * SLOTS)
    for _ in range(3 * SLOTS):
        runtime.submit(runtime.barrier(PacketType.BARRIER_AND, completion=signal))
        assert runtime.rig.idle()
    assert runtime.value(signal) == 0
    assert runtime.read_index() == 3 * SLOTS


def test_packet_whose_header_is_not_valid_yet_holds_the_queue(runtime: Runtime) -> None:
    signal = runtime.signal(1)
    packet = runtime.barrier(PacketType.BARRIER_AND, completion=signal)
    slot = runtime.put(packet, live=False)
    runtime.doorbell()
    time.sleep(0.02)
    assert runtime.value(signal) == 1
    runtime.rig.card.vram_view(slot, 2)[:] = packet[:2]
    assert runtime.rig.wait(lambda: runtime.value(signal) == 0)


def test_barrier_and_waits_for_all_of_its_signals(runtime: Runtime) -> None:
    first, second, done = runtime.signal(1), runtime.signal(1), runtime.signal(1)
    runtime.submit(runtime.barrier(PacketType.BARRIER_AND, first, second, completion=done))
    runtime.set_value(first, 0)
    time.sleep(0.02)
    assert runtime.value(done) == 1
    runtime.set_value(second, 0)
    assert runtime.rig.wait(lambda: runtime.value(done) == 0)


def test_barrier_or_waits_for_one_of_its_signals(runtime: Runtime) -> None:
    first, second, done = runtime.signal(1), runtime.signal(1), runtime.signal(1)
    runtime.submit(runtime.barrier(PacketType.BARRIER_OR, first, second, completion=done))
    time.sleep(0.02)
    assert runtime.value(done) == 1
    runtime.set_value(second, 0)
    assert runtime.rig.wait(lambda: runtime.value(done) == 0)


def test_barrier_value_compares_under_its_mask(runtime: Runtime) -> None:
    signal, done = runtime.signal(0x10), runtime.signal(1)
    packet = aql.BARRIER_VALUE.pack(
        header=PacketType.VENDOR_SPECIFIC,
        format=VendorFormat.BARRIER_VALUE,
        signal=runtime.rig.mc(signal),
        value=3,
        mask=0xF,
        cond=aql.SignalCondition.GREATER_EQUAL,
        completion_signal=runtime.rig.mc(done),
    )
    runtime.submit(packet)
    time.sleep(0.02)
    assert runtime.value(done) == 1
    runtime.set_value(signal, 0x14)
    assert runtime.rig.wait(lambda: runtime.value(done) == 0)


def test_vendor_packet_runs_a_pm4_buffer(runtime: Runtime) -> None:
    rig = runtime.rig
    buffer, done = rig.memory.take(), runtime.signal(1)
    body = pm4.WRITE_DATA.build(0x77, DST_SEL=pm4.MemoryTarget.MEMORY, ADDRESS=rig.mc(runtime.out))
    rig.memory.put(buffer, body)
    packet = aql.VENDOR_PM4.pack(
        header=PacketType.VENDOR_SPECIFIC,
        format=VendorFormat.PM4_INDIRECT_BUFFER,
        jump=pm4.INDIRECT_BUFFER.build(IB_BASE=rig.mc(buffer), IB_SIZE=len(body), VALID=1),
        dwords_remaining=10,
        completion_signal=rig.mc(done),
    )
    runtime.submit(packet)
    assert rig.wait(lambda: runtime.value(done) == 0)
    assert runtime.results(1) == [0x77]


def test_signal_with_an_event_fills_its_mailbox_and_interrupts(runtime: Runtime) -> None:
    rig = runtime.rig
    signal = runtime.signal(1, event=0x99)
    runtime.submit(runtime.barrier(PacketType.BARRIER_AND, completion=signal))
    assert rig.idle()
    assert rig.memory.word(signal + 64) == 0x99
    (entry,) = rig.interrupts()
    assert (entry["SOURCE_ID"], entry["DATA0"]) == (181, 0x99)


def test_time_stamps_of_a_dispatch_are_in_order(runtime: Runtime) -> None:
    signal = runtime.signal(1)
    runtime.submit(runtime.dispatch(32, signal=signal))
    assert runtime.rig.wait(lambda: runtime.value(signal) == 0)
    start, end = (runtime.rig.memory.word(signal + aql.SIGNAL.offset(name), 8) for name in ("start_ts", "end_ts"))
    assert 0 < start <= end <= runtime.rig.card.realtime()


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"workgroup_size": (1024, 2, 1)}, QueueError.DIMENSION),
        ({"grid_size": (0, 1, 1)}, QueueError.DIMENSION),
        ({"group_segment_size": 65537}, QueueError.GROUP_MEMORY),
        ({"kernel_object": 0}, QueueError.CODE),
        ({"private_segment_size": 16}, QueueError.SCRATCH_WAVE32),
        ({"header": PacketType.AGENT_DISPATCH}, QueueError.PACKET_FORMAT),
    ],
    ids=["workgroup", "grid", "group memory", "no code", "scratch", "packet type"],
)
def test_packet_that_cannot_be_started_is_reported_and_the_queue_waits(
    runtime: Runtime, changed: dict[str, Any], code: QueueError
) -> None:
    runtime.submit(runtime.dispatch(32, **changed))
    assert runtime.rig.wait(lambda: runtime.value(runtime.inactive) == code)
    assert runtime.read_index() == 0
    assert runtime.results(2) == [0, 0]


def test_dispatch_starts_once_the_runtime_has_given_it_scratch(runtime: Runtime) -> None:
    rig = runtime.rig
    signal = runtime.signal(1)
    runtime.submit(runtime.dispatch(32, signal=signal, private_segment_size=16))
    assert rig.wait(lambda: runtime.value(runtime.inactive) == QueueError.SCRATCH_WAVE32)
    tmpring = rig.register("COMPUTE_TMPRING_SIZE").encode(WAVES=32, WAVESIZE=2)
    rig.memory.put(runtime.queue + aql.QUEUE.offset("compute_tmpring_size"), (tmpring,))
    runtime.set_value(runtime.inactive, 0)
    assert rig.wait(lambda: runtime.value(signal) == 0)
    assert runtime.results(3) == [0, 1, 2]


def test_unmapped_read_index_goes_into_the_descriptor(runtime: Runtime) -> None:
    runtime.submit(runtime.dispatch(32))
    assert runtime.rig.idle()
    mec = runtime.rig.card.model(Mec)
    state = mec.queues[1, 0, 0]
    assert list(mec.unmap_queue((1, 0, 0), state, reset=False)) == []
    data = bytes(runtime.rig.card.vram_view(runtime.mqd, V11_COMPUTE_MQD.size_bytes))
    assert V11_COMPUTE_MQD.get(data, "cp_hqd_pq_rptr") == 1


def test_store_after_the_signal_of_the_last_packet_waits_for_a_flush(eager_host: Any, runtime: Runtime) -> None:
    signal = runtime.signal(1)
    eager_host.watched = signal + aql.SIGNAL.offset("value")
    runtime.submit(runtime.dispatch(32, signal=signal))
    assert eager_host.held_back()


def test_store_after_the_signal_of_an_earlier_packet_goes_through(eager_host: Any, runtime: Runtime) -> None:
    signal = runtime.signal(1)
    eager_host.watched = signal + aql.SIGNAL.offset("value")
    runtime.submit(runtime.dispatch(32, signal=signal), runtime.dispatch(32))
    assert not eager_host.held_back()
