"""The operators by family, and all of them in one table. Every module here is a family."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from amdrv.tensor.onnx.registry import Operator

FAMILIES: Mapping[str, Mapping[str, Operator]] = MappingProxyType(
    {part.name: importlib.import_module(f"{__name__}.{part.name}").OPERATORS for part in pkgutil.iter_modules(__path__)}
)
OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {name: operator for table in FAMILIES.values() for name, operator in table.items()}
)
