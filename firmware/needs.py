"""Which firmware files a card needs, by the IP versions that its discovery table lists.

File names follow Linux 6.12 amdgpu_ucode.c: amdgpu_ucode_ip_version_decode; which of them a block asks for is in
psp_v13_0.c: psp_v13_0_init_microcode, smu_v13_0.c: smu_v13_0_init_microcode, amdgpu_sdma.c: amdgpu_sdma_init_microcode,
gfx_v11_0.c: gfx_v11_0_init_microcode, imu_v11_0.c: imu_v11_0_init_microcode, amdgpu_mes.c: amdgpu_mes_init_microcode.
Another chip is another set of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from amdrv.errors import Unsupported

IpVersion = tuple[int, int, int]
Scope = Literal["all", "compute"]
"""``all``: what Linux loads. ``compute``: what compute and copy queues need, without graphics engines and MES."""


class Need(NamedTuple):
    """One firmware file: its role in the load plan and its names, best first."""

    role: str
    names: tuple[str, ...]
    optional: bool = False


class _Rule(NamedTuple):
    role: str
    stems: tuple[str, ...]  # with {version} for the block's IP version, as 11_0_0
    compute: bool = True
    optional: bool = False
    kicker: bool = False  # "kicker" boards have their own image


_RULES: dict[tuple[str, IpVersion], tuple[_Rule, ...]] = {
    ("MP0", (13, 0, 0)): (
        _Rule("sos", ("psp_{version}_sos",), kicker=True),
        # Trusted applications serve display content protection and RAS; a card computes without them.
        _Rule("ta", ("psp_{version}_ta",), compute=False, optional=True, kicker=True),
    ),
    # Navi48: psp_v14_0.c, smu_v14_0.c, gfx_v12_0.c: *_init_microcode; one scheduler image for both pipes where
    # enable_uni_mes is set, which is the default.
    ("MP0", (14, 0, 3)): (
        _Rule("sos", ("psp_{version}_sos",), kicker=True),
        _Rule("ta", ("psp_{version}_ta",), compute=False, optional=True, kicker=True),
    ),
    ("MP1", (14, 0, 3)): (_Rule("smu", ("smu_{version}",), kicker=True),),
    ("SDMA0", (7, 0, 1)): (_Rule("sdma", ("sdma_{version}",)),),
    ("GC", (12, 0, 1)): (
        _Rule("pfp", ("gc_{version}_pfp",), compute=False),
        _Rule("me", ("gc_{version}_me",), compute=False),
        _Rule("mec", ("gc_{version}_mec",)),
        _Rule("rlc", ("gc_{version}_rlc",), kicker=True),
        _Rule("imu", ("gc_{version}_imu",), kicker=True),
        _Rule("mes", ("gc_{version}_uni_mes",), compute=False),
    ),
    ("MP1", (13, 0, 0)): (_Rule("smu", ("smu_{version}",), kicker=True),),
    ("SDMA0", (6, 0, 0)): (_Rule("sdma", ("sdma_{version}",)),),
    ("GC", (11, 0, 0)): (
        _Rule("pfp", ("gc_{version}_pfp",), compute=False),
        _Rule("me", ("gc_{version}_me",), compute=False),
        _Rule("mec", ("gc_{version}_mec",)),
        _Rule("rlc", ("gc_{version}_rlc",), kicker=True),
        _Rule("imu", ("gc_{version}_imu",), kicker=True),
        # The second scheduler interface came with mes_2; packages from before it only have mes.
        _Rule("mes", ("gc_{version}_mes_2", "gc_{version}_mes"), compute=False),
        _Rule("mes_kiq", ("gc_{version}_mes1",), compute=False),
    ),
}

_KICKER_BOARDS = frozenset({(0x744B, 0x00)})  # (PCI device, revision); amdgpu_ucode.c: kicker_device_list
# Boards with an RLC image of their own, by GC version and PCI revision (gfx_v11_0_init_microcode).
_RLC_REVISIONS: dict[tuple[IpVersion, int], str] = {((11, 0, 0), 0xCE): "gc_11_0_0_rlc_1"}


def needs_for(
    versions: Mapping[str, IpVersion], *, device_id: int = 0, revision: int = 0, scope: Scope = "all"
) -> tuple[Need, ...]:
    """Firmware files of a card.

    Args:
        versions: (major, minor, revision) of at least the blocks MP0, MP1, SDMA0 and GC, from discovery.
        device_id: PCI device id; with ``revision`` it picks the images of special boards.
        revision: PCI revision id.
        scope: everything that Linux loads, or only what compute needs.

    Raises:
        Unsupported: a block is missing or has a version with no row here.
    """
    kicker_board = (device_id, revision) in _KICKER_BOARDS
    needs: list[Need] = []
    for block in ("MP0", "MP1", "SDMA0", "GC"):
        version = versions.get(block)
        if version is None or (block, version) not in _RULES:
            shown = "is absent" if version is None else "version " + ".".join(map(str, version)) + " is unknown"
            raise Unsupported(f"no firmware is known for this card: IP block {block} {shown}")
        spelled = "_".join(map(str, version))
        for rule in _RULES[block, version]:
            if scope == "compute" and not rule.compute:
                continue
            stems = tuple(stem.format(version=spelled) for stem in rule.stems)
            if rule.role == "rlc" and (version, revision) in _RLC_REVISIONS:
                stems = (_RLC_REVISIONS[version, revision],)
            elif kicker_board and rule.kicker:
                stems = tuple(f"{stem}_kicker" for stem in stems)
            needs.append(Need(rule.role, tuple(f"{stem}.bin" for stem in stems), rule.optional))
    return tuple(needs)
