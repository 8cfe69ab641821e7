"""The protocol level's agents who supervise: they empty the fault queue, retire grants, drain, and keep the trace."""

from __future__ import annotations

from typing import Any

from ptewalk.cosim.bench.headers import COUNTERS
from ptewalk.cosim.bench.ledger import Ledger
from ptewalk.cosim.bench.records import Channel, Status
from ptewalk.cosim.bench.streams import Pins, RuleBroken, StreamMonitor, Wire
from ptewalk.model.x86 import Access, Outcome

__all__ = ["DrainAgent", "FaultQueueAgent", "RetirementAgent", "TraceAgent"]


class FaultQueueAgent:
    """Empties the fault queue, at the pace that the conditions say, and at full pace when all is over.

    Parameters
    ----------
    pins : Pins
    """

    def __init__(self, pins: Pins) -> None:
        self._faults: StreamMonitor | None = pins.monitor("faults", Status.UNSTABLE_FAULT)
        self._lost = pins.pin("lost_faults")
        self._lost_before = self._answered = self._seen = 0

    def reset(self) -> None:
        """As `Agent.reset`."""
        if self._faults is not None:
            self._faults.reset()

    def forget(self) -> None:
        """As `Agent.forget`."""
        if self._faults is not None:
            self._faults.forget()

    def begin(self, ledger: Ledger) -> None:
        """As `Agent.begin`."""
        self._lost_before = 0 if self._lost is None else int(self._lost.value)
        self._answered = self._seen = 0

    def drive(self, ledger: Ledger) -> None:
        """As `Agent.drive`."""
        if self._faults is not None:
            self._faults.set_ready(ledger.over or not ledger.pattern.happens(Channel.FAULTS, ledger.cycle))

    def sample(self, ledger: Ledger) -> None:
        """As `Agent.sample`: takes a record."""
        if self._faults is None:
            return
        self._faults.sample()
        if self._faults.taken:
            ledger.faults.append(dict(self._faults.payload))
            self._seen += 1
        if ledger.response_taken is not None:
            request, response = ledger.response_taken
            faulted = response["outcome"] == Outcome.PAGE_FAULT
            self._answered += bool(faulted and request["access"] != Access.PROBE)
        if self._seen > self._answered:
            raise RuleBroken(Status.STRAY_FAULT)
        ledger.counters.most_faults = max(ledger.counters.most_faults, self._answered - self._seen)

    def settled(self) -> bool:
        """As `Agent.settled`: every fault was told, or counted as lost."""
        lost = 0 if self._lost is None else int(self._lost.value) - self._lost_before & 0xFFFF_FFFF
        return self._faults is None or self._seen + lost == self._answered


class RetirementAgent:
    """Retires each grant after a time of its own, and so in any order.

    Parameters
    ----------
    pins : Pins
    """

    def __init__(self, pins: Pins) -> None:
        self._retired = pins.source("retired")
        self._grants: list[tuple[int, int]] = []  # due, tag
        self._number = 0

    def reset(self) -> None:
        """As `Agent.reset`."""
        if self._retired is not None:
            self._retired.reset()

    def forget(self) -> None:
        """As `Agent.forget`."""
        if self._retired is not None:
            self._retired.forget()

    def begin(self, ledger: Ledger) -> None:
        """As `Agent.begin`."""
        self._grants.clear()
        self._number = 0

    def settled(self) -> bool:
        """As `Agent.settled`."""
        return True

    def drive(self, ledger: Ledger) -> None:
        """As `Agent.drive`."""
        if self._retired is None:
            return
        if self._retired.valid.value:
            self._retired.valid.set(0)
        due = [grant for grant in self._grants if grant[0] <= ledger.cycle]
        if due:
            first = min(due, key=lambda grant: grant[0])
            self._grants.remove(first)
            self._retired.offer({"tag": first[1]})
            ledger.grants = len(self._grants)

    def sample(self, ledger: Ledger) -> None:
        """As `Agent.sample`: an OK to a write or rmw is a grant."""
        if self._retired is None or ledger.response_taken is None:
            return
        request, response = ledger.response_taken
        if response["outcome"] != Outcome.OK or request["access"] not in (Access.WRITE, Access.RMW):
            return
        conditions = ledger.conditions
        extra = ledger.pattern.extra(Channel.RETIREMENT, self._number, conditions.retirement_spread)
        self._grants.append((ledger.cycle + conditions.latency + extra, int(response["tag"])))
        self._number += 1
        ledger.grants = len(self._grants)


class DrainAgent:
    """Drains: at any time, as the conditions say, and when all is over; and clears the status as a batch begins.

    Parameters
    ----------
    pins : Pins
    """

    def __init__(self, pins: Pins) -> None:
        handle = pins.pin("drain")
        self._drain = None if handle is None else Wire(handle)
        self._drained = pins.pin("drained")
        clear = [port for path, port in pins.design.plain.items() if ".clear." in f".{path}"]
        self._clear = [Wire(pins.port(port)) for port in clear]
        self._over = False
        self._grants_before = 0

    def reset(self) -> None:
        """As `Agent.reset`."""
        for wire in (*([self._drain] if self._drain else ()), *self._clear):
            wire.forget()
            wire.set(0)

    def forget(self) -> None:
        """As `Agent.forget`."""
        for wire in (*([self._drain] if self._drain else ()), *self._clear):
            wire.forget()

    def begin(self, ledger: Ledger) -> None:
        """As `Agent.begin`."""
        self._over = False

    def drive(self, ledger: Ledger) -> None:
        """As `Agent.drive`."""
        if self._drain is None:
            return
        if not ledger.draining and not ledger.over and ledger.pattern.happens(Channel.DRAINS, ledger.cycle):
            ledger.draining = True
        self._drain.set(int(ledger.draining or ledger.over))
        for wire in self._clear:
            wire.set(int(ledger.cycle == 0))
        self._grants_before = ledger.grants

    def sample(self, ledger: Ledger) -> None:
        """As `Agent.sample`: a drain ends."""
        if self._drained is None:
            return
        self._over = bool(self._drained.value)
        if not self._over:
            return
        if ledger.walking or self._grants_before:
            raise RuleBroken(Status.DRAINED_EARLY)
        ledger.counters.drains += ledger.draining
        ledger.draining = False
        ledger.progress = ledger.cycle

    def settled(self) -> bool:
        """As `Agent.settled`: nothing is in flight, the design says too."""
        return self._drained is None or self._over


class TraceAgent:
    """Keeps what the trace port tells, and what the gateware's counters count.

    Parameters
    ----------
    pins : Pins
    """

    def __init__(self, pins: Pins) -> None:
        self._written = pins.monitor("written", Status.COMPLETE)
        self._walked = pins.monitor("walked", Status.COMPLETE)
        self._counters: dict[str, Any] = {name: pin for name in COUNTERS if (pin := pins.pin(name)) is not None}
        self._before: dict[str, int] = {}

    def reset(self) -> None:
        """As `Agent.reset`."""

    def forget(self) -> None:
        """As `Agent.forget`."""

    def begin(self, ledger: Ledger) -> None:
        """As `Agent.begin`."""
        self._before = {name: int(pin.value) for name, pin in self._counters.items()}

    def drive(self, ledger: Ledger) -> None:
        """As `Agent.drive`."""

    def sample(self, ledger: Ledger) -> None:
        """As `Agent.sample`."""
        for stream, log in ((self._written, ledger.written), (self._walked, ledger.walked)):
            if stream is not None:
                stream.sample()
                if stream.valid:
                    log.append(dict(stream.payload))

    def settled(self) -> bool:
        """As `Agent.settled`."""
        return True

    def counted(self) -> dict[str, int]:
        """The gateware's own counters since `begin`."""
        return {name: int(pin.value) - self._before[name] & 0xFFFF_FFFF for name, pin in self._counters.items()}
