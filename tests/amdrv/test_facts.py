"""Hardware facts checked against values that real drivers and cards use."""

from __future__ import annotations

import pytest

from amdrv.facts import discovery, doorbells, ih, mailboxes, pci, psp, smu_v13_0_0, vm
from amdrv.facts.hw_ids import HwId
from amdrv.facts.pte import DIRECTORY_ADDRESS, GFX11, GFX12, EntryFormat, Mtype
from amdrv.registers import RegisterMap, decode_fields

MP = (0x16000, 0xDC0000, 0xE00000, 0xE40000, 0x243FC00)
NAVI31 = RegisterMap({"MP0": {0: MP}, "MP1": {0: MP}}, {"MP0": (13, 0, 0), "MP1": (13, 0, 0)})


@pytest.mark.parametrize(
    ("layout", "entry", "set_flags", "address", "mtype"),
    [
        # raven-ml/raven rig.amd.pci tests: a gfx11 uncached page, a gfx11 1 GiB page, a gfx12 page
        (GFX11, 0x0003_0000_0000_3071, {"valid", "executable", "readable", "writeable"}, 0x3000, Mtype.UC),
        (GFX11, 0x0040_0000_4000_0071, {"valid", "executable", "readable", "writeable", "is_pte"}, 0x4000_0000, 0),
        (GFX12, 0x8000_0000_0000_1071, {"valid", "executable", "readable", "writeable", "is_pte"}, 0x1000, 0),
        # umr direct_vm_test19, a gfx1201: an uncached system page
        (
            GFX12,
            0x80C0_0001_4900_1073,
            {"valid", "system", "executable", "readable", "writeable", "is_pte"},
            0x1_4900_1000,
            3,
        ),
    ],
)
def test_page_table_entries_of_real_cards_decode(
    layout: EntryFormat, entry: int, set_flags: set[str], address: int, mtype: int
) -> None:
    flags = {name for name in layout._fields if getattr(getattr(layout, name), "width", 0) == 1}
    assert {name for name in flags if getattr(layout, name).get(entry)} == set_flags
    assert entry & layout.address.mask == address
    assert layout.mtype.get(entry) == mtype


def test_a_leaf_says_how_far_its_translation_reaches() -> None:
    # raven-ml/raven rig.amd.pci tests: gfx12, 2 MiB system page
    assert GFX12.fragment.get(0x8000_0000_0020_04F7) == 9


def test_a_directory_says_how_large_the_pages_below_are() -> None:
    # umr direct_vm_test20: 4 KiB << 9 at a gfx1201's lowest directory
    entry = 0x8000_0003_C980_04F1
    assert GFX12.is_pte.get(entry) == 1
    assert GFX12.block_fragment_size.get(9 << 58) == 9
    assert GFX11.block_fragment_size.get(9 << 59) == 9  # amdgpu_vm.h: AMDGPU_PDE_BFS


def test_a_directory_address_may_be_aligned_to_64_bytes() -> None:
    # gmc_v11_0.c: gmc_v11_0_get_vm_pde allows bits 47:6
    assert DIRECTORY_ADDRESS.mask == 0x0000_FFFF_FFFF_FFC0


def test_interrupt_entries_decode_as_the_kernel_decodes_them() -> None:
    # amdgpu_ih.c: amdgpu_ih_decode_iv_helper
    entry = ih.ENTRY.decode([0x83B5040A, 0x11111111, 0x80002222, 0x00018001, 0xA, 0xB, 0xC, 0xD])
    assert (entry["CLIENT_ID"], entry["SOURCE_ID"]) == (ih.Client.GFX, 4)
    assert (entry["RING_ID"], entry["VMID"], entry["VMID_SOURCE"]) == (0xB5, 3, 1)
    assert (entry["TIMESTAMP"], entry["TIMESTAMP_SOURCE"]) == (0x222211111111, 1)
    assert (entry["PASID"], entry["NODE_ID"]) == (0x8001, 1)
    assert [entry[f"DATA{i}"] for i in range(4)] == [0xA, 0xB, 0xC, 0xD]


def test_page_faults_decode_as_the_kernel_decodes_them() -> None:
    # gmc_v11_0.c: address from 32 + 4 bits of page number, bit 5 of the second word write, bit 7 retry
    data = 0x12345678 | (0x9 | 0x20) << 32
    fault = decode_fields(ih.PAGE_FAULT_DATA, data)
    assert fault["PAGE"] << 12 == 0x9_1234_5678_000
    assert (fault["WRITE"], fault["RETRY"]) == (1, 0)
    assert decode_fields(ih.PAGE_FAULT_DATA, 0x80 << 32)["RETRY"] == 1


def test_shader_errors_decode_as_the_kernel_decodes_them() -> None:
    # kfd_int_process_v11.c: SQ_INTERRUPT_WORD_ERROR_CTXID*
    error = decode_fields(ih.SQ_ERROR_DATA, 0x1F | 1 << 21 | 5 << 27 | (2 | 6 << 2 | 2 << 6) << 32)
    assert (error["DETAIL"], error["TYPE"]) == (0x1F, ih.SqError.ILLEGAL_INSTRUCTION)
    assert (error["WAVE_ID"], error["SIMD_ID"], error["WGP_ID"]) == (5, 2, 6)
    assert error["ENCODING"] == ih.SqEncoding.ERROR


def test_interrupt_sources_are_those_seen_from_a_running_card() -> None:
    # an end of pipe arrives as client 0x14 source 181, an SDMA trap as client 0x0a source 49
    assert (ih.Client.GRBM_CP, ih.GfxSource.CP_EOP_INTERRUPT) == (0x14, 181)
    assert (ih.Client.GFX, ih.GfxSource.SDMA_TRAP) == (0x0A, 49)
    assert (ih.Client.VMC, ih.VmcSource.VM_FAULT, ih.GfxSource.UTCL2_FAULT) == (0x12, 0, 0)


def test_doorbells_are_at_the_dwords_that_the_kernel_rings() -> None:
    assert doorbells.Doorbell.MES_RING0 * 2 == 0x16
    assert doorbells.Doorbell.MES_RING1 * 2 == 0x18
    assert doorbells.Doorbell.SDMA_ENGINE0 * 2 == 0x200
    assert doorbells.Doorbell.SDMA_ENGINE1 * 2 == 0x214


@pytest.mark.parametrize("mailbox", mailboxes.PspMailbox)
def test_every_psp_mailbox_is_a_register(mailbox: mailboxes.PspMailbox) -> None:
    assert NAVI31.mp0[mailboxes.PSP_REGISTER.format(mailbox.value)].dword == 0x16040 + mailbox


@pytest.mark.parametrize("mailbox", mailboxes.SmuMailbox)
def test_every_smu_mailbox_is_a_register(mailbox: mailboxes.SmuMailbox) -> None:
    # smu_v13_0_0_ppt.c gives these offsets itself: 0x282 is mailbox 66
    assert NAVI31.mp1[mailboxes.SMU_REGISTER.format(mailbox.value)].dword == 0x16000 + 0x282 - 66 + mailbox


def test_psp_numbers_are_those_a_driver_sends() -> None:
    stage = psp.BootloaderCommand
    assert (stage.LOAD_KEY_DATABASE, stage.LOAD_TOS_SPL_TABLE, stage.LOAD_SOSDRV) == (0x80000, 0x10000000, 0x20000)
    assert psp.RingType.KM << 16 == psp.ControlCommand.INIT_GPCOM_RING
    assert (psp.Command.SETUP_TMR, psp.Command.LOAD_IP_FW, psp.Command.AUTOLOAD_RLC) == (5, 6, 0x21)
    assert (psp.FwType.RS64_MEC, psp.FwType.IMU_I, psp.FwType.SDMA_UCODE_TH0) == (89, 68, 71)
    assert psp.TeeError.ERROR_NOT_SUPPORTED in mailboxes.PSP_STATUS


def test_smu_numbers_are_those_a_driver_sends() -> None:
    message = smu_v13_0_0.Message
    assert (message.GetSmuVersion, message.GetDriverIfVersion, message.EnableAllSmuFeatures) == (2, 3, 6)
    assert (message.SetDriverDramAddrHigh, message.TransferTableSmu2Dram, message.Mode1Reset) == (0xE, 0x12, 0x2F)
    result = smu_v13_0_0.Result
    assert (result.OK, result.Failed, result.UnknownCmd) == (1, 0xFF, 0xFE)
    assert (result.CmdRejectedPrereq, result.CmdRejectedBusy) == (0xFD, 0xFC)
    assert (smu_v13_0_0.Table.SMU_METRICS, smu_v13_0_0.Version.SMU13_0_0_DRIVER_IF) == (5, 0x3D)


@pytest.mark.parametrize(
    ("hub", "client", "write", "name"),
    [
        ("GC", 8, False, "TCP"),
        ("GC", 13, True, "SDMA0"),
        ("GC", 40, False, "client 40"),
        ("MMHUB", 52, False, "VCN0"),
        ("MMHUB", 20, True, "VCN0"),
        ("MMHUB", 15, True, "OSSSYS"),
        ("MMHUB", 15, False, "client 15"),
    ],
)
def test_fault_clients_have_the_hub_names(hub: str, client: int, write: bool, name: str) -> None:
    version = {"GC": (11, 0, 0), "MMHUB": (3, 0, 0)}[hub]
    assert vm.HUB_CLIENTS[hub, version].name(client, write=write) == name


def test_discovery_facts_are_those_of_the_kernel() -> None:
    assert discovery.IP_DISCOVERY_SIGNATURE.to_bytes(4, "little") == b"IPDS"
    assert discovery.HARVEST_SIGNATURE.to_bytes(4, "little") == b"HARV"
    assert discovery.EarlyRegister.RCC_CONFIG_MEMSIZE * 4 == 0x378C
    assert discovery.EarlyRegister.MP0_SMN_C2PMSG_33 * 4 == 0x58184
    assert (HwId.GC, HwId.MMHUB, HwId.OSSSYS, HwId.NBIF, HwId.MP0, HwId.MP1) == (11, 34, 40, 108, 255, 1)


def test_remapped_flush_registers_are_in_the_last_page_below_512_kib() -> None:
    # a gfx1100 driver writes byte 0x7f000 of BAR5 to flush HDP
    assert pci.REMAP_HDP_MEM_FLUSH == 0x7F000
    assert pci.REMAP_HDP_REG_FLUSH == 0x7F004
