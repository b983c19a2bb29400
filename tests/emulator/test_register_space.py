"""Claims, banks, side effects, sticky and moved registers; and what nobody claims."""

from __future__ import annotations

import pytest

from amdrv.emulator.register_space import ClaimConflict, RegisterSpace, UnmodelledRegister
from amdrv.registers import Register, RegisterMap

BASES = {"HDP": {0: (0xF20,)}, "OSSSYS": {0: (0x10A0,)}}
VERSIONS = {"HDP": (6, 0, 0), "OSSSYS": (6, 0, 0)}


@pytest.fixture
def registers() -> RegisterMap:
    return RegisterMap(BASES, VERSIONS)


@pytest.fixture
def space(registers: RegisterMap) -> RegisterSpace:
    return RegisterSpace(registers)


@pytest.fixture
def register(registers: RegisterMap) -> Register:
    return registers.block("HDP")["HDP_MEM_POWER_CTRL"]


def test_claimed_register_starts_at_its_reset_value_and_returns_to_it(space: RegisterSpace, register: Register) -> None:
    space.claim("A", register, reset=7)
    assert space.read(register.address) == 7
    space.write(register.address, 9)
    assert space.read(register.address) == 9
    space.reset(keep_sticky=True)
    assert space.read(register.address) == 7


def test_two_claims_of_one_register_name_both_owners(space: RegisterSpace, register: Register) -> None:
    space.claim("Hdp", register)
    with pytest.raises(ClaimConflict, match=r"HDP_MEM_POWER_CTRL.*Hdp.*Other"):
        space.claim("Other", register)


def test_write_mask_protects_the_other_bits(space: RegisterSpace, register: Register) -> None:
    space.claim("A", register, reset=0xF0, writable=0x0F)
    space.write(register.address, 0xFF)
    assert space.read(register.address) == 0xFF
    space.write(register.address, 0)
    assert space.read(register.address) == 0xF0


def test_hooks_see_the_value_as_written_and_replace_what_is_read(space: RegisterSpace, register: Register) -> None:
    written: list[int] = []
    space.claim("A", register, writable=0xF, on_write=written.append, on_read=lambda: 0x1_0000_0042)
    space.write(register.address, 0xABCD)
    assert written == [0xABCD]
    assert space.read(register.address) == 0x42


def test_banks_hold_their_own_values(space: RegisterSpace, register: Register) -> None:
    selected = [0]
    space.claim("A", register, reset=5, bank=lambda: selected[0])
    space.write(register.address, 1)
    selected[0] = 1
    assert space.read(register.address) == 5
    space.store_bank(register.address, 1, 8)
    assert space.read(register.address) == 8
    assert space.load_bank(register.address, 0) == 1


def test_sticky_register_survives_a_chip_reset_only(space: RegisterSpace, register: Register) -> None:
    space.claim("A", register, sticky=True)
    space.write(register.address, 3)
    space.reset(keep_sticky=True)
    assert space.read(register.address) == 3
    space.reset(keep_sticky=False)
    assert space.read(register.address) == 0


def test_moved_register_answers_at_one_other_place(space: RegisterSpace, register: Register) -> None:
    space.claim("A", register)
    space.move(register.address, 0x7F000)
    space.write(0x7F000, 6)
    assert space.read(register.address) == 6
    space.move(register.address, 0x7F004)
    assert space.read(0x7F000) == 0
    assert space.unmodelled == {0x7F000: 1}


def test_register_that_nobody_claims_stores_and_is_counted_by_name(space: RegisterSpace, register: Register) -> None:
    space.write(register.address, 0x55)
    assert space.read(register.address) == 0x55
    space.read(0xFFFF0)
    assert space.unmodelled_by_name() == [("HDP.HDP_MEM_POWER_CTRL", 2), ("0xffff0", 1)]


def test_strict_space_refuses_what_nobody_claims(space: RegisterSpace, register: Register) -> None:
    space.strict = True
    with pytest.raises(UnmodelledRegister, match=r"HDP\.HDP_MEM_POWER_CTRL"):
        space.read(register.address)
