"""From the graphs of an ONNX model to programs: lists of steps, each an operator with the names of what it reads.

Importing looks at every node of every graph first, so that everything unsupported is known before anything runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto

from amdrv.errors import AmdrvError, InvalidArgument, MalformedInput, Unsupported
from amdrv.tensor.onnx import constants, weights
from amdrv.tensor.onnx.operators import OPERATORS
from amdrv.tensor.onnx.registry import Call, Operator, Result, Value, describe, host, is_lazy, tensors
from amdrv.tensor.storage import Backend
from amdrv.tensor.tensor import Tensor

DEPTH_MAX = 64  # of graphs in attributes, and of functions that call functions
STEPS_MAX = 1 << 20  # with functions expanded
IMPLICIT = "ai.onnx"  # another name of the domain ""
RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
Attributes = Mapping[str, AttributeProto]
FunctionKey = tuple[str, str, str]  # domain, name, overload


class UnsupportedOperators(Unsupported):
    """A model has operators that are not known here; ``operators`` names them all."""

    def __init__(self, operators: Sequence[str]) -> None:
        super().__init__(f"operators that are not supported: {', '.join(operators)}")
        self.operators = tuple(operators)


@dataclass(slots=True)
class Scope:
    """The values of one run of a program, and those around it."""

    values: dict[str, Value]
    outer: Scope | None
    seed: int

    def find(self, name: str) -> Value:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        raise InvalidArgument(f"there is no value {name!r}")

    def settle(self) -> None:
        """Compute everything that later steps may read, together: what is computed alone is forgotten."""
        found: list[Tensor] = []
        scope: Scope | None = self
        while scope is not None:
            found += (value for value in tensors(scope.values.values()) if is_lazy(value))
            scope = scope.outer
        if found:
            found[0].realize(*found[1:])


@dataclass(frozen=True, slots=True)
class Bound:
    """A graph in an attribute, with the values that it sees: the ``Subgraph`` that operators call."""

    program: Program
    scope: Scope

    @property
    def input_names(self) -> Sequence[str]:
        return self.program.inputs

    @property
    def output_count(self) -> int:
        return len(self.program.outputs)

    def __call__(self, *inputs: Value) -> tuple[Value, ...]:
        if len(inputs) != len(self.program.inputs):
            raise InvalidArgument(f"{len(inputs)} values for a graph with inputs {', '.join(self.program.inputs)}")
        return self.program.run(inputs, self.scope)


@dataclass(frozen=True, slots=True)
class Step:
    """One node. ``call`` lacks what belongs to a run: graphs are bound to values, and the seed is the run's."""

    call: Call
    operator: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    graphs: Mapping[str, Program]
    number: int
    done: list[str] = field(default_factory=list)  # values that no later step reads

    def run(self, scope: Scope) -> Sequence[Value]:
        given = [scope.find(name) if name else None for name in self.inputs]
        attributes = self.call.attributes
        if self.graphs:
            attributes = {**attributes, **{name: Bound(graph, scope) for name, graph in self.graphs.items()}}
        call = dataclasses.replace(self.call, attributes=attributes, seed=scope.seed * STEPS_MAX + self.number)
        try:
            found: Result = constants.folded(call, given)
            if found is None:
                if self.operator.looks(given):
                    scope.settle()
                found = self.operator(call, *given)
        except (AmdrvError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, MemoryError) as error:
            shown = ", ".join(describe(value) for value in given)
            kind = Unsupported if isinstance(error, Unsupported) else InvalidArgument
            text = f"{call.op_type} {call.name!r} of {shown or 'nothing'}: {error or type(error).__name__}"
            raise kind(text) from error
        return self._checked(found)

    def looked_at(self) -> Iterator[str]:
        """Inputs that the operator wants as NumPy arrays."""
        yield from (name for name, kind in zip(self.inputs, self.operator.kinds, strict=False) if kind == "Host")

    def _checked(self, found: Result) -> Sequence[Value]:
        results = found if isinstance(found, tuple) else (found,)
        if len(results) < len(self.outputs):
            raise MalformedInput(f"{self.call.op_type} {self.call.name!r} has {len(results)} outputs at most")
        for value in results:
            if isinstance(value, Tensor) and value.size > weights.ELEMENTS_MAX:
                raise InvalidArgument(f"{self.call.op_type} {self.call.name!r} would make {describe(value)}")
        return results


@dataclass(frozen=True, slots=True)
class Program:
    """A graph or a function's body, ready to run."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Value]
    steps: tuple[Step, ...]
    free: frozenset[str]  # what it reads from around it
    step_count: int  # with those of graphs and functions in it
    draws: bool  # random numbers, other ones in each run

    def run(self, inputs: Sequence[Value], outer: Scope | None, seed: int = 0) -> tuple[Value, ...]:
        """The outputs for values of the inputs."""
        values = {**self.constants, **dict(zip(self.inputs, inputs, strict=False))}
        scope = Scope(values, outer, seed if outer is None else outer.seed)
        for step in self.steps:
            values.update((name, value) for name, value in zip(step.outputs, step.run(scope), strict=False) if name)
            for name in step.done:
                values.pop(name, None)
        return tuple(scope.find(name) for name in self.outputs)


@dataclass(slots=True)
class Importer:
    """What importing one model knows."""

    opsets: Mapping[str, int]
    functions: Mapping[FunctionKey, FunctionProto]
    folder: Path | None
    device: Backend
    missing: set[str] = field(default_factory=set)
    imported: dict[tuple[object, ...], Program] = field(default_factory=dict)  # bodies of functions, by attributes

    def graph(self, proto: GraphProto, around: frozenset[str] = frozenset(), depth: int = 0) -> Program:
        """A graph that sees values around it by name."""
        stored = {part.name: weights.load(part, self.folder) for part in proto.initializer}
        stored |= {part.values.name: weights.load_sparse(part, self.folder) for part in proto.sparse_initializer}
        known = {name: weights.constant(array, self.device) for name, array in stored.items()}
        inputs = tuple(value.name for value in proto.input if depth or value.name not in stored)
        outputs = tuple(value.name for value in proto.output)
        return self._program(proto.node, inputs, outputs, known, around, {}, depth)

    def function(self, proto: FunctionProto, given: Attributes, depth: int, opsets: Mapping[str, int]) -> Program:
        """The body of a function that is called with attributes."""
        defaults = {part.name: part for part in proto.attribute_proto}
        bound = {**defaults, **given}
        own = dataclasses.replace(self, opsets={**opsets, **_opsets(proto.opset_import)})
        return own._program(proto.node, tuple(proto.input), tuple(proto.output), {}, frozenset(), bound, depth)

    def _program(
        self,
        nodes: Sequence[NodeProto],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        known: dict[str, Value],
        around: frozenset[str],
        bound: Attributes,
        depth: int,
    ) -> Program:
        if depth > DEPTH_MAX:
            raise MalformedInput(f"graphs and functions are more than {DEPTH_MAX} deep in one another")
        made, free, steps, count, draws = {*inputs, *known}, set[str](), list[Step](), 0, False
        for number, node in enumerate(nodes):
            attributes = dict(_resolved(node, bound))
            if twice := sorted({*filter(None, node.output)} & made):
                raise MalformedInput(f"values that are made twice: {', '.join(map(repr, twice))}")
            if node.op_type == "Constant" and node.domain in ("", IMPLICIT):
                known[node.output[0]] = self._constant(attributes)
            else:
                step, inner = self._step(node, attributes, number, around | made, depth)
                steps.append(step)
                count += 1 + sum(part.step_count for part in inner)
                draws = draws or _draws(node) or any(part.draws for part in inner)
                used = {*filter(None, node.input)}.union(*(graph.free for graph in step.graphs.values()))
                free |= used - made
            made.update(filter(None, node.output))
        free |= {*outputs} - made
        if unknown := sorted(free - around):
            raise MalformedInput(f"values that nothing makes before they are used: {', '.join(map(repr, unknown))}")
        if count > STEPS_MAX:
            raise MalformedInput(f"{count} nodes with functions expanded, more than {STEPS_MAX}")
        _forget(steps, {*outputs})
        # What an operator wants as NumPy array is not fetched from the device in every run.
        shapes = {name for step in steps for name in step.looked_at() if name in known}
        known.update({name: host(known[name]) for name in shapes})
        return Program(inputs, outputs, known, tuple(steps), frozenset(free), count, draws)

    def _step(
        self, node: NodeProto, attributes: Attributes, number: int, seen: frozenset[str], depth: int
    ) -> tuple[Step, list[Program]]:
        """A node, and the programs of its graphs and of the function that it is."""
        domain = "" if node.domain == IMPLICIT else node.domain
        graphs = {
            name: self.graph(part.g, seen, depth + 1)
            for name, part in attributes.items()
            if part.type == AttributeProto.GRAPH
        }
        body = self._body(node, domain, attributes, depth)
        if body is not None:
            operator = Operator(lambda call, *values: body.run(values, None, call.seed), (), "Value", computes=False)
        else:
            operator = OPERATORS.get(f"{domain}.{node.op_type}" if domain else node.op_type, NEVER)
        values = {name: self._attribute(part) for name, part in attributes.items() if part.type != AttributeProto.GRAPH}
        opset = self.opsets.get(domain, 1)
        outputs = tuple(node.output)
        while outputs and not outputs[-1]:
            outputs = outputs[:-1]
        call = Call(node.name, node.op_type, domain, opset, values, len(outputs), self.device, 0)
        inner = [*graphs.values(), *([body] if body else [])]
        return Step(call, operator, tuple(node.input), outputs, graphs, number), inner

    def _body(self, node: NodeProto, domain: str, attributes: Attributes, depth: int) -> Program | None:
        """The body of a function of the model, or of ONNX's own for an operator that is not known here."""
        proto = self.functions.get((domain, node.op_type, node.overload))
        name = f"{domain}.{node.op_type}" if domain else node.op_type
        if proto is None and name not in OPERATORS:
            schema = _schema(node, domain, self.opsets)
            if schema is None or not schema.function_body.node:
                self.missing.add(name)
                return None
            proto, defaults = schema.function_body, schema.attributes.items()
            attributes = {
                **{name: part.default_value for name, part in defaults if part.default_value.name},
                **attributes,
            }
        if proto is None:
            return None
        version = self.opsets.get(domain, 1)
        key = (
            domain,
            node.op_type,
            node.overload,
            version,
            *sorted(part.SerializeToString() for part in attributes.values()),
        )
        if key not in self.imported:
            self.imported[key] = self.function(proto, attributes, depth + 1, self.opsets)
        return self.imported[key]

    def _attribute(self, part: AttributeProto) -> Any:
        """An attribute as a Python value."""
        kind = part.type
        if kind == AttributeProto.TENSOR:
            return weights.load(part.t, self.folder)
        if kind == AttributeProto.SPARSE_TENSOR:
            return weights.load_sparse(part.sparse_tensor, self.folder)
        if kind == AttributeProto.TENSORS:
            return [weights.load(item, self.folder) for item in part.tensors]
        if kind == AttributeProto.TYPE_PROTO:
            return part.tp
        if kind in (AttributeProto.GRAPHS, AttributeProto.SPARSE_TENSORS, AttributeProto.TYPE_PROTOS):
            raise Unsupported(f"attribute {part.name!r} is a list of graphs, sparse tensors or types")
        found = onnx.helper.get_attribute_value(part)
        if isinstance(found, bytes):
            return found.decode(errors="replace")
        if isinstance(found, (int, float)):
            return found
        return [item.decode(errors="replace") if isinstance(item, bytes) else item for item in found]

    def _constant(self, attributes: Attributes) -> Value:
        """The value of a Constant node."""
        if len(attributes) != 1:
            raise MalformedInput(f"a Constant has one value, not {', '.join(attributes) or 'none'}")
        ((name, part),) = attributes.items()
        return weights.constant(constants.array(name, self._attribute(part)), self.device)


def _opsets(imports: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {"" if part.domain == IMPLICIT else part.domain: part.version for part in imports}


def _resolved(node: NodeProto, bound: Attributes) -> Iterator[tuple[str, AttributeProto]]:
    """The attributes of a node, those that stand for an attribute of the function replaced by it."""
    for part in node.attribute:
        if not part.ref_attr_name:
            yield part.name, part
        elif part.ref_attr_name in bound:
            found = AttributeProto()
            found.CopyFrom(bound[part.ref_attr_name])
            found.name = part.name
            yield part.name, found


def _schema(node: NodeProto, domain: str, opsets: Mapping[str, int]) -> onnx.defs.OpSchema | None:
    """What ONNX itself says of an operator."""
    try:
        return onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return None


def _draws(node: NodeProto) -> bool:
    """Whether a node draws random numbers, other ones in each run."""
    seeded = any(part.name == "seed" for part in node.attribute)
    return not seeded and (node.op_type in RANDOM or (node.op_type == "Dropout" and len(node.input) > 2))


NEVER = Operator(lambda call, *values: None, (), "Value", computes=False)  # stands for what is not supported


def _forget(steps: Sequence[Step], kept: set[str]) -> None:
    """Note with each step which values no later one reads."""
    later = set(kept)
    for step in reversed(steps):
        used = {*filter(None, step.inputs)}.union(*(graph.free for graph in step.graphs.values()))
        step.done.extend(({*step.outputs} | used) - later)
        later |= used


def import_model(proto: onnx.ModelProto, folder: Path | None, device: Backend) -> Program:
    """The program of a model. Raises UnsupportedOperators, and MalformedInput for graphs that cannot be run."""
    functions = {
        ("" if part.domain == IMPLICIT else part.domain, part.name, part.overload): part for part in proto.functions
    }
    importer = Importer(_opsets(proto.opset_import), functions, folder, device)
    program = importer.graph(proto.graph)
    if importer.missing:
        raise UnsupportedOperators(sorted(importer.missing))
    return program
