"""The rows that `ptewalk cycles` has of the table engine, and the lane that they come from."""

import pytest

from ptewalk.cosim.bench.engine_lane import EngineConditions, EngineLane
from ptewalk.cosim.driver.engine_masks import moving, telling
from ptewalk.cosim.runs.engine import built_engine
from ptewalk.cosim.runs.engine_cycles import engine_cycles
from ptewalk.model.memory import SparseMemory
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.rtl.engine.fetcher import Stop

pytestmark = pytest.mark.slow


def test_the_rows_of_docs() -> None:
    """As docs/engine.md tells them; a dense, sparse or empty table takes a cycle an entry, a move by lines two."""
    rows = engine_cycles([4, 16, 40])
    assert len(rows) == 3 * 15
    assert not [row for row in rows if row["differs"]]
    told = {(row["name"].removeprefix("engine: "), row["latency"]): row["cycles"] for row in rows}
    moves = {name: cycles for name, cycles in told.items() if "entries moved, by lines" in name[0]}
    entries = {name: told[name] for name in told if name[0].startswith("4096 entries, ")}
    assert len(entries) == 27 and set(entries.values()) == {4096}
    assert {cycles for (_, latency), cycles in moves.items() if latency == 4} == {8264, 8272}
    assert moves["4096 entries moved, by lines, dense", 40] == 12584
    targets = [row["target"] for row in rows if row["target"] is not None]
    assert targets == [*[4311] * 9, *[8714] * 3, 44, 14, *[4311] * 9, *[8714] * 3, 116, 38, *[4311] * 9, 260, 86]
    assert [row["name"] for row in rows if row["target"] is not None and row["cycles"] > row["target"]] == []
    for latency in (4, 16, 40):
        assert told["256 entries moved, one by one", latency] == 256 * (5 + 2 * latency)
        assert told["a table moved, the first", latency] == 18 + 5 * latency
        assert told["a table moved, each further", latency] == 5 + 2 * latency


def test_each_entry_without_a_home_has_a_completion() -> None:
    """The bus refuses what is put into a line of the target: its first entry is told by the last completion, the others
    by one each before, and the command that follows is not taken for it."""
    rules, root, upper, directory, source, target = Entries(PROFILES["linux-6.12"]), 1, 2, 3, 4, 5
    words = {root << 12: upper << 12 | 0x67, upper << 12: directory << 12 | 0x67}
    words |= {(directory << 12) + 8 * number: frame << 12 | 0x67 for number, frame in enumerate((source, target))}
    entries = {place: 0x1000 + place << 12 | 0x67 for place in range(64) if place != 19}
    words |= {(source << 12) + 8 * place: entry for place, entry in entries.items()}
    memory = SparseMemory.of(words, [*range(root, target + 1)])
    line = (target << 12) + 8 * 16
    asked = {"range": {"root": root}, "change": moving(rules, marks=True, unprotects=False), "words": telling(rules)}
    move = {"target": 512, "level": 1, "entries": 32}
    nothing = {"target": 512 + 96, "level": 1, "entries": 32}
    commands = [asked | {"moves": 1, "move": move}]
    commands += [asked | {"moves": 1, "range": {"root": root, "page": 96}, "move": nothing}]
    lane = EngineLane(built_engine().library)
    try:
        run = lane.run(commands, memory, conditions=EngineConditions(4, refused=range(line, line + 128)))
    finally:
        lane.close()
    first, second = run.completions
    assert (first["stopped"], first["page"], first["homeless"], first["more"]) == (Stop.BUS_ERROR, 16, entries[16], 0)
    assert run.further == [(0, place, entries[place]) for place in range(17, 32) if place != 19]
    assert (second["stopped"], second["page"], second["changed"]) == (Stop.DONE, 128, 0)
    assert [memory.load((target << 12) + 8 * place) for place in range(16, 32)] == [0] * 16
