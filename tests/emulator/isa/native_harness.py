"""A bench for generated LLVM IR: compile text for this machine (or a lesser one) and call it with NumPy arrays.

code = compile_ir("define i32 @add(i32 %a, i32 %b) {…}")
add = code.function("add", ctypes.c_int32, ctypes.c_int32, ctypes.c_int32)
add(1, 2)

values = evaluate(32, lambda builder, x, y: [x + y], [x_array, y_array])     # arrays of shape (waves, lanes)
"""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from elftools.elf.elffile import ELFFile
from llvmlite import binding as llvm
from numpy.typing import NDArray

from amdrv.emulator.isa.native.builder import Builder, Val
from amdrv.emulator.isa.native.library import METADATA, Function, Library

Array = NDArray[Any]

AVX2 = "x86-64-v3"  # the least processor that generated code must run on
DTYPES = {kind: np.dtype(f"{kind[0]}{int(kind[1:]) // 8}") for kind in ("u8", "u16", "i16", "u32", "i32", "u64", "i64")}
DTYPES |= {"f16": np.dtype("f2"), "f32": np.dtype("f4"), "f64": np.dtype("f8"), "bool": np.dtype("u1")}


def host_features() -> str:
    """What the machine that runs the tests has, as LLVM spells it."""
    return llvm.get_host_cpu_features().flatten()


def target_machine(level: int, cpu: str = "") -> Any:
    """A code generator at optimisation ``level`` for this machine, or for a named processor."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    features = "" if cpu else host_features()
    return target.create_target_machine(
        cpu=cpu or llvm.get_host_cpu_name(), features=features, opt=level, codemodel="jitdefault", jit=True
    )


def emit_object(text: str, *, level: int = 1, cpu: str = "") -> bytes:
    """Machine code of a module's text; level 0 runs no passes, as the first tier does."""
    machine = target_machine(level, cpu)
    module = llvm.parse_assembly(text)
    module.verify()
    if level:
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=level))
        builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def undefined_symbols(image: bytes) -> set[str]:
    """What an object needs from elsewhere: a call of the C library that LLVM made shows here."""
    symbols = ELFFile(io.BytesIO(image)).get_section_by_name(".symtab").iter_symbols()
    return {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name}


@dataclass
class Code:
    """Compiled code that can be called; keep it while its functions are in use."""

    image: bytes
    _jit: Any
    _library: Any
    _alive: list[object] = field(default_factory=list)

    def address(self, name: str) -> int:
        """Host address of a function."""
        return int(self._library[name])

    def function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        """A function as a ctypes callable."""
        return ctypes.CFUNCTYPE(result, *arguments)(self.address(name))


def compile_ir(text: str, *names: str, level: int = 1, cpu: str = "") -> Code:
    """Compile a module; ``names`` are the functions to be called (all that it defines when none is given).

    Raises AssertionError when the code calls something that is not in the module: in the emulated card there is neither
    a C library nor a compiler's run-time library to link with.
    """
    image = emit_object(text, level=level, cpu=cpu)
    missing = undefined_symbols(image)
    if missing:
        raise AssertionError(f"code needs {sorted(missing)}")
    names = names or tuple(defined_functions(text))
    jit = llvm.create_lljit_compiler(target_machine(level, cpu))
    library = llvm.JITLibraryBuilder().add_object_img(image)
    for name in names:
        library.export_symbol(name)
    return Code(image, jit, library.link(jit, "test"))


def defined_functions(text: str) -> list[str]:
    """Names of the functions that other modules may call."""
    functions = llvm.parse_assembly(text).functions
    return [f.name for f in functions if not f.is_declaration and f.linkage != llvm.Linkage.internal]


def run_function(text: str, lanes: int, *, level: int = 1, cpu: str = "") -> Callable[..., Any]:
    """The only function of a module, as a callable that takes NumPy arrays (as pointers) and integers (i64).

    It returns i32. ``lanes`` only says which wave size the text is for.
    """
    del lanes
    (name,) = defined_functions(text)
    code = compile_ir(text, name, level=level, cpu=cpu)

    def call(*arguments: Array | int) -> int:
        values = [a if isinstance(a, int) else a.ctypes.data for a in arguments]
        return int(code.function(name, ctypes.c_int32, *[ctypes.c_int64] * len(values))(*values))

    return call


@dataclass
class Batch:
    """Many small functions over arrays of waves, compiled as one module.

    Each takes arrays of shape (waves, lanes), or (waves, 1) for a scalar of the wave, and returns such arrays. A value
    of kind "bool" lies in memory as a byte, 0 or 1.
    """

    lanes: int
    library: Iterable[Function] = ()
    level: int = 1
    cpu: str = ""
    _texts: list[str] = field(default_factory=list)
    _uses: set[str] = field(default_factory=set)
    _functions: dict[str, str] = field(default_factory=dict)
    _results: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)
    _code: Code | None = None

    def add(
        self,
        name: str,
        body: Callable[..., Sequence[Val]],
        inputs: Sequence[tuple[str, bool]],
    ) -> None:
        """A function: ``body(builder, *values)`` writes it and returns its results; inputs are (kind, per lane)."""
        builder = Builder(self.lanes)
        results = body(builder, *[self._load(builder, n, *how) for n, how in enumerate(inputs)])
        for number, value in enumerate(results, start=len(inputs)):
            self._store(builder, number, value)
        self._results[name] = [(value.kind, value.vector) for value in results]
        self._uses |= builder.uses
        self._functions |= builder.functions
        lines = "\n".join(builder.lines)
        self._texts.append(_LOOP.format(name=name, lines=lines, last=builder.block))

    def _place(self, builder: Builder, number: int, kind: str, vector: bool) -> tuple[str, str]:
        """Address of an argument's part for the current wave, and its type in memory."""
        count = self.lanes if vector else 1
        base = builder.emit(f"getelementptr ptr, ptr %args, i64 {number}")
        base = builder.emit(f"load ptr, ptr {base}")
        step = builder.emit(f"mul i64 %wave, {count * DTYPES[kind].itemsize}")
        scalar = "i8" if kind == "bool" else builder.type(kind, False)
        return builder.emit(f"getelementptr i8, ptr {base}, i64 {step}"), f"<{count} x {scalar}>" if vector else scalar

    def _load(self, builder: Builder, number: int, kind: str, vector: bool) -> Val:
        place, shape = self._place(builder, number, kind, vector)
        text = builder.emit(f"load {shape}, ptr {place}, align 1")
        if kind == "bool":
            text = builder.emit(f"trunc {shape} {text} to {builder.type('bool', vector)}")
        return builder.value(kind, text, vector)

    def _store(self, builder: Builder, number: int, value: Val) -> None:
        place, shape = self._place(builder, number, value.kind, value.vector)
        text = value.text
        if value.kind == "bool":
            text = builder.emit(f"zext {value.typed} to {shape}")
        builder.do(f"store {shape} {text}, ptr {place}, align 1")

    @property
    def text(self) -> str:
        """The module."""
        library = {function.name: function for function in self.library}
        wanted, seen = list(self._uses | set().union(*(_calls(t) for t in self._functions.values()))), set()
        while wanted:
            name = wanted.pop()
            if name in library and name not in seen:
                seen.add(name)
                wanted += library[name].calls
        parts = [library[name].definition("internal ") for name in sorted(seen)]
        return "\n".join([*self._texts, *self._functions.values(), *parts, METADATA])

    def call(self, name: str, *arrays: Array) -> list[Array]:
        """Run a function over all waves of its arguments."""
        if self._code is None:
            self._code = compile_ir(self.text, *self._results, level=self.level, cpu=self.cpu)
        waves = max((array.shape[0] for array in arrays), default=1)
        arguments = [np.ascontiguousarray(np.broadcast_to(array, (waves, array.shape[1]))) for array in arrays]
        arguments = [a.view("u1") if a.dtype == bool else a for a in arguments]
        results = [np.zeros((waves, self.lanes if vector else 1), DTYPES[kind]) for kind, vector in self._results[name]]
        pointers = (ctypes.c_void_p * (len(arguments) + len(results)))(*[a.ctypes.data for a in arguments + results])
        self._code.function(name, None, ctypes.c_void_p, ctypes.c_int64)(ctypes.addressof(pointers), waves)
        kinds = [kind for kind, _ in self._results[name]]
        return [r.astype(bool) if kind == "bool" else r for r, kind in zip(results, kinds, strict=True)]


def _calls(text: str) -> set[str]:
    return Function(text[text.index("define ") :].replace("define internal ", "define ", 1)).calls


_LOOP = """
define void @{name}(ptr noalias %args, i64 %waves) "no-builtins" {{
entry:
  br label %body
body:
  %wave = phi i64 [ 0, %entry ], [ %next, %done ]
{lines}
  br label %done
done:
  %next = add i64 %wave, 1
  %more = icmp ult i64 %next, %waves
  br i1 %more, label %body, label %end
end:
  ret void
}}
"""


def evaluate(
    lanes: int,
    body: Callable[..., Sequence[Val]],
    arrays: Sequence[Array],
    *,
    library: Iterable[Function] = (),
    level: int = 1,
    cpu: str = "",
) -> list[Array]:
    """Write one function with ``body``, compile it and run it over the arrays: (waves, lanes), or (waves, 1)."""
    batch = Batch(lanes, library, level, cpu)
    batch.add("f", body, [(kind_of(array), array.shape[1] != 1) for array in arrays])
    return batch.call("f", *arrays)


def kind_of(array: Array) -> str:
    """Kind of an array's elements."""
    if array.dtype == bool:
        return "bool"
    return f"{array.dtype.kind}{8 * array.dtype.itemsize}"


def library_module(functions: Iterable[Function]) -> str:
    """Library functions as a module of their own."""
    return Library(functions).module()
