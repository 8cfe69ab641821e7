"""A real kernel, booted under QEMU and asked now: it answers as the model does, and as it was recorded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.cosim.oracles.linux.machine import missing_tools

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing_tools()), reason="; ".join(missing_tools()))]
DATA = Path(__file__).parents[1] / "data"


def replay(*arguments: str) -> dict[str, object]:
    """`ptewalk replay --backend linux` with one JSON object."""
    program = Path(sys.executable).with_name("ptewalk")
    command = [str(program), "replay", "--backend", "linux", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_generated_scenarios_agree_with_the_model() -> None:
    found = replay("--generate", "300", "--seed", "2013")
    assert found["scenarios"] == 300
    assert found["differ"] == found["skipped"] == 0
    assert found["agree"] == found["steps"]
    assert int(str(found["steps"])) > 2000


def test_recorded_scenarios_are_answered_again() -> None:
    found = replay(str(KERNELS["linux-6.1"]))
    assert (found["scenarios"], found["differ"], found["skipped"]) == (80, 0, 0)


def test_the_selftest_passes_on_the_live_kernel() -> None:
    found = replay(str(DATA / "selftest-soft-dirty.jsonl"))
    assert found["differ"] == 0
    assert int(str(found["agree"])) >= 15
