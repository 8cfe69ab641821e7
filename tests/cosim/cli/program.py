"""What the tests of the command share: how it is run, and what a refusal looks like."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptewalk.cosim.formats import samples as recordings
from ptewalk.cosim.simulate.find import detect

WALKS = recordings.WALKS
SCENARIOS = recordings.KERNELS["linux-6.1"]
PROGRAM = Path(sys.executable).with_name("ptewalk")

Run = Callable[..., tuple[int, str, str]]


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fails(run: Run, *arguments: str, says: str, mend: str) -> None:
    """The command ends with 2 and one line on standard error that holds `says` and `mend`; no file changes."""
    before = files(Path.cwd())
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("ptewalk: ")
    assert err.count("\n") == 1 and err.endswith("\n")
    assert says in err
    assert mend in err
    assert files(Path.cwd()) == before


def simulators() -> set[str]:
    return {simulator.name for simulator in detect()}


def objects(run: Run, *arguments: str) -> dict[str, Any]:
    """The one object that the command prints."""
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    result: dict[str, Any] = json.loads(out)
    return result


def wrong_walks(path: Path, *, trust: int = 3, count: int = 40, wrong: int = 7) -> int:
    """Write `count` recorded walks; of one, the outcome is falsified. Its running number."""
    with gzip.open(WALKS, "rt") as stream:
        lines = [json.loads(next(stream)) for _ in range(count)]
    for line in lines:
        line["t"] = trust
    lines[wrong]["o"] = ["PF", 0x1234]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    number: int = lines[wrong]["i"]
    return number
