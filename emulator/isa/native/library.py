"""Functions that compiled units call: memory paths, lane exchange, approximated functions, the workgroup loop.

They are compiled once for each wave size. The first tier calls all of them; the second gets the text of the ``inline``
ones in its own module, so that only their slow parts stay calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_CALL = re.compile(r"@([\w.]+)\(")
_HEAD = re.compile(r"define ([^@]*)@([\w.]+)\(")
_ARGUMENT_NAME = re.compile(r" %[\w.]+")


@dataclass(frozen=True, slots=True)
class Function:
    """One function. ``text`` is "define RESULT @NAME(ARGUMENTS) {…}"; linkage and attributes are added here.

    The body begins at the first ") {".
    """

    text: str
    inline: bool = False

    @property
    def name(self) -> str:
        """Name without the at sign."""
        head = _HEAD.match(self.text)
        if head is None:
            raise ValueError("a library function starts with 'define'")
        return head.group(2)

    @property
    def calls(self) -> set[str]:
        """Names of what it calls."""
        return set(_CALL.findall(self.text)) - {self.name}

    @property
    def declaration(self) -> str:
        """The line by which another module knows it."""
        signature = self.text[len("define ") : self.text.index(") {") + 1]
        return f"declare {_ARGUMENT_NAME.sub('', signature)} nounwind"

    def definition(self, linkage: str = "", attributes: str = "") -> str:
        """The whole text with a linkage ("internal ") and attributes ("alwaysinline ")."""
        text = self.text.replace("define ", f"define {linkage}", 1)
        return text.replace(") {", f") {attributes}nounwind {{", 1)


class Library:
    """The functions of one wave size."""

    def __init__(self, functions: Iterable[Function]) -> None:
        self._functions = {function.name: function for function in functions}

    @property
    def names(self) -> list[str]:
        """Every function, by name."""
        return list(self._functions)

    def function(self, name: str) -> Function:
        """One function. Raises KeyError."""
        return self._functions[name]

    def module(self) -> str:
        """All functions as one module."""
        return "\n".join([*(function.definition() for function in self._functions.values()), METADATA])

    def prelude(self, used: Iterable[str], inline: bool) -> str:
        """What a unit's module says of the functions it uses: definitions to be inlined, or declarations."""
        lines = []
        wanted, seen = list(used), set()
        while wanted:
            name = wanted.pop()
            if name in seen or name not in self._functions:
                continue
            seen.add(name)
            function = self._functions[name]
            if inline and function.inline:
                lines.append(function.definition("internal ", "alwaysinline "))
                wanted += function.calls
            else:
                lines.append(function.declaration)
        return "\n".join(lines)


# !0: the first way of a branch is hardly ever taken. !1: for !invariant.load.
METADATA = '!0 = !{!"branch_weights", i32 1, i32 1000000}\n!1 = !{}'
