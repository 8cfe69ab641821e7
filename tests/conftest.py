"""What could not run is named at the end; PTEWALK_REQUIRE_ALL=1 (as in CI) makes it a failure.

Not so where the reason begins with "optional: ": what neither `make` nor a package manager can provide.

A test with many parameters that is marked `share(n)` runs with each n-th of them, always the same ones; `--whole`
(as in `make nightly`) runs it with all. What was left out is counted at the end.
"""

import os
import signal
from collections import Counter
from itertools import count
from typing import Any

import pytest

LEFT_OUT = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="tests marked share(n) with all of their parameters")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not of the share, whatever else was asked for."""
    numbers: dict[str, count[int]] = {}
    left_out: list[pytest.Item] = []
    for item in items:
        mark = None if config.getoption("whole") else item.get_closest_marker("share")
        name = item.nodeid.partition("[")[0]
        if mark is not None and next(numbers.setdefault(name, count())) % mark.args[0]:
            left_out.append(item)
    config.stash[LEFT_OUT] = dict(Counter(item.nodeid.partition("[")[0] for item in left_out))
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


def pytest_configure() -> None:
    """A shell has its background jobs ignore Ctrl-C, which they hand on: to what tests interrupt, too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def reason(report: pytest.TestReport) -> str:
    """Why a test was skipped."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With -n, only the processes that run the tests know what they left out: all the same."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, number in terminalreporter.config.stash.get(LEFT_OUT, {}).items():
        terminalreporter.write_line(f"left out: {number} of {name}: --whole runs them too")
    for report in terminalreporter.stats.get("skipped", []):
        terminalreporter.write_line(f"not run: {report.nodeid}: {reason(report)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, {})
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    missing = [report for report in skipped if not reason(report).startswith("optional: ")]
    if os.environ.get("PTEWALK_REQUIRE_ALL") and missing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
