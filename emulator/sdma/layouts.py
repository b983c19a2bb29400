"""Where copies of windows have their fields: SDMA 6 by Linux's header, SDMA 7 by what its clients send.

Linux has no header for SDMA 7 and copies no windows. Sources: ROCr sdma_registers.h (SDMA_PKT_COPY_LINEAR_RECT_GFX12);
Mesa ac_cmdbuf_sdma.c (ac_emit_sdma_copy_linear_sub_window, …_tiled_sub_window, …_t2t_sub_window; widths of 16 and
14 bits are those of ROCr's packet).
"""

from __future__ import annotations

from dataclasses import dataclass

from amdrv.facts import sdma_v6_0 as facts
from amdrv.registers.fields import BitLayout, Field

HEADER = {"op": Field(0, 8), "sub_op": Field(8, 8)}
TILED_HEADER = {**HEADER, "tmz": Field(18), "dcc": Field(19)}


def place(prefix: str, dword: int) -> dict[str, Field]:
    """Coordinates of 16, 16 and 14 bits."""
    bit = 32 * dword
    return {f"{prefix}_x": Field(bit, 16), f"{prefix}_y": Field(bit + 16, 16), f"{prefix}_z": Field(bit + 32, 14)}


def linear_surface(prefix: str, dword: int) -> dict[str, Field]:
    """Five dwords: address, place, pitches."""
    bit = 32 * dword
    return {
        f"{prefix}_addr": Field(bit, 64),
        **place(prefix, dword + 2),
        f"{prefix}_pitch": Field(bit + 112, 16),
        f"{prefix}_slice_pitch": Field(bit + 128, 32),
    }


def tiled_surface(prefix: str, dword: int, extent: str = "") -> dict[str, Field]:
    """Six dwords: address, place, extent, what it is made of; ``extent`` begins the names of the last two."""
    bit = 32 * dword
    return {
        f"{prefix}_addr": Field(bit, 64),
        **place(prefix, dword + 2),
        f"{extent}width": Field(bit + 112, 16),
        f"{extent}height": Field(bit + 128, 16),
        f"{extent}depth": Field(bit + 144, 14),
        f"{extent}element_size": Field(bit + 160, 3),
        f"{extent}swizzle_mode": Field(bit + 163, 5),
        f"{extent}mip_max": Field(bit + 176, 5),
        f"{extent}mip_id": Field(bit + 184, 5),
    }


@dataclass(frozen=True, slots=True)
class CopyLayouts:
    """What differs between versions."""

    window: BitLayout
    tiled_window: BitLayout
    tiles: BitLayout
    # Rows of a surface without a swizzle are padded to so many bytes, where a packet has no pitch for it: AMD's
    # addrlib (gfx11, gfx12). Inferred for the copy engine.
    row_alignment_bytes: int


SDMA_6_0 = CopyLayouts(facts.COPY_LINEAR_SUBWIN, facts.COPY_TILED_SUBWIN, facts.COPY_T2T, row_alignment_bytes=256)

SDMA_7_0 = CopyLayouts(
    BitLayout("COPY_LINEAR_SUBWIN", 13, {
        **HEADER, "npd": Field(28), "elementsize": Field(29, 3), **linear_surface("src", 1), **linear_surface("dst", 6),
        **place("rect", 11), "dst_cache_policy": Field(404, 3), "src_cache_policy": Field(412, 3),
    }),
    BitLayout("COPY_TILED_SUBWIN", 15, {
        **TILED_HEADER, "npd": Field(28), "detile": Field(31), **tiled_surface("tiled", 1),
        **linear_surface("linear", 7), **place("rect", 12), "meta_config": Field(448, 32),
    }),
    BitLayout("COPY_T2T", 16, {
        **TILED_HEADER, "npd": Field(28), "dcc_dir": Field(31), **tiled_surface("src", 1, "src_"),
        **tiled_surface("dst", 7, "dst_"), **place("rect", 13), "meta_config": Field(480, 32),
    }),
    row_alignment_bytes=128,
)  # fmt: skip
