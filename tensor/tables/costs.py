"""What computing one element takes, in additions, where that is not 1."""

from __future__ import annotations

from amdrv.tensor.ir import Op

COST = {
    Op.EXP: 8,
    Op.EXP2: 8,
    Op.LOG: 8,
    Op.LOG2: 8,
    Op.SIN: 12,
    Op.COS: 12,
    Op.ERF: 16,
    Op.POW: 24,
    Op.DIV: 3,
    Op.SQRT: 3,
    Op.IDIV: 4,
    Op.MOD: 4,
    Op.CAST: 0,
    Op.BITCAST: 0,
}
