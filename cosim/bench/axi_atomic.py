"""Who stands below a port that makes atomic transactions, at protocol level: cocotbext-axi takes no AWATOP."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from ptewalk.cosim.bench.axi import AxiTables
from ptewalk.model.memory import BusError

__all__ = ["AtomicTarget"]

_COMPARE = 0b110001
_OKAY, _SLVERR = 0, 2
_INCR, _WRAP = 1, 2
_WORD = (1 << 64) - 1
_FIELDS = {
    "aw": ("id", "addr", "len", "size", "burst", "lock", "atop"),
    "w": ("data", "strb", "last"),
    "ar": ("id", "addr", "len", "size", "lock"),
}
_Fields = dict[str, int]


class AtomicTarget:
    """Words behind an AXI5 interface: reads of a word, and AtomicCompare of 16 bytes [IHI 0022, atomic transactions].

    Each channel stalls one cycle in four, an access takes 1 to 6 cycles, and R and B of one come in any order. What is
    unlawful, an atomic transaction whose ID is in use among it, is an AssertionError.

    Parameters
    ----------
    dut : cocotb handle
    prefix : str
        Of the interface's ports.
    tables : AxiTables
        Where there is no memory, SLVERR on R and B. `accesses` has "swap" too.
    rng : random.Random
    """

    def __init__(self, dut: Any, prefix: str, tables: AxiTables, rng: random.Random) -> None:
        self._dut, self._prefix, self._tables, self._rng = dut, prefix, tables, rng
        self._lanes = len(self._pin("wstrb")) // 8
        self._answers: dict[str, list[tuple[int, _Fields]]] = {"r": [], "b": []}
        self._offered: dict[str, _Fields | None] = {"r": None, "b": None}
        self._taken: dict[str, deque[_Fields]] = {"aw": deque(), "w": deque()}
        self._now = 0
        cocotb.start_soon(self._run())

    def _pin(self, name: str) -> Any:
        return getattr(self._dut, f"{self._prefix}_{name}")

    async def _run(self) -> None:
        while True:
            await FallingEdge(self._dut.clk)
            self._now += 1
            for name in ("aw", "w", "ar"):
                self._pin(f"{name}ready").value = int(self._rng.random() < 0.75)
            for name in ("r", "b"):
                self._offer(name)
            await ReadOnly()
            if int(self._dut.rst.value):
                continue
            # As it stands now, so it is at the rising edge.
            for name in ("aw", "w", "ar"):
                if int(self._pin(f"{name}valid").value) and int(self._pin(f"{name}ready").value):
                    self._take(name, {field: int(self._pin(name + field).value) for field in _FIELDS[name]})
            for name in ("r", "b"):
                if self._offered[name] is not None and int(self._pin(f"{name}ready").value):
                    self._offered[name] = None
            self._write()

    def _offer(self, name: str) -> None:
        """An answer whose time has come; what is on offer stays."""
        due = [one for one in self._answers[name] if one[0] <= self._now]
        if self._offered[name] is None and due and self._rng.random() < 0.75:
            chosen = self._rng.choice(due)
            self._answers[name].remove(chosen)
            self._offered[name] = chosen[1]
            for field, value in chosen[1].items():
                self._pin(name + field).value = value
        self._pin(f"{name}valid").value = int(self._offered[name] is not None)

    def _take(self, name: str, fields: _Fields) -> None:
        if name != "ar":
            assert name == "w" or not self._in_flight(fields["id"]), "an atomic transaction's ID is in use"
            self._taken[name].append(fields)
            return
        assert not self._in_flight(fields["id"]), "the ID of an atomic transaction is in use"
        assert (fields["len"], fields["size"], fields["lock"]) == (0, 3, 0), "not a read of a word"
        value, response = self._load(fields["addr"])
        self._tables.accesses.append(("read", fields["addr"], 8))
        self._answer("r", self._data(fields["id"], fields["addr"], value, response))

    def _in_flight(self, identity: int) -> bool:
        """Something of this ID is not over."""
        owed = [fields for name in ("r", "b") for _, fields in self._answers[name]]
        offered = [one for one in self._offered.values() if one is not None]
        return any(one["id"] == identity for one in (*owed, *offered, *self._taken["aw"]))

    def _load(self, address: int) -> tuple[int, int]:
        """Value and response."""
        try:
            return self._tables.memory.load(address), _OKAY
        except BusError:
            return 0, _SLVERR

    def _data(self, identity: int, address: int, value: int, response: int) -> _Fields:
        return {"id": identity, "data": value << 64 * (address // 8 % self._lanes), "resp": response, "last": 1}

    def _answer(self, name: str, fields: _Fields) -> None:
        self._answers[name].append((self._now + self._rng.randint(1, 6), fields))

    def _write(self) -> None:
        """An atomic transaction whose W is all here."""
        while self._taken["aw"] and len(self._taken["w"]) > self._taken["aw"][0]["len"]:
            aw = self._taken["aw"].popleft()
            beats = [self._taken["w"].popleft() for _ in range(aw["len"] + 1)]
            old, new = self._halves(aw, beats)
            value, response = self._load(aw["addr"])
            if response == _OKAY and value == old:
                self._tables.memory.store(aw["addr"], new)
            self._tables.accesses.append(("swap", aw["addr"], 8))
            self._answer("r", self._data(aw["id"], aw["addr"], value, response))
            self._answer("b", {"id": aw["id"], "resp": response})

    def _halves(self, aw: _Fields, beats: list[_Fields]) -> tuple[int, int]:
        """What must be there, and what is written."""
        upper = aw["addr"] >> 3 & 1
        assert aw["atop"] == _COMPARE and not aw["lock"] and aw["addr"] % 8 == 0
        assert aw["burst"] == (_WRAP if upper else _INCR)
        assert [beat["last"] for beat in beats] == [0] * aw["len"] + [1]
        if self._lanes == 1:
            assert (aw["len"], aw["size"]) == (1, 3) and all(beat["strb"] == 0xFF for beat in beats)
            low, high = (beat["data"] for beat in beats)
        else:
            pair = aw["addr"] // 16 % (self._lanes // 2)
            assert (aw["len"], aw["size"], beats[0]["strb"]) == (0, 4, 0xFFFF << 16 * pair)
            both = beats[0]["data"] >> 128 * pair
            low, high = both & _WORD, both >> 64 & _WORD
        return (high, low) if upper else (low, high)
