"""Boots Linux with its own driver on the emulated card, in a virtual machine made of Debian packages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import parts
from machine import live
from packages import Unavailable


def main() -> int:
    """Fetch what is missing, boot, show the console; 0 when the driver came up and all programs ended well."""
    parser = argparse.ArgumentParser(prog="tools/vm/boot", description=__doc__)
    parser.add_argument(
        "--kernel", choices=sorted(parts.KERNEL_SUITES), default=parts.KERNEL, help="which Debian kernel"
    )
    parser.add_argument("--arch", choices=sorted(parts.GUEST_SUITES), default="gfx1100", help="which card")
    parser.add_argument("--parts", type=Path, default=parts.default_folder(), help="where packages are kept")
    parser.add_argument("--fetch-only", action="store_true", help="do not boot")
    parser.add_argument(
        "programs", nargs="*", help="what the guest runs: rocminfo, scale, sensors, …; all unless given"
    )
    arguments = parser.parse_args()
    try:
        found = parts.gather(arguments.parts, arguments.arch, arguments.kernel)
    except Unavailable as reason:
        print(f"no virtual machine here: {reason}", file=sys.stderr)
        return 2
    if arguments.fetch_only:
        return 0
    life = live(found, arguments.arch, programs=arguments.programs, listener=print)
    print(life.server, file=sys.stderr)
    print(f"{life.seconds:.1f} s", file=sys.stderr)
    return 0 if life.ended and life.said("Initialized amdgpu") and not life.said("vm: .* (WRONG|ends with [^0])") else 1


if __name__ == "__main__":
    sys.exit(main())
