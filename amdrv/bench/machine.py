"""The machine that was measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def describe(cpuinfo: Path = CPUINFO) -> dict[str, str | int]:
    """Processor, cores that this process may use, vector instructions, versions of what code is generated with."""
    fields = _cpu_fields(cpuinfo)
    return {
        "cpu": fields.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "vectors": vectors(fields.get("flags", "").split()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": metadata.version("numpy"),
        "llvmlite": metadata.version("llvmlite"),
    }


def vectors(flags: list[str]) -> str:
    """The widest vector instructions among a processor's flags: "avx512", "avx2" or "other"."""
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
        return "avx512"
    return "avx2" if "avx2" in flags else "other"


def _cpu_fields(cpuinfo: Path) -> dict[str, str]:
    try:
        text = cpuinfo.read_text()
    except OSError:
        return {}
    first = text.partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
