"""docs/opcodes.md says what the code does, and nothing that compute work can contain is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "generate_opcode_table.py"
GRAPHICS = {"MIMG", "EXP", "VINTERP", "LDSDIR"}
# What other encodings hold that is refused: trap handlers, padding, ray tracing, geometry shaders, global wave sync,
# and opcodes that neither the ISA manual nor LLVM knows.
REFUSED = {
    "s_rfe_b64", "s_code_end", "ds_bvh_stack_rtn_b32", "ds_add_gs_reg_rtn", "ds_sub_gs_reg_rtn", "ds_ordered_count",
    "ds_gws_init", "ds_gws_sema_v", "ds_gws_sema_br", "ds_gws_sema_p", "ds_gws_sema_release_all", "ds_gws_barrier",
    "flat_atomic_csub_u32", "global_load_lds_addtid_b32", "buffer_load_lds_format_x",
    *(f"{space}_load_lds_{kind}" for space in ("global", "scratch", "buffer")
      for kind in ("u8", "i8", "u16", "i16", "b32")),
}  # fmt: skip


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("generate_opcode_table", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_committed_page_is_what_the_generator_writes(tool: ModuleType) -> None:
    assert tool.PAGE.read_text() == tool.page(tool.entries())


def test_nothing_of_compute_work_is_unsupported(tool: ModuleType) -> None:
    assert [item for item in tool.entries() if item.status == "unsupported"] == []


def test_only_what_is_not_compute_work_is_refused_and_each_with_a_reason(tool: ModuleType) -> None:
    refused = [item for item in tool.entries() if item.status == "refused"]
    assert {item.mnemonic for item in refused if item.encoding not in GRAPHICS} == REFUSED
    assert {item.encoding for item in tool.entries() if item.status != "refused"}.isdisjoint(GRAPHICS)
    assert all(item.note for item in refused)


def test_every_approximation_has_a_bound(tool: ModuleType) -> None:
    approximate = [item for item in tool.entries() if item.status == "approximate"]
    assert {"v_exp_f32", "v_wmma_f32_16x16x16_f16", "v_dot2_f32_f16"} <= {item.mnemonic for item in approximate}
    assert all(item.note for item in approximate)


def test_an_opcode_that_nobody_executes_would_be_listed(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "refusal", lambda encoding, mnemonic: "")
    unsupported = {item.mnemonic for item in tool.entries() if item.status == "unsupported"}
    assert {"image_load", "exp", "s_rfe_b64"} <= unsupported
