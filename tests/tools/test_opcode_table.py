"""The opcode pages of docs/ say what the code does, and nothing that compute work can contain is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "generate_opcode_table.py"
GRAPHICS = {"MIMG", "VIMAGE", "VSAMPLE", "EXP", "VINTERP", "LDSDIR"}
# What other encodings hold that is refused: trap handlers, padding, ray tracing, geometry shaders, global wave sync,
# and opcodes that neither the ISA manual nor LLVM knows.
REFUSED_OF_GFX11 = {
    "s_rfe_b64", "s_code_end", "ds_bvh_stack_rtn_b32", "ds_add_gs_reg_rtn", "ds_sub_gs_reg_rtn", "ds_ordered_count",
    "ds_gws_init", "ds_gws_sema_v", "ds_gws_sema_br", "ds_gws_sema_p", "ds_gws_sema_release_all", "ds_gws_barrier",
    "flat_atomic_csub_u32", "global_load_lds_addtid_b32", "buffer_load_lds_format_x",
    *(f"{space}_load_lds_{kind}" for space in ("global", "scratch", "buffer")
      for kind in ("u8", "i8", "u16", "i16", "b32")),
}  # fmt: skip
# Named barriers, dynamic registers and ordered streamout in place of global wave sync.
REFUSED_OF_GFX12 = {
    "s_rfe_b64", "s_code_end", "s_barrier_init", "s_barrier_join", "s_alloc_vgpr", "global_atomic_ordered_add_b64",
    "ds_bvh_stack_push4_pop1_rtn_b32", "ds_bvh_stack_push8_pop1_rtn_b32", "ds_bvh_stack_push8_pop2_rtn_b64",
}  # fmt: skip
REFUSED = {"gfx11": REFUSED_OF_GFX11, "gfx12": REFUSED_OF_GFX12}
# A transposing load whose lane order is not published.
UNSUPPORTED = {"gfx11": [], "gfx12": ["global_load_tr_b64"]}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("generate_opcode_table", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("generation", REFUSED)
def test_the_committed_page_is_what_the_generator_writes(tool: ModuleType, generation: str) -> None:
    assert tool.PAGES[generation].read_text() == tool.page(tool.entries(generation), generation)


@pytest.mark.parametrize("generation", REFUSED)
def test_what_is_unsupported_of_compute_work_is_known(tool: ModuleType, generation: str) -> None:
    unsupported = [item.mnemonic for item in tool.entries(generation) if item.status == "unsupported"]
    assert unsupported == UNSUPPORTED[generation]


@pytest.mark.parametrize("generation", REFUSED)
def test_only_what_is_not_compute_work_is_refused_and_each_with_a_reason(tool: ModuleType, generation: str) -> None:
    found = list(tool.entries(generation))
    refused = [item for item in found if item.status == "refused"]
    assert {item.mnemonic for item in refused if item.encoding not in GRAPHICS} == REFUSED[generation]
    assert {item.encoding for item in found if item.status != "refused"}.isdisjoint(GRAPHICS)
    assert all(item.note for item in refused)


@pytest.mark.parametrize("generation", REFUSED)
def test_every_approximation_has_a_bound(tool: ModuleType, generation: str) -> None:
    approximate = [item for item in tool.entries(generation) if item.status == "approximate"]
    assert {"v_exp_f32", "v_wmma_f32_16x16x16_f16"} <= {item.mnemonic for item in approximate}
    assert all(item.note for item in approximate)


def test_an_opcode_that_nobody_executes_would_be_listed(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "refusal", lambda encoding, mnemonic: "")
    unsupported = {item.mnemonic for item in tool.entries("gfx11") if item.status == "unsupported"}
    assert {"image_load", "exp", "s_rfe_b64"} <= unsupported
