"""Which shader engine a card gets."""

from __future__ import annotations

import logging

from amdrv.emulator.isa.dispatch import ShaderEngine
from amdrv.emulator.isa.interpreter import Interpreter

log = logging.getLogger("amdrv.emulator")


def create_engine(arch: str, *, shader_engines: int, interpreted: bool = False) -> ShaderEngine:
    """The translator, or the interpreter where that is wanted or no code can be compiled for the host.

    ``shader_engines`` is the chip's count.
    """
    if not interpreted:
        from amdrv.emulator.isa.native import jit

        reason = jit.unavailable()
        if not reason:
            from amdrv.emulator.isa.native.engine import create

            return create(arch, shader_engines=shader_engines)
        log.info("shaders are interpreted, which is slow: %s", reason)
    return Interpreter(arch, shader_engines=shader_engines)
