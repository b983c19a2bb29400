"""Which shader engine a card gets."""

from __future__ import annotations

import pytest

from amdrv.emulator import card, unplug
from amdrv.emulator.isa import engines
from amdrv.emulator.isa.engines import create_engine
from amdrv.emulator.isa.interpreter import Interpreter
from amdrv.emulator.isa.native import jit


@pytest.mark.parametrize(("arch", "count"), [("gfx1100", 6), ("gfx1201", 4)])
def test_code_is_translated_where_it_can_be(monkeypatch: pytest.MonkeyPatch, arch: str, count: int) -> None:
    monkeypatch.setattr(jit, "unavailable", lambda: "")
    assert type(create_engine(arch, shader_engines=count)).__name__ == "Translator"


def test_a_host_that_cannot_compile_interprets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "unavailable", lambda: "no such luck")
    assert isinstance(create_engine("gfx1100", shader_engines=6), Interpreter)


def test_the_interpreter_can_be_asked_for() -> None:
    assert isinstance(create_engine("gfx1100", shader_engines=6, interpreted=True), Interpreter)


def test_a_generation_without_a_translator_is_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "TRANSLATED", ("gfx11",))
    assert isinstance(create_engine("gfx1201", shader_engines=4), Interpreter)


def test_a_card_can_be_plugged_in_with_the_interpreter() -> None:
    name = "emu:gfx1100#871"
    try:
        assert isinstance(card(name, interpreted=True).shader_engine, Interpreter)
    finally:
        unplug(name)
