"""Names of the array API: kinds of types, and which functions are methods of tensors, under which name if another."""

from __future__ import annotations

KINDS: dict[str, tuple[str, ...]] = {
    "bool": ("bool",), "signed integer": ("int",), "unsigned integer": ("uint",), "integral": ("int", "uint"),
    "real floating": ("float",), "complex floating": (), "numeric": ("int", "uint", "float"),
}  # fmt: skip
UNARY = {
    "abs": "__abs__", "negative": "__neg__", "positive": "__pos__", "bitwise_invert": "__invert__",
} | dict.fromkeys(
    ("exp", "expm1", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh", "asin",
     "acos", "atan", "asinh", "acosh", "atanh", "floor", "ceil", "round", "trunc", "sign", "square", "isnan", "isinf",
     "isfinite", "signbit", "reciprocal", "logical_not", "nonzero"), "")  # fmt: skip
BINARY = {
    "add": "__add__", "subtract": "__sub__", "multiply": "__mul__", "divide": "__truediv__", "pow": "__pow__",
    "floor_divide": "__floordiv__", "remainder": "__mod__", "less": "__lt__", "less_equal": "__le__",
    "greater": "__gt__", "greater_equal": "__ge__", "bitwise_and": "__and__", "bitwise_or": "__or__",
    "bitwise_xor": "__xor__", "bitwise_left_shift": "__lshift__", "bitwise_right_shift": "__rshift__",
} | dict.fromkeys(
    ("atan2", "logaddexp", "hypot", "copysign", "nextafter", "maximum", "minimum", "equal", "not_equal", "logical_and",
     "logical_or", "logical_xor", "matmul"), "")  # fmt: skip
REDUCTIONS = dict.fromkeys(("max", "min", "mean", "any", "all", "argmax", "argmin"), "")
