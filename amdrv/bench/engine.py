"""What can be asked of a shader engine that translates: threads, waiting for its compiler, what it compiled.

An engine that does not translate has none of it, and what would be measured with it is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

SETTLE_TIMEOUT_S = 120.0
NOT_A_TRANSLATOR = "the card's shader engine does not compile"


class CompileRecord(Protocol):
    """One compilation."""

    @property
    def tier(self) -> int:
        """1 for quick code, 2 for better code."""

    @property
    def instructions(self) -> int:
        """Instructions of the device that were compiled."""

    @property
    def seconds(self) -> float:
        """What it took."""

    @property
    def cached(self) -> bool:
        """Whether the result was read from disk."""


@runtime_checkable
class Translator(Protocol):
    """A shader engine that compiles to host code."""

    threads: int
    compile_log: Sequence[CompileRecord]

    def settle(self, timeout_s: float) -> None:
        """Return when nothing is being compiled in the background."""


@contextmanager
def threads(engine: Translator, count: int) -> Iterator[None]:
    """Run dispatches on ``count`` threads for a while."""
    before = engine.threads
    engine.threads = count
    try:
        yield
    finally:
        engine.threads = before
