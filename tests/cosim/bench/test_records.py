"""Control inputs: one entry of `CONTEXT_INPUTS` is all that a new one needs in the testbench."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptewalk.cosim.bench import records
from ptewalk.model.linux import Track
from ptewalk.model.paging import Request, State
from ptewalk.model.x86 import Access, Control

STATE = State(0x5000, 1 << Control.NXE, 0x11, 0x22, Track.NATIVE, saved_dirty=True)


def test_values_of_a_context() -> None:
    assert records.context_values(STATE, 7, keep=True) == {
        "root": 5,
        "control": 0b10,
        "pkru": 0x11,
        "pkrs": 0x22,
        "track": 2,
        "saved_dirty": 1,
        "pcid": 7,
        "keep": 1,
    }


def test_without_soft_dirty() -> None:
    plain = records.context_values(replace(STATE, soft_dirty=False))
    assert (plain["track"], plain["saved_dirty"]) == (0, 0)


def test_a_new_control_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the golden model knows it."""
    monkeypatch.setattr(records, "CONTEXT_INPUTS", (*records.CONTEXT_INPUTS, ("paused", np.uint8, 1)))
    assert list(records.context_values(STATE).items())[-1] == ("paused", 0)


@pytest.mark.parametrize(
    "request_",
    [
        Request(0x8000_1234_5678_9ABC, Access.RMW),
        Request(0x1000, Access.WRITE, user=True),
        Request(0x2000, Access.READ, implicit=True),
        Request(0x3000, Access.FETCH, ac=True),
    ],
)
def test_a_record_says_what_was_asked(request_: Request) -> None:
    (row,) = records.encode_requests([(STATE, request_)], [9])
    assert records.state_and_request(row) == (STATE, request_)
    assert (int(row["linear"]), int(row["tag"]), int(row["access"])) == (request_.linear, 9, request_.access)
    assert [bool(row[name]) for name in ("user", "implicit", "ac")] == [request_.user, request_.implicit, request_.ac]
