"""Logging: stdlib loggers under ``amdrv`` with a TRACE level below DEBUG, switched on by AMDRV_LOG.

AMDRV_LOG is a level name for everything (``trace``, ``debug``, ``info``, ...) or a comma-separated list in which an
entry ``part=level`` sets one part: ``AMDRV_LOG=info,blocks.psp=trace``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from amdrv.errors import InvalidArgument

TRACE = 5  # every register access, with names and decoded fields
ROOT = "amdrv"
LEVELS: Mapping[str, int] = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

logging.addLevelName(TRACE, "TRACE")
# A library stays silent until its user configures logging.
logging.getLogger(ROOT).addHandler(logging.NullHandler())


def parse_levels(text: str) -> dict[str, int]:
    """Logger name → level from the text of AMDRV_LOG; raises InvalidArgument for an unknown level name."""
    levels: dict[str, int] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        part, separator, name = entry.rpartition("=")
        level = LEVELS.get(name.strip().lower())
        if level is None:
            raise InvalidArgument(f"AMDRV_LOG: {name!r} is not a level; levels are {', '.join(LEVELS)}")
        part = part.strip()
        levels[f"{ROOT}.{part}" if separator and part and part != ROOT else ROOT] = level
    return levels


def configure(environment: Mapping[str, str] | None = None) -> None:
    """Apply AMDRV_LOG, if it is set: levels, and a handler to stderr where nobody has added one.

    Safe to call again. Raises InvalidArgument for an unknown level name.
    """
    text = (os.environ if environment is None else environment).get("AMDRV_LOG", "")
    levels = parse_levels(text)
    if not levels:
        return
    root = logging.getLogger(ROOT)
    if not logging.getLogger().handlers and all(isinstance(h, logging.NullHandler) for h in root.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)-7s %(name)s: %(message)s"))
        root.addHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
