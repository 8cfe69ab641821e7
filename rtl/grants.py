"""Which tags have a grant outstanding."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

__all__ = ["MOST_TAG_BITS", "WORD_TAGS", "GrantTable"]

MOST_TAG_BITS = 10
"""Bits of a tag at most: the table has a bit for each tag, and clears them one by one after a reset."""
WORD_TAGS = 4
"""Tags in a word."""


class GrantTable(Component):
    """A set of tags, one bit each, in two memories: the bits of a tag differ while its grant is outstanding.

    Each memory has one writer, so that a tag can be granted and another retired in one cycle. A word of it is as wide
    as LUT RAM is, and holds the bits of tags that follow one another: the writer changes one of them.

    Parameters
    ----------
    tag_bits : int
        1 to `MOST_TAG_BITS`.
    late : bool
        True: a retirement was made in the cycle before it is told here, and `count` is a cycle behind; default False.
    ahead : bool
        True: what the table holds of a tag that retires is looked for in the cycle before; default False.
    note_bits : int
        Width of what is kept of each grant until it retires; default 0.

    Members
    -------
    cleared : Out(tag_bits + 1)
        Tags cleared since the reset, one a cycle.
    ready : Out(1)
        All are: nothing may be granted before.
    look_tag : In(tag_bits), taken, bit : Out(1)
        The tag has a grant outstanding; its bit in the memory of retirements.
    grant, grant_tag, grant_bit : In(1), In(tag_bits), In(1)
        A grant of this tag, which has none outstanding, and its `bit`.
    retire, retire_tag : In(1), In(tag_bits)
        The grant of this tag retires; the one that is made in the same cycle, if it is that tag's.
    find_tag : In(tag_bits)
        The tag that may retire in the next cycle; only with `ahead`.
    stray : Out(1)
        There is none: nothing is done.
    count : Out(tag_bits + 1)
        Tags with a grant outstanding.
    grant_note : In(note_bits), gone : Out(1), gone_note : Out(note_bits)
        What is kept of this grant; a grant retires in this cycle, and what was kept of it. Only with `note_bits`.

    Attributes
    ----------
    granted, retired : amaranth.lib.memory.Memory
        The bits, `WORD_TAGS` in a word; proofs add read ports of their own.
    notes : list of amaranth.lib.memory.Memory
        Of each bit that is kept of a grant, the same.
    """

    def __init__(self, tag_bits: int, *, late: bool = False, ahead: bool = False, note_bits: int = 0) -> None:
        self._late, self._ahead = late, ahead
        members = {
            "cleared": Out(unsigned(tag_bits + 1)),
            "ready": Out(1),
            "look_tag": In(tag_bits),
            "taken": Out(1),
            "bit": Out(1),
            "grant": In(1),
            "grant_tag": In(tag_bits),
            "grant_bit": In(1),
            "retire": In(1),
            "retire_tag": In(tag_bits),
            "stray": Out(1),
            "count": Out(unsigned(tag_bits + 1)),
        }
        if ahead:
            members["find_tag"] = In(tag_bits)
        if note_bits:
            members |= {"grant_note": In(note_bits), "gone": Out(1), "gone_note": Out(note_bits)}
        super().__init__(members)
        self._tags = min(WORD_TAGS, 1 << tag_bits)
        words = (1 << tag_bits) // self._tags
        self.granted, self.retired, *self.notes = (
            Memory(shape=unsigned(self._tags), depth=words, init=[]) for _ in range(2 + note_bits)
        )

    def split(self, tag: Value) -> tuple[Value, Value]:
        """Word of a tag, and its bit in it."""
        bits = (self._tags - 1).bit_length()
        return tag[bits:], tag[:bits]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.granted = self.granted
        m.submodules.retired = self.retired

        m.d.comb += self.ready.eq(self.cleared[-1])
        with m.If(~self.ready):
            m.d.sync += self.cleared.eq(self.cleared + 1)

        ports = [memory.read_port(domain="comb") for memory in (self.granted, self.retired)]
        granted, retired = (self._bit(m, port, self.look_tag) for port in ports)
        # A word is read where it is written: that of grants by a port of its own.
        before_grant = self.granted.read_port(domain="comb")
        self._bit(m, before_grant, self.grant_tag)
        ports = [memory.read_port(domain="comb") for memory in (self.granted, self.retired)]
        before_retirement = ports[1].data
        asked = self.find_tag if self._ahead else self.retire_tag
        then: list[Value] = [self._bit(m, port, asked) for port in ports]
        changed_then = Signal(self._tags)  # the word of retirements after this cycle's
        ready: Value = self.ready
        if self._ahead:
            # The retirement of this cycle is not in the word that is read in it.
            words = self.split(asked)[0], self.split(self.retire_tag)[0]
            same = words[0] == words[1] if len(words[0]) else Const(1)
            ready = self._held(m, ready)  # what was looked for had been cleared
            word = Mux(self.retire & ready & same, changed_then, ports[1].data)
            before_retirement = Signal(self._tags)
            then[1] = word.bit_select(self.split(asked)[1], 1)
            m.d.sync += before_retirement.eq(word)
            then = [self._held(m, bit) for bit in then]
        granted_then, retired_then = then
        passing = Signal()  # granted and retired in one cycle
        retires = Signal()
        m.d.comb += [
            self.taken.eq(granted ^ retired),
            self.bit.eq(retired),
            # What retires late was retired before it was granted, if it is granted in this cycle: it is stray.
            passing.eq(0 if self._late else self.grant & self.retire & (self.grant_tag == self.retire_tag)),
            retires.eq(self.retire & ready & (granted_then ^ retired_then)),
            self.stray.eq(self.retire & ~retires & ~passing),
        ]
        changes = [
            (self.granted, before_grant.data, self.grant_tag, ~self.grant_bit, self.grant),
            # One that is stray is equal already, and stays as it is.
            (self.retired, before_retirement, self.retire_tag, granted_then ^ passing, self.retire & ready),
        ]
        if self.notes:
            notes = []
            for number, memory in enumerate(self.notes):
                m.submodules[f"note_{number}"] = memory
                before = memory.read_port(domain="comb")
                self._bit(m, before, self.grant_tag)
                note = self._bit(m, memory.read_port(domain="comb"), asked)
                notes.append(self._held(m, note) if self._ahead else note)
                changes.append((memory, before.data, self.grant_tag, self.grant_note[number], self.grant))
            m.d.comb += [self.gone.eq(retires), self.gone_note.eq(Cat(*notes))]
        for memory, before, tag, bit, happens in changes:
            writer = memory.write_port()
            word, place = self.split(tag)
            mask = (Const(1, self._tags) << place)[: self._tags]
            changed = Mux(bit, before | mask, before & ~mask)
            if memory is self.retired and self._ahead:
                m.d.comb += changed_then.eq(changed)
            m.d.comb += [
                writer.addr.eq(Mux(self.ready, word, self.split(self.cleared[:-1])[0])),
                writer.data.eq(Mux(self.ready, changed, 0)),
                writer.en.eq(happens | ~self.ready),
            ]
        gone = retires | passing
        if self._late:
            gone = Signal()
            m.d.sync += gone.eq(retires | passing)
        m.d.sync += self.count.eq(self.count + self.grant - gone)
        return m

    @staticmethod
    def _held(m: Module, bit: Value) -> Signal:
        """A bit, a cycle later."""
        held = Signal()
        m.d.sync += held.eq(bit)
        return held

    def _bit(self, m: Module, port: Any, tag: Value) -> Value:
        """A tag's bit, by this port."""
        word, place = self.split(tag)
        m.d.comb += port.addr.eq(word)
        return port.data.bit_select(place, 1)
