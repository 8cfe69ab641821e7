"""Walks translated at once are those translated one by one: random ones (with --whole a million), and recorded ones."""

from __future__ import annotations

import importlib.util
from collections import Counter

import numpy as np
import pytest

from ptewalk.cosim.bench.records import Records, encode_requests, encode_result
from ptewalk.cosim.checks.golden_arrays import accesses_of
from ptewalk.cosim.checks.shadow import Shadow
from ptewalk.cosim.checks.walks import check
from ptewalk.cosim.formats.samples import WALKS
from ptewalk.cosim.formats.walks import read_walks, run_on_model
from ptewalk.cosim.stimulus.walks import random_walks
from ptewalk.model import paging_bulk
from ptewalk.model.paging import translate
from ptewalk.model.paging_bulk import Walked
from ptewalk.model.x86 import Outcome

CHUNK = 10_000
NUMBA = importlib.util.find_spec("numba") is not None


def told(walked: Walked) -> Records:
    """The answers, as `encode_result` writes them."""
    records = encode_result([])
    records.resize(len(walked.depth), refcheck=False)
    for name, column in walked.answers._asdict().items():
        records[name] = column
    return records


def same(one: Walked, other: Walked) -> bool:
    """The same in all arrays."""
    pairs = [*zip(one.answers, other.answers, strict=True), *zip(one[1:], other[1:], strict=True)]
    return all(np.array_equal(*pair) for pair in pairs)


@pytest.mark.thorough
@pytest.mark.share(50)
@pytest.mark.parametrize("number", range(100))
def test_random_walks(number: int) -> None:
    """Each answer, and each word that a walk leaves in its tables; some tables are missing."""
    rng = np.random.default_rng([2026, number])
    walks = random_walks(rng, CHUNK, physical_bits=46)
    kept = walks.there & (rng.random(walks.there.shape) > 0.01)
    roots = walks.accesses.root >> np.uint64(12)
    memory = Shadow.of_words(walks.address[kept], walks.value[kept], roots, 46, strict=True).memory()
    walked = paging_bulk.translate(memory, walks.accesses)
    if NUMBA:
        assert same(paging_bulk.translate(memory, walks.accesses, compiled=True), walked)
    one_by_one = [translate(memory, walk.state, walk.request) for walk in walks]  # each on tables of its own
    differs = told(walked) != encode_result(one_by_one)
    assert not differs.any(), f"chunk {number}: walks {np.flatnonzero(differs)[:5]}"
    read = np.arange(walked.address.shape[1]) < walked.depth[:, None]
    assert int((~memory.load_many(walked.address[read])[1]).sum()) == int((walked.answers.outcome == 3).sum())
    for column in range(1, read.shape[1]):  # what is read again is left as it is left then
        read[:, :column] &= ~read[:, [column]] | (walked.address[:, :column] != walked.address[:, [column]])
    assert (memory.load_many(walked.address[read])[0] == walked.left[read]).all()
    outcomes = Counter(walked.answers.outcome.tolist())
    assert sum(outcomes.values()) == CHUNK and min(outcomes[outcome] for outcome in Outcome) >= 50, outcomes


@pytest.mark.thorough
def test_recorded_walks() -> None:
    """Of 3,000 that engines answered: the outcome and every word of the tables, as recorded."""
    compared = 0
    for case in read_walks(WALKS):
        memory = case.memory()
        accesses = accesses_of(encode_requests([(case.state(), case.request())]), five=True)
        walked = paging_bulk.translate(memory, accesses, gigabyte_pages=case.gigabyte_pages)
        if NUMBA:
            again = paging_bulk.translate(memory, accesses, gigabyte_pages=case.gigabyte_pages, compiled=True)
            assert same(again, walked), case.number
        result, after = run_on_model(case)
        assert told(walked).tolist() == encode_result([result]).tolist()
        depth = int(walked.depth[0])
        left = dict(zip(walked.address[0, :depth].tolist(), walked.left[0, :depth].tolist(), strict=True))
        assert check(case, result, after | left) is None
        assert all(after.get(address, 0) == word for address, word in left.items()), case.number
        compared += 1
    assert compared == 3000
