"""What a start did: the plan, its reason, and what each step cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from amdrv.boot.planner import PlanKind


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a start."""

    name: str
    seconds: float  # wall time
    virtual_s: float | None  # the card's own time; None for a real card
    reads: int  # register reads and writes
    writes: int


@dataclass(frozen=True, slots=True)
class BootReport:
    """A start from ``open`` to its return."""

    plan: PlanKind
    reason: str
    steps: tuple[Step, ...]

    @property
    def kind(self) -> Literal["cold", "warm"]:
        """Whether firmware was loaded ("cold") or found ("warm")."""
        return "warm" if self.plan is PlanKind.WARM else "cold"

    @property
    def seconds(self) -> float:
        """Wall time of all steps."""
        return sum(step.seconds for step in self.steps)

    @property
    def virtual_s(self) -> float | None:
        """The card's time of all steps; None for a real card."""
        times = [step.virtual_s for step in self.steps if step.virtual_s is not None]
        return sum(times) if times else None

    @property
    def reads(self) -> int:
        """Register reads of all steps."""
        return sum(step.reads for step in self.steps)

    @property
    def writes(self) -> int:
        """Register writes of all steps."""
        return sum(step.writes for step in self.steps)

    def with_step(self, step: Step) -> BootReport:
        """The report with one more step."""
        return replace(self, steps=(*self.steps, step))

    def __str__(self) -> str:
        lines = [f"{self.kind} boot ({self.plan.value}): {self.reason}"]
        for step in (*self.steps, Step("total", self.seconds, self.virtual_s, self.reads, self.writes)):
            virtual = "" if step.virtual_s is None else f"{step.virtual_s * 1e3:10.3f} ms virtual"
            lines.append(
                f"  {step.name:<22}{step.seconds * 1e3:9.2f} ms{virtual}{step.reads:6} reads{step.writes:6} writes"
            )
        return "\n".join(lines)
