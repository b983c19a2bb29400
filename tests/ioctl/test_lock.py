"""Exclusive ownership between processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amdrv.errors import DeviceBusy, Refused
from amdrv.ioctl.lock import DeviceLock, describe_holder

HOLD = """
import sys
from pathlib import Path
from amdrv.ioctl.lock import DeviceLock
DeviceLock("pci:x", Path(sys.argv[1]), Path(sys.argv[2])).acquire("the other\\tprogram")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    target = tmp_path / "config"
    target.write_bytes(b"")
    return target, tmp_path / "note"


def test_another_process_is_named_and_its_death_frees_the_card(paths: tuple[Path, Path]) -> None:
    lock = DeviceLock("pci:x", *paths)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, *map(str, paths)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DeviceBusy, match=rf"pci:x is in use by pid {other.pid} \(the other program, since "):
            lock.acquire("test")
        assert not lock.held
        other.kill()
    assert paths[1].exists()  # the dead one's note is stale and in nobody's way
    lock.acquire("test")
    assert lock.held
    assert paths[1].read_text().startswith(f"{os.getpid()}\ttest\t")
    lock.release()


def test_release_removes_the_note_and_frees_the_card(paths: tuple[Path, Path]) -> None:
    first, second = DeviceLock("pci:x", *paths), DeviceLock("pci:x", *paths)
    first.acquire("first")
    first.release()
    assert not paths[1].exists()
    second.acquire("second")
    first.release()
    assert second.held
    assert paths[1].exists()
    second.release()


def test_a_note_of_a_process_that_is_gone_names_nobody(paths: tuple[Path, Path]) -> None:
    holder, second = DeviceLock("pci:x", *paths), DeviceLock("pci:x", *paths)
    holder.acquire("first")
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    paths[1].write_text(f"{gone.pid}\tgone\t2020-01-01 00:00:00")
    with pytest.raises(DeviceBusy, match="another process") as busy:
        second.acquire("second")
    assert "gone" not in busy.value.holder
    holder.release()


def test_a_folder_that_takes_no_notes_does_not_prevent_the_lock(paths: tuple[Path, Path], tmp_path: Path) -> None:
    note = tmp_path / "missing" / "note"
    lock, second = DeviceLock("pci:x", paths[0], note), DeviceLock("pci:x", paths[0], note)
    lock.acquire("first")
    with pytest.raises(DeviceBusy, match="another process"):
        second.acquire("second")
    lock.release()


def test_a_link_in_the_notes_place_is_replaced_and_not_followed(paths: tuple[Path, Path], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    paths[1].symlink_to(victim)
    lock = DeviceLock("pci:x", *paths)
    lock.acquire("test")
    assert victim.read_text() == "precious"
    lock.release()
    assert victim.read_text() == "precious"


def test_a_program_that_the_dead_owner_started_does_not_keep_the_lock(paths: tuple[Path, Path]) -> None:
    script = """
import os, subprocess, sys
from pathlib import Path
from amdrv.ioctl.lock import DeviceLock
DeviceLock("pci:x", Path(sys.argv[1]), Path(sys.argv[2])).acquire("owner")
subprocess.Popen([sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"], close_fds=False)
os._exit(0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, paths)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.wait(20) == 0
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"  # and it lives on until its input ends
        lock = DeviceLock("pci:x", *paths)
        lock.acquire("test")
        lock.release()


def test_a_forked_child_that_lets_go_leaves_the_card_to_its_parent(paths: tuple[Path, Path]) -> None:
    script = """
import os, sys
from pathlib import Path
from amdrv.errors import DeviceBusy
from amdrv.ioctl.lock import DeviceLock
paths = Path(sys.argv[1]), Path(sys.argv[2])
lock = DeviceLock("pci:x", *paths)
lock.acquire("parent")
child = os.fork()
if child == 0:
    held = lock.held
    lock.release()
    os._exit(1 if held else 0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
try:
    DeviceLock("pci:x", *paths).acquire("second")
except DeviceBusy as busy:
    print(status, lock.held, "parent" in busy.holder)
"""
    done = subprocess.run([sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, check=True)
    assert done.stdout == "0 True True\n"


def test_a_target_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="pci:x"):
        DeviceLock("pci:x", tmp_path / "config", tmp_path / "note").acquire("test")


@pytest.mark.parametrize("note", ["", "1", "x\ty\tz", "\t\t", "-1\ta\tb", "../1\ta\tb", "1\ta\tb\tc", "²\ta\tb"])
def test_what_is_no_note_names_nobody(note: str) -> None:
    assert describe_holder(note) is None


def test_control_characters_in_a_note_do_not_reach_the_terminal() -> None:
    assert describe_holder(f"{os.getpid()}\ta\x1b[2Jb\tnow") == f"pid {os.getpid()} (a[2Jb, since now)"
