"""Bins of functional coverage, counted: hand-made answers and swaps, and the counts of a real batch."""

from __future__ import annotations

import numpy as np
import pytest

from ptewalk.cosim.bench.records import REQUEST, RESPONSE
from ptewalk.cosim.checks.covered import BIN, SWAP, walk_bins
from ptewalk.cosim.runs.gateware import WalkerLibrary
from ptewalk.model.x86 import Access, Control, Outcome
from ptewalk.rtl.walker_bins import WALKER

LA57 = 1 << Control.LA57
WP = 1 << Control.WP


def test_hand_made_answers() -> None:
    """(control, access, user, implicit, ac), (outcome, error code), entries read, and where that belongs."""
    rows = [
        ((0, Access.READ, 1, 0, 0), (Outcome.OK, 0), 4, "OK/1/READ", "user"),
        ((0, Access.READ, 0, 0, 1), (Outcome.OK, 0), 2, "OK/3/READ", "supervisor AC"),
        ((LA57, Access.WRITE, 0, 0, 0), (Outcome.PAGE_FAULT, 0b10), 1, "NOT_PRESENT/5/WRITE", "supervisor"),
        ((0, Access.FETCH, 0, 0, 0), (Outcome.PAGE_FAULT, 0b1_1001), 1, "RESERVED/4/FETCH", "supervisor"),
        ((WP, Access.RMW, 1, 0, 0), (Outcome.PAGE_FAULT, 0b10_0111), 3, "KEY/2/RMW", "user"),
        ((WP, Access.PROBE, 0, 1, 1), (Outcome.PAGE_FAULT, 0b11), 4, "RIGHTS/1/PROBE", "implicit"),
        ((0, Access.READ, 1, 0, 0), (Outcome.GENERAL_PROTECTION, 0), 0, "NOT_CANONICAL/-/READ", "user"),
        ((0, Access.READ, 1, 0, 0), (Outcome.BUS_ERROR, 0), 3, "BUS_ERROR/2/READ", "user"),
    ]
    requests, responses = np.zeros(len(rows), REQUEST), np.zeros(len(rows), RESPONSE)
    for place, (asked, told, *_) in enumerate(rows):
        for name, value in zip(("control", "access", "user", "implicit", "ac"), asked, strict=True):
            requests[name][place] = value
        responses["outcome"][place], responses["code"][place] = told
    swaps = np.array(  # address, old, new, instead; request, entries read before; done, refused, overtaken
        [
            (0, 0x1, 0x21 | 1 << 11, 0, 0, 4, True, False, False),
            (0, 0x1, 0x21, 1 << 63 | 0x2000, 2, 1, False, False, True),
            (0, 0x21, 0x63, 0, 4, 3, False, True, False),
        ],
        SWAP,
    )
    bins = walk_bins(requests, responses, np.array([row[2] for row in rows]), swaps, five=True)
    for asked, _, _, answer, who in rows:
        cause, _, access = answer.split("/")
        assert bins[f"answer/{answer}"] == 1, answer
        assert bins[f"who/{cause}/{access}/{who}"] >= 1
        for bit in (Control.WP, Control.LA57):
            assert bins[f"control/{cause}/{bit.name}={asked[0] >> bit & 1}"] >= 1
    assert sum(count for name, count in bins.items() if name.startswith("answer/")) == len(rows)
    assert {name: count for name, count in bins.items() if name.startswith(("swap/", "overtaken/"))} == {
        "swap/1/A SD/done": 1,
        "swap/5/A/failed": 1,
        "swap/2/RW D/refused": 1,
        "overtaken/5/P": 1,
        "overtaken/5/XD": 1,
        "overtaken/5/frame": 1,
    }


def test_a_design_of_four_levels_knows_no_fifth() -> None:
    requests, responses = np.zeros(1, REQUEST), np.zeros(1, RESPONSE)
    requests["control"] = LA57
    assert walk_bins(requests, responses, np.ones(1, np.int64), np.zeros(0, SWAP), five=False)["answer/OK/4/READ"] == 1
    assert walk_bins(requests, responses, np.ones(1, np.int64), np.zeros(0, SWAP), five=True)["answer/OK/5/READ"] == 1


@pytest.mark.slow
def test_the_counts_of_a_run_add_up() -> None:
    """Each walk is in one bin of each cross and control bit, each swap in one; no bin that is excluded is met."""
    walks = 20_000
    told = WalkerLibrary.make().randomised(walks, 20261127, "see the test")
    assert told["failure"] == ""
    bins = told["bins"]
    sums = {cross.name: 0 for cross in WALKER}
    for name, count in bins.items():
        sums[name.split(BIN)[0]] += count
    assert sums["answer"] == sums["who"] == walks
    assert sums["control"] == walks * (len(Control) - 1)
    assert sums["swap"] == told["swaps"]
    failed = sum(count for name, count in bins.items() if name.endswith(("/failed", "/refused")))
    assert failed == told["failed_swaps"] > 500
    assert sums["overtaken"] > 500
    outcomes = {cause: sum(n for name, n in bins.items() if name.startswith(f"answer/{cause}/")) for cause in ("OK",)}
    assert outcomes["OK"] == told["outcomes"]["OK"]
    known = {BIN.join((cross.name, *values)): cross.why_excluded(values) for cross in WALKER for values in cross.bins()}
    assert [(name, known.get(name, "unknown")) for name in bins if known.get(name, "unknown") is not None] == []
    for cross in WALKER[:3]:
        missing = [values for values in cross.wanted() if BIN.join((cross.name, *values)) not in bins]
        assert len(missing) < len(cross.wanted()) // 20, missing
