"""`ptewalk bench --only gigabyte`: cycles are the gateware's, times a real kernel's that tracks."""

from __future__ import annotations

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.oracles.linux.guest import missing_tools
from ptewalk.cosim.oracles.linux.kernel_times import MOST_PAGES, KernelTimes, judged, kernel_times
from ptewalk.cosim.oracles.linux.kernels import find_kernel
from ptewalk.cosim.speed import gigabyte, measure


@pytest.mark.parametrize(
    ("pages", "expected"),
    [(511, (0, 0, 0)), (512, (0, 1, 0)), (1 << 18, (1, 512, 1)), (1 << 20, (4, 2048, 4))],
)
def test_full_logs(pages: int, expected: tuple[int, int, int]) -> None:
    """PML has a page of 8-byte entries, HDBSS 2 MiB at most, the ring 2^18 records."""
    assert gigabyte.logged(pages) == (pages, *expected)


def test_medians_of_what_the_guest_prints() -> None:
    told = "3000000000 5 70 0 9\n1000000000 4 90 0 9\n2000000000 6 80 0 9\n"
    assert judged("6.12", told, 9) == KernelTimes("6.12", 2.0, 5e-9, 8e-8)


@pytest.mark.parametrize("row", ["1 1 1 0 8", "1 1 1 9 9", "1 1 1 0 0"])
def test_a_kernel_that_does_not_track_is_refused(row: str) -> None:
    with pytest.raises(ToolError, match="kernel 6.12 does not track: .*CONFIG_MEM_SOFT_DIRTY"):
        judged("6.12", f"1 1 1 0 9\n{row}\n", 9)


@pytest.mark.parametrize("pages", [0, MOST_PAGES + 1])
def test_more_pages_than_the_guest_has_are_refused(pages: int) -> None:
    with pytest.raises(ToolError, match=f"1 to 262144 pages, not {pages}"):
        kernel_times(None, pages)


def test_without_a_kernel_it_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an error where it was asked for by name."""

    def lacks() -> None:
        raise ToolError("qemu-system-x86_64 is not installed")

    monkeypatch.setattr(gigabyte, "kernel_of", lacks)
    monkeypatch.setattr(measure, "PARTS", ("gigabyte",))
    (row,) = measure.measure((), None, 1000, 1)
    assert (row["verdict"], row["value"], row["baseline"]) == ("not run", None, "qemu-system-x86_64 is not installed")
    with pytest.raises(ToolError, match="not installed"):
        measure.measure(("gigabyte",), None, 1000, 1)


def test_an_engine_that_ends_wrong_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked: it is not what could not be run."""

    def ends_wrong(*given: object) -> None:
        raise ToolError("the engine's clear ended with BUS_ERROR")

    monkeypatch.setattr(gigabyte, "kernel_times", lambda kernel, pages: KernelTimes("6.12", 1.0, 1.0, 1.0))
    monkeypatch.setattr(gigabyte, "dense_cycles", ends_wrong)
    monkeypatch.setattr(measure, "PARTS", ("gigabyte",))
    with pytest.raises(ToolError, match="ended with BUS_ERROR"):
        measure.measure((), None, 1000, 1)


@pytest.mark.slow
def test_four_tables_beside_a_live_kernel() -> None:
    """An entry a cycle, and 5L + 3 cycles a store; the kernel, translated, takes a trap each."""
    missing = missing_tools()
    if missing:
        pytest.skip("no live kernel: " + "; ".join(missing))
    try:
        version = find_kernel(gigabyte.KERNEL).version
    except ToolError as error:
        pytest.skip(f"no live kernel: {error}")
    kernel = gigabyte.kernel_of(4)
    clear, words, stores = gigabyte.measured(kernel, tables=4)
    assert kernel.version == version and kernel.stores > kernel.clear > 0 and kernel.pagemap > 0
    assert 2048 <= clear.cycles <= 2048 / 0.95 + 500 and 2048 <= words.cycles <= 2048 / 0.95 + 500
    assert stores.cycles == 2048 * (5 * gigabyte.LATENCY + 3)
    assert [one.seconds for one in (clear, words, stores)] == [kernel.clear, kernel.pagemap, kernel.stores]
