"""Instructions that are not value computations, and why an engine owns them."""

from __future__ import annotations

CONTROL = "control flow: changes the program counter or ends the wave"
SCHEDULING = "scheduling: waits, priorities and hints have no value"
STATE = "wave state: reads or writes a hardware register or sends a message"
LANES = "names a lane of a register by number"
INDEXED = "names a register by a number in M0"
NOTHING = "has no effect on values"
INTERPOLATION = "interpolation reads parameters that compute work does not have"

_GROUPS: dict[str, str] = {
    CONTROL: """
        s_setpc_b64 s_swappc_b64 s_getpc_b64 s_call_b64 s_rfe_b64 s_branch s_cbranch_scc0 s_cbranch_scc1 s_cbranch_vccz
        s_cbranch_vccnz s_cbranch_execz s_cbranch_execnz s_cbranch_cdbgsys s_cbranch_cdbguser
        s_cbranch_cdbgsys_or_user s_cbranch_cdbgsys_and_user s_endpgm s_endpgm_saved s_endpgm_ordered_ps_done s_trap
        s_subvector_loop_begin s_subvector_loop_end s_code_end s_barrier
    """,
    SCHEDULING: """
        s_nop s_sleep s_clause s_delay_alu s_wait_idle s_wait_event s_waitcnt s_waitcnt_depctr s_waitcnt_vscnt
        s_waitcnt_vmcnt s_waitcnt_expcnt s_waitcnt_lgkmcnt s_wakeup s_setprio s_sethalt s_set_inst_prefetch_distance
        s_icache_inv v_pipeflush
    """,
    STATE: """
        s_getreg_b32 s_setreg_b32 s_setreg_imm32_b32 s_round_mode s_denorm_mode s_sendmsg s_sendmsghalt
        s_sendmsg_rtn_b32 s_sendmsg_rtn_b64 s_setkill s_incperflevel s_decperflevel s_ttracedata s_ttracedata_imm
    """,
    LANES: """
        v_readfirstlane_b32 v_readlane_b32 v_writelane_b32 v_permlane16_b32 v_permlanex16_b32 v_permlane64_b32
    """,
    INDEXED: """
        s_movrels_b32 s_movrels_b64 s_movreld_b32 s_movreld_b64 s_movrelsd_2_b32 v_movreld_b32 v_movrels_b32
        v_movrelsd_b32 v_movrelsd_2_b32 v_swaprel_b32
    """,
    NOTHING: "v_nop s_version",
    INTERPOLATION: """
        v_interp_p10_f32 v_interp_p2_f32 v_interp_p10_f16_f32 v_interp_p2_f16_f32 v_interp_p10_rtz_f16_f32
        v_interp_p2_rtz_f16_f32
    """,
}

# What gfx12 has more.
_GROUPS_OF_GFX12: dict[str, str] = {
    CONTROL: """
        s_barrier_signal s_barrier_signal_isfirst s_barrier_wait s_barrier_leave s_barrier_init s_barrier_join
    """,
    SCHEDULING: """
        s_sleep_var s_wait_alu s_wait_loadcnt s_wait_storecnt s_wait_samplecnt s_wait_bvhcnt s_wait_expcnt s_wait_dscnt
        s_wait_kmcnt s_wait_loadcnt_dscnt s_wait_storecnt_dscnt
    """,
    STATE: "s_get_barrier_state s_alloc_vgpr",
    LANES: "v_permlane16_var_b32 v_permlanex16_var_b32",
}


def _by_mnemonic(groups: dict[str, str]) -> dict[str, str]:
    return {mnemonic: reason for reason, names in groups.items() for mnemonic in names.split()}


ENGINE: dict[str, str] = _by_mnemonic(_GROUPS)
ENGINE_OF_GFX12: dict[str, str] = ENGINE | _by_mnemonic(_GROUPS_OF_GFX12)
