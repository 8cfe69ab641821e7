"""What could not run is named at the end; PTEWALK_REQUIRE_ALL=1 (as in CI) makes it a failure.

Not so where the reason begins with "optional: ": what neither `make` nor a package manager can provide.
"""

import os
import signal

import pytest


def pytest_configure() -> None:
    """A shell has its background jobs ignore Ctrl-C, which they hand on: to what tests interrupt, too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def reason(report: pytest.TestReport) -> str:
    """Why a test was skipped."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("skipped", []):
        terminalreporter.write_line(f"not run: {report.nodeid}: {reason(report)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    missing = [report for report in skipped if not reason(report).startswith("optional: ")]
    if os.environ.get("PTEWALK_REQUIRE_ALL") and missing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
