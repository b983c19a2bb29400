"""``amdrv firmware``: which images a card needs, where they are, and whether they are genuine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import click

from amdrv.cli.devices import chosen, device_option, look
from amdrv.cli.output import Json, console, print_json, show, table
from amdrv.errors import Refused, Unsupported
from amdrv.firmware import FirmwareImage, Need, Place, needs_for, parse, search_places
from amdrv.firmware.store import find
from amdrv.ioctl import connect

DIGEST_CHARS = 12

F = TypeVar("F", bound=Callable[..., Any])


class _Search(NamedTuple):
    device: str
    needs: tuple[Need, ...]
    places: tuple[Place, ...]


@click.group()
def command() -> None:
    """List, verify and locate firmware images.

    Searched are the folder in $AMDRV_FIRMWARE, then images that the card brings itself (an emulated one does), then
    the folders of the distribution.
    """


def _options(function: F) -> F:
    function = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)
    function = click.option("--installed", is_flag=True, help="Leave out images that the card brings itself.")(function)
    function = click.option("--all", "everything", is_flag=True, help="Also what only graphics and video need.")(
        function
    )
    return device_option(function)


@command.command("list")
@_options
def list_images(device: str | None, everything: bool, installed: bool, as_json: bool) -> None:
    """One line for every image that the card needs."""
    from amdrv.firmware.report import image_rows

    search = _search(device, everything, installed)
    rows = image_rows(search.needs, search.places)
    if as_json:
        images: list[Json] = [
            {key: value or None if key in ("origin", "problem") else value for key, value in row._asdict().items()}
            for row in rows
        ]
        print_json({"device": search.device, "images": images})
        return
    out = console()
    made = table(out, ("role", "image", ">bytes", "header", "version", "sha256", "from"))
    for row in rows:
        version = f"{row.ucode_version:#x}" if row.sha256 else ""
        size = str(row.size_bytes) if row.sha256 else ""
        made.add_row(
            row.role, row.name, size, row.header_version, version, row.sha256[:DIGEST_CHARS], row.problem or row.origin
        )
    show(out, made)


@command.command("path")
@_options
def show_places(device: str | None, everything: bool, installed: bool, as_json: bool) -> None:
    """The places that are searched, in order, and how many of the needed images each has."""
    from amdrv.firmware.report import place_rows

    search = _search(device, everything, installed)
    rows = place_rows(search.needs, search.places)
    if as_json:
        places: list[Json] = [row._asdict() for row in rows]
        print_json({"device": search.device, "needed": len(search.needs), "places": places})
        return
    out = console()
    made = table(out, ("place", "folder", ">images"))
    for row in rows:
        held = f"{row.needed_images} of {len(search.needs)}" if row.present else "no such folder"
        made.add_row(row.label, row.location, held)
    show(out, made)


@command.command("verify")
@_options
@click.pass_context
def verify_images(ctx: click.Context, device: str | None, everything: bool, installed: bool, as_json: bool) -> None:
    """Check signatures and digests; status 1 when an image is missing, damaged or altered."""
    from amdrv.firmware.authenticity import authenticate

    search = _search(device, everything, installed)
    images, problems = _read(search)
    verdicts = authenticate(images)
    bad = [row for row in verdicts if row.verdict == "bad"]
    if as_json:
        pieces: list[Json] = [row._asdict() for row in verdicts]
        print_json({
            "device": search.device, "pieces": pieces, "problems": dict(problems), "ok": not (bad or problems),
        })  # fmt: skip
    else:
        out = console()
        made = table(out, ("image", "piece", ">bytes", "version", "verdict", "why"))
        for row in verdicts:
            verdict = row.verdict.upper() if row in bad else row.verdict
            made.add_row(row.image, row.piece, str(row.size_bytes), f"{row.version:#x}", verdict, row.detail)
        show(out, made)
        for problem in problems.values():
            click.echo(problem, err=True)
    if bad or problems:
        ctx.exit(1)


def _search(device: str | None, everything: bool, installed: bool) -> _Search:
    name = chosen(device)
    report = look(name)
    if report.versions is None:
        raise Unsupported(f"{name}: its blocks are not known ({report.detail})")
    needs = needs_for(
        report.versions,
        device_id=report.ids.device,
        revision=report.ids.revision,
        scope="all" if everything else "compute",
    )
    return _Search(name, needs, search_places({} if installed else connect(name).firmware_images()))


def _read(search: _Search) -> tuple[dict[str, FirmwareImage], Mapping[str, str]]:
    """Images by role, and what is wrong with the others."""
    images: dict[str, FirmwareImage] = {}
    problems: dict[str, str] = {}
    for need in search.needs:
        try:
            found = find(need, search.places)
            if found is not None:
                images[need.role] = parse(found.name, found.data)
            elif not need.optional:
                problems[need.role] = f"{need.names[0]}: not found"
        except Refused as error:
            problems[need.role] = str(error)
    return images, problems
