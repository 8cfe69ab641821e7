"""Every field of a profile matters: with another kernel's value in it, some recording is not answered as recorded.

Fields that no recording shows are in `ELSEWHERE`, with the test that shows them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.model.profile import Profile
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.format import Scenario, read
from ptewalk.model.scenario.report import replay

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FIELDS = [field for field in Profile._fields if field not in ("name", "verbs")]
ELSEWHERE: dict[str, str] = {}
"""Field to a test that fails when any profile has another's value."""


def others(field: str) -> Iterator[tuple[str, Profile]]:
    """(recorded kernel, that kernel with another's value in the field), neighbours in time first."""
    names = list(PROFILES)
    for distance in range(1, len(names)):
        for i, name in enumerate(names):
            for j in (i - distance, i + distance):
                if 0 <= j < len(names):
                    value = getattr(PROFILES[names[j]], field)
                    if value != getattr(PROFILES[name], field):
                        yield name, PROFILES[name]._replace(**{field: value})


@lru_cache(maxsize=1)
def _recordings() -> dict[str, list[list[Scenario]]]:
    """Kernel to the scenarios of its files, the project's own first."""
    own = {name: sorted((ROOT / "tests" / "data").glob(f"*{name}*.jsonl*")) for name in PROFILES}
    return {name: [read(path) for path in (*own[name], KERNELS[name])] for name in PROFILES}


def differs(name: str, profile: Profile) -> bool:
    """Does some recording of a kernel differ when it is replayed under `profile`?"""
    for scenarios in _recordings()[name]:
        for scenario in scenarios:
            try:
                report = replay([scenario], profile)
            except (AssertionError, ValueError, KeyError, IndexError):
                return True  # rules of two kernels that do not go together
            known = replay([scenario], PROFILES[name])
            if (report.agree, report.skipped) != (known.agree, known.skipped):
                return True
    return False


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_shows(field: str) -> None:
    if field not in ELSEWHERE:
        assert any(differs(name, profile) for name, profile in others(field)), f"no recording shows {field}"
        return
    code = (
        "import sys, pytest\n"
        "from ptewalk.model import profiles\n"
        "name, field, other, node = sys.argv[1:]\n"
        "flipped = profiles.PROFILES[name]._replace(**{field: getattr(profiles.PROFILES[other], field)})\n"
        "profiles.PROFILES[name] = flipped\n"
        "profiles.NAMED[name] = (flipped, False)\n"
        "sys.exit(pytest.main(['-q', '-x', '-p', 'no:cacheprovider', '-m', '', node]))\n"
    )
    flips = [
        (name, other)
        for name in PROFILES
        for other in PROFILES
        if getattr(PROFILES[name], field) != getattr(PROFILES[other], field)
    ]
    for name, other in flips:
        arguments = [sys.executable, "-c", code, name, field, other, ELSEWHERE[field]]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        if done.returncode == 1:
            return
    pytest.fail(f"{ELSEWHERE[field]} does not show {field}")
