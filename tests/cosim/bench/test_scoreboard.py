"""The scoreboard: agreement passes, and each way to fail fails."""

from __future__ import annotations

import numpy as np
import pytest

from ptewalk.cosim.bench.records import INTERFERENCE, RESPONSE, Records, make
from ptewalk.cosim.bench.scoreboard import Scoreboard, ScoreboardError

REPEAT = "ptewalk cosim --seed 5"


def board(promised: int = 1) -> Scoreboard:
    return Scoreboard("walks", promised=promised, repeat=REPEAT)


def response(tag: int, physical: int = 0x1000) -> np.void:
    return make(RESPONSE, {"tag": tag, "physical": physical})


def responses(*tags: int) -> Records:
    return np.array([response(tag) for tag in tags], RESPONSE)


def test_pairs_are_matched_in_order_whichever_side_comes_first() -> None:
    scoreboard = board(promised=3)
    scoreboard.expect(response(1))
    scoreboard.expect(response(2))
    scoreboard.capture(response(1))
    scoreboard.capture(response(2))
    scoreboard.capture(response(3))
    scoreboard.expect(response(3))
    assert scoreboard.finish() == 3


def test_a_mismatch_is_shown_side_by_side_with_its_context_and_the_command() -> None:
    scoreboard = board()
    scoreboard.expect(response(1, 0x2000), {"linear": "0x123"})
    scoreboard.capture(response(1, 0x3000))
    with pytest.raises(ScoreboardError) as caught:
        scoreboard.finish()
    lines = str(caught.value).splitlines()
    assert lines[0] == "scoreboard walks: 1 of 1 differ"
    assert "  linear=0x123" in lines
    assert any(line.split() == ["Captured", "Expected", "Match?"] for line in lines)
    assert any(line.split() == ["physical", "0x3000", "0x2000", "NO"] for line in lines)
    assert any(line.split() == ["tag", "1", "1", "yes"] for line in lines)
    assert lines[-1] == f"repeat: {REPEAT}"


def test_order_counts() -> None:
    scoreboard = board()
    for tag in (1, 2):
        scoreboard.expect(response(tag))
    for tag in (2, 1):
        scoreboard.capture(response(tag))
    assert scoreboard.mismatches == 2


@pytest.mark.parametrize("side", ["capture", "expect"])
def test_a_leftover_on_either_side_fails(side: str) -> None:
    scoreboard = board()
    scoreboard.capture(response(1))
    scoreboard.expect(response(1))
    getattr(scoreboard, side)(response(7))
    words = {"capture": "captured, never expected", "expect": "expected, never captured"}
    with pytest.raises(ScoreboardError, match=f"1 {words[side]}, the first: .*'tag': 7"):
        scoreboard.finish()


def test_silence_fails() -> None:
    with pytest.raises(ScoreboardError, match="0 comparisons, fewer than the 1 promised"):
        board().finish()
    with pytest.raises(ValueError, match="promised must be at least 1, not 0"):
        board(promised=0)


def test_fewer_comparisons_than_promised_fail() -> None:
    scoreboard = board(promised=2)
    scoreboard.capture(response(1))
    scoreboard.expect(response(1))
    with pytest.raises(ScoreboardError, match="1 comparisons, fewer than the 2 promised"):
        scoreboard.finish()


def test_a_timeout_fails() -> None:
    scoreboard = board()
    scoreboard.capture(response(1))
    scoreboard.expect(response(1))
    scoreboard.timed_out("no response to request 4")
    with pytest.raises(ScoreboardError, match="timeout: no response to request 4"):
        scoreboard.finish()


def test_arrays_are_compared_element_by_element() -> None:
    scoreboard = board(promised=6)
    scoreboard.compare(responses(1, 2, 3), responses(1, 2, 3))
    scoreboard.compare(responses(4, 5, 6), responses(4, 5, 6))
    assert scoreboard.finish() == 6


@pytest.mark.parametrize("field", [name for name in RESPONSE.names or () if name != "reserved"])
def test_every_field_of_an_array_is_compared(field: str) -> None:
    scoreboard = board()
    captured = responses(1, 2, 3)
    captured[field][1] ^= 1
    scoreboard.compare(captured, responses(1, 2, 3), responses(1, 2, 3))
    with pytest.raises(ScoreboardError, match="1 of 3 differ") as caught:
        scoreboard.finish()
    assert "comparison 1:" in str(caught.value)


@pytest.mark.parametrize(("captured", "expected"), [((1, 2), (1,)), ((1,), (1, 2))])
def test_arrays_of_different_length_leave_something_over(captured: tuple[int, ...], expected: tuple[int, ...]) -> None:
    scoreboard = board()
    scoreboard.compare(responses(*captured), responses(*expected))
    with pytest.raises(ScoreboardError, match="1 (captured|expected), never"):
        scoreboard.finish()


def test_only_the_first_mismatches_are_shown() -> None:
    scoreboard = Scoreboard("walks", promised=1, repeat=REPEAT, shown=2)
    scoreboard.compare(responses(1, 2, 3, 4), responses(5, 6, 7, 8))
    scoreboard.capture(response(1))
    scoreboard.expect(response(2))
    with pytest.raises(ScoreboardError, match="5 of 5 differ") as caught:
        scoreboard.finish()
    assert str(caught.value).count("comparison ") == 2


def test_wrong_use_of_compare_is_refused() -> None:
    scoreboard = board()
    with pytest.raises(TypeError, match="captured and expected must be of one record type"):
        scoreboard.compare(responses(1), np.zeros(1, INTERFERENCE))
    scoreboard.expect(response(1))
    with pytest.raises(RuntimeError, match="compare\\(\\) must not be called while records wait"):
        scoreboard.compare(responses(1), responses(1))
