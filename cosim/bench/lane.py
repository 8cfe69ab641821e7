"""The compiled lane from Python: numpy arrays in and out of the clock loop of cosim/bench/lane.cpp.

`VerilatorLane` owns a model, in this process, with no simulator round it. `LinkedLane` is the same loop inside a model
that cocotb drives.
"""

from __future__ import annotations

import ctypes
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.conditions import BatchResult, BenchError, Conditions, Counters
from ptewalk.cosim.bench.headers import BATCH
from ptewalk.cosim.bench.records import (
    EVENT,
    FAULT,
    INTERFERENCE,
    REQUEST,
    RESPONSE,
    TRANSLATION,
    WALKED,
    WRITTEN,
    Records,
    Status,
    validate_work,
)
from ptewalk.model.memory import SparseMemory
from ptewalk.model.x86 import PAGE_SHIFT
from ptewalk.rtl.description import DesignDescription

__all__ = ["Asked", "Lane", "LinkedLane", "VerilatorLane"]

_NONE: Final = np.zeros(0, INTERFERENCE)
_LOGS: Final = (("events", EVENT), ("faults", FAULT), ("written", WRITTEN), ("walked", WALKED))
_COUNTS: Final = {"events": "event_count", "faults": "fault_count"}


@dataclass(frozen=True)
class Asked:
    """What a lane is to run; see `Lane.run`."""

    requests: Records
    memory: SparseMemory
    interferences: Records
    conditions: Conditions | None
    stop_on_fault: bool


class Lane(ABC):
    """What runs a batch of requests on gateware, whatever simulates it."""

    def run(
        self,
        requests: Records,
        memory: SparseMemory,
        interferences: Records | None = None,
        conditions: Conditions | None = None,
        *,
        stop_on_fault: bool = False,
    ) -> BatchResult:
        """As `WalkerBench.batch`; memory is changed in place.

        Raises
        ------
        BenchError
            A rule was broken; the gateware was reset.
        """
        return self.perform(
            Asked(requests, memory, _NONE if interferences is None else interferences, conditions, stop_on_fault)
        )

    @abstractmethod
    def perform(self, asked: Asked) -> BatchResult:
        """As `run`."""


class _CompiledLane(Lane):
    """A lane of compiled code.

    Attributes
    ----------
    conditions : Conditions
        Where a call does not say otherwise.
    """

    conditions: Conditions

    @abstractmethod
    def reset(self) -> None:
        """Reset the gateware: the way on after a `BenchError`."""

    @abstractmethod
    def entry(self) -> Callable[[int], int]:
        """The compiled call: it takes the address of a `BATCH` and returns a `Status`; nothing is checked.

        After another status than COMPLETE the gateware has to be `reset`.
        """

    def perform(self, asked: Asked) -> BatchResult:
        """As `Lane.run`, of validated arrays."""
        try:
            return _call(self.entry(), asked, asked.conditions or self.conditions)
        except BenchError:
            self.reset()
            raise


def _call(call: Callable[[int], int], asked: Asked, conditions: Conditions) -> BatchResult:
    """Run a batch of validated arrays by `call`, which takes the address of a `BATCH`."""
    requests, memory, interferences = asked.requests, asked.memory, asked.interferences
    accepted = np.zeros(len(requests), REQUEST)
    responses = np.zeros(len(requests), RESPONSE)
    translations = np.zeros(len(requests), TRANSLATION)
    keys, rows, words = memory.export()
    arrays: tuple[NDArray[Any], ...] = (requests, accepted, responses, translations, interferences, keys, rows, words)
    batch = np.zeros(1, BATCH)
    one = batch[0]
    names = ("requests", "accepted_requests", "responses", "translations", "interferences", "keys", "rows", "words")
    for name, array in zip(names, arrays, strict=True):
        one[name] = array.ctypes.data
    one["request_count"] = len(requests)
    one["interference_count"] = len(interferences)
    one["key_bits"] = int(math.log2(len(keys)))
    one["frame_limit"] = 1 << memory.physical_bits - PAGE_SHIFT
    one["absent_is_zero"] = not memory.strict
    for name in ("latency", "latency_spread", "retirement_spread", "max_cycles", "linger", "seed"):
        one[name] = getattr(conditions, name)
    one["stop_on_fault"] = asked.stop_on_fault
    one["thresholds"] = conditions.thresholds
    started = time.perf_counter()
    status = call(batch.ctypes.data)
    seconds = time.perf_counter() - started
    if status < 0:
        raise RuntimeError("the batch level does not find the model in this program; build it without batch=True")
    if status != Status.COMPLETE:
        raise BenchError(Status(status), int(one["accepted"]) - 1, int(one["cycles"]))
    logs = {name: _copy(one, name, dtype) for name, dtype in _LOGS}
    return BatchResult(
        requests=accepted[: int(one["accepted"])],
        responses=responses[: int(one["response_count"])],
        translations=translations[: int(one["translation_count"])],
        counters=Counters(**{counter.name: int(one[counter.name]) for counter in fields(Counters)}),
        compiled=True,
        seconds=seconds,
        **logs,
    )


def _copy(batch: np.void, name: str, dtype: np.dtype[np.void]) -> Records:
    """A log that the compiled lane keeps until the next batch."""
    count = int(batch[_COUNTS.get(name, f"{name}_count")])
    if not count:
        return np.zeros(0, dtype)
    raw = (ctypes.c_char * (count * dtype.itemsize)).from_address(int(batch[name]))
    copied: Records = np.array(np.frombuffer(raw, np.uint8).view(dtype))  # type: ignore[call-overload]
    return copied


def _check_size(library: Any) -> None:
    compiled = library.ptewalk_batch_size()
    if compiled != BATCH.itemsize:
        raise RuntimeError(f"the lane was built of other records than these: {compiled} is not {BATCH.itemsize}")


class LinkedLane(_CompiledLane):
    """The clock loop that was compiled into the simulator in which this process runs.

    Parameters
    ----------
    library : ctypes.CDLL
        The program itself.
    """

    def __init__(self, library: Any) -> None:
        _check_size(library)
        self._call = library.ptewalk_linked_batch
        self._call.argtypes = [ctypes.c_void_p]
        self._reset = library.ptewalk_linked_reset
        self.conditions = Conditions()

    @staticmethod
    @lru_cache(maxsize=1)
    def find() -> LinkedLane | None:
        """The lane of this process; None when the model was built without it, or the simulator is another."""
        library = ctypes.CDLL(None)
        return LinkedLane(library) if hasattr(library, "ptewalk_linked_batch") else None

    def reset(self) -> None:
        """As `VerilatorLane.reset`."""
        self._reset()

    def entry(self) -> Callable[[int], int]:
        """As `VerilatorLane.entry`; the clock must be stopped, and low."""
        return self._call


class VerilatorLane(_CompiledLane):
    """A model of the gateware in this process, and the clock loop round it.

    Parameters
    ----------
    library : Path
        What `simulate.build.build_library` made.
    design : DesignDescription, optional
        What it was made of; by default the design.json beside it.

    Attributes
    ----------
    conditions : Conditions
        Where a call does not say otherwise.
    """

    def __init__(
        self, library: Path, design: DesignDescription | None = None, conditions: Conditions | None = None
    ) -> None:
        self.design = design or DesignDescription.from_json(json.loads(library.with_name("design.json").read_text()))
        self.conditions = conditions or Conditions()
        self._library = ctypes.CDLL(str(library))
        _check_size(self._library)
        self._library.ptewalk_open.restype = ctypes.c_void_p
        for name in ("ptewalk_close", "ptewalk_reset"):
            getattr(self._library, name).argtypes = [ctypes.c_void_p]
        self._library.ptewalk_batch.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._lane = ctypes.c_void_p(self._library.ptewalk_open())
        self.reset()

    def reset(self) -> None:
        """Reset the gateware: the way on after a `BenchError`."""
        self._library.ptewalk_reset(self._lane)

    def close(self) -> None:
        """Free the model; nothing can be run afterwards."""
        if self._lane is not None:
            self._library.ptewalk_close(self._lane)
            self._lane = None  # type: ignore[assignment]

    def entry(self) -> Callable[[int], int]:
        """The compiled call: it takes the address of a `BATCH` and returns a `Status`; nothing is checked.

        After another status than COMPLETE the gateware has to be `reset`.
        """
        lane, call = self._lane, self._library.ptewalk_batch
        return lambda address: int(call(lane, address))

    def __enter__(self) -> VerilatorLane:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def perform(self, asked: Asked) -> BatchResult:
        """As `Lane.run`.

        Raises
        ------
        TypeError, ValueError
            An array is not what it must be, or the memory has more physical address bits than the walker.
        BenchError
            A rule was broken; the gateware was reset.
        """
        parameters = self.design.parameters
        if asked.memory.physical_bits > parameters["physical_bits"]:
            raise ValueError(
                f"the memory must have at most the walker's {parameters['physical_bits']} physical address bits, "
                f"not {asked.memory.physical_bits}"
            )
        if self._lane is None:
            raise RuntimeError("this lane was closed")
        requests, interferences = validate_work(asked.requests, asked.interferences, asked.memory, parameters)
        return super().perform(replace(asked, requests=requests, interferences=interferences))
