"""The emulated Navi48: its discovery table as a real card's, and where its blocks differ from a Navi31's."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest

from amdrv.emulator import vbios
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.discovery_table import build
from amdrv.emulator.isa.dispatch import Access, ShaderFault
from amdrv.emulator.models.gc_12_0 import Grbm12, Mec12
from amdrv.emulator.models.gfxhub_12_0 import Gfxhub12
from amdrv.emulator.models.psp_14_0 import Psp14
from amdrv.emulator.models.psp_images import LoadedImage
from amdrv.emulator.models.psp_verify import authenticate
from amdrv.emulator.models.rlc_11_0 import Rlc
from amdrv.emulator.models.sdma_6_0 import Sdma
from amdrv.emulator.models.smu_14_0_2 import PPTABLE, Smu14
from amdrv.emulator.shell import Card
from amdrv.emulator.vm.walk import FaultReason
from amdrv.facts.firmware_auth import NAVI31_ROOT_KEYS, NAVI48_ROOT_KEYS
from amdrv.facts.psp import FwType
from amdrv.facts.smu_v14_0_2 import METRICS, Message, Result, Table
from amdrv.firmware.synthetic import make_piece

Send = Callable[[int, int], tuple[int, int]]

CHIP = CHIPS["gfx1201"]
GC_BASES = (0x1260, 0xA000, 0x1C000, 0x2402C00)
MP_BASES = (
    0x16000, 0x16200, 0x1CE00, 0xDC0000, 0xE00000, 0xE40000, 0xE80000, 0xEC0000, 0xF00000, 0x2400400, 0x243FC00,
    0x244D400, 0x3200000, 0x3240000, 0x3280000,
)  # fmt: skip
# The blocks of a Radeon RX 9070 XT in the order of its table: hardware id (Linux 6.12 soc15_hw_ip.h), instance,
# version, bases in dwords. Source: the DISCOVERY record of AMD umr's test/kat/rs_navi48_test1.txt; UVD's third base:
# another dump of the same chip.
GOLDEN = [
    (0x2E, 0, (4, 15, 1), (0x7000, 0xC00000, 0x240B800, 0x7C00000, 0x12400000)),  # DF
    (0x01, 0, (14, 0, 3), MP_BASES),  # MP1
    (0x25, 0, (5, 0, 0), (0x580, 0x2409400)),  # DFX
    (0x112, 0, (127, 127, 63), (0x4C0000, 0x2404800)),  # DAZ
    (0x31, 0, (2, 0, 0), (0x5A0, 0xB80000, 0x240C400)),  # DFX_DAP
    (0x5B, 0, (7, 0, 1), (0x11400, 0x2456800)),  # LSDMA
    (0x22, 0, (4, 1, 0), (0x1A000, 0x2408800)),  # MMHUB
    (0x24, 0, (3, 0, 0), (0x1C0, 0x2409000)),  # DBGU_NBIO
    (0x28, 0, (7, 0, 0), (0x10A0, 0x240A000)),  # OSSSYS
    (0x0C, 0, (5, 0, 0), (0x7800, 0x7E00, 0x2403000)),  # UVD
    (0x29, 0, (7, 0, 0), (0xF20, 0x240A400)),  # HDP
    (0x2B, 0, (7, 0, 1), GC_BASES),  # SDMA1
    (0x80, 0, (2, 3, 0), (0xEA0, 0x500000, 0x2420000)),  # SYSTEMHUB
    (0x04, 0, (14, 0, 2), (0x16800, 0x16A00, 0x2401000, 0x3440000)),  # SMUIO
    (0x6C, 0, (6, 3, 1), (0x0, 0x14, 0xD20, 0x10400, 0x241B000, 0x4040000)),  # NBIF
    (0x23, 0, (4, 1, 0), (0xC00, 0x2408C00)),  # ATHUB
    (0x0A, 0, (9, 0, 0), ()),  # PWR
    (0x110, 0, (127, 127, 63), (0x2404000,)),  # DIO
    (0x10F, 0, (4, 1, 0), (0x12, 0xC0, 0x34C0, 0x9000, 0x2403C00)),  # DMU
    (0x03, 0, (14, 0, 2), (0x16600, 0x2400C00)),  # THM
    (0xFF, 0, (14, 0, 3), MP_BASES),  # MP0
    (0x96, 7, (8, 14, 0), (0x1D4000, 0x700000, 0x2427400)),  # UMC
    (0x96, 5, (8, 14, 0), (0x154000, 0x680000, 0x2426C00)),
    (0x96, 3, (8, 14, 0), (0xD4000, 0x396000, 0x2426400)),
    (0x96, 1, (8, 14, 0), (0x54000, 0x316000, 0x2425C00)),
    (0x96, 6, (8, 14, 0), (0x194000, 0x6C0000, 0x2427000)),
    (0x96, 4, (8, 14, 0), (0x114000, 0x3D6000, 0x2426800)),
    (0x96, 2, (8, 14, 0), (0x94000, 0x356000, 0x2426000)),
    (0x96, 0, (8, 14, 0), (0x14000, 0x2D6000, 0x2425800)),
    (0x0B, 0, (12, 0, 1), GC_BASES),  # GC
    (0x46, 0, (6, 1, 0), (0x2411800, 0x68C0000, 0x20000000)),  # PCIE
    (0x06, 7, (14, 0, 2), (0x1B600, 0x242E400)),  # CLKA
    (0x06, 5, (14, 0, 2), (0x1B200, 0x242DC00)),
    (0x06, 3, (14, 0, 2), (0x17200, 0x2402400)),
    (0x06, 1, (14, 0, 2), (0x16E00, 0x2401C00)),
    (0x06, 8, (14, 0, 2), (0x1BC00, 0x2433C00)),
    (0x06, 6, (14, 0, 2), (0x1B400, 0x242E000)),
    (0x06, 4, (14, 0, 2), (0x1B000, 0x242D800)),
    (0x06, 2, (14, 0, 2), (0x17000, 0x2402000)),
    (0x06, 0, (14, 0, 2), (0x16C00, 0x2401800)),
    (0x05, 0, (14, 0, 2), (0x17400, 0x2401400)),  # FUSE
    (0x2A, 0, (7, 0, 1), GC_BASES),  # SDMA0
]


def make_card() -> Card:
    return Card("test", CHIP, vram_bytes=64 << 20)


@pytest.fixture
def card() -> Card:
    """Past firmware loading, as far as the graphics core goes."""
    made = make_card()
    for kind in (FwType.RS64_MEC, FwType.SDMA_UCODE_TH0):
        made.model(Psp14)._commands.images[kind] = LoadedImage(kind, kind.name, 1, 4096, bytes(32), 0)
    made.model(Rlc).autoload()
    made.sleep(0.1)
    return made


def wait(card: Card, check: Callable[[], bool], timeout_s: float = 2.0) -> bool:
    deadline_ns = card.clock.now_ns + round(timeout_s * 1e9)
    while not check():
        remaining_ns = deadline_ns - card.clock.now_ns
        if remaining_ns <= 0:
            return False
        card.relax(remaining_ns / 1e9)
    return True


def wait_wall(check: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    """For what the card's worker does, in wall time."""
    deadline_s = time.monotonic() + timeout_s
    while not check() and time.monotonic() < deadline_s:
        time.sleep(0.001)
    return check()


# -- the discovery table, read by a parser of its own (Linux 6.12 amdgpu_discovery.c) --------------------------------


def contents(binary: bytes, index: int) -> bytes:
    offset, checksum, size, _ = struct.unpack_from("<4H", binary, 12 + 8 * index)
    table = binary[offset : offset + size]
    assert sum(table) % 65536 == checksum
    return table


def test_blocks_versions_bases_and_order_are_the_real_cards() -> None:
    binary = build(CHIP)
    signature, _, _, checksum, size = struct.unpack_from("<IHHHH", binary)
    assert (signature, size, sum(binary[10:]) % 65536) == (0x28211407, len(binary), checksum)
    _, at = struct.unpack_from("<2H", contents(binary, 0), 14)
    _, count = struct.unpack_from("<2H", binary, at)
    at, found = at + 4, []
    for _ in range(count):
        hw_id, instance, bases, *version = struct.unpack_from("<H5B", binary, at)
        found.append((hw_id, instance, tuple(version), struct.unpack_from(f"<{bases}I", binary, at + 8)))
        at += 8 + 4 * bases
    assert found == GOLDEN


def test_graphics_table_describes_64_compute_units() -> None:
    words = struct.unpack_from("<30I", contents(build(CHIP), 1), 12)
    engines, wgps, arrays, gl2, gprs = words[0], words[1] + words[2], words[16], words[4], words[5]
    # GCACONFIG of the same record: 4 engines, 2 arrays, 8 compute units, 32 channels of L2, 1536 registers.
    assert (engines, arrays, 2 * wgps, gl2, gprs) == (4, 2, 8, 32, 1536)


def test_memory_is_where_a_real_card_has_it() -> None:
    made = Card("test", CHIP)
    hub = made.registers.block("MMHUB")
    assert made.read_register(hub["MMMC_VM_FB_LOCATION_BASE"].address) == 0x8000
    assert made.read_register(hub["MMMC_VM_FB_LOCATION_TOP"].address) == 0x83FB
    assert made.read_register(4 * 0xDE3) == 16320
    assert made.read_register(made.registers["GC", "GB_ADDR_CONFIG"].address) == 0x08200545


# -- blocks -----------------------------------------------------------------------------------------------------------


def test_page_walk_reads_entries_of_gfx12(card: Card) -> None:
    # umr test/vm direct_vm_test20: three directory levels, entry 8 of PDE0 a page of 2 MiB at 0x3c9800000, shrunk here
    # to what the test's memory holds: the same entries with other addresses.
    block, root = card.registers.block("GC"), 1 << 20

    def put(address: int, index: int, entry: int) -> None:
        card.vram_view(address + 8 * index, 8)[:] = entry.to_bytes(8, "little")

    put(root, 0x100, root + 0x1000 | 1)
    put(root + 0x1000, 0, root + 0x2000 | 1)
    put(root + 0x2000, 8, 0x8000_0000_0000_04F1 | 2 << 20)
    for name, value in (
        ("CNTL", 0x3FFFC07),
        ("PAGE_TABLE_BASE_ADDR_LO32", root | 1),
        ("PAGE_TABLE_END_ADDR_LO32", 0xFFFF_FFFF),
        ("PAGE_TABLE_END_ADDR_HI32", 0xF),
    ):
        card.write_register(block[f"GCVM_CONTEXT2_{name}"].address, value)
    hub = card.model(Gfxhub12)
    context = hub.context(2)
    assert (context.depth, context.block_bits) == (3, 9)
    found = hub.look(2, 0x8000_0100_0900)
    assert 0x8000_0100_0900 + found.delta == 0x20_0900
    assert found.allowed == (True, True, True)


def test_contexts_come_out_of_reset_as_the_real_card_shows_them(card: Card) -> None:
    # umr test/vm direct_vm_test19: 0x3fffc01 is the reset value with the context enabled.
    address = card.registers["GC", "GCVM_CONTEXT0_CNTL"].address
    assert card.read_register(address) == 0x3FFFC00


def test_fault_shows_in_the_low_status_register_with_its_client(card: Card) -> None:
    card.model(Gfxhub12).report_fault(3, 0x1234_5000, Access.WRITE, FaultReason.PAGE, 8)
    register = card.registers["GC", "GCVM_L2_PROTECTION_FAULT_STATUS_LO32"]
    status = register.decode(card.read_register(register.address))
    assert (status.CID, status.RW, status.VMID, status.MAPPING_ERROR) == (8, 1, 3, 1)


def test_halted_wave_shows_in_the_registers_of_gfx12(card: Card) -> None:
    # gc_12_0_0_sh_mask.h: HALT is bit 14 of STATE_PRIV, ILLEGAL_INST bit 6 and MEMVIOL bit 4 of EXCP_FLAG_PRIV.
    block = card.registers.block("GC")

    def wave_register(index: int) -> int:
        card.write_register(block["SQ_IND_INDEX"].address, block["SQ_IND_INDEX"].encode(INDEX=index))
        return card.read_register(block["SQ_IND_DATA"].address)

    card.model(Grbm12).show_halted(ShaderFault("illegal instruction", "", pc=0x12_3456_7800))
    assert wave_register(0x102) >> 13 & 1 == 0
    assert wave_register(0x104) == 1 << 14
    assert wave_register(0x111) == 1 << 6
    assert wave_register(0x140) | wave_register(0x141) << 32 == 0x12_3456_7800
    card.model(Grbm12).show_halted(ShaderFault("memory violation", "", pc=0))
    assert wave_register(0x111) == 1 << 4


def test_compute_engine_has_two_pipes(card: Card) -> None:
    # Linux 6.12 gfx_v12_0_sw_init: num_pipe_per_mec = 2
    block = card.registers.block("GC")
    card.write_register(block["GRBM_GFX_CNTL"].address, block["GRBM_GFX_CNTL"].encode(MEID=1))
    card.write_register(block["CP_MEC_RS64_PRGRM_CNTR_START"].address, 0x1000)
    card.write_register(block["CP_MEC_RS64_CNTL"].address, block["CP_MEC_RS64_CNTL"].encode(MEC_PIPE0_ACTIVE=1))
    mec = card.model(Mec12)
    assert [pipe for pipe in range(4) if mec._exists((1, pipe, 0))] == [0, 1]
    assert "CP_ME1_PIPE2_INT_CNTL" not in block


def test_copy_engines_are_two_blocks_behind_one_range_of_doorbells(card: Card) -> None:
    engines = card.models(Sdma)
    assert [(engine.ip, engine.instance, engine.number) for engine in engines] == [("SDMA0", 0, 0), ("SDMA1", 0, 1)]
    assert [engine.doorbell_block for engine in engines] == ["SDMA0", "SDMA0"]
    assert [engine.fault_client for engine in engines] == [13, 14]  # gfxhub_v12_0.c: gfxhub_client_ids
    assert card.registers.block("SDMA1")["SDMA1_QUEUE0_RB_CNTL"].address == 4 * (0x1260 + 0x680)


def test_second_copy_engine_runs_its_ring_and_writes_its_fence(card: Card) -> None:
    # As Linux 6.12 sdma_v7_0_gfx_resume sets queue 0 up; addresses are of VRAM in VMID 0.
    block = card.registers.block("SDMA1")
    ring, fence = CHIP.fb_base + (1 << 20), CHIP.fb_base + (2 << 20)

    def write(name: str, value: int) -> None:
        card.write_register(block[f"SDMA1_{name}"].address, value)

    write("MCU_CNTL", 0)
    write("QUEUE0_RB_BASE", ring >> 8 & 0xFFFF_FFFF)
    write("QUEUE0_RB_BASE_HI", ring >> 40)
    control = block["SDMA1_QUEUE0_RB_CNTL"].encode(RB_ENABLE=1, RB_SIZE=8, RB_PRIV=1)
    write("QUEUE0_RB_CNTL", control)
    packet = (5, fence & 0xFFFF_FFFF, fence >> 32, 0x4E41_5649)  # sdma_v6_0_0_pkt_open.h: SDMA_OP_FENCE
    card.vram_view(1 << 20, 16)[:] = struct.pack("<4I", *packet)
    write("QUEUE0_RB_WPTR", 16)
    assert wait_wall(lambda: not card.worker.busy)
    assert bytes(card.vram_view(2 << 20, 4)) == b"IVAN"
    assert card.read_register(block["SDMA1_QUEUE0_RB_RPTR"].address) == 16


# -- PSP --------------------------------------------------------------------------------------------------------------


def test_trusted_memory_is_there_when_the_boot_rom_is_done() -> None:
    made = make_card()
    made.reset_chip(0.1)
    assert made.trusted_memory is None
    assert wait(made, lambda: made.trusted_memory is not None)
    assert made.trusted_memory is not None
    assert len(made.trusted_memory) == CHIP.tmr_bytes
    assert made.trusted_memory.stop <= made.vram_bytes - (64 << 10)
    assert made.read_mc(CHIP.fb_base + made.trusted_memory.start, 4) is None


def test_video_bios_has_drivers_leave_trusted_memory_alone() -> None:
    """Linux 6.12 amdgpu_atomfirmware_get_fw_reserved_fb_size: the end of VRAM, by table 4 of the data tables."""
    image = vbios.build(CHIP)
    at = 0x48
    for step in (0, 0x20, 4 + 2 * 4):
        at = int.from_bytes(image[at + step : at + step + 2], "little")
    assert image[at + 2 : at + 4] == bytes((3, 4))
    reserved_bytes = int.from_bytes(image[at + 84 : at + 88], "little") << 10
    made = make_card()
    assert wait(made, lambda: made.trusted_memory is not None)
    assert made.trusted_memory is not None
    assert made.vram_bytes - reserved_bytes <= made.trusted_memory.start


@pytest.mark.parametrize("kind", ["RLC_P", "RLC_V"])
def test_autoload_does_not_ask_for_images_that_the_chip_has_not(kind: str) -> None:
    assert FwType[kind] not in Psp14.needed_for_autoload
    assert FwType.RLC_G in Psp14.needed_for_autoload


def test_key_database_of_another_chip_is_not_trusted() -> None:
    foreign = {key.key_id for key in NAVI31_ROOT_KEYS if key.modulus is None}
    assert foreign
    assert foreign.isdisjoint(key.key_id for key in NAVI48_ROOT_KEYS)
    piece = authenticate(make_piece("KDB"), ("KDB",), frozenset({0x4F}), {}, NAVI48_ROOT_KEYS, ())
    assert piece.key_id == b"amdrv-synth-root"


# -- SMU --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def smu(card: Card) -> Send:
    """Sends a message to running power firmware: (response, argument register)."""
    card.model(Smu14).firmware_loaded(LoadedImage(FwType.SMU, "SMU", 0x685000, 4096, bytes(32), 0))
    card.sleep(0.1)
    block = card.registers.block("MP1")
    address = {number: block[f"MP1_SMN_C2PMSG_{number}"].address for number in (66, 82, 90)}

    def send(message: int, argument: int = 0) -> tuple[int, int]:
        card.write_register(address[90], 0)
        card.write_register(address[82], argument)
        card.write_register(address[66], message)
        wait(card, lambda: card.read_register(address[90]) != 0)
        return card.read_register(address[90]), card.read_register(address[82])

    return send


def test_power_firmware_tells_its_own_interface_version(smu: Send) -> None:
    assert smu(Message.GetSmuVersion, 0) == (Result.OK, 0x685000)
    assert smu(Message.GetDriverIfVersion, 0) == (Result.OK, 0x2E)  # smu_v14_0.h


def test_messages_of_the_other_version_are_unknown_or_something_else(smu: Send) -> None:
    assert smu(0x2F, 0)[0] == Result.UnknownCmd  # 13.0.0: Mode1Reset
    assert smu(0x4D, 5) == (Result.OK, 5)  # AllowIHHostInterrupt here; 13.0.0: SetBadMemoryPagesRetiredFlags
    assert smu(0x58, 0)[0] == Result.Failed  # known, not modelled
    assert smu(0x59, 0)[0] == Result.UnknownCmd


def test_tables_have_the_layout_of_this_version(card: Card, smu: Send) -> None:
    smu(Message.SetDriverDramAddrHigh, CHIP.fb_base >> 32)
    smu(Message.SetDriverDramAddrLow, 1 << 20)
    assert smu(Message.TransferTableSmu2Dram, Table.SMU_METRICS)[0] == Result.OK
    metrics = METRICS.unpack(bytes(card.vram_view(1 << 20, METRICS.size_bytes)))
    assert (metrics["PcieRate"], metrics["dGPU_W_MAX"]) == (5, 304)
    assert smu(Message.TransferTableSmu2Dram, Table.COMBO_PPTABLE)[0] == Result.OK
    head = bytes(card.vram_view(1 << 20, 24))
    size, revision = struct.unpack_from("<HB", head)
    start, table_bytes = struct.unpack_from("<2H", head, 6)
    assert (revision, start + table_bytes, table_bytes) == (23, size, PPTABLE.size_bytes)  # smu_v14_0_2_pptable.h
    table = bytes(card.vram_view((1 << 20) + start, table_bytes))
    assert PPTABLE.get_array(table, "FreqTableUclk")[:4] == (96, 456, 772, 1258)
    assert struct.unpack_from("<2H", table, 2632) == (304, 304)  # SkuTable.MsgLimits.Power: what may be set
