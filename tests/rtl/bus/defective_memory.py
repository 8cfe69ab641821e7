"""A memory behind a port, in Amaranth's simulator, whose exclusive monitor is not what it should be."""

from typing import Any

OKAY, EXOKAY, SLVERR = 0, 1, 2


class DefectiveMemory:
    """Words of 64 bits by address; single words and whole lines, in order, answered soon; with something wrong.

    Attributes
    ----------
    defect : str
        What: "none", or as the code has them.
    exclusive : list of (int, int)
        (ID, words) of each exclusive access.
    """

    def __init__(self, axi: Any, data_bits: int, defect: str, *, bad: bool = False) -> None:
        self.axi, self.lanes, self.defect, self.bad = axi, data_bits // 64, defect, bad
        self.words: dict[int, int] = {}
        self.reserved: dict[int, range] = {}
        self.accesses = 0
        self.exclusive: list[tuple[int, int]] = []

    def read(self, identity: int, where: range, lock: int) -> int:
        if not lock or self.defect == "no monitor" or (self.defect == "no lines" and len(where) > 1):
            return OKAY
        places = {"one place": 1, "two places": 2}.get(self.defect)
        if places and identity not in self.reserved and len(self.reserved) == places:
            del self.reserved[next(iter(self.reserved))]
        self.reserved[identity] = where
        return EXOKAY

    def write(self, identity: int, at: int, where: range, lock: int, beats: list[tuple[int, int]]) -> int:
        held = self.reserved.get(identity) == where or self.defect == "lock believed"
        if lock and self.defect != "no monitor" and not held:
            return OKAY
        for word, (value, strobes) in zip(where, beats, strict=True):
            mask = sum(0xFF << 8 * byte for byte in range(8) if strobes >> byte & 1)
            self.words[word] = self.words.get(word, 0) & ~mask | value & mask
        for other, reserved in list(self.reserved.items()):
            mine = other == identity
            spares = {
                "own writes only": not mine and not lock,
                "start compared": reserved[0] != at,
                "never spent": lock and mine,
                "exclusive writes end nothing": lock and not mine,
                "first word of a line": reserved[0] not in where,
            }.get(self.defect, False)
            if set(reserved) & set(where) and not spares:
                del self.reserved[other]
        return EXOKAY if lock and self.defect != "no monitor" else OKAY

    def where(self, address: Any) -> range:
        """The words of a burst."""
        size = 8 << max(0, int(address.size) - 3)
        first = int(address.addr) & -8
        return range(first, first + size * (int(address.len) + 1), 8)

    async def run(self, ctx: Any) -> None:
        axi, aw, beats, answers = self.axi, None, [], []
        for channel in (axi.aw, axi.w, axi.ar):
            ctx.set(channel.ready, 1)
        while True:
            signals = [s for c in (axi.aw, axi.w, axi.ar) for s in (c.valid, c.payload)]
            sampled = (await ctx.tick().sample(*signals))[2:]
            ctx.set(axi.b.valid, 0)
            given = [sampled[2 * place + 1] if sampled[2 * place] else None for place in range(3)]
            aw = given[0] if given[0] is not None else aw
            beats += [given[1]] if given[1] is not None else []
            if given[2] is not None:
                self.accesses += 1
                where, identity = self.where(given[2]), int(given[2].id)
                self.exclusive += [(identity, len(where))] if given[2].lock else []
                answer = SLVERR if self.bad else self.read(identity, where, int(given[2].lock))
                for word in where[:: self.lanes] if len(where) > 1 else where:
                    lane = word // 8 % self.lanes
                    row = [self.words.get(word + 8 * (place - lane), 0) for place in range(self.lanes)]
                    data = sum(value << 64 * place for place, value in enumerate(row))
                    last = word + 8 * self.lanes > where[-1]
                    answers.append({"id": identity, "data": data, "resp": answer, "last": last})
            ctx.set(axi.r.valid, bool(answers))
            if answers:
                ctx.set(axi.r.payload, answers.pop(0))
            if aw is not None and beats and int(beats[-1].last):
                self.accesses += 1
                where, told = self.where(aw), []
                assert len(beats) == int(aw.len) + 1
                for place, word in enumerate(where):
                    beat = beats[place // self.lanes if len(where) > 1 else 0]
                    lane = word // 8 % self.lanes
                    told.append((int(beat.data) >> 64 * lane & 2**64 - 1, int(beat.strb) >> 8 * lane & 0xFF))
                    assert len(where) > 1 or not int(beat.strb) & ~(0xFF << 8 * lane)
                answer = SLVERR if self.bad else self.write(int(aw.id), int(aw.addr), where, int(aw.lock), told)
                ctx.set(axi.b.payload, {"id": int(aw.id), "resp": answer})
                ctx.set(axi.b.valid, 1)
                aw, beats = None, []
