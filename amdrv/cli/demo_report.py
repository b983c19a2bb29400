"""What the demo found out, as a JSON document."""

from __future__ import annotations

from collections.abc import Sequence

from amdrv.boot.report import BootReport, Step
from amdrv.cli.output import Json, finite, version
from amdrv.demo.tour import Compiled, Event, Faulted, Opened, Painted, Ran


def document(name: str, size: str, events: Sequence[Event], seconds: float, ok: bool) -> dict[str, Json]:
    """The fields of ``amdrv demo --json``; what is not known is null."""
    opened = [event for event in events if isinstance(event, Opened)]
    return {
        "amdrv": version(),
        "device": name,
        "device_name": opened[0].name if opened else None,
        "arch": opened[0].arch if opened else None,
        "size": size,
        "boots": [boot(event.boot) for event in opened],
        "compile_seconds": next((event.seconds for event in events if isinstance(event, Compiled)), None),
        "programs": [_program(event) for event in events if isinstance(event, Ran)],
        "picture": next((str(event.path) for event in events if isinstance(event, Painted)), None),
        "fault": next((_fault(event) for event in events if isinstance(event, Faulted)), None),
        "seconds": seconds,
        "ok": ok,
    }


def boot(report: BootReport) -> dict[str, Json]:
    """A boot report."""
    total = Step("total", report.seconds, report.virtual_s, report.reads, report.writes)
    return {
        "kind": report.kind,
        "plan": report.plan.value,
        "reason": report.reason,
        "steps": [_step(step) for step in report.steps],
        **_step(total),
    }


def _step(step: Step) -> dict[str, Json]:
    return {
        "name": step.name,
        "seconds": step.seconds,
        "virtual_s": step.virtual_s,
        "reads": step.reads,
        "writes": step.writes,
    }


def _program(event: Ran) -> dict[str, Json]:
    result = event.result
    measured = result.measurement
    return {
        "name": result.name,
        "size": result.size,
        "seconds": measured.seconds,
        "gpu_seconds": measured.gpu_seconds,
        "launches": len(measured.launches),
        "wave_instructions": measured.wave_instructions,
        "deviation": finite(result.deviation),
        "tolerance": result.tolerance,
        "tolerance_reason": result.tolerance_reason,
        "ok": result.ok,
    }


def _fault(event: Faulted) -> dict[str, Json]:
    error = event.error
    return {
        "provoked": event.provoked,
        "message": str(error) if error is not None else None,
        "kind": error.kind if error is not None else None,
        "address": error.address if error is not None else None,
        "access": error.access if error is not None else None,
        "client": error.client if error is not None else None,
        "pc": error.pc if error is not None else None,
        "buffers_survived": event.survived,
        "seconds": event.seconds,
        "ok": event.ok,
    }
