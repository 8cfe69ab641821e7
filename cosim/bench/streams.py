"""Streams at the protocol level: pins by role, found by the description of the design."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptewalk.cosim.bench.headers import STREAMS
from ptewalk.cosim.bench.records import Status
from ptewalk.rtl.description import DesignDescription

__all__ = ["Pins", "RuleBroken", "StreamMonitor", "StreamSource", "Wire"]


class RuleBroken(Exception):
    """A stream's rule was broken; the bench makes a `BenchError` of it."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Wire:
    """An input of the design: written only when its value changes.

    Parameters
    ----------
    handle : cocotb handle
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.value: int | None = None
        """What was driven last; None: not known."""

    def set(self, value: int) -> None:
        """Drive `value`."""
        if value != self.value:
            self._handle.value = value
            self.value = value

    def forget(self) -> None:
        """Someone else may have driven it."""
        self.value = None


class Pins:
    """The pins of one design, below a handle.

    Parameters
    ----------
    handle : cocotb handle
        The design itself, or what has its ports among others of its own.
    design : DesignDescription
    prefix : str
        What stands before the name of each port there.
    """

    def __init__(self, handle: Any, design: DesignDescription, prefix: str = "") -> None:
        self.handle = handle
        self.design = design
        self._prefix = prefix

    def port(self, name: str) -> Any:
        """The handle of a port; RuntimeError when what is simulated has none of that name."""
        try:
            return getattr(self.handle, self._prefix + name)
        except AttributeError:
            raise RuntimeError(
                f"{self.design.top} has no port {self._prefix}{name}, which its description names: "
                "design.json is stale, or of another design; build again"
            ) from None

    def pin(self, role: str) -> Any:
        """The handle of a plain member; None when the design has none of this role."""
        name = self.design.pin(role)
        return None if name is None else self.port(name)

    def group(self, role: str) -> dict[str, Any]:
        """Field to handle of the plain struct of this role; empty when the design has none."""
        return {field: self.port(name) for field, name in self.design.group(role).items()}

    def source(self, role: str) -> StreamSource | None:
        """What drives the stream of this role; None when the design has none."""
        return None if self.design.stream(role) is None else StreamSource(self, role)

    def monitor(self, role: str, unstable: Status) -> StreamMonitor | None:
        """What watches the stream of this role; None when the design has none."""
        return None if self.design.stream(role) is None else StreamMonitor(self, role, unstable)


class StreamSource:
    """Drives a stream into the design.

    While nothing is offered, valid is 0 and fields hold the complement of what was offered last, so that a design that
    reads them without valid is noticed.

    Parameters
    ----------
    pins : Pins
    role : str
        Of the stream, which must be there.
    """

    def __init__(self, pins: Pins, role: str) -> None:
        found = pins.design.stream(role)
        assert found is not None and found.direction == "input" and set(found.fields) <= set(STREAMS[role])
        self.valid = Wire(pins.port(found.valid))
        self._ready = None if found.ready is None else pins.port(found.ready)
        self.names = tuple(found.fields)
        self._payload = [Wire(pins.port(port)) for port in found.fields.values()]
        self._handles = [pins.port(port) for port in found.fields.values()]
        self._masks = [(1 << pins.design.width(port)) - 1 for port in found.fields.values()]

    @property
    def ready(self) -> bool:
        """Ready is high."""
        return self._ready is None or bool(self._ready.value)

    def reset(self) -> None:
        """Nothing is offered; every field is 0."""
        for wire in (self.valid, *self._payload):
            wire.forget()
            wire.set(0)

    def forget(self) -> None:
        """Someone else drove the payload; valid is 0."""
        self.valid.value = 0
        for wire in self._payload:
            wire.forget()

    def offer(self, record: Any) -> None:
        """Show a record's (or a mapping's) fields until `retract`."""
        for wire, name in zip(self._payload, self.names, strict=True):
            wire.set(int(record[name]))
        self.valid.set(1)

    def seen(self) -> Mapping[str, int]:
        """What stands at the pins."""
        return {name: int(handle.value) for name, handle in zip(self.names, self._handles, strict=True)}

    def retract(self) -> None:
        """Offer nothing from now on."""
        if self.valid.value:
            self.valid.set(0)
            for wire, mask in zip(self._payload, self._masks, strict=True):
                wire.set((wire.value or 0) ^ mask)


class StreamMonitor:
    """Watches a stream out of the design, and drives its ready where it has one.

    Parameters
    ----------
    pins : Pins
    role : str
        Of the stream, which must be there.
    unstable : Status
        The rule that is broken when valid or payload change before ready.
    """

    def __init__(self, pins: Pins, role: str, unstable: Status) -> None:
        found = pins.design.stream(role)
        assert found is not None and found.direction == "output" and set(found.fields) <= set(STREAMS[role])
        self._valid = pins.port(found.valid)
        self._payload = [(name, pins.port(port)) for name, port in found.fields.items()]
        self._unstable = unstable
        self.ready = None if found.ready is None else Wire(pins.port(found.ready))
        self._waits: dict[str, int] | None = None
        self.valid = False
        """Valid was high in the cycle that was sampled last."""
        self.taken = False
        """A transfer took place in that cycle."""
        self.first = False
        """That cycle was the first in which this transfer was valid."""
        self.payload: dict[str, int] = {}
        """The fields in that cycle, when valid."""

    def set_ready(self, ready: bool) -> None:
        """Drive ready."""
        if self.ready is not None:
            self.ready.set(int(ready))

    def reset(self) -> None:
        """Not ready, nothing seen."""
        if self.ready is not None:
            self.ready.forget()
        self.set_ready(False)
        self._waits = None
        self.valid = self.taken = False

    def forget(self) -> None:
        """Someone else left it not ready."""
        if self.ready is not None:
            self.ready.value = 0

    def sample(self) -> None:
        """Look at the cycle that ends; raises `RuleBroken` when the stream changed while it had to wait."""
        self.valid = bool(self._valid.value)
        self.taken = self.valid and (self.ready is None or bool(self.ready.value))
        self.first = self.valid and self._waits is None
        if self.valid:
            self.payload = {name: int(handle.value) for name, handle in self._payload}
        if self._waits is not None and (not self.valid or self.payload != self._waits):
            raise RuleBroken(self._unstable)
        self._waits = self.payload if self.valid and not self.taken else None
