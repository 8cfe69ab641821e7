"""The proofs: each property is proved, unbounded and not vacuously; and the prover can say no."""

import re
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Assert, Assume, Const, Cover, Module, Signal
from click.testing import CliRunner

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.journal import Journal
from ptewalk.cosim.cli.gateware import prove as command
from ptewalk.cosim.formal import prove as module
from ptewalk.cosim.formal.fault_unit import FaultUnitDrain
from ptewalk.cosim.formal.properties import PROPERTIES, harness_of
from ptewalk.cosim.formal.prove import ProofResult, last_values, prove, steps_of
from ptewalk.cosim.formal.tlb import TlbHarness

CONFIGS = ("levels-4", "no-soft-dirty", "no-gigabyte-pages")
COVERS = {
    "walker-writes": 4,
    "walker-bound": 3,
    "walker-translation": 3,
    "walker-writes/levels-4": 4,
    "walker-writes/no-soft-dirty": 3,  # nothing mends
    "walker-writes/no-gigabyte-pages": 4,
    **dict.fromkeys((f"walker-bound/{config}" for config in CONFIGS), 3),
    **dict.fromkeys((f"walker-translation/{config}" for config in CONFIGS), 3),
    "walker-reset": 2,
    "walker-starts": 4,
    "fault-unit-drain": 5,
    "fault-unit-queue": 3,
    "tlb-hit": 5,
    "pcid-slots": 3,
    "upper-caches": 5,
    "upper-caches/split": 5,
    "maintenance": 5,
    "glue-keeps": 5,
    "glue-keeps/2": 7,
    "glue-answers": 4,
    "glue-answers/2": 5,
    "glue-keeps/split": 5,
    "glue-answers/split": 4,
    "delivery": 5,
    "delivery/reads": 6,
    "delivery/several": 5,
    "delivery/split": 5,
    "walkers": 5,
    "in-turn": 2,
    "waiting": 4,
    "monitor-atomic": 3,
    "monitor-progress": 2,
    "bridge-writes": 4,
    "bridge-reads": 3,
    "bridge-room": 1,
    "bridge-writes/bound": 3,
    "bridge-reads/bound": 3,
    "bridge-turns": 2,
    "outstanding": 1,
    "waits": 4,
    "waits/reads": 3,
    "log-records": 3,
    "engine-ending": 3,
    "fetcher-tables": 3,
    "fetcher-swaps": 2,
    "lines-swaps": 3,
    "tlb-hit/split": 5,
    "tlb-hit/full": 5,
    "mmu-answers": 3,
    "mmu-answers/split": 3,
}
AT_LENGTH = (
    *("in-turn", "waiting", "tlb-hit", "waits/reads"),
    *("tlb-hit/split", "log-records", "mmu-answers", "walkers"),
    *("tlb-hit/full", "glue-keeps/2", "glue-answers/2", "delivery/several"),
    *("monitor-atomic", "monitor-progress", "bridge-writes", "bridge-reads"),
    *("waits", "bridge-room", "outstanding", "bridge-writes/bound"),
    *("bridge-reads/bound", "fetcher-tables", "fetcher-swaps", "lines-swaps"),
    *("delivery/reads", "mmu-answers/split", "bridge-turns"),
)
"""Of these `make test` has each eighth, and nightly all."""
SECONDS = 900
"""Of processor time, which another program on the machine does not lengthen."""


def test_every_property_is_listed() -> None:
    assert list(PROPERTIES) == list(COVERS)


def processor_time() -> float:
    """Seconds that ended child processes took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [name for name in COVERS if "/" not in name and name not in AT_LENGTH])
def test_proved(name: str) -> None:
    """Unbounded, every cover reached, and in time."""
    proves(name)


@pytest.mark.slow
@pytest.mark.share(4)  # one of each property, and one of each configuration
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [name for name in COVERS if "/" in name and name not in AT_LENGTH])
def test_proved_in_another_configuration(name: str) -> None:
    """Four levels, no 1 GiB pages, no tracking."""
    proves(name)


@pytest.mark.slow
@pytest.mark.share(8)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", AT_LENGTH)
def test_proved_at_length(name: str) -> None:
    """Queues of several walkers; invalidations that wait; a TLB, preset mmu's too; a whole MMU, by ABC."""
    if missing := module.missing_solver(name):
        assert harness_of(name).bounded, missing
        pytest.skip(missing)
    proves(name)


def proves(name: str) -> None:
    """The property is proved."""
    before = processor_time()
    result = prove(name)
    harness = harness_of(name)
    good = "searched" if harness.bounded else "proved"
    assert (result.result, result.unbounded, result.detail) == (good, not harness.bounded, "")
    assert result.covers == COVERS[name] and result.searched == steps_of(harness)
    assert 0 < processor_time() - before < SECONDS
    assert result.assumptions
    induction = f"smtbmc {harness.solver}, k-induction, k = {harness.depth}"
    assert result.engine == ("abc dc2; scorr; dc2; bmc3 -g" if harness.bounded else induction)


class Fixed(TlbHarness):
    """Takes a signal that nobody drives for an arbitrary constant: it is 0."""

    def arbitrary(self, m: Module, width: int, name: str) -> Signal:
        return Signal(width, name=name)


def test_a_constant_that_is_not_free_is_no_proof() -> None:
    with pytest.raises(ToolError, match="tlb-hit: linear is no free constant"):
        prove("tlb-hit", Fixed)


class Unhelped(FaultUnitDrain):
    """Holds, but beyond what k steps of induction see without help."""

    def _tie(self, m: Module) -> None:
        """Nothing."""


class Wrong(FaultUnitDrain):
    """Says that nothing is ever granted."""

    def _specify(self, m: Module) -> None:
        super()._specify(m)
        m.d.comb += Assert(self.unit.supervisor.granted == 0)


class Blind(FaultUnitDrain):
    """Assumes the covers away."""

    def _specify(self, m: Module) -> None:
        super()._specify(m)
        m.d.comb += Assume(~self.asked.valid)


class Contradictory(FaultUnitDrain):
    """Assumes what cannot be."""

    def _specify(self, m: Module) -> None:
        super()._specify(m)
        m.d.comb += Assume(Const(0))


class Dead(FaultUnitDrain):
    """Assumes what can only be at the start."""

    def _specify(self, m: Module) -> None:
        super()._specify(m)
        m.d.comb += Assume(~self.accepted & ~self.unit.supervisor.drain)


class Unreachable(FaultUnitDrain):
    """One cover more than there are ways to it."""

    def _specify(self, m: Module) -> None:
        super()._specify(m)
        m.d.comb += Cover(self.unit.supervisor.drained & ~self.unit.supervisor.drain)


@pytest.mark.slow
def test_what_is_proved_is_not_proved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it is the same; what was refuted is tried anew."""
    path, identity = tmp_path / "journal.jsonl", {"command": "prove"}
    assert prove("fault-unit-drain", Wrong, keep=tmp_path, journal=Journal(path, identity)).result == "failed"
    assert Journal(path, identity).done == {}
    first = prove("fault-unit-drain", journal=Journal(path, identity))
    assert first.result == "proved"

    def runs(folder: Path, task: str) -> tuple[str, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_sby", runs)
    assert prove("fault-unit-drain", journal=Journal(path, identity)) == first
    for make in (Wrong, Unhelped, Unreachable):
        with pytest.raises(KeyboardInterrupt):
            prove("fault-unit-drain", make, journal=Journal(path, identity))


@pytest.mark.slow
def test_what_induction_cannot_close_is_open(tmp_path: Path) -> None:
    result = prove("fault-unit-drain", Unhelped, keep=tmp_path)
    assert (result.result, result.unbounded, result.step, result.trace) == ("open", False, None, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_wrong_property_fails_and_is_named(tmp_path: Path) -> None:
    result = prove("fault-unit-drain", Wrong, keep=tmp_path)
    assert (result.result, result.unbounded) == ("failed", False)
    assert result.detail.startswith("formal/test_prove.py:")
    assert result.detail.endswith(": m.d.comb += Assert(self.unit.supervisor.granted == 0)")
    assert result.step is not None and result.step >= 5
    assert result.values["supervisor__granted"] == "0x1"
    assert Path(result.trace).parent == tmp_path and Path(result.trace).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("harness", [Blind, Contradictory, Dead])
def test_an_environment_that_allows_nothing_is_vacuous(harness: type[FaultUnitDrain]) -> None:
    result = prove("fault-unit-drain", harness)
    assert (result.result, result.unbounded) == ("vacuous", False)
    assert result.covers < COVERS["fault-unit-drain"]
    assert result.detail


@pytest.mark.slow
def test_one_cover_not_reached_is_enough() -> None:
    result = prove("fault-unit-drain", Unreachable)
    assert (result.result, result.unbounded, result.covers) == ("vacuous", False, COVERS["fault-unit-drain"])
    assert "formal/test_prove.py:" in result.detail


def test_what_needs_yices_says_so_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(module.shutil, "which", lambda program, path: None if program == "yices-smt2" else program)
        with pytest.raises(ToolError) as error:
            prove("tlb-hit/full")
        mend = "run 'make setup' (or pip install '.[yices]')"
        assert str(error.value) == f"tlb-hit/full needs yices (yices-smt2 was not found): {mend}"
        needs = {"tlb-hit/full", "tlb-hit/split", "log-records", "mmu-answers", "mmu-answers/split"}
        needs |= {"monitor-atomic", "monitor-progress", "bridge-writes", "bridge-reads", "bridge-room"}
        needs |= {"bridge-writes/bound", "bridge-reads/bound", "bridge-turns"}
        needs |= {"engine-ending", "fetcher-tables", "fetcher-swaps", "lines-swaps"}
        assert {name for name in PROPERTIES if module.missing_solver(name)} == needs
        assert "needs yices" in module.missing_solver("mmu-answers"), "for its covers"
    monkeypatch.setattr(module.shutil, "which", lambda program, path: None if program.endswith("abc") else program)
    with pytest.raises(ToolError) as error:
        prove("mmu-answers")
    mend = "run 'sudo apt-get install berkeley-abc'"
    assert str(error.value) == f"mmu-answers needs abc (berkeley-abc or yosys-abc was not found): {mend}"
    bounded = {"mmu-answers", "mmu-answers/split", "lines-swaps"}
    assert {name for name in PROPERTIES if module.missing_solver(name)} == bounded


def test_a_search_goes_further_with_abc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is not installed it is the solver's, of fewer steps."""
    quick = {name for name in PROPERTIES if harness_of(name).quick_depth}
    walker = {name for name in PROPERTIES if name.startswith("walker-")} - {"walker-starts"}
    assert quick == walker | {
        *("walkers", "maintenance", "glue-answers", "glue-answers/2", "glue-answers/split", "glue-keeps/2"),
        "fetcher-swaps",
    }
    for program in ("abc", ""):
        found = {name: f"/bin/{name}" for name in ("z3", "yices-smt2", *(["berkeley-abc"] if program else []))}
        monkeypatch.setattr(module.shutil, "which", lambda name, path, found=found: found.get(name))
        for name in quick:
            harness = harness_of(name)
            assert steps_of(harness) == (harness.quick_depth if program else harness.search_depth)
            assert module.missing_solver(name) == ""
        assert steps_of(harness_of("tlb-hit")) == harness_of("tlb-hit").search_depth


def test_what_all_took_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that was asked for; and how many of them hold."""
    made = [ProofResult(name, "open", "", False, 1.0, ("none",), 0, 8) for name in ("in-turn", "waits")]
    made[0] = replace(made[0], result="proved")
    monkeypatch.setattr(module, "prove_all", lambda names, **_: made)
    done = CliRunner().invoke(command, ["in-turn", "waits"])
    assert re.search(r"^together: 1 of 2 proved or searched; \d+ s of processor time$", done.stdout, re.MULTILINE)
    assert done.return_value is None and "waits assumes: none" in done.stdout


def test_unknown_property() -> None:
    with pytest.raises(ToolError) as error:
        prove("no-such")
    assert str(error.value) == f"no property 'no-such': choose one of {', '.join(COVERS)}"


def test_last_values_of_a_trace() -> None:
    """Signals of the top scope only, the last value of each; what Yosys made has no name to show."""
    vcd = """$timescale 1 ns $end
$scope module top $end
$var wire 1 n1 clk $end
$var wire 8 n2 level [7:0] $end
$var wire 4 n3 $auto$3 $end
$scope module walker $end
$var wire 8 n4 inner $end
$upscope $end
$var wire 2 n5 half $end
$upscope $end
$enddefinitions $end
#0
b00000011 n2
1n1
b1111 n4
b0001 n3
b0x n5
#10
b00001010 n2
0n1
"""
    assert last_values(vcd) == {"clk": "0x0", "level": "0xa", "half": "0x"}


@pytest.mark.slow
def test_with_another_version_of_a_solver_it_is_proved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of that of the proof, and of that of the bounded search."""
    said = {"z3": "1", "abc": "1"}
    monkeypatch.setattr(module, "_solver", lambda solver: f"/there/{solver}")
    monkeypatch.setattr(module, "_version_of", said.__getitem__)

    def digest() -> str:
        make = PROPERTIES["walkers"]
        return module._write(tmp_path, make(), make(searching=True))

    first = digest()
    assert digest() == first
    for solver in said:
        monkeypatch.setitem(said, solver, "2")
        assert digest() != first
        monkeypatch.setitem(said, solver, "1")
    assert digest() == first
