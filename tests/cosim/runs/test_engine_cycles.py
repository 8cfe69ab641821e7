"""The rows that `ptewalk cycles` has of the table engine."""

import pytest

from ptewalk.cosim.runs.engine_cycles import engine_cycles

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
    assert {cycles for (_, latency), cycles in moves.items() if latency == 4} == {8256}
    assert moves["4096 entries moved, by lines, dense", 40] == 12576
    targets = [row["target"] for row in rows if row["target"] is not None]
    assert targets == [*[4311] * 9, *[8714] * 3, 44, 14, *[4311] * 9, *[8714] * 3, 116, 38, *[4311] * 9, 260, 86]
    assert [row["name"] for row in rows if row["target"] is not None and row["cycles"] > row["target"]] == []
    for latency in (4, 16, 40):
        assert told["256 entries moved, one by one", latency] == 256 * (4 + 2 * latency)
        assert told["a table moved, the first", latency] == 17 + 5 * latency
        assert told["a table moved, each further", latency] == 4 + 2 * latency
