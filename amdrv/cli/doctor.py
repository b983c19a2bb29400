"""``amdrv doctor``: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import click

from amdrv.cli import inventory
from amdrv.cli.inventory import Entry
from amdrv.cli.output import Json, console, print_json, show, table, version
from amdrv.errors import AmdrvError
from amdrv.firmware import needs_for, search_places
from amdrv.firmware.report import image_rows
from amdrv.firmware.store import ENVIRONMENT_VARIABLE
from amdrv.runtime.selection import DEVICE_VARIABLE

Level = Literal["ok", "note", "bad"]

LOCKDOWN = Path("kernel/security/lockdown")
VFIO = Path("/dev/vfio/vfio")
TEST_ITEMS = 64
TEST_KERNEL = """
declare i32 @llvm.amdgcn.workitem.id.x()
define amdgpu_kernel void @triple(ptr addrspace(1) %values) {
  %item = call i32 @llvm.amdgcn.workitem.id.x()
  %at = getelementptr i32, ptr addrspace(1) %values, i32 %item
  %value = load i32, ptr addrspace(1) %at
  %result = mul i32 %value, 3
  store i32 %result, ptr addrspace(1) %at
  ret void
}
"""


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: Level
    subject: str
    text: str
    hint: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--sysfs-root", type=click.Path(path_type=Path), default=Path("/sys"), hidden=True)
@click.pass_context
def command(ctx: click.Context, as_json: bool, sysfs_root: Path) -> None:
    """Check what this machine has and what is missing; status 1 when something does not work.

    Real cards are not touched. The emulated card is booted and computes a little.
    """
    findings = list(examine(sysfs_root))
    healthy = all(finding.level != "bad" for finding in findings)
    if as_json:
        rows: list[Json] = [finding._asdict() for finding in findings]
        print_json({"ok": healthy, "findings": rows})
    else:
        out = console()
        made = table(out, ("", "what", "found"))
        for finding in findings:
            made.add_row(finding.level, finding.subject, finding.text + (f"; {finding.hint}" if finding.hint else ""))
        show(out, made)
    if not healthy:
        ctx.exit(1)


def examine(sysfs: Path) -> Iterator[Finding]:
    """Every check, cheap ones first."""
    yield Finding("ok", "amdrv", f"{version()} on Python {platform.python_version()}, {platform.platform(terse=True)}")
    yield from _packages()
    yield from _environment()
    entries = inventory.take(sysfs).entries
    real = [entry for entry in entries if not entry.emulated]
    if not real:
        yield Finding("note", "real cards", "none on the PCI bus", "the emulated card is used instead")
    for entry in real:
        yield from _real_card(entry, sysfs)
    for entry in entries:
        if entry.emulated:
            yield _installed_firmware(entry, needed=bool(real))
            yield _computes(entry.found.name)


def _packages() -> Iterator[Finding]:
    found, missing = [], []
    for requirement in metadata.requires("amdrv") or []:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("ok", "packages", ", ".join(found))
    if missing:
        yield Finding("bad", "packages", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")


def _environment() -> Iterator[Finding]:
    from amdrv.ioctl import connect

    name = os.environ.get(DEVICE_VARIABLE)
    if name:
        try:
            connect(name)
            yield Finding("ok", DEVICE_VARIABLE, name)
        except AmdrvError as error:
            yield Finding("bad", DEVICE_VARIABLE, str(error))
    if os.environ.get(ENVIRONMENT_VARIABLE):
        try:
            search_places()
            yield Finding("ok", ENVIRONMENT_VARIABLE, os.environ[ENVIRONMENT_VARIABLE])
        except AmdrvError as error:
            yield Finding("bad", ENVIRONMENT_VARIABLE, str(error))


def _real_card(entry: Entry, sysfs: Path) -> Iterator[Finding]:
    name, card = entry.found.name, entry.card
    yield Finding("note", name, entry.product, entry.found.why_not)
    if card is None:
        return
    yield Finding("note", name, f"kernel driver: {card.driver or 'none'}")
    yield Finding("note", name, "this user may open its registers" if card.accessible else "its registers need root")
    group = f"IOMMU group {card.iommu_group}" if card.iommu_group else "no IOMMU group"
    yield Finding("note", name, f"{group}; {VFIO} is {'there' if VFIO.exists() else 'absent'}")
    try:
        lockdown = re.search(r"\[(\w+)\]", (sysfs / LOCKDOWN).read_text())
    except OSError:
        lockdown = None
    if lockdown and lockdown[1] != "none":
        yield Finding("note", name, f"kernel lockdown is on ({lockdown[1]}): no program may map a card's registers")


def _installed_firmware(entry: Entry, needed: bool) -> Finding:
    """Whether the distribution has genuine images; the emulated card gets along with its own."""
    report = entry.report
    subject = f"firmware of {report.arch if report is not None else entry.found.name}"
    try:
        needs = needs_for((report.versions if report is not None else None) or {}, scope="compute")
        rows = image_rows(needs, search_places())
    except AmdrvError as error:
        return Finding("note", subject, str(error))
    good = sum(not row.problem for row in rows)
    if good == len(rows):
        return Finding("ok", subject, f"all {good} genuine images are installed")
    hint = "a real card needs them" if needed else "not needed: the emulated card brings its own"
    return Finding("note", subject, f"{good} of {len(rows)} genuine images are installed", hint)


def _computes(name: str) -> Finding:
    """Compile, boot, compute, compare."""
    import numpy as np

    from amdrv.runtime.compile import compile_llvm
    from amdrv.runtime.selection import open_device

    try:
        with open_device(name) as device:
            values = np.arange(TEST_ITEMS, dtype=np.int32)
            buffer = device.array(values)
            kernel = device.load(compile_llvm(TEST_KERNEL, device.arch))["triple"]
            kernel.launch(grid=1, block=TEST_ITEMS, args=(buffer,)).wait()
            if not np.array_equal(buffer.numpy(np.int32), 3 * values):
                return Finding("bad", name, "computed something wrong")
            return Finding("ok", name, f"booted ({device.boot.kind}), compiled and computed")
    except AmdrvError as error:
        return Finding("bad", name, str(error))
