"""Which shader engine a card gets."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

from amdrv.emulator.isa.dispatch import ShaderEngine
from amdrv.emulator.isa.interpreter import Interpreter
from amdrv.emulator.isa.table import generation_of

TRANSLATED = ("gfx11", "gfx12")  # generations

log = logging.getLogger("amdrv.emulator")


def create_engine(
    arch: str,
    *,
    shader_engines: int,
    interpreted: bool = False,
    translating: AbstractContextManager[None] | None = None,
) -> ShaderEngine:
    """The translator, or the interpreter where that is wanted or no code can be compiled for the host.

    ``shader_engines`` is the chip's count; ``translating`` is entered while waves wait for code.
    """
    if not interpreted:
        reason = _untranslatable(arch)
        if not reason:
            from amdrv.emulator.isa.native.engine import create

            return create(arch, shader_engines=shader_engines, translating=translating)
        log.info("shaders are interpreted, which is slow: %s", reason)
    return Interpreter(arch, shader_engines=shader_engines)


def _untranslatable(arch: str) -> str:
    """Why code of a processor cannot be translated here; "" when it can."""
    if generation_of(arch) not in TRANSLATED:
        return f"there is no translator for {arch}"
    from amdrv.emulator.isa.native import jit

    return jit.unavailable()
