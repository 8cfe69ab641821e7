"""The steps that a driver is made of, and who takes them.

A function of the driver is a generator of steps: what it yields is asked of a bus, what is sent back is the answer.
So the same function serves a simulator, a serial line and mapped memory.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, TypeVar

__all__ = ["AsyncBus", "Bus", "DriverError", "Read", "Step", "Steps", "Wait", "Write", "run", "run_async"]

T = TypeVar("T")


class DriverError(Exception):
    """The unit is not what the driver expects, or does not answer."""


@dataclass(frozen=True)
class Read:
    """Read the 32-bit register at `offset`; answered by its value."""

    offset: int


@dataclass(frozen=True)
class Write:
    """Write `value` to the 32-bit register at `offset`; answered by 0."""

    offset: int
    value: int


@dataclass(frozen=True)
class Wait:
    """Let time pass: nothing has happened yet. Answered by 0."""


Step = Read | Write | Wait
Steps = Generator[Step, int, T]
"""A function of the driver that gives a T."""


class Bus(Protocol):
    """Who reaches the registers."""

    def read(self, offset: int) -> int:
        """The register at `offset`."""

    def write(self, offset: int, value: int) -> None:
        """Write it."""

    def wait(self) -> None:
        """Let time pass."""


class AsyncBus(Protocol):
    """Who reaches the registers, inside a simulator."""

    async def read(self, offset: int) -> int:
        """The register at `offset`."""

    async def write(self, offset: int, value: int) -> None:
        """Write it."""

    async def wait(self) -> None:
        """Let time pass."""


def run(bus: Bus, steps: Steps[T]) -> T:
    """Take all steps; what the function returns."""
    answer: int | None = None
    while True:
        try:
            step = steps.send(answer)  # type: ignore[arg-type]
        except StopIteration as stopped:
            return stopped.value
        answer = 0
        match step:
            case Read(offset):
                answer = bus.read(offset)
            case Write(offset, value):
                bus.write(offset, value)
            case Wait():
                bus.wait()


async def run_async(bus: AsyncBus, steps: Steps[T]) -> T:
    """As `run`."""
    answer: int | None = None
    while True:
        try:
            step = steps.send(answer)  # type: ignore[arg-type]
        except StopIteration as stopped:
            return stopped.value
        answer = 0
        match step:
            case Read(offset):
                answer = await bus.read(offset)
            case Write(offset, value):
                await bus.write(offset, value)
            case Wait():
                await bus.wait()
