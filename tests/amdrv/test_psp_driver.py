"""Contract of the security processor's driver: what is written in which order, and what its answers mean."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from amdrv.blocks.psp import BOOTLOADER_COMMANDS, Psp
from amdrv.errors import FirmwareRejected, Timeout, Unsupported
from amdrv.facts.psp import COMMAND_BUFFER, LOAD_IP_FW, LOAD_TOC, RING_FRAME, SETUP_TMR, Command
from amdrv.memory.layout import PSP_COMMAND, PSP_FENCE, PSP_MESSAGE, PSP_RING, TMR

FB_START = 0x80_0000_0000
READY = 0x8000_0000


@dataclass
class Piece:
    stage: str
    name: str
    fw_type: int | None
    data: memoryview
    image: str = "image.bin"


class Caches:
    def __init__(self) -> None:
        self.flushes = 0

    def flush_hdp(self) -> None:
        self.flushes += 1


def piece(stage: str, name: str, fw_type: int | None = None, data: bytes = b"") -> Piece:
    return Piece(stage, name, fw_type, memoryview(data or name.encode() * 20))


class Script:
    """A security processor that does what it is told, and can be told to fail."""

    def __init__(self, function, registers, vram) -> None:
        self.regs = {n: registers["MP0", f"MP0_SMN_C2PMSG_{n}"] for n in (35, 36, 64, 67, 69, 70, 71, 81)}
        self.vram = vram
        self.loaded: list[tuple[int, int, bytes]] = []  # bootloader command, address, message
        self.commands: list[tuple[int, bytes, bytes]] = []  # id, body, message
        self.status: dict[int, int] = {}  # answer to the nth command
        self.bootloader_error = 0
        self.answers = True
        self.tmr_size = 0x130_0000
        function.registers[self.regs[35].address] = READY
        function.registers[self.regs[64].address] = READY
        function.on_write[self.regs[35].address] = self.bootloader
        function.on_write[self.regs[64].address] = lambda _: function.registers.update({self.regs[64].address: READY})
        function.on_write[self.regs[67].address] = self.frame
        self.function = function

    def bootloader(self, command: int) -> None:
        address = self.function.registers[self.regs[36].address] << 20
        self.loaded.append((command, address, self.vram.read(address - FB_START, 300)))
        self.function.registers[self.regs[35].address] = READY | self.bootloader_error
        if command == BOOTLOADER_COMMANDS["SOS"] and not self.bootloader_error:
            self.function.registers[self.regs[81].address] = 1

    def frame(self, wptr: int) -> None:
        if not self.answers:
            return
        start = (wptr - 16) % (PSP_RING.size_bytes // 4) * 4
        frame = self.vram.read(PSP_RING.offset + start, 64)
        command_address = RING_FRAME.get(frame, "cmd_buf_addr_hi") << 32 | RING_FRAME.get(frame, "cmd_buf_addr_lo")
        fence_address = RING_FRAME.get(frame, "fence_addr_hi") << 32 | RING_FRAME.get(frame, "fence_addr_lo")
        assert (command_address, fence_address) == (FB_START + PSP_COMMAND.offset, FB_START + PSP_FENCE.offset)
        buffer = bytearray(self.vram.read(PSP_COMMAND.offset, 1024))
        self.commands.append(
            (COMMAND_BUFFER.get(buffer, "cmd_id"), bytes(buffer[28:864]), self.vram.read(PSP_MESSAGE.offset, 300))
        )
        buffer[864:868] = self.status.get(len(self.commands) - 1, 0).to_bytes(4, "little")
        buffer[880:884] = self.tmr_size.to_bytes(4, "little")
        self.vram.write(PSP_COMMAND.offset, buffer)
        self.vram.write(PSP_FENCE.offset, frame[20:24])


PLAN = [
    piece("bootloader", "KDB"),
    piece("bootloader", "SPL"),
    piece("bootloader", "SYS_DRV"),
    piece("bootloader", "SOS"),
    piece("toc", "TOC", 24),
    piece("before_tmr", "SMU", 18),
    piece("after_tmr", "RS64_MEC", 89),
    piece("after_tmr", "RLC_G", 8),
]


@pytest.fixture
def caches() -> Caches:
    return Caches()


@pytest.fixture
def script(function, registers, vram) -> Script:
    return Script(function, registers, vram)


@pytest.fixture
def psp(mmio, vram, caches, script) -> Psp:
    return Psp(mmio, vram, caches, FB_START, 0)


# Order: Linux 6.12 amdgpu_psp.c: psp_hw_start, psp_load_non_psp_fw.
def test_whole_load_goes_in_the_kernels_order(psp: Psp, script: Script) -> None:
    psp.load(PLAN)
    assert [command for command, _, _ in script.loaded] == [0x80000, 0x10000000, 0x10000, 0x20000]
    assert [command for command, _, _ in script.commands] == [
        Command.LOAD_TOC,
        Command.LOAD_IP_FW,
        Command.SETUP_TMR,
        Command.LOAD_IP_FW,
        Command.LOAD_IP_FW,
        Command.AUTOLOAD_RLC,
    ]
    types = [LOAD_IP_FW.get(body, "fw_type") for command, body, _ in script.commands if command == Command.LOAD_IP_FW]
    assert types == [18, 89, 8]


def test_bootloader_finds_each_image_at_the_address_it_is_given(psp: Psp, script: Script) -> None:
    psp.load(PLAN)
    for (_, address, message), stage in zip(script.loaded, PLAN, strict=False):
        assert address == FB_START + PSP_MESSAGE.offset
        assert message[: len(stage.data)] == bytes(stage.data)


def test_every_command_names_its_message_and_its_size(psp: Psp, script: Script) -> None:
    psp.load(PLAN)
    toc, smu = script.commands[0], script.commands[1]
    assert LOAD_TOC.get(toc[1], "toc_size") == len(PLAN[4].data)
    assert toc[2].startswith(bytes(PLAN[4].data))
    assert LOAD_IP_FW.get(smu[1], "fw_size") == len(PLAN[5].data)
    assert LOAD_IP_FW.get(smu[1], "fw_phy_addr_hi") == 0x80
    assert smu[2].startswith(bytes(PLAN[5].data))


def test_trusted_region_is_as_large_as_the_table_of_contents_asks(psp: Psp, script: Script) -> None:
    script.tmr_size = 0x120_0001
    psp.load(PLAN)
    body = script.commands[2][1]
    assert SETUP_TMR.get(body, "buf_size") == 0x130_0000 == psp.tmr_bytes
    assert SETUP_TMR.get(body, "buf_phy_addr_lo") == TMR.offset
    assert SETUP_TMR.get(body, "system_phy_addr_lo") == TMR.offset
    assert SETUP_TMR.get(body, "tmr_flags") == 2


@pytest.mark.parametrize("size", [0, TMR.size_bytes + 1])
def test_trusted_region_that_cannot_be_is_refused_before_it_is_set_up(psp: Psp, script: Script, size: int) -> None:
    script.tmr_size = size
    with pytest.raises(Unsupported):
        psp.load(PLAN)
    assert Command.SETUP_TMR not in [command for command, _, _ in script.commands]


# Linux 6.12 psp_v13_0.c: psp_v13_0_ring_create
def test_ring_is_described_before_it_is_created(psp: Psp, script: Script, function) -> None:
    psp.start_sos(PLAN[:4])
    function.log.clear()
    psp.create_ring()
    regs = script.regs
    assert function.order(*(regs[n] for n in (64, 69, 70, 71))) == [f"MP0_SMN_C2PMSG_{n}" for n in (69, 70, 71, 64)]
    assert function.writes(regs[64]) == [2 << 16]
    assert function.writes(regs[71]) == [PSP_RING.size_bytes]
    assert function.writes(regs[70]) == [0x80]


def test_delays_are_the_two_that_the_kernel_knows(psp: Psp, function) -> None:
    psp.load(PLAN)
    assert function.sleeps == [0.020, 0.020]


def test_refused_firmware_is_named_with_its_status(psp: Psp, script: Script) -> None:
    script.status[3] = 0x11
    with pytest.raises(FirmwareRejected) as caught:
        psp.load(PLAN)
    assert caught.value.status == 0x11
    assert "RS64_MEC of image.bin" in str(caught.value)
    assert len(script.commands) == 4


def test_refused_bootloader_image_is_named_with_its_error(psp: Psp, script: Script) -> None:
    script.bootloader_error = 0x1F
    with pytest.raises(FirmwareRejected, match=r"KDB of image\.bin: status 0x1f"):
        psp.load(PLAN)
    assert len(script.loaded) == 1


def test_refused_secure_os_is_told_from_one_that_hangs(psp: Psp, script: Script) -> None:
    script.bootloader_error = 0x22
    with pytest.raises(FirmwareRejected, match="the secure OS: status 0x22"):
        psp.start_sos(PLAN[3:4])


def test_secure_os_that_never_shows_life_is_a_named_timeout(psp: Psp, script: Script, function) -> None:
    function.on_read[script.regs[81].address] = lambda: 0
    with pytest.raises(Timeout, match="secure OS to start"):
        psp.start_sos(PLAN[3:4])


def test_silent_bootloader_is_a_named_timeout(psp: Psp, script: Script, function) -> None:
    function.registers[script.regs[35].address] = 0
    with pytest.raises(Timeout) as caught:
        psp.load(PLAN)
    assert "bootloader" in caught.value.what and "C2PMSG_35" in caught.value.what
    assert (caught.value.expected, caught.value.last) == (READY, 0)


def test_silent_secure_os_is_a_named_timeout(psp: Psp, script: Script) -> None:
    script.answers = False
    with pytest.raises(Timeout, match=r"LOAD_TOC \(TOC of image\.bin\)"):
        psp.load(PLAN)


def test_ring_wraps_around(psp: Psp, script: Script) -> None:
    psp.start_sos(PLAN[:4])
    psp.create_ring()
    frames = PSP_RING.size_bytes // 64
    for _ in range(frames + 2):
        psp.autoload_rlc()
    assert len(script.commands) == frames + 2


def test_writes_reach_memory_before_the_processor_is_told(psp: Psp, script: Script, function, caches: Caches) -> None:
    flushes: list[int] = []
    inner = function.on_write[script.regs[67].address]
    function.on_write[script.regs[67].address] = lambda value: (flushes.append(caches.flushes), inner(value))
    psp.start_sos(PLAN[:4])
    psp.create_ring()
    before = caches.flushes
    psp.autoload_rlc()
    assert flushes == [before + 1]


def test_image_larger_than_the_message_buffer_is_refused(psp: Psp) -> None:
    with pytest.raises(Unsupported, match="takes 0x100000"):
        psp.start_sos([piece("bootloader", "KDB", data=bytes(PSP_MESSAGE.size_bytes + 1))])
