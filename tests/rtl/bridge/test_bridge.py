"""The bridge, by the rules of docs/bridge.md: an MMU's double says what is allowed."""

from typing import Any

import pytest

from ptewalk.rtl.bridge.config import BridgeConfig

from ..bus.burst_memory import Fields
from .bench import FRAME, LINEAR, Bench, run
from .doubles import DECERR, EXOKAY, FETCH, OKAY, PAGE, PROBE, READ, SLVERR
from .doubles import WRITE as STORE

PHYSICAL = FRAME * PAGE
FIXED, INCR, WRAP, RESERVED = range(4)
BAD = LINEAR + 0x40_0000
"""A page that is mapped by no test but as it says."""


def test_one_word_there_and_back() -> None:
    async def job(bench: Bench) -> None:
        assert await bench.write(LINEAR + 0x18, [0x1122_3344_5566_7788]) == OKAY
        assert bench.memory.load(PHYSICAL + 0x18, 8) == bytes.fromhex("8877665544332211")
        assert await bench.read(LINEAR + 0x18) == (OKAY, [0x1122_3344_5566_7788])

    bench = run(job)
    assert [request["access"] for _, request in bench.mmu.requests] == [STORE, READ]
    assert [page for page, _ in bench.mmu.retired] == [LINEAR // PAGE]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "burst",
    [
        {"addr": 0xFC0, "len": 7},  # to the page's end
        {"addr": 0xFFF, "len": 0},  # not aligned
        {"addr": 0x123, "len": 3, "size": 1},  # narrow
        {"addr": 0x800, "len": 255},  # the longest
        {"addr": 0xFF8, "len": 15, "burst": FIXED},
        {"addr": 0xFE0, "len": 7, "burst": WRAP},
        {"addr": 0xF80, "len": 15, "size": 0, "burst": WRAP},
        {"addr": 0xF00, "len": 255, "size": 0},
        {"addr": 0x10, "len": 1, "lock": 1, "qos": 11, "prot": 6, "cache": 14, "id": 9},
    ],
)
def test_bursts_pass_as_they_are(burst: Fields) -> None:
    """One translation, and one grant; all but bits 12 and up of the address is the master's, in both directions."""

    async def job(bench: Bench) -> None:
        sent = bench.manager.address(5, 0) | burst
        below = sent | {"addr": PHYSICAL + sent["addr"]}
        sent |= {"addr": LINEAR + sent["addr"]}
        beats = sent["len"] + 1
        bench.manager.out["aw"].append(sent)
        bench.manager.send(list(range(beats)))
        assert (await bench.wait("b"))[0]["id"] == sent["id"]
        bench.manager.out["ar"].append(sent)
        assert [beat["last"] for beat in await bench.wait("r", beats)] == [0] * (beats - 1) + [1]
        assert bench.memory.reads == [below]
        assert bench.memory.writes == [below | {"cache": below["cache"] & ~1}]

    bench = run(job)
    assert len(bench.mmu.requests) == 2
    assert len(bench.mmu.retired) == 1


def test_user_bits_pass() -> None:
    """Those of each channel, in both directions; what the bridge answers itself has none."""

    async def job(bench: Bench) -> None:
        bench.memory.user = {"user": 0x2A}
        bench.mmu.fault(BAD // PAGE)
        at = LINEAR + 0x100
        sent = bench.manager.address(5, at, beats=2) | {"user": 0x35}
        for page, answer in ((at, 0x2A), (BAD, 0)):
            bench.manager.out["aw"].append(sent | {"addr": page})
            for beat, user in enumerate((0x11, 0x22)):
                bench.manager.out["w"].append({"data": beat, "strb": 0xFF, "last": beat, "user": user})
            assert [found["user"] for found in await bench.wait("b")] == [answer]
            bench.manager.out["ar"].append(sent | {"addr": page, "user": 0x0C})
            assert [found["user"] for found in await bench.wait("r", 2)] == [answer] * 2
        assert [address["user"] for address in bench.memory.writes] == [0x35]
        assert [address["user"] for address in bench.memory.reads] == [0x0C]
        assert [beat["user"] for beat in bench.memory.beats] == [0x11, 0x22]

    run(job, BridgeConfig(user_bits=6))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "burst",
    [
        {"addr": 0xFC8, "len": 7},  # crosses 4 KiB
        {"addr": 0xFFC, "len": 1, "size": 2},
        {"addr": 0x008, "len": 255, "size": 4},
        {"addr": 0, "size": 4},  # wider than the bus
        {"addr": 0, "len": 16, "burst": FIXED},
        {"addr": 0, "len": 2, "burst": WRAP},
        {"addr": 0, "len": 31, "burst": WRAP},
        {"addr": 4, "len": 3, "burst": WRAP},
        {"addr": 0, "burst": RESERVED},
    ],
)
def test_illegal_bursts(burst: Fields) -> None:
    """SLVERR and a record; nothing is asked, nothing is sent."""

    async def job(bench: Bench) -> None:
        sent = bench.manager.address(5, 0) | burst
        sent |= {"addr": LINEAR + sent["addr"]}
        expected = {"linear": sent["addr"], "code": 0, "id": 5, "len": sent["len"], "kind": 0, "stalled": 0}
        bench.manager.out["aw"].append(sent)
        bench.manager.send([1] * (sent["len"] + 1))
        assert await bench.wait("b") == [{"id": 5, "resp": SLVERR}]
        assert await bench.fault() == expected | {"write": 1}
        bench.manager.out["ar"].append(sent)
        answers = await bench.wait("r", sent["len"] + 1)
        assert {(answer["id"], answer["resp"]) for answer in answers} == {(5, SLVERR)}
        assert [answer["last"] for answer in answers] == [0] * sent["len"] + [1]
        assert await bench.fault() == expected | {"write": 0}

    bench = run(job)
    assert not bench.mmu.requests and not bench.memory.reads and not bench.memory.writes


@pytest.mark.thorough
@pytest.mark.parametrize("beats", [1, 3, 5, 257, 300])
def test_w_of_another_length_than_aw(beats: int) -> None:
    """A master that breaks the protocol breaks nobody else: that burst is illegal, the next is as any."""

    async def job(bench: Bench) -> None:
        bench.manager.out["aw"].append(bench.manager.address(1, LINEAR, beats=4))
        bench.manager.send([7] * beats)
        assert await bench.wait("b") == [{"id": 1, "resp": SLVERR}]
        assert (await bench.fault())["kind"] == 0
        assert await bench.write(LINEAR + 8, [9]) == OKAY

    bench = run(job)
    assert len(bench.memory.writes) == 1 and bench.memory.load(PHYSICAL, 16) == bytes(8) + b"\x09" + bytes(7)


# What is granted waits for memory only ------------------------------------------------------------------------------


def test_no_grant_before_w_is_whole() -> None:
    """However late the last beat is; a write behind it waits, reads do not."""

    async def job(bench: Bench) -> None:
        for page in range(2):
            bench.manager.out["aw"].append(bench.manager.address(page, LINEAR + page * PAGE, beats=4))
        bench.manager.out["w"].extend({"data": 1, "strb": 0xFF, "last": 0} for _ in range(3))
        await bench.ticks(60)
        assert not bench.mmu.requests
        assert (await bench.read(LINEAR))[0] == OKAY
        bench.manager.out["w"].append({"data": 1, "strb": 0xFF, "last": 1})
        await bench.wait("b")
        assert [request["access"] for _, request in bench.mmu.requests] == [READ, STORE]
        bench.manager.send([1] * 4)
        await bench.wait("b")

    run(job)


@pytest.mark.thorough
def test_a_master_that_takes_no_answer_holds_no_grant() -> None:
    """B and R are not taken for long; every grant retires, every answer of memory is taken at once."""

    async def job(bench: Bench) -> None:
        bench.manager.held |= {"b", "r"}
        for number in range(40):
            bench.manager.write(number % 5, LINEAR + 64 * number, [number] * 4)
            bench.manager.read(number % 3, LINEAR + 64 * number, beats=16)
        await bench.ticks(600)
        assert not bench.mmu.granted
        assert len(bench.mmu.retired) == len(bench.memory.writes) == 16  # as many as have room for their B
        assert 16 <= len(bench.memory.reads) < 40
        assert not bench.memory.out["r"] and not bench.memory.out["b"] and not bench.mmu.reading
        bench.manager.held.clear()
        assert {answer["resp"] for answer in await bench.wait("b", 40)} == {OKAY}
        assert {answer["resp"] for answer in await bench.wait("r", 640)} == {OKAY}

    run(job)


@pytest.mark.thorough
@pytest.mark.parametrize("first", [256, pytest.param(1, marks=pytest.mark.thorough)])
def test_room_for_r_is_set_aside_before_ar(first: int) -> None:
    """Bursts of 256 beats, R not taken: no more than the buffer holds, and none with room for 255."""

    async def job(bench: Bench) -> None:
        bench.manager.held.add("r")
        for number in range(6):
            bench.manager.read(number, LINEAR, beats=256 if number else first)
        await bench.ticks(1000)
        assert len(bench.memory.reads) == 2 and not bench.memory.out["r"]
        bench.manager.held.clear()
        assert len(await bench.wait("r", 5 * 256 + first)) == 5 * 256 + first

    run(job)


def test_what_has_no_grant_lets_go_when_memory_is_stuck() -> None:
    """Grants are held while memory does not answer, and as many as were sent."""

    async def job(bench: Bench) -> None:
        bench.memory.stuck = True
        for number in range(3):
            bench.manager.write(number, LINEAR, [number])
            bench.manager.read(number, LINEAR, beats=2)
        await bench.ticks(100)
        assert len(bench.mmu.granted) == 3 == len(bench.memory.writes)
        assert len(bench.mmu.reading) == 3 == len(bench.memory.reads)
        bench.memory.stuck = False
        await bench.wait("b", 3)
        await bench.wait("r", 6)

    run(job)


# W and AW -----------------------------------------------------------------------------------------------------------


def test_w_may_come_before_aw() -> None:
    async def job(bench: Bench) -> None:
        bench.manager.send([1, 2])
        bench.manager.send([3])
        await bench.ticks(30)
        bench.manager.out["aw"].append(bench.manager.address(1, LINEAR, beats=2))
        bench.manager.out["aw"].append(bench.manager.address(1, LINEAR + 16))
        assert [answer["resp"] for answer in await bench.wait("b", 2)] == [OKAY] * 2
        assert bench.memory.load(PHYSICAL, 24) == b"".join(value.to_bytes(8, "little") for value in (1, 2, 3))

    run(job)


@pytest.mark.parametrize(("held", "other"), [("aw", "w"), ("w", "aw")])
def test_neither_waits_for_the_others_ready(held: str, other: str) -> None:
    """Below: a memory may take the one after the other, whichever it takes first."""

    async def job(bench: Bench) -> None:
        bench.memory.held.add(held)
        bench.manager.write(1, LINEAR, [1] * 4)
        await bench.ticks(40)
        assert bench.ctx.get(getattr(bench.bridge.m_axi, held).valid)
        assert len(bench.memory.seen["w"]) == (4 if other == "w" else 0)
        assert len(bench.memory.writes) == (1 if other == "aw" else 0)
        bench.memory.held.clear()
        await bench.wait("b")

    run(job)


def test_writes_leave_in_order_whatever_the_mmu_answers_first() -> None:
    async def job(bench: Bench) -> None:
        bench.mmu.slow.add(LINEAR // PAGE)
        for page in range(4):
            bench.manager.write(page, LINEAR + page * PAGE, [page])
            bench.manager.read(page, LINEAR + page * PAGE)
        await bench.ticks(60)
        assert len(bench.mmu.granted) == 3 and not bench.memory.writes and not bench.memory.reads
        bench.mmu.slow.clear()
        await bench.wait("b", 4)
        await bench.wait("r", 4)
        frames = [PHYSICAL + page * PAGE for page in range(4)]
        assert [write["addr"] for write in bench.memory.writes] == frames
        assert [read["addr"] for read in bench.memory.reads] == frames

    run(job)


# What is no store ---------------------------------------------------------------------------------------------------


def test_no_grant_where_no_byte_changes() -> None:
    """All strobes are 0: the rights of a store are asked for, nothing is marked or sent; it is answered in order."""

    async def job(bench: Bench) -> None:
        bench.memory.store(PHYSICAL, b"\x11" * 32)
        assert await bench.write(LINEAR, [5] * 4, strobes=0) == OKAY
        assert [request["access"] for _, request in bench.mmu.requests] == [PROBE]
        assert not bench.memory.writes
        bench.manager.out["aw"].append(bench.manager.address(1, LINEAR, beats=2))
        bench.manager.send([1, 2], strobes=0)
        bench.manager.seen["b"].clear()
        bench.manager.out["w"][-2]["strb"] = 0x80  # the first beat's last byte
        assert [answer["resp"] for answer in await bench.wait("b")] == [OKAY]
        assert bench.memory.load(PHYSICAL, 16) == b"\x11" * 7 + b"\x00" + b"\x11" * 8

    bench = run(job)
    assert [request["access"] for _, request in bench.mmu.requests] == [PROBE, STORE]
    assert len(bench.mmu.retired) == 1


def test_a_store_without_bytes_faults_as_any() -> None:
    async def job(bench: Bench) -> None:
        bench.mmu.fault(BAD // PAGE, code=7)
        assert await bench.write(BAD, [5] * 4, strobes=0) == SLVERR
        assert (await bench.fault())["code"] == 7

    run(job)


# Order of answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", [1, 2])
def test_no_error_overtakes(identity: int) -> None:
    """A fault is answered after everything before it, memory's answers last as they may."""

    async def job(bench: Bench) -> None:
        bench.mmu.fault(BAD // PAGE)
        bench.memory.stuck = True
        for _ in range(3):
            bench.manager.write(1, LINEAR, [1])
            bench.manager.read(1, LINEAR, beats=2)
        bench.manager.write(identity, BAD, [1])
        bench.manager.read(identity, BAD, beats=3)
        bench.manager.write(1, LINEAR, [2])
        bench.manager.read(1, LINEAR, beats=2)
        await bench.ticks(100)
        assert not bench.manager.seen["b"] and not bench.manager.seen["r"]
        bench.memory.stuck = False
        answers = await bench.wait("b", 5)
        assert [answer["resp"] for answer in answers] == [OKAY] * 3 + [SLVERR, OKAY]
        assert [answer["id"] for answer in answers] == [1, 1, 1, identity, 1]
        answers = await bench.wait("r", 11)
        assert [answer["resp"] for answer in answers] == [OKAY] * 6 + [SLVERR] * 3 + [OKAY] * 2
        assert [answer["last"] for answer in answers] == [0, 1] * 3 + [0, 0, 1] + [0, 1]

    run(job, latency=30)


def test_memorys_errors_pass_and_retire() -> None:
    async def job(bench: Bench) -> None:
        bench.memory.bad |= {FRAME: SLVERR, FRAME + 1: DECERR}
        for page, response in enumerate((SLVERR, DECERR)):
            assert await bench.write(LINEAR + page * PAGE, [1]) == response
            assert (await bench.read(LINEAR + page * PAGE))[0] == response

    bench = run(job)
    assert len(bench.mmu.retired) == 2


def test_answers_of_ids_that_memory_mixes_retire_their_own_grants() -> None:
    """Three bursts of each of two IDs: the grant that retires is that of the answer, oldest first of each ID."""

    async def job(bench: Bench) -> None:
        bench.memory.held |= {"aw", "w"}
        for page in range(6):
            bench.manager.write(3 + page % 2, LINEAR + page * PAGE, [page])
        await bench.ticks(40)
        bench.memory.held.clear()
        bench.memory.stuck = True
        await bench.ticks(40)
        writing = bench.memory._writing
        assert len(writing) == 6
        writing.sort(key=lambda one: -one.address["id"])  # all of ID 4 first
        bench.memory.stuck = False
        answers = await bench.wait("b", 6)
        assert [answer["id"] for answer in answers] == [4, 4, 4, 3, 3, 3]

    bench = run(job)
    assert [page - LINEAR // PAGE for page, _ in bench.mmu.retired] == [1, 3, 5, 0, 2, 4]


# Exclusives and attributes ------------------------------------------------------------------------------------------


def test_exclusives_pass() -> None:
    async def job(bench: Bench) -> None:
        bench.memory.store(PHYSICAL, b"\x05")
        assert await bench.write(LINEAR, [6], lock=1) == OKAY  # not reserved: it fails
        assert await bench.read(LINEAR, lock=1) == (EXOKAY, [5])
        assert await bench.write(LINEAR, [6], lock=1) == EXOKAY
        assert await bench.read(LINEAR) == (OKAY, [6])

    bench = run(job)
    assert [request["access"] for _, request in bench.mmu.requests] == [STORE, READ, STORE, READ]


@pytest.mark.parametrize(
    ("controls", "prot", "read", "write"),
    [
        ({}, 0b000, (READ, 1), (STORE, 1)),
        ({}, 0b001, (READ, 0), (STORE, 0)),
        ({}, 0b110, (FETCH, 1), (STORE, 1)),
        ({}, 0b101, (FETCH, 0), (STORE, 0)),
        ({"fixed_prot": 1}, 0b110, (READ, 0), (STORE, 0)),
        ({"fixed_prot": 1, "user": 1}, 0b001, (READ, 1), (STORE, 1)),
        ({"fixed_prot": 1, "user": 1, "fetch": 1, "ac": 1}, 0b001, (FETCH, 1), (STORE, 1)),
    ],
)
def test_protection(controls: dict[str, int], prot: int, read: tuple[int, int], write: tuple[int, int]) -> None:
    """AxPROT, or what software fixed, says who asks and for what; AxPROT itself passes."""

    async def job(bench: Bench) -> None:
        bench.control(**controls)
        await bench.read(LINEAR, prot=prot)
        await bench.write(LINEAR, [1], prot=prot)

    bench = run(job)
    assert [(request["access"], request["user"]) for _, request in bench.mmu.requests] == [read, write]
    assert {(request["ac"], request["implicit"]) for _, request in bench.mmu.requests} == {(controls.get("ac", 0), 0)}
    assert bench.memory.reads[0]["prot"] == bench.memory.writes[0]["prot"] == prot


@pytest.mark.thorough
@pytest.mark.parametrize("final", [0, 1])
@pytest.mark.parametrize("mapped", [0, 1])
def test_memory_attributes(final: int, mapped: int) -> None:
    """AxCACHE of all eight memory types, and passed; AWCACHE[0] is 0 where B must mean that all see it."""
    pat_map = 0xFB31_0672

    async def job(bench: Bench) -> None:
        bench.control(final_response=final, map_cache=mapped, pat_map=pat_map)
        for kind in range(8):
            bench.mmu.map(BAD // PAGE + kind, FRAME, pat=kind >> 2, pcd=kind >> 1 & 1, pwt=kind & 1)
            await bench.write(BAD + kind * PAGE, [1], cache=15 - kind)
            await bench.read(BAD + kind * PAGE, cache=15 - kind)

    bench = run(job)
    expected = [pat_map >> 4 * kind & 15 if mapped else 15 - kind for kind in range(8)]
    assert [read["cache"] for read in bench.memory.reads] == expected
    assert [write["cache"] for write in bench.memory.writes] == [cache & ~final for cache in expected]


def test_disabled() -> None:
    """Bursts wait; none is lost."""

    async def job(bench: Bench) -> None:
        bench.control(enable=0)
        bench.manager.write(1, LINEAR, [1])
        bench.manager.read(1, LINEAR)
        await bench.ticks(50)
        assert not bench.mmu.requests and bench.status("busy")
        bench.control(enable=1)
        await bench.wait("b")
        await bench.wait("r")

    run(job)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"linear_bits": 31}, "linear_bits of a bridge must be an integer from 32 to 64, not 31"),
        ({"physical_bits": 53}, "physical_bits of a bridge must be an integer from 32 to 52, not 53"),
        ({"data_bits": 32}, "data_bits must be 64, 128, 256 or 512, not 32"),
        ({"user_bits": 129}, "user_bits of a bridge must be an integer from 0 to 128, not 129"),
        ({"id_bits": 9}, "id_bits of a bridge must be an integer from 1 to 8, not 9"),
        ({"reads": 12}, "reads of a bridge must be a power of two from 4 to 64, not 12"),
        ({"writes": 2}, "writes of a bridge must be a power of two from 4 to 64, not 2"),
        ({"beats": 256}, "beats of a bridge must be a power of two from 512 to 4096, not 256"),
        ({"fault_depth": 0}, "fault_depth of a bridge must be an integer from 1 to 1024, not 0"),
        ({"read_grants": 1}, "read_grants of a bridge must be True or False, not 1"),
        ({"atomic": True}, "atomic must be False: a bridge takes no AWATOP, not True"),
    ],
)
def test_parameter_errors(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        BridgeConfig(**parameters)
