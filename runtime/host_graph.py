"""Functions of the host that are called together, again and again: one native call walks a table of them.

Each thread walks the whole table: it runs its share of what is divided, the first one what is not, and they wait for
each other where an entry needs what others wrote. So Python and the threads' start are paid for once, not per call.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Of an entry: thunk, function, where its pointers are, trips, threads that share them, whether all meet afterwards.
FIELDS = 6

# A thread that waits looks at the counter some thousand times, then leaves its processor to others between looks.
WALK = """
define void @walk(ptr %entries, i64 %count, ptr %arrived, ptr %sched_yield, i64 %thread, i64 %threads) nounwind {
start:
  br label %next
next:
  %k = phi i64 [0, %start], [%following, %done]
  %met = phi i64 [0, %start], [%meeting, %done]
  %end = icmp eq i64 %k, %count
  br i1 %end, label %out, label %entry
entry:
  %thunk.at = getelementptr [6 x i64], ptr %entries, i64 %k, i64 0
  %function.at = getelementptr [6 x i64], ptr %entries, i64 %k, i64 1
  %pointers.at = getelementptr [6 x i64], ptr %entries, i64 %k, i64 2
  %trips.at = getelementptr [6 x i64], ptr %entries, i64 %k, i64 3
  %share.at = getelementptr [6 x i64], ptr %entries, i64 %k, i64 4
  %meet.at = getelementptr [6 x i64], ptr %entries, i64 %k, i64 5
  %share = load i64, ptr %share.at
  %meets = load i64, ptr %meet.at
  %step = mul i64 %meets, %threads
  %meeting = add i64 %met, %step
  %mine = icmp ult i64 %thread, %share
  br i1 %mine, label %run, label %ran
run:
  %thunk = load ptr, ptr %thunk.at
  %function = load ptr, ptr %function.at
  %pointers = load ptr, ptr %pointers.at
  %trips = load i64, ptr %trips.at
  %before = mul i64 %trips, %thread
  %first = udiv i64 %before, %share
  %through = add i64 %before, %trips
  %last = udiv i64 %through, %share
  call void %thunk(ptr %function, ptr %pointers, i64 %first, i64 %last)
  br label %ran
ran:
  %together = icmp ne i64 %meets, 0
  br i1 %together, label %arrive, label %done
arrive:
  %old = atomicrmw add ptr %arrived, i64 1 seq_cst
  br label %look
look:
  %looks = phi i64 [0, %arrive], [%more, %impatient], [%more, %yield]
  %seen = load atomic i64, ptr %arrived acquire, align 8
  %all = icmp uge i64 %seen, %meeting
  %more = add i64 %looks, 1
  br i1 %all, label %done, label %impatient
impatient:
  %long = icmp ugt i64 %looks, 4096
  br i1 %long, label %yield, label %look
yield:
  %ignored = call i32 %sched_yield()
  br label %look
done:
  %following = add i64 %k, 1
  br label %next
out:
  ret void
}
"""


def _thunk(pointers: int) -> str:
    """A function that takes another's pointers from memory and calls it."""
    loads = [
        f"  %at{slot} = getelementptr ptr, ptr %pointers, i64 {slot}\n  %p{slot} = load ptr, ptr %at{slot}"
        for slot in range(pointers)
    ]
    given = "".join(f"ptr %p{slot}, " for slot in range(pointers))
    head = f"define void @thunk{pointers}(ptr %function, ptr %pointers, i64 %first, i64 %last) nounwind {{"
    return "\n".join([head, *loads, f"  call void %function({given}i64 %first, i64 %last)", "  ret void", "}"])


@dataclass(frozen=True, slots=True)
class HostCall:
    """A function of some pointers and two numbers, between which are the trips of its loop that it is to do."""

    function: int  # address
    slots: tuple[int, ...]  # which of a graph's pointers it takes
    trips: int
    share: int  # threads that the trips are divided among
    code: object = None  # where the function is, kept as long as the call


@dataclass(slots=True)
class Team:
    """Threads for graphs. A graph needs its threads all at the same time, so graphs take turns. A fork has new ones."""

    pool: ThreadPoolExecutor
    turn: threading.Lock


class HostGraph:
    """Calls in order."""

    def __init__(
        self, calls: Sequence[HostCall], link: Callable[[str, Sequence[str]], Mapping[str, int]], team: Team
    ) -> None:
        """``link`` compiles LLVM IR and gives the addresses of functions in it, as long as what it returns is kept."""
        self._team, self._calls = team, tuple(calls)
        names = [f"thunk{count}" for count in sorted({len(call.slots) for call in calls})]
        self._code = link("\n".join([WALK, *(_thunk(int(name[len("thunk") :])) for name in names)]), ["walk", *names])
        self._slots = np.array([slot for call in calls for slot in call.slots], np.intp)
        self._pointers = np.zeros(len(self._slots), np.uint64)
        ends = itertools.accumulate((len(call.slots) for call in calls), initial=0)
        rows = [
            [
                self._code[f"thunk{len(call.slots)}"],
                call.function,
                self._pointers[at:].ctypes.data,
                call.trips,
                call.share,
                0,
            ]
            for call, at in zip(calls, ends, strict=False)
        ]
        for row, (call, following) in zip(rows, itertools.pairwise(calls), strict=False):
            row[-1] = int(call.share > 1 or following.share > 1)
        self._entries = np.array(rows, np.uint64).reshape(-1, FIELDS)
        self._arrived = np.zeros(1, np.uint64)
        self._threads = max((call.share for call in calls), default=1)
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self._walk = ctypes.CFUNCTYPE(None, pointer, number, pointer, pointer, number, number)(self._code["walk"])
        give_way = ctypes.cast(ctypes.CDLL(None).sched_yield, pointer)
        self._given = (self._entries.ctypes.data, len(rows), self._arrived.ctypes.data, give_way)

    def run(self, pointers: NDArray[np.uint64]) -> None:
        """Call them all; ``pointers`` are those of all slots. Only one thread at a time may run a graph."""
        np.take(pointers, self._slots, out=self._pointers, mode="clip")
        if self._threads == 1:
            self._walk(*self._given, 0, 1)
            return
        with self._team.turn:
            self._arrived[0] = 0
            submit = self._team.pool.submit
            others = [submit(self._walk, *self._given, k, self._threads) for k in range(1, self._threads)]
            self._walk(*self._given, 0, self._threads)
            for other in others:
                other.result()
