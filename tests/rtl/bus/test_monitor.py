"""The exclusive monitor, before a memory that has none: what AXI says of exclusive accesses [AMBA AXI, A7.2]."""

import random
from typing import Any

import pytest

from ptewalk.rtl.bus.monitor import MonitorConfig

from .monitor_bench import AT, Bench, run

OKAY, EXOKAY, SLVERR = 0, 1, 2


def test_a_pair_succeeds_once() -> None:
    async def job(bench: Bench) -> None:
        assert await bench.write(1, [5]) == OKAY  # never reserved
        assert bench.memory.word(AT) == 0 and not bench.memory.writes
        assert await bench.read(1) == EXOKAY
        assert await bench.write(1, [7]) == EXOKAY
        assert await bench.write(1, [9]) == OKAY  # the write ended its own reservation
        assert bench.memory.word(AT) == 7
        assert await bench.read(1, lock=0) == OKAY

    memory = run(job)
    assert [write["cache"] for write in memory.writes] == [2]  # not bufferable


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("offset", "values", "identity", "lock", "ends"),
    [
        (0, [1], 2, 0, True),  # the first word
        (56, [1], 2, 0, True),  # the last
        (-8, [1], 2, 0, False),  # before it
        (64, [1], 2, 0, False),  # behind it
        (-8, [1, 1], 2, 0, True),  # a burst into it
        (-8, [1] * 16, 2, 0, True),  # a burst across it
        (56, [1, 1], 2, 0, True),  # a burst out of it
        (0x1000, [1], 2, 0, False),  # another page
        (8, [1], 1, 0, True),  # a plain one of its own ID
        (8, [1], 9, 0, True),  # an ID that can have none
        (8, [1], 2, 1, False),  # an exclusive one that fails
    ],
)
def test_what_ends_a_line(offset: int, values: list[int], identity: int, lock: int, ends: bool) -> None:
    """A reservation of 64 bytes ends with every write that is made inside, and with no other."""

    async def job(bench: Bench) -> None:
        assert await bench.read(1, beats=8) == EXOKAY
        assert await bench.read(3, AT, lock=0, beats=8) == OKAY
        assert await bench.write(identity, values, AT + offset, lock=lock) == OKAY
        assert await bench.write(1, [3] * 8) == (OKAY if ends else EXOKAY)

    run(job)


def test_an_exclusive_write_inside_ends_it() -> None:
    """A walker's word in an engine's line, and the other way round."""

    async def job(bench: Bench) -> None:
        assert [await bench.read(1, beats=8), await bench.read(2, AT + 24)] == [EXOKAY, EXOKAY]
        assert await bench.write(2, [7], AT + 24) == EXOKAY
        assert await bench.write(1, [3] * 8) == OKAY
        assert [await bench.read(1, beats=8), await bench.read(2, AT + 24)] == [EXOKAY, EXOKAY]
        assert await bench.write(1, [4] * 8) == EXOKAY
        assert await bench.write(2, [8], AT + 24) == OKAY

    memory = run(job)
    assert [memory.word(AT + 8 * place) for place in range(8)] == [4] * 8


@pytest.mark.thorough
@pytest.mark.parametrize(
    "other", [{"at": AT + 8}, {"size": 2}, {"values": [1, 1]}, {"identity": 2}, {"at": AT + (1 << 39)}]
)
def test_it_must_match(other: dict[str, Any]) -> None:
    """Address, size, length and ID of read and write are the same, or nothing is written."""

    async def job(bench: Bench) -> None:
        assert await bench.read(1) == EXOKAY
        assert await bench.write(**{"identity": 1, "values": [1], **other}) == OKAY  # type: ignore[arg-type]
        assert not bench.memory.writes
        assert await bench.write(1, [1]) == EXOKAY  # a failed one ends nothing

    run(job)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "how",
    [
        {"identity": 8},  # no reservation of its own
        {"beats": 3},  # not a power of two
        {"beats": 32, "at": AT & ~0xFFF},  # more than 128 bytes, and than 16 beats
        {"beats": 2, "at": AT + 8},  # not aligned to its bytes
        {"at": AT + 4},
        {"burst": 0},  # FIXED
    ],
)
def test_refused(how: dict[str, int]) -> None:
    """Read as any other, but OKAY; and it gives up what its ID had."""

    async def job(bench: Bench) -> None:
        identity = how.get("identity", 1)
        assert await bench.read(1) == EXOKAY
        assert await bench.read(**{"identity": identity, **how}) == OKAY
        assert await bench.write(1, [1]) == (EXOKAY if identity != 1 else OKAY)

    run(job)


@pytest.mark.parametrize(("beats", "size"), [(1, 0), (1, 2), (2, 3), (16, 3), (16, 0), (4, 2)])
def test_lawful_sizes(beats: int, size: int) -> None:
    async def job(bench: Bench) -> None:
        at = AT & ~0xFF
        assert await bench.read(1, at, beats=beats, size=size) == EXOKAY
        assert await bench.write(1, [0] * beats, at, size=size) == EXOKAY

    run(job)


def test_a_wrapping_line_is_its_container() -> None:
    async def job(bench: Bench) -> None:
        for offset, ends in ((0, True), (56, True), (64, False), (-8, False)):
            assert await bench.read(1, AT + offset) == EXOKAY
            assert await bench.write(2, [1] * 8, AT + 32, lock=0, burst=2) == OKAY
            assert await bench.write(1, [1], AT + offset) == (OKAY if ends else EXOKAY)

    run(job)


def test_cycles() -> None:
    """A read comes out one cycle after it went in, an exclusive one and a write three; a write enters each fifth."""

    async def job(bench: Bench) -> None:
        async def passes(name: str, payload: dict[str, int]) -> int:
            bench.manager.out[name].append(payload)
            above, below = getattr(bench.manager.bus, name), getattr(bench.memory.bus, name)
            entered = None
            for cycle in range(20):
                _, _, valid, ready, leaves = await bench.ctx.tick().sample(above.valid, above.ready, below.valid)
                if valid and ready and entered is None:
                    entered = cycle
                if leaves and entered is not None:
                    return cycle - entered
            raise AssertionError("it stays")

        assert await passes("ar", bench.manager.address(1, AT)) == 1
        assert await passes("ar", bench.manager.address(1, AT, lock=1)) == 3
        assert await passes("aw", bench.manager.address(2, AT)) == 3
        bench.manager.send([1])
        await bench.wait("b")
        for value in range(9):
            bench.manager.write(3, AT + 8 * value, [value], lock=0)
        start = bench.memory.now
        for _ in range(9):
            await bench.wait("b")
        assert bench.memory.now - start <= 8 * 5 + 12

    run(job, latency=1)


def test_it_waits_for_a_write_in_flight() -> None:
    """Its W has gone: the read is sent after memory's answer, and reserves."""

    async def job(bench: Bench) -> None:
        bench.manager.write(2, AT + 8, [1])
        bench.manager.held.add("b")  # whoever does not take answers delays nobody
        for _ in range(12):
            await bench.ctx.tick()
        assert len(bench.memory.writes) == 1
        bench.manager.read(1, AT, beats=2, lock=1)
        for _ in range(20):
            await bench.ctx.tick()
            if bench.memory.now < 36:
                assert not bench.memory.reads
        answers = [await bench.wait("r") for _ in range(2)]
        assert [(answer["resp"], answer["data"]) for answer in answers] == [(EXOKAY, 0), (EXOKAY, 1)]

    run(job, latency=30)


def test_it_does_not_wait_for_w() -> None:
    """A manager may hold W back until its read is answered: refused, and not blocked; others pass anyway."""

    async def job(bench: Bench) -> None:
        bench.manager.out["aw"].append(bench.manager.address(2, AT))
        for _ in range(10):
            await bench.ctx.tick()
        assert await bench.read(1) == OKAY
        assert await bench.read(1, AT + 8) == OKAY  # in its line
        assert await bench.read(1, AT + 0x80) == EXOKAY
        for identity in range(4):  # no slot is left for the last of them
            bench.manager.out["aw"].append(bench.manager.address(identity, AT + 0x200 * identity))
        for _ in range(40):
            await bench.ctx.tick()
        assert await bench.read(1) == OKAY
        assert await bench.read(1, AT + 0x80) == EXOKAY
        for value in range(5):
            bench.manager.send([value])
        assert [(await bench.wait("b"))["id"] for _ in range(5)] == [2, 0, 1, 2, 3]

    run(job)


@pytest.mark.thorough
@pytest.mark.parametrize("lead", range(4))
@pytest.mark.parametrize("before", [0, 1])
def test_a_later_reservation_is_not_for_a_write_that_was_taken(lead: int, before: int) -> None:
    """Its ID reads anew, `lead` cycles after AW was offered: what it writes is not made of what that read gives.

    With a write `before` it, it waits until that one has been compared with the reservations.
    """

    async def job(bench: Bench) -> None:
        for identity in range(2, 2 + before):
            bench.manager.write(identity, AT + 0x100, [1])
        bench.manager.write(1, AT, [1], lock=1)
        for _ in range(4 * before + lead):
            await bench.ctx.tick()
        assert await bench.read(1) == EXOKAY
        assert [(await bench.wait("b"))["resp"] for _ in range(1 + before)] == [OKAY] * (1 + before)
        assert await bench.write(1, [1]) == EXOKAY

    run(job)


def test_an_id_beyond_takes_nobodys_place() -> None:
    """One of the IDs that can hold no reservation reads exclusively, and the others' stand."""

    async def job(bench: Bench) -> None:
        assert [await bench.read(identity, AT + 8 * identity) for identity in range(5)] == [EXOKAY] * 5
        assert [await bench.read(identity, AT + 0x100) for identity in range(5, 16)] == [OKAY] * 11
        assert [await bench.write(identity, [1], AT + 8 * identity) for identity in range(5)] == [EXOKAY] * 5

    run(job, MonitorConfig(reservations=5))


@pytest.mark.thorough
@pytest.mark.parametrize("reservations", [1, 5, 8])
def test_each_reservation_is_compared(reservations: int) -> None:
    """A word inside a reservation ends that one, whichever it is; a write across all of them ends all."""

    async def job(bench: Bench) -> None:
        at = (AT & ~0xFFF) + 0xE00 - 32 * (reservations // 2)  # round a place whose upper bits are set
        everybody = range(reservations)
        for hit in (range(0, reservations, 2), range(1, reservations, 2), everybody):
            for identity in everybody:
                assert await bench.read(identity, at + 32 * identity, beats=4) == EXOKAY
            if hit is everybody:
                assert await bench.write(15, [1] * 64, at, lock=0) == OKAY
            else:
                for identity in hit:
                    assert await bench.write(15, [1], at + 32 * identity + 16, lock=0) == OKAY
            answers = [await bench.write(identity, [1] * 4, at + 32 * identity) for identity in everybody]
            assert answers == [OKAY if identity in hit else EXOKAY for identity in everybody]

    run(job, MonitorConfig(reservations=reservations))


@pytest.mark.thorough
@pytest.mark.parametrize("identity", range(4))
def test_a_reservation_is_not_ended_for_the_one_before(identity: int) -> None:
    """An ID reserves elsewhere while what it had is compared with a write: what it has now stands, in any cycle."""

    async def job(bench: Bench) -> None:
        for lead in range(8):
            assert await bench.read(identity) == EXOKAY
            bench.manager.write(7, AT, [1])
            for _ in range(lead):
                await bench.ctx.tick()
            assert await bench.read(identity, AT + 0x200) == EXOKAY
            assert (await bench.wait("b"))["id"] == 7
            assert await bench.write(identity, [1], AT + 0x200) == EXOKAY

    run(job)


def test_errors_of_memory_pass() -> None:
    async def job(bench: Bench) -> None:
        assert await bench.read(1) == EXOKAY
        bench.memory.answer = SLVERR
        assert await bench.write(1, [1]) == SLVERR
        assert await bench.read(1) == SLVERR
        assert await bench.read(1, lock=0) == SLVERR
        assert await bench.write(1, [1], lock=0) == SLVERR

    run(job)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("bits", "bytes_of_line", "latency", "ids"),
    [(64, 128, 1, 3), (64, 128, 16, 5), (64, 128, 40, 8), (64, 64, 4, 6), (128, 128, 4, 6)],
)
def test_lines_stream(bits: int, bytes_of_line: int, latency: int, ids: int) -> None:
    """Lines that are read and written back exclusively, each ID one at a time: at least 0.95 beat a cycle each way."""
    beats = 8 * bytes_of_line // bits
    size = (bits // 8).bit_length() - 1
    count = 24

    async def job(bench: Bench) -> None:
        manager, begun, ended = bench.manager, 0, 0
        idle = list(range(ids))
        at: dict[int, int] = {}
        read: dict[int, list[int]] = {identity: [] for identity in range(ids)}
        start, times = bench.memory.now, []
        while ended < count:
            while idle and begun < count:
                identity = idle.pop(0)
                at[identity] = (AT & ~0xFFF) + bytes_of_line * begun
                manager.read(identity, at[identity], lock=1, beats=beats, size=size)
                begun += 1
            await bench.ctx.tick()
            for answer in manager.seen["r"]:
                assert answer["resp"] == EXOKAY
                read[answer["id"]].append(answer["data"] + 1)
                if answer["last"]:
                    identity = answer["id"]
                    manager.write(
                        identity, at[identity], read[identity], lock=1, size=size, strobes=(1 << bits // 8) - 1
                    )
                    read[identity] = []
            manager.seen["r"].clear()
            for answer in manager.seen["b"]:
                assert answer["resp"] == EXOKAY
                idle.append(answer["id"])
                ended += 1
                times.append(bench.memory.now)
            manager.seen["b"].clear()
            assert bench.memory.now - start < 20 * count * beats
        # From the first answer on: what fills and drains the pipe does not count.
        assert (count - 1) * beats / (times[-1] - times[0]) >= 0.95

    memory = run(job, MonitorConfig(data_bits=bits), latency=latency, watched=latency == 4)
    assert memory.word(AT & ~0xFFF) == 1


@pytest.mark.thorough
@pytest.mark.parametrize(("bits", "reservations", "seed"), [(64, 8, 1), (128, 5, 2)])
def test_no_update_is_lost(bits: int, reservations: int, seed: int) -> None:
    """Agents add to words, by the word and by the line, exclusively; others write single bytes beside, plainly.

    At the end each word is the sum of what was answered EXOKAY, and each byte what was written there last. While all of
    them contend, somebody succeeds in every window.
    """
    rng = random.Random(seed)
    config = MonitorConfig(data_bits=bits, reservations=reservations)
    lane, per = bits // 8, bits // 64
    added = [0] * 8
    plain = [0, 0]
    seen = {"word done": 0, "word failed": 0, "line done": 0, "line failed": 0, "refused": 0, "plain": 0}
    since = 0

    async def job(bench: Bench) -> None:
        nonlocal since
        manager, memory = bench.manager, bench.memory
        line = AT & ~63
        size = lane.bit_length() - 1
        state: dict[int, dict[str, Any]] = {}
        budget = 160
        resting = [*range(4), 6, 7]  # agents 0 to 3 add, 6 and 7 write bytes

        def start(identity: int) -> None:
            wide = identity % 2
            word = rng.randrange(8) & ~(per - 1)
            at = line if wide else line + 8 * word
            beats = 8 // per if wide else 1
            state[identity] = {
                "at": at,
                "word": 0 if wide else word,
                "beats": beats,
                "data": [],
                "kind": "line" if wide else "word",
            }
            manager.read(identity, at, beats=beats, lock=1, size=size)

        def write_byte(number: int) -> None:
            plain[number] = plain[number] + 1 & 0xFF
            byte = 7 + 8 * (3 + number)
            lanes = byte % lane
            manager.write(6 + number, line + byte - lanes, [plain[number] << 8 * lanes], strobes=1 << lanes, size=size)

        while budget or state:
            await bench.ctx.tick()
            for identity in [one for one in resting if budget and rng.random() < (0.2 if one in (1, 3) else 0.01)]:
                resting.remove(identity)
                if identity >= 6:
                    write_byte(identity - 6)
                else:
                    start(identity)
            since += 1
            assert since < 2000, "nobody succeeds"
            for answer in manager.seen["r"]:
                one = state[answer["id"]]
                one["data"].append(answer["data"])
                one["ok"] = answer["resp"] == EXOKAY
                if answer["last"]:
                    one["mine"] = rng.randrange(len(one["data"]) * per)
                    if not one["ok"]:
                        seen["refused"] += 1
                        start(answer["id"])
                        continue
                    beat, within = divmod(one["mine"], per)
                    one["data"][beat] += 1 << 64 * within
                    strobes = (1 << lane) - 1
                    manager.write(answer["id"], one["at"], one["data"], lock=1, size=size, strobes=strobes)
            manager.seen["r"].clear()
            for answer in manager.seen["b"]:
                if answer["id"] >= 6:
                    seen["plain"] += 1
                    resting.append(answer["id"])
                    continue
                one = state.pop(answer["id"])
                done = answer["resp"] == EXOKAY
                seen[f"{one['kind']} {'done' if done else 'failed'}"] += 1
                if done:
                    since = 0
                    added[one["word"] + one["mine"]] += 1
                budget = max(0, budget - 1)
                resting.append(answer["id"])
            manager.seen["b"].clear()
        for _ in range(100):
            await bench.ctx.tick()
        for place in range(8):
            expected = added[place] | (plain[place - 3] << 56 if place in (3, 4) else 0)
            assert memory.word(line + 8 * place) == expected, place

    run(job, config, rng=rng, watched=True)
    assert min(seen.values()) > 5, seen


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"address_bits": 12}, "address_bits must be an integer from 13 to 64, not 12"),
        ({"data_bits": 96}, "data_bits must be 64, 128, 256 or 512, not 96"),
        ({"id_bits": 0}, "id_bits must be an integer from 1 to 16, not 0"),
        ({"reservations": 65, "id_bits": 8}, "reservations must be an integer from 1 to 64, not 65"),
        ({"reservations": 17}, "reservations must be at most 2**id_bits, not 17 of 4 bits"),
        ({"reads": 1}, "reads must be an integer from 2 to 64, not 1"),
        ({"writes": 3}, "writes must be 2, 4, 8 or 16, not 3"),
        ({"observe": 1}, "observe must be True or False, not 1"),
    ],
)
def test_wrong_parameters(fields: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError) as raised:
        MonitorConfig(**fields)  # type: ignore[arg-type]
    assert str(raised.value) == text
