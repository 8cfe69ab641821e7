"""Programs run as they do on the host, whoever walks, and however pages are tracked."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs.errors import MissingCall

Programs = Callable[[str], str]
Run = Callable[..., Any]
Have = Callable[[str], str]
Host = Callable[..., bytes]
pytestmark = pytest.mark.slow
MEMORY = """signal 11 code 2
page 1
signal 11 code 1
page 2
moved 1 0
dropped 0
deep 0
heap 1 3
child 6, shared 42, private 5, heap 3
code 190
code by the kernel 380
stale 0
signal 8 code 1
sum 380, last signal 8
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of numbers."""
    path = tmp_path_factory.mktemp("data") / "lines"
    path.write_text("".join(f"{number * 7919 % 10007}\n" for number in range(4000)))
    return path


@pytest.mark.parametrize("track", ["off", "fault", "native"])
@pytest.mark.parametrize("backend", ["model", "gateware"])
def test_memory(program: Programs, backend: str, track: str, run: Run, of_the_host: Host) -> None:
    """Signals, stack, heap, mremap, fork, self-modifying code, and 40 MiB through an arena of 24."""
    ended = run([program("memory")], backend=backend, track=track, memory_bytes=24 << 20)
    assert ended.output.decode() == MEMORY == of_the_host([program("memory")]).decode()
    assert ended.status == 0
    if backend == "gateware":
        assert ended.figures["walks"] == ended.run.walker.walks > 10_000  # type: ignore[attr-defined]


COMMANDS = {
    "sort": ["busybox", "sort", "-n", "{lines}"],
    "awk": ["busybox", "awk", "{{s += $1}} END {{print s, NR}}", "{lines}"],
    "sha256sum": ["busybox", "sha256sum", "{lines}"],
    "gzip -d": ["busybox", "sh", "-c", "gzip -c {lines} | gzip -d"],
    "pipeline": ["busybox", "sh", "-c", "cat {lines} | sort -n | tail -3"],
    "dynamic gzip": ["gzip", "-c", "{lines}"],
    "sqlite3": [
        *("sqlite3", ":memory:"),
        "create table t(a integer primary key, b text);"
        "with recursive c(x) as (select 1 union all select x + 1 from c where x < 2000)"
        " insert into t select x, hex(x * x) from c; select sum(length(b)), max(b) from t;",
    ],
    "python3": [
        *("/usr/bin/python3", "-S", "-c"),
        "import hashlib; d = {{i: str(i * i) for i in range(3000)}};"
        "print(hashlib.sha256(repr(d).encode()).hexdigest())",
    ],
}


@pytest.mark.parametrize("backend", ["model", "gateware"])
@pytest.mark.parametrize("name", COMMANDS)
def test_output_is_the_hosts(lines: Path, name: str, backend: str, run: Run, have: Have, of_the_host: Host) -> None:
    command = [word.format(lines=lines) for word in COMMANDS[name]]
    command[0] = have(command[0])
    ended = run(command, backend=backend)
    assert ended.output == of_the_host(command)
    assert ended.status == 0 and not ended.errors


def test_standard_input(lines: Path, run: Run, have: Have, of_the_host: Host) -> None:
    command = [have("busybox"), "wc"]
    assert run(command, stdin=lines.read_bytes()).output == of_the_host(command, lines.read_bytes())


def test_each_run_of_a_seed_is_the_same(run: Run, have: Have) -> None:
    command = [have("busybox"), "sh", "-c", "head -c 16 /dev/urandom | od -x; date; echo $RANDOM"]
    first, second = run(command), run(command)
    assert first.output == second.output and len(first.output) > 60
    varying = ("seconds", "fills", "walks")  # when Unicorn makes its TLB larger depends on the clock
    assert [{**one.figures, **dict.fromkeys(varying)} for one in (first, second)] == [
        {**first.figures, **dict.fromkeys(varying)}
    ] * 2


def test_select_and_poll(run: Run) -> None:
    """Ready at once, after a while, never, and by a hang-up."""
    script = """
import os, select, time
r, w = os.pipe()
began = time.monotonic()
print(select.select([r], [w], [], 0) == ([], [w], []), select.select([r], [], [], 1.5) == ([], [], []))
print(round(time.monotonic() - began, 1))
if not os.fork():
    time.sleep(1)
    os.write(w, b"x")
    os._exit(0)
os.close(w)
print(select.select([r], [], []) == ([r], [], []), os.read(r, 9), os.wait()[1])
poll = select.poll()
poll.register(r, select.POLLIN)
print(poll.poll(), os.read(r, 9))
"""
    ended = run(["/usr/bin/python3", "-S", "-c", script])
    assert ended.output == b"True True\n1.5\nTrue b'x' 0\n[(3, 16)] b''\n", ended.errors


def test_how_it_ends_is_its_status(run: Run, have: Have) -> None:
    busybox = have("busybox")
    assert run([busybox, "sh", "-c", "exit 5"]).status == 5 << 8
    assert run([busybox, "sh", "-c", "kill -TERM $$"]).status == signal.SIGTERM
    caught = run([busybox, "sh", "-c", "trap 'echo got' USR1; kill -USR1 $$; yes | head -2; echo $?"])
    assert caught.output == b"got\ny\ny\n0\n"


def test_what_is_missing_is_named(program: Programs, run: Run) -> None:
    with pytest.raises(MissingCall, match=r"^system call 272 \(unshare\) is not there"):
        run([program("strange"), "unshare"])
    with pytest.raises(ToolError, match=r"^every process of the program waits for ever"):
        run([program("strange"), "pause"])


def test_limits(program: Programs, run: Run, have: Have) -> None:
    with pytest.raises(ToolError, match="ran for 0.5 seconds and has not ended; give it more with --time"):
        run([program("strange"), "spin"], seconds=0.5)
    with pytest.raises(ToolError, match="more physical memory than 32M; give it more with --memory"):
        run([program("strange"), "eat"], memory_bytes=32 << 20)
    full = run([have("busybox"), "sh", "-c", "yes > /tmp/full; echo $?"], scratch_bytes=50_000)
    assert b"No space left" in full.errors


def test_bad_programs(tmp_path: Path, program: Programs, run: Run) -> None:
    good = Path(program("memory")).read_bytes()
    bad = {
        "empty": (b"", "not an ELF file"),
        "cut": (good[:40], "its ELF header is cut off"),
        "headers": (good[:100], "its program headers are cut off"),
        "segment": (good[:5000], "a segment is cut off"),
        "arm": (good[:18] + b"\xb7" + good[19:], "made for AArch64, not for x86-64"),
        "interpreter": (_with_interpreter(good), "its interpreter /nowhere is not there; name a --root that has it"),
    }
    for name, (data, said) in bad.items():
        path = tmp_path / name
        path.write_bytes(data)
        path.chmod(0o755)
        with pytest.raises(ToolError, match=f"^{path}: {said}"):
            run([str(path)])
    with pytest.raises(ToolError, match="No such file or directory; name a program below --root"):
        run([str(tmp_path / "absent")])


def _with_interpreter(data: bytes) -> bytes:
    """A program whose last header names an interpreter that is not there."""
    count = int.from_bytes(data[56:58], "little")
    place = 64 + 56 * (count - 1)
    header = b"\x03\0\0\0\x04\0\0\0" + len(data).to_bytes(8, "little") + bytes(16) + (9).to_bytes(8, "little") * 2
    return data[:place] + header.ljust(56, b"\0") + data[place + 56 :] + b"/nowhere\0"


def test_the_command(tmp_path: Path, ptewalk: Callable[..., tuple[int, str, str]], have: Have) -> None:
    busybox, out = have("busybox"), tmp_path / "out"
    code, printed, errors = ptewalk("run", "--backend", "model", "--seed", "3", busybox, "echo", "hi")
    assert (code, printed) == (0, "hi\n")
    assert "backend model, profile linux-6.1, track native, seed 3, status 0" in errors
    code, printed, errors = ptewalk(
        *("run", "--backend", "model", "--json", "--stdout", str(out), "--", "busybox", "sh", "-c", "echo hi; exit 4")
    )
    assert code == 0 and out.read_bytes() == b"hi\n" and json.loads(printed)["status"] == 4 and not errors
    assert ptewalk("run", "--backend", "model", "--pass-status", busybox, "sh", "-c", "exit 4")[0] == 4
    code, _, errors = ptewalk("run", "--json", "--", busybox, "true")
    assert code == 2 and errors == "ptewalk: --json needs --stdout FILE: standard output is the program's otherwise\n"
    code, _, errors = ptewalk("run", "--memory", "lots", busybox, "true")
    assert code == 2 and "'lots' is no size" in errors


def test_readme(ptewalk: Callable[..., tuple[int, str, str]]) -> None:
    code, printed, errors = ptewalk("run", "--", "/bin/sh", "-c", "echo 3 1 2 | tr ' ' '\\n' | sort -n")
    assert (code, printed) == (0, "1\n2\n3\n")
    assert "backend gateware" in errors
