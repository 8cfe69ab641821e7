"""The walker, one walk at a time, against values typed by hand from the manual [SDM 3A chapter 4] and the TRACK table
of docs/walker.md."""

from dataclasses import replace
from typing import Any

import pytest

from ptewalk.model import x86
from ptewalk.rtl.walker import WalkerConfig

from .walker_bench import (
    ARM,
    E_P,
    E_RSVD,
    E_US,
    E_WR,
    FAULT,
    FETCH,
    FRAME,
    FRAME_1G,
    FRAME_2M,
    GP,
    LA57,
    LEAF,
    LINEAR,
    NATIVE,
    OK,
    PAT_LARGE,
    PCD,
    PF,
    PROBE,
    PS,
    PWT,
    READ,
    RMW,
    RW,
    SD,
    TABLE,
    UPPER,
    US,
    WRITE,
    XD,
    A,
    D,
    G,
    P,
    bench_of,
    slot,
    tables,
    unchanged,
    walk,
)

LATENCIES = (1, 2, 4, 16, 40)


# The walk itself ------------------------------------------------------------------------------------------------------


def test_addresses_of_a_four_level_walk() -> None:
    """[SDM 3A 4.5.4] Bits 47:39, 38:30, 29:21 and 20:12 select the entries; bits 11:0 are the offset."""
    words = {
        0x204000 + 0x0B4 * 8: 0x300000 | UPPER,
        0x300000 + 0x169 * 8: 0x301000 | UPPER,
        0x301000 + 0x1B2 * 8: 0x302000 | UPPER,
        0x302000 + 0x143 * 8: 0x12_3456_7000 | P | US | A,
    }
    seen = walk(words, 0x0000_5A5A_7654_3218, root=0x204)
    assert seen.reads == [0x2045A0, 0x300B48, 0x301D90, 0x302A18]
    assert seen.response == {
        "outcome": OK,
        "code": 0,
        "physical": 0x12_3456_7218,
        "level": 1,
        "pwt": 0,
        "pcd": 0,
        "pat": 0,
        "tag": 0xA5,
    }


def test_addresses_of_a_five_level_walk() -> None:
    """[SDM 3A 4.5.4] With CR4.LA57 bits 56:48 select the PML5E first."""
    words = {
        0x205000 + 0x1A5 * 8: 0x204000 | UPPER,
        0x204000 + 0x0B4 * 8: 0x300000 | UPPER,
        0x300000 + 0x169 * 8: 0x301000 | UPPER,
        0x301000 + 0x1B2 * 8: 0x302000 | UPPER,
        0x302000 + 0x143 * 8: 0x12_3456_7000 | P | US | A,
    }
    seen = walk(words, 0xFFA5_5A5A_7654_3218, root=0x205, control=LA57)
    assert seen.reads == [0x205D28, 0x2045A0, 0x300B48, 0x301D90, 0x302A18]
    assert (seen.outcome, seen.response["physical"]) == (OK, 0x12_3456_7218)


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize(
    ("levels", "leaf_level", "frame", "physical"),
    [
        (4, 1, FRAME, 0x12_3456_7218),
        (5, 1, FRAME, 0x12_3456_7218),
        (4, 2, FRAME_2M | PS, 0x12_3454_3218),
        (5, 2, FRAME_2M | PS, 0x12_3454_3218),
        (4, 3, FRAME_1G | PS, 0x12_3654_3218),
        (5, 3, FRAME_1G | PS, 0x12_3654_3218),
    ],
)
def test_cycles_and_page_sizes(levels: int, leaf_level: int, frame: int, physical: int, latency: int) -> None:
    """n entries take n * L + 2 cycles; the offset is 12, 21 or 30 bits wide [SDM 3A 4.5.4]."""
    words = tables(LINEAR, frame | P | US | A, levels=levels, leaf_level=leaf_level)
    before = dict(words)
    seen = walk(words, LINEAR, latency=latency, control=LA57 if levels == 5 else 0)
    assert (seen.outcome, seen.response["physical"], seen.response["level"]) == (OK, physical, leaf_level)
    assert seen.cycles == (levels - leaf_level + 1) * latency + 2
    assert seen.reads == [slot(LINEAR, level) for level in range(levels, leaf_level - 1, -1)]
    unchanged(words, before)


@pytest.mark.thorough
@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("unset", [(), (4,), (3,), (2,), (4, 3), (4, 3, 2)])
@pytest.mark.parametrize("leaf_unset", [False, True])
def test_cost_of_swaps(unset: tuple[int, ...], leaf_unset: bool, latency: int) -> None:
    """A of an upper entry costs L + 2 cycles more, all bits of the leaf together L + 1."""
    leaf = FRAME | P | RW | US | (0 if leaf_unset else A | D | SD)
    words = tables(LINEAR, leaf, uppers=dict.fromkeys(unset, P | RW | US))
    seen = walk(words, LINEAR, WRITE, latency=latency, track=NATIVE)
    assert seen.cycles == 4 * latency + 2 + len(unset) * (latency + 2) + leaf_unset * (latency + 1)
    assert len(seen.swaps) == len(unset) + leaf_unset


@pytest.mark.parametrize("latency", LATENCIES)
def test_cost_of_a_mend(latency: int) -> None:
    """One swap: D, soft-dirty, RW and ARM together."""
    words = tables(LINEAR, FRAME | P | US | A | ARM)
    seen = walk(words, LINEAR, WRITE, latency=latency, track=FAULT)
    assert seen.outcome == OK
    assert (len(seen.swaps), seen.cycles) == (1, 4 * latency + 2 + latency + 1)


@pytest.mark.parametrize("tag_bits", [1, 8, 32])
def test_tag_comes_back(tag_bits: int) -> None:
    tag = 0xA5A5_A5A5 & (1 << tag_bits) - 1
    seen = walk({}, LINEAR, config=WalkerConfig(tag_bits=tag_bits), tag=tag)
    assert seen.response["tag"] == tag


# What the leaf says of memory types -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "pwt", "pcd", "pat"),
    [(0, 0, 0, 0), (PWT, 1, 0, 0), (PCD, 0, 1, 0), (PS, 0, 0, 1), (PWT | PCD | PS, 1, 1, 1)],
)
def test_memory_type_of_a_4k_leaf(flags: int, pwt: int, pcd: int, pat: int) -> None:
    """[SDM 3A table 4-20] Bit 7 of a PTE is PAT. Those of upper entries do not count."""
    words = tables(LINEAR, LEAF | flags, uppers={2: UPPER | PWT | PCD})
    response = walk(words, LINEAR).response
    assert (response["pwt"], response["pcd"], response["pat"]) == (pwt, pcd, pat)


@pytest.mark.parametrize(("leaf_level", "frame"), [(2, FRAME_2M), (3, FRAME_1G)])
@pytest.mark.parametrize("pat", [0, PAT_LARGE])
def test_memory_type_of_a_large_leaf(leaf_level: int, frame: int, pat: int) -> None:
    """[SDM 3A tables 4-16 and 4-18] Bit 12 of a large leaf is PAT, no part of its address."""
    words = tables(LINEAR, frame | PS | pat | P | US | A | PCD, leaf_level=leaf_level)
    response = walk(words, LINEAR).response
    assert (response["pwt"], response["pcd"], response["pat"]) == (0, 1, int(pat != 0))
    assert response["physical"] == frame + (LINEAR & (1 << {2: 21, 3: 30}[leaf_level]) - 1)


# Canonical addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "linear", "canonical"),
    [
        (0, 0x0000_7FFF_FFFF_FFFF, True),
        (0, 0x0000_8000_0000_0000, False),
        (0, 0xFFFF_7FFF_FFFF_FFFF, False),
        (0, 0xFFFF_8000_0000_0000, True),
        (0, 0x8000_0000_0000_0000, False),
        (0, 0x00FF_FFFF_FFFF_FFFF, False),
        (LA57, 0x00FF_FFFF_FFFF_FFFF, True),
        (LA57, 0x0100_0000_0000_0000, False),
        (LA57, 0xFEFF_FFFF_FFFF_FFFF, False),
        (LA57, 0xFF00_0000_0000_0000, True),
        (LA57, 0x0000_8000_0000_0000, True),
        (LA57, 0x7FFF_FFFF_FFFF_FFFF, False),
    ],
)
@pytest.mark.parametrize("access", [READ, WRITE, FETCH, PROBE])
def test_canonical(control: int, linear: int, canonical: bool, access: int) -> None:
    """[SDM 3A 4.5.2] Bits 63:47, with LA57 63:56, are all equal, or there is #GP and no walk."""
    seen = walk({}, linear, access, control=control)
    assert seen.outcome == (PF if canonical else GP)
    assert bool(seen.operations) is canonical
    if not canonical:
        assert (seen.code, seen.cycles) == (0, 2)


def test_four_levels_ignore_la57() -> None:
    config = WalkerConfig(levels=4)
    words = tables(LINEAR, LEAF)
    seen = walk(words, LINEAR, control=LA57, config=config, latency=3)
    assert (seen.outcome, seen.cycles, len(seen.reads)) == (OK, 4 * 3 + 2, 4)
    assert walk({}, 0x0000_8000_0000_0000, control=LA57, config=config).outcome == GP


# Presence and reserved bits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("value", [0, ~P & (1 << 64) - 1])
@pytest.mark.parametrize(("access", "code"), [(READ, E_US), (WRITE, E_US | E_WR), (RMW, E_US | E_WR), (FETCH, E_US)])
def test_not_present(level: int, value: int, access: int, code: int) -> None:
    """[SDM 3A 4.7] P=0 ends the walk; whatever else the entry holds is ignored, reserved bits too."""
    words = tables(LINEAR, LEAF, levels=5)
    words[slot(LINEAR, level)] = value
    before = dict(words)
    seen = walk(words, LINEAR, access, control=LA57, track=FAULT)
    assert (seen.outcome, seen.code, seen.response["level"]) == (PF, code, level)
    assert len(seen.reads) == 6 - level
    unchanged(words, before)


def reserved_cases() -> list[Any]:
    cases = []
    for bits in (36, 40, 52):
        for level in range(1, 6):
            cases += [(bits, level, 1 << bit, bits <= bit <= 51) for bit in (32, bits - 1, bits, 51, 52, 58)]
            cases.append((bits, level, 1 << 62 | 1 << 59 | 1 << 52 | 7 << 9 | G, False))
            cases.append((bits, level, XD, True))
            if level != 3:  # a PDPTE with PS is a leaf, whose address has reserved bits of its own
                cases.append((bits, level, PS, level >= 4))
    return [pytest.param(*case, id=f"{case[0]}-{case[1]}-{case[2]:#x}") for case in cases]


@pytest.mark.thorough
@pytest.mark.parametrize(("bits", "level", "flag", "reserved"), reserved_cases())
def test_reserved_bits(bits: int, level: int, flag: int, reserved: bool) -> None:
    """[SDM 3A 4.7 and tables 4-14 to 4-20] Bits 51:MAXPHYADDR; XD without NXE; PS of a PML5E and a PML4E."""
    words = tables(LINEAR, FRAME & 0xFFFF_F000 | P | US, levels=5)
    entry = slot(LINEAR, level)
    words[entry] |= flag
    before = dict(words)
    seen = walk(words, LINEAR, config=WalkerConfig(physical_bits=bits), control=LA57)
    if reserved:
        assert (seen.outcome, seen.code, seen.response["level"]) == (PF, E_P | E_RSVD | E_US, level)
        unchanged(words, before)
    else:
        # Not malformed: what the flag does to the address is not this test's business.
        assert seen.code & E_RSVD == 0 or seen.response["level"] < level


@pytest.mark.parametrize(
    ("leaf_level", "bit", "reserved"),
    [(2, 12, False), (2, 13, True), (2, 17, True), (2, 20, True), (2, 21, False)]
    + [(3, 12, False), (3, 13, True), (3, 21, True), (3, 29, True), (3, 30, False)],
)
def test_reserved_bits_of_a_large_leaf(leaf_level: int, bit: int, reserved: bool) -> None:
    """[SDM 3A tables 4-16 and 4-18] Bits 20:13 of a 2 MiB leaf, 29:13 of a 1 GiB leaf; bit 12 is PAT."""
    leaf = {2: FRAME_2M, 3: FRAME_1G}[leaf_level] | PS | P | US
    words = tables(LINEAR, leaf ^ 1 << bit, leaf_level=leaf_level)
    before = dict(words)
    seen = walk(words, LINEAR)
    assert seen.outcome == (PF if reserved else OK)
    if reserved:
        assert seen.code == E_P | E_RSVD | E_US
        unchanged(words, before)


def test_reserved_beats_what_lies_below_and_rights() -> None:
    """The check is made at each entry's own level, before the next is read and before any right is judged."""
    words = tables(LINEAR, 0, uppers={3: UPPER | 1 << 45, 4: P | A})
    seen = walk(words, LINEAR, WRITE)
    assert (seen.outcome, seen.code, len(seen.reads)) == (PF, E_P | E_RSVD | E_US | E_WR, 2)


def test_not_present_above_a_reserved_bit() -> None:
    words = tables(LINEAR, LEAF | 1 << 45, uppers={2: 0})
    assert walk(words, LINEAR).code == E_US


@pytest.mark.parametrize("gigabyte_pages", [True, False])
def test_gigabyte_pages(gigabyte_pages: bool) -> None:
    """Without them PS of a PDPTE is reserved [SDM 3A table 4-17]."""
    words = tables(LINEAR, FRAME_1G | PS | P | US | A, leaf_level=3)
    before = dict(words)
    seen = walk(words, LINEAR, config=WalkerConfig(gigabyte_pages=gigabyte_pages))
    if gigabyte_pages:
        assert seen.outcome == OK
    else:
        assert (seen.outcome, seen.code) == (PF, E_P | E_RSVD | E_US)
    unchanged(words, before)


def test_two_megabyte_pages_without_gigabyte_pages() -> None:
    words = tables(LINEAR, FRAME_2M | PS | P | US | A, leaf_level=2)
    assert walk(words, LINEAR, config=WalkerConfig(gigabyte_pages=False)).response["physical"] == 0x12_3454_3218


# Handshakes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["reads", "swaps", "responses"])
@pytest.mark.parametrize("period", [2, 3, 7])
def test_backpressure(channel: str, period: int) -> None:
    """What is offered stands until it is taken, and the result is the same."""
    words = tables(LINEAR, FRAME | P | RW | US, uppers=dict.fromkeys((2, 3, 4), P | RW | US))
    free = dict(words)
    expected = walk(free, LINEAR, WRITE, track=NATIVE, latency=2)
    seen = walk(
        words, LINEAR, WRITE, track=NATIVE, latency=2, stall=lambda name, cycle: name == channel and cycle % period > 0
    )
    assert seen.response == expected.response
    assert seen.operations == expected.operations
    assert words == free


# Parameters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"levels": 3}, "levels must be 4 or 5, not 3"),
        ({"levels": 4.0}, "levels must be 4 or 5, not 4.0"),
        ({"levels": "4"}, "levels must be 4 or 5, not '4'"),
        ({"physical_bits": 31}, "physical_bits must be an integer from 32 to 52, not 31"),
        ({"physical_bits": 53}, "physical_bits must be an integer from 32 to 52, not 53"),
        ({"physical_bits": 40.0}, "physical_bits must be an integer from 32 to 52, not 40.0"),
        ({"tag_bits": 0}, "tag_bits must be an integer from 1 to 32, not 0"),
        ({"tag_bits": 33}, "tag_bits must be an integer from 1 to 32, not 33"),
        ({"soft_dirty": 1}, "soft_dirty must be True or False, not 1"),
        ({"gigabyte_pages": "no"}, "gigabyte_pages must be True or False, not 'no'"),
        ({"trace": None}, "trace must be True or False, not None"),
        ({"observe": 0}, "observe must be True or False, not 0"),
    ],
)
def test_parameter_errors(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as error:
        WalkerConfig(**parameters)
    assert str(error.value) == text


@pytest.mark.parametrize(("parameter", "value"), [("physical_bits", 32), ("physical_bits", 52), ("tag_bits", 32)])
def test_extremes_are_allowed(parameter: str, value: int) -> None:
    config = replace(WalkerConfig(), **{parameter: value})
    linear = 0x7FFF_FFFF_FFF8
    frame = 0xFFFF_F000
    seen = walk(tables(linear, frame | P | US | A), linear, config=config)
    assert (seen.outcome, seen.response["physical"]) == (OK, 0xFFFF_FFF8)


# Contexts -------------------------------------------------------------------------------------------------------------


def test_a_context_goes_before_a_request_and_waits_for_one_in_flight() -> None:
    """Offered together, the request is judged under the context; offered later, it changes nothing for it."""
    walker = bench_of(WalkerConfig()).walker
    requests, responses, contexts = walker.requester.requests, walker.requester.responses, walker.contexts
    words = tables(LINEAR, LEAF & ~US)

    async def job(ctx: Any) -> None:
        ctx.set(responses.ready, 1)
        ctx.set(walker.memory.reads.ready, 1)
        ctx.set(contexts.payload.root, TABLE[4] >> 12)
        ctx.set(contexts.valid, 1)
        ctx.set(requests.payload, {"linear": LINEAR, "access": x86.Access.FETCH})
        ctx.set(requests.valid, 1)
        assert ctx.get(contexts.ready) and not ctx.get(requests.ready)
        await ctx.tick()
        assert ctx.get(contexts.ready) and not ctx.get(requests.ready), "contexts go first"
        ctx.set(contexts.valid, 0)
        assert ctx.get(requests.ready)
        await ctx.tick()
        ctx.set(requests.valid, 0)
        # Under the new context, with another root, the same request would be a page fault.
        ctx.set(contexts.payload.root, 0)
        ctx.set(contexts.valid, 1)
        for _ in range(20):
            if ctx.get(responses.valid):
                break
            assert not ctx.get(contexts.ready)
            read = ctx.get(walker.memory.reads.valid)
            payload = ctx.get(walker.memory.reads.payload)
            await ctx.tick()
            ctx.set(walker.memory.data.valid, read)
            ctx.set(walker.memory.data.payload, {"value": words.get(payload.address, 0), "id": payload.id})
        assert int(ctx.get(responses.payload.outcome)) == OK
        assert not ctx.get(contexts.ready)
        await ctx.tick()
        assert ctx.get(contexts.ready)

    bench_of(WalkerConfig()).run(job)
