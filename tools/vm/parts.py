"""What the virtual machine is made of, kept in a folder: QEMU, a kernel, programs for the guest, firmware."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from packages import Archive, Unavailable

ROOT = Path(__file__).resolve().parents[2]
QEMU_SUITE = "trixie-backports"
OLDEST_QEMU = (10, 1)  # the first with vfio-user-pci
KERNEL = "6.12"
KERNEL_SUITES = {"6.1": "bookworm", KERNEL: "trixie", "7.2": "forky", "newest": "trixie-backports"}
# The programs of the guest: the first ROCr of Debian's that knows the chip.
GUEST_SUITES = {"gfx1100": "trixie", "gfx1201": "forky"}
GUEST_PACKAGES = ("rocminfo", "libhsa-runtime64-1", "python3-minimal", "libpython3-stdlib")
KERNEL_PACKAGE = re.compile(r"linux-[a-z]+-\d")
LOADER = "usr/lib64/ld-linux-x86-64.so.2"


@dataclass(frozen=True, slots=True)
class Parts:
    """Folders with unpacked packages."""

    qemu: Path
    kernel: Path
    guest: Path
    busybox: Path
    firmware: Path

    @property
    def vmlinuz(self) -> Path:
        """The kernel's image."""
        return next(self.kernel.rglob("vmlinuz*"))

    def qemu_command(self) -> list[str]:
        """QEMU with the libraries that it came with, whatever this machine's are."""
        libraries = self.qemu / "usr" / "lib" / "x86_64-linux-gnu"
        return [
            str(self.qemu / LOADER),
            "--library-path",
            f"{libraries}:{libraries / 'pulseaudio'}",
            str(self.qemu / "usr/bin/qemu-system-x86_64"),
            *("-L", str(self.qemu / "usr/share/qemu"), "-L", str(self.qemu / "usr/share/seabios")),
        ]


def default_folder() -> Path:
    """Where parts are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amdrv" / "vm"


def gather(folder: Path, arch: str, kernel: str = KERNEL, *, fetch: bool = True) -> Parts:
    """Everything for a chip, fetched as far as it is not in ``folder`` already. Raises Unavailable."""
    if os.uname().machine != "x86_64":
        raise Unavailable(f"this machine is a {os.uname().machine}; the guest's packages are for x86_64")
    guest_suite = GUEST_SUITES[arch]
    parts = Parts(
        *(folder / "qemu", folder / f"kernel-{kernel}", folder / f"guest-{guest_suite}", folder / "busybox"),
        _firmware(folder, fetch),
    )
    # Part → the suite that it comes from.
    suites = {
        parts.qemu: QEMU_SUITE,
        parts.kernel: KERNEL_SUITES[kernel],
        parts.guest: guest_suite,
        parts.busybox: "trixie",
    }
    missing = {part: suite for part, suite in suites.items() if not part.exists()}
    if missing and not fetch:
        raise Unavailable(f"{next(iter(missing))} is not there; tools/vm/boot fetches it")
    if missing:
        _fetch(parts, missing, folder / "apt")
    _check_qemu(parts)
    return parts


def _fetch(parts: Parts, missing: dict[Path, str], state: Path) -> None:
    # The stable suite is there for what backports depend on.
    archive = Archive(state, {"trixie", *missing.values()})
    for part, suite in missing.items():
        print(f"fetching {part.name}", flush=True)
        unfinished = part.with_name(part.name + ".part")
        if part == parts.qemu:
            archive.unpack(["qemu-system-x86"], unfinished, suite=suite)
        elif part == parts.kernel:
            archive.unpack(_kernel_packages(archive, suite), unfinished, suite=suite, depends=False)
        elif part == parts.guest:
            archive.unpack(GUEST_PACKAGES, unfinished, suite=suite)
        else:
            archive.unpack(["busybox-static"], unfinished, suite=suite, depends=False)
        unfinished.rename(part)


def _kernel_packages(archive: Archive, suite: str) -> list[str]:
    """The packages of one kernel version: one or, from 7 on, one each for image and modules."""
    found, pending = [], ["linux-image-amd64"]
    while pending:
        package = pending.pop()
        pending += [
            name for name in archive.dependencies(package, suite) if KERNEL_PACKAGE.match(name) and name not in found
        ]
        if KERNEL_PACKAGE.match(package) and package not in found:
            found.append(package)
    return found


def _firmware(folder: Path, fetch: bool) -> Path:
    """A folder with ``amdgpu/`` in it: the one that the tests' own script keeps."""
    place = folder.parent / "firmware"
    said = "no firmware; tools/fetch_firmware fetches it"
    if fetch:
        said = subprocess.run([ROOT / "tools" / "fetch_firmware", place], capture_output=True, text=True).stdout.strip()
    if not (place / "amdgpu").is_dir():
        raise Unavailable(said)
    return place


def _check_qemu(parts: Parts) -> None:
    done = subprocess.run([*parts.qemu_command(), "--version"], capture_output=True, text=True)
    found = re.search(r"version (\d+)\.(\d+)", done.stdout)
    if found is None:
        raise Unavailable(f"QEMU does not start: {done.stderr.strip()}")
    if (int(found[1]), int(found[2])) < OLDEST_QEMU:
        raise Unavailable(f"QEMU {found[1]}.{found[2]} has no vfio-user-pci; 10.1 is the first that has")
