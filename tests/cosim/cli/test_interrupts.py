"""Ctrl-C: whatever a command is doing, it ends soon with 130 and one line, and leaves no process and no file behind."""

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from ptewalk.cosim.cli.start import INTERRUPTED, start

from .program import PROGRAM, SCENARIOS


def processes(mark: str) -> list[str]:
    """Commands of the processes that have this in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def processor_seconds(process: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 3.0])
@pytest.mark.parametrize(
    "arguments",
    [
        ("cosim", "--walks", "900000"),
        ("replay", "--generate", "9000", "--backend", "gateware", "--track", "native", "--jobs", "2"),
        ("replay", str(SCENARIOS), "--backend", "gateware", "--simulator", "icarus"),
        ("accuracy", "--generate", "9000"),
        ("waves", "--seed", "3", "--walks", "2000", "--simulator", "icarus"),
        ("bench",),
        ("prove",),
        ("synth",),
    ],
    ids=lambda arguments: (
        "-".join(word for word in arguments if word.isalpha()) if isinstance(arguments, tuple) else ""
    ),
)
def test_nothing_is_left(tmp_path: Path, arguments: tuple[str, ...], seconds: float) -> None:
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    mark = f"PTEWALK_TEST={tmp_path}-{seconds}"
    name, _, value = mark.partition("=")
    child = subprocess.Popen(
        [str(PROGRAM), *arguments],
        cwd=here,
        env=os.environ | {"TMPDIR": str(temporary), name: value},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while processor_seconds(child.pid) < 0.3:  # Python itself has begun, on a busy machine too
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(child.pid, signal.SIGINT)
    try:
        out, err = child.communicate(timeout=120)
    finally:
        child.kill()
    assert (child.returncode, out, err.splitlines()[-1]) == (INTERRUPTED, "", "ptewalk: interrupted")
    assert "Traceback" not in err
    deadline = time.monotonic() + 20
    while (left := processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    assert [*here.rglob("*"), *temporary.rglob("*")] == []


def test_while_an_object_is_finalised(tmp_path: Path) -> None:
    """Python cannot raise it there; it comes again."""
    program = """
import signal, sys, time, types
class Late:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
def main():
    late = Late()
    del late
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit("interrupted")
sys.modules["ptewalk.cosim.cli.main"] = types.SimpleNamespace(main=main)
from ptewalk.cosim.cli.start import start
start()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (1, "interrupted\n")


def test_while_it_is_imported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "ptewalk.cosim.cli.main", Interrupted("main"))
    with pytest.raises(SystemExit) as end:
        start()
    assert (end.value.code, capsys.readouterr().err) == (INTERRUPTED, "ptewalk: interrupted\n")
