"""``amdrv emulate`` and its clients, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

AMDRV = (sys.executable, "-c", "import sys; from amdrv.cli import main; sys.exit(main())")

OPEN = """
import json, sys
import numpy as np
import amdrv
IR = '''
declare i32 @llvm.amdgcn.workitem.id.x()
define amdgpu_kernel void @triple(ptr addrspace(1) %values) {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %at = getelementptr i32, ptr addrspace(1) %values, i32 %i
  %value = load i32, ptr addrspace(1) %at
  %tripled = mul i32 %value, 3
  store i32 %tripled, ptr addrspace(1) %at
  ret void
}
'''
with amdrv.open(sys.argv[1]) as device:
    values = device.array(np.arange(64, dtype=np.int32))
    device.load(amdrv.compile_llvm(IR))["triple"].launch(grid=1, block=64, args=(values,))
    right = bool((values.numpy(np.int32) == 3 * np.arange(64)).all())
    boot = device.boot
    print(json.dumps({"kind": boot.kind, "reads": boot.reads, "writes": boot.writes, "right": right}))
"""

HOLD = """
import sys, time
from amdrv.ioctl import connect
function = connect(sys.argv[1])
function.acquire("the holder")
function.alloc_dma(4096)
function.write_config(4, 2, 6)
function.read_config(4, 2)
print("held", flush=True)
time.sleep(60)
"""


def environment(path: Path) -> dict[str, str]:
    return {**os.environ, "AMDRV_DEVICE": f"emu:{path}"}


def amdrv(path: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AMDRV, *arguments], env=environment(path), cwd=cwd, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    path = tmp_path / "card"
    options = getattr(request, "param", ())
    command = [*AMDRV, "emulate", "--arch", "gfx1100", "--socket", str(path), "--vram", "2048", *options]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.is_socket(), process.communicate()
    yield process, path
    process.kill()
    process.communicate()


def test_first_process_boots_the_card_and_the_second_finds_it_warm(server, tmp_path: Path) -> None:
    process, path = server
    reports = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", OPEN, f"emu:{path}"], cwd=tmp_path, capture_output=True, text=True, timeout=100,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout))
    assert [report["kind"] for report in reports] == ["cold", "warm"]
    assert all(report["right"] for report in reports)
    assert reports[1]["reads"] < reports[0]["reads"]
    status = json.loads(amdrv(path, "status", "--json", cwd=tmp_path).stdout)
    states = {device["name"]: device["state"] for device in status["devices"]}
    assert states[f"emu:{path}"] == "warm"
    assert status["default_device"] == f"emu:{path}"
    process.send_signal(signal.SIGTERM)
    output, log = process.communicate(timeout=20)
    assert (process.returncode, output, path.exists()) == (0, "", False)
    assert "listens at" in log


def test_holder_is_named_and_its_death_frees_the_card(server, tmp_path: Path) -> None:
    _, path = server
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, f"emu:{path}"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        status = json.loads(amdrv(path, "status", "--json", cwd=tmp_path).stdout)
        (entry,) = (device for device in status["devices"] if device["name"] == f"emu:{path}")
        assert entry["holder"].startswith(f"pid {holder.pid} (the holder, since")
        assert (entry["usable"], entry["pci"]["device"]) == (False, "744c")
        refused = amdrv(path, "reset", cwd=tmp_path)
        assert (refused.returncode, f"pid {holder.pid}" in refused.stderr) == (1, True)
    finally:
        holder.kill()
        holder.wait()
    assert amdrv(path, "reset", "--level", "function", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("server", [("--fault", "client-dies=100", "--relaxed")], indirect=True)
def test_client_that_dies_in_the_middle_of_a_boot_leaves_a_card_that_boots(server, tmp_path: Path) -> None:
    _, path = server
    command = [sys.executable, "-c", OPEN, f"emu:{path}"]
    done = [
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
        for _ in range(2)
    ]
    assert done[0].returncode == -signal.SIGKILL
    assert done[1].returncode == 0, done[1].stderr
    assert json.loads(done[1].stdout)["right"]


@pytest.mark.parametrize("options", [("--arch", "gfx9"), ("--fault", "earthquake"), ("--bar0", "100"), ("--vram", "1")])
def test_server_that_cannot_be_says_why_in_one_line(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = tmp_path / "card"
    done = amdrv(path, "emulate", "--socket", str(path), *options, cwd=tmp_path)
    assert (done.returncode in (1, 2), len(done.stderr.splitlines()), path.exists()) == (True, 1, False)


def test_demo_runs_on_a_served_card(server, tmp_path: Path) -> None:
    _, path = server
    done = amdrv(path, "demo", "--size", "small", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["device"] == f"emu:{path}"


def test_killed_server_is_a_lost_device_to_its_client(server) -> None:
    from amdrv.errors import DeviceLost
    from amdrv.ioctl import connect

    process, path = server
    function = connect(f"emu:{path}")
    process.kill()
    process.wait()
    with pytest.raises(DeviceLost):
        function.read32(5, 0x378C)
    function.release()


def test_registers_are_reached_thousands_of_times_a_second_and_bar0_at_memory_speed(server) -> None:
    from amdrv.ioctl import connect

    _, path = server
    function = connect(f"emu:{path}")
    accesses = 3000
    started = time.perf_counter()
    for _ in range(accesses // 2):
        function.write32(5, 0x130, 1)
        function.read32(5, 0x130)
    rate = accesses / (time.perf_counter() - started)
    data = bytes(64 << 20)
    function.write_memory(0, 0, data)  # the first touch of each page costs more
    started = time.perf_counter()
    function.write_memory(0, 0, data)
    speed = len(data) / (time.perf_counter() - started)
    function.release()
    assert rate > 5_000  # 30,000 and more on a machine that has nothing else to do
    assert speed > 500e6
