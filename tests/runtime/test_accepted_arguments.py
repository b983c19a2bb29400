"""What the compiler knows about a kernel's arguments reaches the launch; what stops a wave reaches the user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import amdrv
from amdrv.firmware.synthetic import images_for
from amdrv.runtime.device import Device

NAME = "emu:gfx1100#172"
SOURCE = """
define amdgpu_kernel void @store(ptr addrspace(1) %out, float %f, i32 %i) {
  store float %f, ptr addrspace(1) %out
  %next = getelementptr i32, ptr addrspace(1) %out, i32 1
  store i32 %i, ptr addrspace(1) %next
  ret void
}
define amdgpu_kernel void @jump(ptr %target) {
  call void %target()
  ret void
}
"""


@pytest.fixture(scope="module")
def dev() -> Iterator[Device]:
    with amdrv.open(NAME) as device:
        yield device


def test_an_integer_given_for_a_float_becomes_that_float(dev: Device) -> None:
    out = dev.alloc(8)
    dev.load(amdrv.compile_llvm(SOURCE))["store"].launch(1, 1, (out, 2, 3))
    assert out.numpy(np.float32)[0] == 2.0
    assert out.numpy(np.int32)[1] == 3


@pytest.mark.parametrize(
    ("f", "i"), [(1.0, 1.5), (1.0, float("nan")), (np.int32(1), 1), (1.0, np.float32(1))], ids=str
)
def test_a_value_of_the_wrong_type_is_refused(dev: Device, f: object, i: object) -> None:
    kernel = dev.load(amdrv.compile_llvm(SOURCE))["store"]
    with pytest.raises(amdrv.AmdrvError, match=r"argument [12] \([fi]\) is of type (float|i32)"):
        kernel.launch(1, 1, (dev.alloc(8), f, i))


def test_illegal_instruction_shows_the_bits(dev: Device) -> None:
    garbage = dev.array(np.full(64, 0xFFFF_FFFF, np.uint32))
    dev.load(amdrv.compile_llvm(SOURCE))["jump"].launch(1, 1, (garbage,))
    with pytest.raises(amdrv.GpuFault, match=r"illegal instruction.*no instruction \(ffffffff"):
        dev.synchronize(10.0)


def test_card_whose_power_management_was_rejected_starts_again_with_good_firmware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "emu:gfx1100#173"
    image = "smu_13_0_0.bin"
    damaged = bytearray(images_for("gfx1100")[image])
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / image).write_bytes(damaged)
    monkeypatch.setenv("AMDRV_FIRMWARE", str(tmp_path))
    with pytest.raises(amdrv.FirmwareRejected, match="smu_13_0_0"):
        amdrv.open(name)
    monkeypatch.delenv("AMDRV_FIRMWARE")
    with amdrv.open(name) as device:
        assert device.boot.kind == "cold"
    with amdrv.open(name) as device:
        assert device.boot.kind == "warm"
