"""The first message: protocol version and what either side can do, as JSON."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass

from amdrv.emulator.server.channel import Message, Rejected
from amdrv.emulator.server.dma import MAPS_MAX
from amdrv.facts.vfio_user import (
    DATA_BYTES_MAX,
    DESCRIPTORS_MAX,
    HOLDER_KEY,
    MAJOR,
    MINOR,
    PAGE_BYTES,
    VERSION,
    Command,
)

CLIENT_DESCRIPTORS_MAX = 1 << 16
JSON_BYTES_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a client proposes, as far as it matters here."""

    minor: int
    data_bytes_max: int  # that it takes in one reply
    write_multiple: bool
    asks_for_holder: bool  # it wants to be told who has the card
    takes_descriptors: bool = True
    twin_socket: bool = False  # it wants messages to it, and their answers, on a socket of their own


def parse(message: Message) -> Proposal:
    """The proposal of a VERSION message. Raises Rejected."""
    if message.command != Command.VERSION:
        raise Rejected(errno.EINVAL, f"command {message.command} before the version")
    if len(message.body) < VERSION.size or message.descriptors:
        raise Rejected(errno.EINVAL, "not a version message")
    major, minor = VERSION.unpack_from(message.body)
    if major != MAJOR:
        raise Rejected(errno.EINVAL, f"protocol {major}.{minor}; this is {MAJOR}.{MINOR}")
    wanted = _capabilities(bytes(message.body[VERSION.size :]))
    takes_descriptors = _number(wanted, "max_msg_fds", 1, CLIENT_DESCRIPTORS_MAX) > 0
    pages = _number(wanted, "pgsizes", PAGE_BYTES, 1 << 63)
    if not pages & PAGE_BYTES:
        raise Rejected(errno.EINVAL, f"page sizes {pages:#x} leave 4 KiB out")
    return Proposal(
        minor=minor,
        data_bytes_max=_number(wanted, "max_data_xfer_size", DATA_BYTES_MAX, 1 << 63),
        write_multiple=wanted.get("write_multiple") is True,
        asks_for_holder=HOLDER_KEY in wanted,
        takes_descriptors=takes_descriptors,
        twin_socket=_twin(wanted) and takes_descriptors,
    )


def answer(proposal: Proposal) -> bytes:
    """The VERSION reply to a client that gets the card. No migration. The twin socket is its only descriptor."""
    capabilities: dict[str, object] = {
        "max_msg_fds": DESCRIPTORS_MAX,
        "max_data_xfer_size": DATA_BYTES_MAX,
        "max_dma_maps": MAPS_MAX,
        "pgsizes": PAGE_BYTES,
    }
    if proposal.write_multiple:
        capabilities["write_multiple"] = True
    if proposal.twin_socket:
        capabilities["twin_socket"] = {"supported": True, "fd_index": 0}
    return _version(proposal, capabilities)


def busy_answer(proposal: Proposal, holder: str, ids: tuple[int, ...]) -> bytes:
    """The VERSION reply to a client that asked to be told who has the card."""
    return _version(proposal, {HOLDER_KEY: {"holder": holder, "ids": list(ids)}})


def _version(proposal: Proposal, capabilities: dict[str, object]) -> bytes:
    text = json.dumps({"capabilities": capabilities}).encode("utf-8")
    return VERSION.pack(MAJOR, min(MINOR, proposal.minor)) + text + b"\0"


def _capabilities(data: bytes) -> dict[str, object]:
    if not data:
        return {}
    if not data.endswith(b"\0") or len(data) > JSON_BYTES_MAX:
        raise Rejected(errno.EINVAL, "the capabilities do not end")
    try:
        document: object = json.loads(data.rstrip(b"\0").decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Rejected(errno.EINVAL, "the capabilities are not JSON") from error
    found = document.get("capabilities", {}) if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise Rejected(errno.EINVAL, "the capabilities are not an object")
    return found


def _twin(capabilities: dict[str, object]) -> bool:
    wanted = capabilities.get("twin_socket", {})
    if not isinstance(wanted, dict):
        raise Rejected(errno.EINVAL, f"twin_socket is {wanted!r}")
    return wanted.get("supported") is True


def _number(capabilities: dict[str, object], name: str, default: int, most: int) -> int:
    value = capabilities.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise Rejected(errno.EINVAL, f"{name} is {value!r}")
    return value
