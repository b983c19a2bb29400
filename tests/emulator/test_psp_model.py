"""The PSP model, driven through its mailboxes and its ring as a driver does, with the synthetic firmware set."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import pytest

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.emulator.models.psp_commands import NEEDED_FOR_AUTOLOAD
from amdrv.emulator.models.psp_status import BootloaderError, Status
from amdrv.emulator.models.rlc_11_0 import Rlc
from amdrv.emulator.models.smu_13_0_0 import Smu
from amdrv.emulator.shell import Card
from amdrv.errors import NotFound
from amdrv.facts.layout import StructLayout
from amdrv.facts.psp import (
    COMMAND_BUFFER,
    LOAD_IP_FW,
    LOAD_TA,
    LOAD_TOC,
    REG_PROG,
    RESPONSE,
    RING_FRAME,
    SETUP_TMR,
    UNLOAD_TA,
    BootloaderCommand,
    Command,
    ControlCommand,
    FwType,
)
from amdrv.firmware import FirmwareSet, resolve, search_places
from amdrv.firmware.store import DISTRIBUTION_FOLDERS
from amdrv.firmware.synthetic import images_for, make_piece

VRAM_BYTES = 256 << 20
FB_BASE = 0x80_0000_0000
# VRAM offsets of what the test driver keeps there.
STAGING, RING, COMMAND, FENCE, TMR = 1 << 20, 2 << 20, (2 << 20) + 0x10000, (2 << 20) + 0x20000, 16 << 20
RING_BYTES = 0x1000
TMR_BYTES = 0x1300000
READY = 0x8000_0000
BOOT_ORDER = (
    (BootloaderCommand.LOAD_KEY_DATABASE, "KDB"),
    (BootloaderCommand.LOAD_TOS_SPL_TABLE, "KDB"),
    (BootloaderCommand.LOAD_SYSDRV, "SYS_DRV"),
    (BootloaderCommand.LOAD_SOSDRV, "SOS"),
)


@dataclass
class Host:
    """The least that a driver does to talk to a PSP."""

    card: Card
    fence: int = 0

    def read(self, number: int) -> int:
        return self.card.read_register(self.card.registers.block("MP0")[f"MP0_SMN_C2PMSG_{number}"].address)

    def write(self, number: int, value: int) -> None:
        self.card.write_register(self.card.registers.block("MP0")[f"MP0_SMN_C2PMSG_{number}"].address, value)

    def put(self, offset: int, data: bytes) -> None:
        self.card.vram_view(offset, len(data))[:] = data

    def wait(self, check: Callable[[], bool], timeout_s: float = 1.0) -> bool:
        deadline_ns = self.card.clock.now_ns + round(timeout_s * 1e9)
        while not check():
            remaining_ns = deadline_ns - self.card.clock.now_ns
            if remaining_ns <= 0:
                return False
            self.card.relax(remaining_ns / 1e9)
        return True

    def bootloader(self, command: int, data: bytes) -> int:
        """Hand a piece to the bootloader; what the mailbox shows once its ready bit is set."""
        self.put(STAGING, bytes(1 << 20))
        self.put(STAGING, data)
        self.write(36, (FB_BASE + STAGING) >> 20)
        self.write(35, command)
        self.wait(lambda: bool(self.read(35) & READY))
        return self.read(35)

    def start_sos(self) -> None:
        for command, name in BOOT_ORDER[:-1]:
            assert self.bootloader(command, make_piece(name)) == READY
        self.put(STAGING, make_piece("SOS", version=0x360012))
        self.write(36, (FB_BASE + STAGING) >> 20)
        self.write(35, BootloaderCommand.LOAD_SOSDRV)
        assert self.wait(lambda: bool(self.read(64) & READY))

    def control(self, command: int) -> int:
        self.write(64, command)
        self.wait(lambda: bool(self.read(64) & READY))
        return self.read(64)

    def create_ring(self, size_bytes: int = RING_BYTES) -> int:
        address = FB_BASE + RING
        self.write(69, address & 0xFFFF_FFFF)
        self.write(70, address >> 32)
        self.write(71, size_bytes)
        return self.control(ControlCommand.INIT_GPCOM_RING)

    def submit(self, command: int, arguments: bytes = b"", address: int = FB_BASE + COMMAND) -> dict[str, int]:
        """Run one ring command; every member of its response."""
        buffer = COMMAND_BUFFER.pack(buf_size=1024, buf_version=1, cmd_id=command)
        buffer[28 : 28 + len(arguments)] = arguments
        self.put(COMMAND, bytes(buffer))
        self.fence += 1
        fence_address = FB_BASE + FENCE
        frame = RING_FRAME.pack(
            cmd_buf_addr_lo=address & 0xFFFF_FFFF,
            cmd_buf_addr_hi=address >> 32,
            fence_addr_lo=fence_address & 0xFFFF_FFFF,
            fence_addr_hi=fence_address >> 32,
            fence_value=self.fence,
        )
        wptr = self.read(67)
        self.put(RING + wptr * 4, bytes(frame))
        self.write(67, (wptr + 16) % (RING_BYTES // 4))
        done = self.wait(lambda: int.from_bytes(self.card.vram_view(FENCE, 4), "little") == self.fence)
        assert done, "the ring does not answer"
        response = bytes(self.card.vram_view(COMMAND + 864, RESPONSE.size_bytes))
        return {name: RESPONSE.get(response, name) for name in RESPONSE.members}

    def load(self, fw_type: FwType, data: bytes, size_bytes: int | None = None) -> dict[str, int]:
        self.put(STAGING, data)
        size = len(data) if size_bytes is None else size_bytes
        return self.submit(Command.LOAD_IP_FW, _at(LOAD_IP_FW, "fw_phy_addr", fw_size=size, fw_type=fw_type))

    def load_toc(self) -> dict[str, int]:
        data = make_piece("TOC")
        self.put(STAGING, data)
        return self.submit(Command.LOAD_TOC, _at(LOAD_TOC, "toc_phy_addr", toc_size=len(data)))

    def setup_tmr(self, address: int = FB_BASE + TMR, size_bytes: int = TMR_BYTES) -> dict[str, int]:
        arguments = SETUP_TMR.pack(
            buf_phy_addr_lo=address & 0xFFFF_FFFF,
            buf_phy_addr_hi=address >> 32,
            buf_size=size_bytes,
            tmr_flags=2,
            system_phy_addr_lo=address - FB_BASE & 0xFFFF_FFFF,
        )
        return self.submit(Command.SETUP_TMR, bytes(arguments))


def _at(layout: StructLayout, name: str, **values: int) -> bytes:
    address = FB_BASE + STAGING
    return bytes(layout.pack(**{f"{name}_lo": address & 0xFFFF_FFFF, f"{name}_hi": address >> 32}, **values))


def flipped(data: bytes, offset: int) -> bytes:
    """``data`` with one bit of the byte at ``offset`` turned over."""
    return data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :]


@pytest.fixture
def host() -> Host:
    return Host(Card("test", CHIPS["gfx1100"], vram_bytes=VRAM_BYTES))


@pytest.fixture
def sos(host: Host) -> Host:
    host.start_sos()
    assert host.create_ring() & 0x8000_FFFF == READY
    return host


@pytest.fixture
def trusted(sos: Host) -> Host:
    """Trusted memory is set up."""
    assert sos.load_toc()["status"] == Status.SUCCESS
    assert sos.setup_tmr()["status"] == Status.SUCCESS
    return sos


# -- bootloader -------------------------------------------------------------------------------------------------------


def test_boot_firmware_is_done_and_the_bootloader_ready_at_power_on(host: Host) -> None:
    assert host.read(33) & READY
    assert host.read(35) == READY
    assert host.read(81) == 0


def test_sign_of_life_is_zero_until_the_sos_runs_and_then_changes(host: Host) -> None:
    for command, name in BOOT_ORDER[:-1]:
        host.bootloader(command, make_piece(name))
        assert host.read(81) == 0
    started_ns = host.card.clock.now_ns
    host.put(STAGING, make_piece("SOS", version=0x360012))
    host.write(35, BootloaderCommand.LOAD_SOSDRV)
    assert host.wait(lambda: host.read(81) != 0)
    first = host.read(81)
    assert host.wait(lambda: bool(host.read(64) & READY))
    assert host.read(81) != first
    assert host.read(58) == 0x360012
    assert host.card.clock.now_ns - started_ns == pytest.approx(108e6, rel=0.01)


@pytest.mark.parametrize(("command", "name"), BOOT_ORDER[1:])
def test_stage_without_its_predecessors_is_out_of_order(host: Host, command: int, name: str) -> None:
    assert host.bootloader(command, make_piece(name)) == READY | BootloaderError.OUT_OF_ORDER


def test_unknown_bootloader_command_has_its_own_error(host: Host) -> None:
    assert host.bootloader(0x12340000, make_piece("KDB")) == READY | BootloaderError.UNKNOWN_COMMAND


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (flipped(make_piece("KDB"), 0x300), BootloaderError.BAD_SIGNATURE),
        (flipped(make_piece("KDB"), len(make_piece("KDB")) - 1), BootloaderError.BAD_SIGNATURE),
        (make_piece("SOS"), BootloaderError.WRONG_TYPE),
        (make_piece("KDB")[:0x200], BootloaderError.BAD_SIGNATURE),  # the rest of the buffer reads as zeros
        (bytes(0x1000), BootloaderError.MALFORMED),
        (make_piece("RS64_MEC", type_id=0x4F), BootloaderError.UNKNOWN_KEY),
    ],
    ids=["flipped body", "flipped signature", "other piece", "cut off", "zeros", "foreign key"],
)
def test_wrong_key_database_is_refused_with_a_distinct_error(host: Host, data: bytes, error: BootloaderError) -> None:
    assert host.bootloader(BootloaderCommand.LOAD_KEY_DATABASE, data) == READY | error
    assert host.bootloader(BootloaderCommand.LOAD_KEY_DATABASE, make_piece("KDB")) == READY


def test_damaged_sos_never_shows_a_sign_of_life(host: Host) -> None:
    for command, name in BOOT_ORDER[:-1]:
        host.bootloader(command, make_piece(name))
    answer = host.bootloader(BootloaderCommand.LOAD_SOSDRV, flipped(make_piece("SOS"), 0x400))
    assert answer == READY | BootloaderError.BAD_SIGNATURE
    host.card.sleep(1.0)
    assert host.read(81) == 0


def test_image_outside_memory_is_unreadable(host: Host) -> None:
    host.write(36, 0x7000)
    host.write(35, BootloaderCommand.LOAD_KEY_DATABASE)
    host.wait(lambda: bool(host.read(35) & READY))
    assert host.read(35) == READY | BootloaderError.UNREADABLE


def map_system_memory(card: Card, va: int, bus_address: int, pages: int) -> None:
    """A flat table for VMID 0 of the MMHUB: ``pages`` 4 KiB pages of system memory at ``va``."""
    table = 8 << 20
    for page in range(pages):
        entry = bus_address + page * 4096 | 0x67  # valid, system, snooped, readable, writeable
        card.vram_view(table + 8 * page, 8)[:] = entry.to_bytes(8, "little")
    last = va + pages * 4096 - 1
    values = {
        "BASE_ADDR_LO32": table | 1,
        "START_ADDR_LO32": va >> 12,
        "END_ADDR_LO32": last >> 12,
    }
    hub = card.registers.block("MMHUB")
    for name, value in values.items():
        card.write_register(hub[f"MMVM_CONTEXT0_PAGE_TABLE_{name}"].address, value)
    card.write_register(hub["MMVM_CONTEXT0_CNTL"].address, hub["MMVM_CONTEXT0_CNTL"].encode(ENABLE_CONTEXT=1))


@pytest.mark.parametrize(("bus_master", "answer"), [(False, READY | BootloaderError.UNREADABLE), (True, READY)])
def test_image_in_system_memory_needs_bus_mastering(host: Host, bus_master: bool, answer: int) -> None:
    data = make_piece("KDB")
    bus_address = host.card.arena.allocate_system(1 << 20)
    host.card.arena.view(host.card.arena.bus_index(bus_address, len(data)), len(data))[:] = data
    map_system_memory(host.card, 0x1000_0000, bus_address, 256)
    host.card.write_config(4, 2, 0x6 if bus_master else 0x2)
    host.write(36, 0x1000_0000 >> 20)
    host.write(35, BootloaderCommand.LOAD_KEY_DATABASE)
    host.wait(lambda: bool(host.read(35) & READY))
    assert host.read(35) == answer


# -- ring -------------------------------------------------------------------------------------------------------------


def test_ring_create_and_destroy_answer_with_the_command_and_a_zero_status(sos: Host) -> None:
    assert sos.read(64) == 0x8002_0000
    assert sos.control(ControlCommand.DESTROY_RINGS) == 0x8003_0000
    assert sos.create_ring() == 0x8002_0000


def test_second_ring_is_refused(sos: Host) -> None:
    assert sos.create_ring() == 0x8002_0000 | Status.ACCESS_CONFLICT & 0xFFFF


def test_ring_of_no_whole_frames_is_refused(host: Host) -> None:
    host.start_sos()
    assert host.create_ring(size_bytes=100) & 0xFFFF == Status.BAD_PARAMETERS & 0xFFFF


def test_ring_wraps(sos: Host) -> None:
    frames = RING_BYTES // RING_FRAME.size_bytes
    for _ in range(frames + 3):
        assert sos.submit(0x7F)["status"] == Status.UNKNOWN_COMMAND
    assert sos.read(67) == 3 * 16


def test_frames_that_wait_together_are_all_answered_in_order(sos: Host) -> None:
    for index in range(3):
        frame = RING_FRAME.pack(
            cmd_buf_addr_lo=COMMAND,
            cmd_buf_addr_hi=FB_BASE >> 32,
            fence_addr_lo=FENCE + 4 * index,
            fence_addr_hi=FB_BASE >> 32,
            fence_value=7,
        )
        sos.put(RING + 64 * index, bytes(frame))
    sos.write(67, 48)
    sos.wait(lambda: bytes(sos.card.vram_view(FENCE, 12)) == (7).to_bytes(4, "little") * 3)
    assert bytes(sos.card.vram_view(FENCE, 12)) == (7).to_bytes(4, "little") * 3


def test_known_command_that_is_not_modelled_is_not_supported(sos: Host) -> None:
    assert sos.submit(Command.GET_FW_ATTESTATION)["status"] == Status.NOT_SUPPORTED


def test_command_buffer_that_does_not_translate_stops_the_ring(sos: Host) -> None:
    with pytest.raises(AssertionError, match="does not answer"):
        sos.submit(Command.LOAD_TOC, address=0x1234_0000_0000)


# -- trusted memory and firmware --------------------------------------------------------------------------------------


def test_toc_tells_the_size_of_trusted_memory(sos: Host) -> None:
    response = sos.load_toc()
    assert (response["status"], response["tmr_size"]) == (0, TMR_BYTES)


def test_trusted_memory_before_the_toc_is_refused(sos: Host) -> None:
    assert sos.setup_tmr()["status"] == Status.BAD_STATE


@pytest.mark.parametrize(
    ("address", "size_bytes", "status"),
    [
        (FB_BASE + TMR + 0x1000, TMR_BYTES, Status.BAD_PARAMETERS),
        (FB_BASE + VRAM_BYTES - (1 << 20), TMR_BYTES, Status.BAD_PARAMETERS),
        (FB_BASE + TMR, TMR_BYTES - 1, Status.SHORT_BUFFER),
    ],
    ids=["not aligned", "beyond VRAM", "too small"],
)
def test_bad_trusted_memory_is_refused(sos: Host, address: int, size_bytes: int, status: Status) -> None:
    sos.load_toc()
    assert sos.setup_tmr(address, size_bytes)["status"] == status


def test_graphics_firmware_before_trusted_memory_is_refused_but_the_smus_is_taken(sos: Host) -> None:
    assert sos.load(FwType.RS64_MEC, make_piece("RS64_MEC"))["status"] == Status.BAD_STATE
    assert sos.load(FwType.SMU, make_piece("SMU"))["status"] == Status.SUCCESS


def test_accepted_image_is_known_by_type_version_and_place(trusted: Host) -> None:
    data = make_piece("RS64_MEC", version=0x1F7)
    response = trusted.load(FwType.RS64_MEC, data + bytes(512))  # padding behind the signature is not looked at
    image = trusted.card.model(Psp).loaded(FwType.RS64_MEC)
    assert response["status"] == Status.SUCCESS
    assert image is not None
    assert (image.name, image.version, image.size_bytes) == ("RS64_MEC", 0x1F7, len(data))
    address = response["fw_addr_hi"] << 32 | response["fw_addr_lo"]
    assert FB_BASE + TMR <= address < FB_BASE + TMR + TMR_BYTES
    assert trusted.card.read_mc(address, 64) is None  # nobody but the PSP reaches it there


@pytest.mark.parametrize(
    ("data", "size_bytes", "status"),
    [
        (flipped(make_piece("RS64_MEC"), 0x180), None, Status.SIGNATURE_INVALID),
        (flipped(make_piece("RS64_MEC"), 0x60), None, Status.SIGNATURE_INVALID),
        (make_piece("RS64_MEC"), len(make_piece("RS64_MEC")) - 1, Status.SHORT_BUFFER),
        (make_piece("RS64_MEC"), 0x80, Status.SHORT_BUFFER),
        (make_piece("RS64_MEC"), 0, Status.ACCESS_DENIED),
        (make_piece("RS64_PFP"), None, Status.BAD_PARAMETERS),
        (bytes(0x1000), None, Status.BAD_FORMAT),
    ],
    ids=["flipped body", "flipped header", "truncated", "no header", "no size", "other engine", "zeros"],
)
def test_wrong_image_is_refused_with_a_distinct_status_and_not_loaded(
    trusted: Host, data: bytes, size_bytes: int | None, status: Status
) -> None:
    assert trusted.load(FwType.RS64_MEC, data, size_bytes)["status"] == status
    assert trusted.card.model(Psp).loaded(FwType.RS64_MEC) is None


def test_image_signed_with_a_key_that_no_database_lists_is_refused(trusted: Host) -> None:
    data = make_piece("RS64_MEC")
    assert trusted.load(FwType.RS64_MEC, flipped(data, 0x38))["status"] == Status.SECURITY


def test_unknown_firmware_type_is_refused(trusted: Host) -> None:
    assert trusted.load(FwType.VPE, make_piece("RS64_MEC"))["status"] == Status.ITEM_NOT_FOUND


def test_loading_an_image_twice_conflicts_and_the_register_list_is_cancelled(trusted: Host) -> None:
    assert trusted.load(FwType.IMU_I, make_piece("IMU_I"))["status"] == Status.SUCCESS
    assert trusted.load(FwType.IMU_I, make_piece("IMU_I"))["status"] == Status.ACCESS_CONFLICT
    assert trusted.load(FwType.REG_LIST, make_piece("REG_LIST"))["status"] == Status.SUCCESS
    assert trusted.load(FwType.REG_LIST, make_piece("REG_LIST"))["status"] == Status.CANCEL


@pytest.mark.parametrize("missing", NEEDED_FOR_AUTOLOAD)
def test_autoload_needs_every_image(trusted: Host, missing: FwType) -> None:
    for fw_type in NEEDED_FOR_AUTOLOAD:
        if fw_type != missing:
            assert trusted.load(fw_type, make_piece(fw_type.name))["status"] == Status.SUCCESS
    assert trusted.submit(Command.AUTOLOAD_RLC)["status"] == Status.ITEM_NOT_FOUND
    trusted.card.sleep(0.2)
    assert not trusted.card.model(Rlc).booted


def test_autoload_of_a_complete_set_boots_the_graphics_core_later(trusted: Host) -> None:
    for fw_type in NEEDED_FOR_AUTOLOAD:
        trusted.load(fw_type, make_piece(fw_type.name))
    assert trusted.submit(Command.AUTOLOAD_RLC)["status"] == Status.SUCCESS
    assert not trusted.card.model(Rlc).booted
    trusted.card.sleep(0.1)
    assert trusted.card.model(Rlc).booted
    assert trusted.submit(Command.AUTOLOAD_RLC)["status"] == Status.BAD_STATE


def test_destroying_trusted_memory_forgets_its_images(trusted: Host) -> None:
    trusted.load(FwType.SMU, make_piece("SMU"))
    trusted.load(FwType.IMU_I, make_piece("IMU_I"))
    assert trusted.submit(Command.DESTROY_TMR)["status"] == Status.SUCCESS
    psp = trusted.card.model(Psp)
    assert psp.loaded(FwType.IMU_I) is None
    assert psp.loaded(FwType.SMU) is not None
    assert trusted.submit(Command.DESTROY_TMR)["status"] == Status.BAD_STATE


def test_bigger_images_take_longer(trusted: Host) -> None:
    def seconds(fw_type: FwType, padding: int) -> float:
        started_ns = trusted.card.clock.now_ns
        trusted.load(fw_type, make_piece(fw_type.name) + bytes(padding))
        return (trusted.card.clock.now_ns - started_ns) / 1e9

    assert seconds(FwType.RS64_PFP, 1 << 19) > seconds(FwType.RS64_ME, 0) + 0.005


@pytest.fixture(params=["synthetic", "genuine"])
def firmware(request: pytest.FixtureRequest) -> FirmwareSet:
    """A complete set in load order."""
    if request.param == "synthetic":
        places = search_places(images_for("gfx1100"), environment={}, folders=())
        return resolve(CHIPS["gfx1100"].versions, places=places)
    chosen = os.environ.get("AMDRV_FIRMWARE")
    folders = [Path(chosen), Path(chosen, "amdgpu")] if chosen else []
    folders += [platformdirs.user_cache_path("amdrv") / "firmware" / "amdgpu", *DISTRIBUTION_FOLDERS]
    places = search_places(environment={}, folders=folders)
    try:
        return resolve(CHIPS["gfx1100"].versions, places=places)
    except NotFound:
        pytest.skip("no genuine firmware on this machine; ./tools/fetch_firmware fetches it")


def test_complete_set_loads_and_boots(host: Host, firmware: FirmwareSet) -> None:
    """Every stage in Linux's order; the loads between trusted memory and autoload take about as long as on boards."""
    commands = {
        "KDB": BootloaderCommand.LOAD_KEY_DATABASE,
        "SPL": BootloaderCommand.LOAD_TOS_SPL_TABLE,
        "SYS_DRV": BootloaderCommand.LOAD_SYSDRV,
    }
    trusted_ns = 0
    for load in firmware.loads:
        data = bytes(load.data)
        if load.name == "SOS":
            host.put(STAGING, data)
            host.write(35, BootloaderCommand.LOAD_SOSDRV)
            assert host.wait(lambda: bool(host.read(64) & READY))
            host.create_ring()
        elif load.stage == "bootloader":
            assert host.bootloader(commands[load.name], data) == READY, load.name
        elif load.stage == "toc":
            host.put(STAGING, data)
            arguments = _at(LOAD_TOC, "toc_phy_addr", toc_size=len(data))
            assert host.submit(Command.LOAD_TOC, arguments)["status"] == Status.SUCCESS
        elif load.stage == "asd":
            host.put(STAGING, data)
            opened = host.submit(Command.LOAD_ASD, _at(LOAD_TA, "app_phy_addr", app_len=len(data)))
            assert opened["status"] == Status.SUCCESS
        else:
            if load.stage == "after_tmr" and not trusted_ns:
                trusted_ns = host.card.clock.now_ns
                assert host.setup_tmr()["status"] == Status.SUCCESS
            assert load.fw_type is not None
            assert host.load(load.fw_type, data)["status"] == Status.SUCCESS, load.name
            image = host.card.model(Psp).loaded(load.fw_type)
            assert image is not None
            if load.name == "RLC_G":
                assert host.submit(Command.AUTOLOAD_RLC)["status"] == Status.SUCCESS
    assert 0.08 < (host.card.clock.now_ns - trusted_ns) / 1e9 < 0.2
    assert host.card.model(Rlc).booted


# -- trusted applications and the rest --------------------------------------------------------------------------------


def test_trusted_applications_have_sessions(sos: Host) -> None:
    data = make_piece("ASD")
    sos.put(STAGING, data)
    opened = sos.submit(Command.LOAD_ASD, _at(LOAD_TA, "app_phy_addr", app_len=len(data)))
    assert opened["status"] == Status.SUCCESS
    session = bytes(UNLOAD_TA.pack(session_id=opened["session_id"]))
    assert sos.submit(Command.INVOKE_CMD, session)["status"] == Status.NOT_IMPLEMENTED
    assert sos.submit(Command.UNLOAD_TA, session)["status"] == Status.SUCCESS
    assert sos.submit(Command.UNLOAD_TA, session)["status"] == Status.ITEM_NOT_FOUND


def test_registers_can_be_programmed_through_the_psp(sos: Host) -> None:
    assert sos.submit(Command.PROG_REG, bytes(REG_PROG.pack(reg_id=0, reg_value=0x21)))["status"] == Status.SUCCESS
    assert sos.card.read_register(sos.card.registers.block("OSSSYS")["IH_RB_CNTL"].address) == 0x21
    assert sos.submit(Command.PROG_REG, bytes(REG_PROG.pack(reg_id=9)))["status"] == Status.ITEM_NOT_FOUND


def test_smu_runs_only_after_its_image_was_accepted(sos: Host) -> None:
    smu = sos.card.model(Smu)
    sos.load(FwType.SMU, flipped(make_piece("SMU"), 0x200))
    sos.card.sleep(0.1)
    assert smu.firmware is None
    sos.load(FwType.SMU, make_piece("SMU"))
    sos.card.sleep(0.1)
    assert smu.firmware is not None


def test_mode1_reset_through_the_psp_loses_everything_and_boots_again(trusted: Host) -> None:
    trusted.put(0, b"lost")
    trusted.control(ControlCommand.MODE1_RST)
    trusted.card.sleep(0.05)
    assert trusted.read(81) == 0xFFFF_FFFF
    assert trusted.wait(lambda: trusted.read(33) == READY)
    assert trusted.read(81) == 0
    assert bytes(trusted.card.vram_view(0, 4)) == bytes(4)
    assert trusted.card.model(Psp).loaded(FwType.SMU) is None
    trusted.start_sos()


def test_unresponsive_psp_never_becomes_ready(host: Host) -> None:
    host.card.faults.unresponsive.add("MP0")
    host.put(STAGING, make_piece("KDB"))
    host.write(36, (FB_BASE + STAGING) >> 20)
    host.write(35, BootloaderCommand.LOAD_KEY_DATABASE)
    host.card.sleep(1.0)
    host.card.faults.unresponsive.clear()
    assert host.card.model(Psp).loaded(FwType.SMU) is None
    assert host.read(35) == READY  # the command was lost, not queued
