"""`ptewalk export`: what it writes, and what it refuses."""

import json
from pathlib import Path

import pytest

from .program import Run


@pytest.mark.thorough
def test_export(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("export", "-o", "walker.v", "--physical-bits", "36", "--no-trace")
    assert (code, out) == (0, "walker.v: module ptewalk_walker\n")
    text = (tmp_path / "walker.v").read_text()
    assert "module ptewalk_walker(" in text and "o_walked" not in text
    assert "[35:0] memory__reads__payload__address" in text
    assert "// made by: ptewalk export --physical-bits 36 --no-trace\n" in text
    described = json.loads((tmp_path / "walker.json").read_text())
    assert (described["top"], described["parameters"]["physical_bits"]) == ("ptewalk_walker", 36)
    assert (tmp_path / "walker.vh").read_text().endswith("\n);\n")


def test_export_of_the_mmu_with_a_name(run: Run, tmp_path: Path) -> None:
    design = ("--design", "mmu-uncached", "--fault-depth", "8", "--no-soft-dirty", "--levels", "4")
    arguments = (*design, "--name", "my_mmu")
    code, out, _ = run("export", "-o", "m.v", *arguments)
    assert (code, out) == (0, "m.v: module my_mmu\n")
    text = (tmp_path / "m.v").read_text()
    assert "supervisor__faults__valid" in text and "ptewalk_mmu" not in text
    parameters = json.loads((tmp_path / "m.json").read_text())["parameters"]
    assert (parameters["levels"], parameters["soft_dirty"], parameters["fault_depth"]) == (4, False, 8)


@pytest.mark.thorough
def test_export_on_axi(run: Run, tmp_path: Path) -> None:
    """AXI's names in the place of the memory port's, in all three files."""
    code, out, _ = run("export", "-o", "m.v", "--design", "mmu-uncached", "--axi", "128", "--monitor")
    assert (code, out) == (0, "m.v: module ptewalk_axi_mmu\n")
    described = json.loads((tmp_path / "m.json").read_text())
    widths = {port["name"]: port["width"] for port in described["ports"]}
    assert widths["m_axi_wdata"] == 128 and not [name for name in widths if name.startswith("memory__")]
    assert (described["parameters"]["data_bits"], described["parameters"]["monitor"]) == (128, True)
    assert "m_axi_arlock" in (tmp_path / "m.v").read_text() and ".m_axi_awvalid(" in (tmp_path / "m.vh").read_text()


@pytest.mark.thorough
def test_export_with_a_log(run: Run, tmp_path: Path) -> None:
    """Software's side of it beside the MMU's; its records leave by AXI."""
    code, out, _ = run("export", "-o", "m.v", "--design", "mmu-small", "--axi", "64", "--log")
    assert (code, out) == (0, "m.v: module ptewalk_axi_mmu\n")
    widths = {port["name"]: port["width"] for port in json.loads((tmp_path / "m.json").read_text())["ports"]}
    assert (widths["log__tail"], widths["m_axi_awid"]) == (19, 1)
    assert not [name for name in widths if name.startswith("records")]


@pytest.mark.thorough
def test_export_with_registers(run: Run, tmp_path: Path) -> None:
    """With FuseSoC's core file and the map of registers, as built."""
    arguments = ("--design", "mmu-small", "--axi", "64", "--registers", "--bridge", "--core", "--name", "my_unit")
    arguments += ("--user-bits", "6")
    code, out, _ = run("export", "-o", "m.v", "--physical-bits", "36", *arguments)
    assert (code, out) == (0, "m.v: module my_unit\n")
    described = json.loads((tmp_path / "m.json").read_text())
    widths = {port["name"]: port["width"] for port in described["ports"]}
    assert [widths[name] for name in ("s_axil_awaddr", "s_axi_awaddr", "m_axi_awaddr", "t_axi_araddr", "irq")] == [
        *(12, 64, 36, 36, 1)
    ]
    assert described["parameters"]["bridge_physical_bits"] == 36
    sides, kinds = ("s_axi", "m_axi"), ("awuser", "wuser", "buser", "aruser", "ruser")
    assert [widths[f"{side}_{name}"] for side in sides for name in kinds] == [6] * 10
    assert not [name for name in widths if name.startswith("t_axi") and "user" in name]
    assert (tmp_path / "m.core").read_text().startswith('CAPI=2:\nname: "ptewalk:gateware:my_unit:')
    assert "    - m.v\n    - m.vh: {is_include_file: true}\n" in (tmp_path / "m.core").read_text()
    assert "#define PTEWALK_COMMAND 0x02cu\n" in (tmp_path / "m.h").read_text()
    rdl = (tmp_path / "m.rdl").read_text()
    assert rdl.startswith("addrmap my_unit {") and "physical_bits[7:0] = 8'h24;" in rdl and "bridge[4:4] = 1'h1;" in rdl


@pytest.mark.thorough
def test_export_with_an_engine(run: Run, tmp_path: Path) -> None:
    """Its lines have IDs of their own on the tables' bus, and the map says what was built."""
    arguments = ("--design", "mmu-small", "--axi", "64", "--registers", "--engine", "--core")
    assert run("export", "-o", "m.v", *arguments)[0] == 0
    described = json.loads((tmp_path / "m.json").read_text())
    widths = {port["name"]: port["width"] for port in described["ports"]}
    assert widths["m_axi_awid"] == 4
    rdl = (tmp_path / "m.rdl").read_text()
    assert "engine[5:5] = 1'h1;" in rdl and "engine_line_bytes[15:8] = 8'h80;" in rdl


@pytest.mark.thorough
def test_export_with_a_log_behind_registers(run: Run, tmp_path: Path) -> None:
    """No pin of the log is left; its records have an ID of their own on the tables' bus, and the map says so."""
    arguments = ("--design", "mmu-small", "--axi", "64", "--registers", "--bridge", "--log", "--core")
    assert run("export", "-o", "m.v", *arguments)[0] == 0
    widths = {port["name"]: port["width"] for port in json.loads((tmp_path / "m.json").read_text())["ports"]}
    assert widths["t_axi_awid"] == 2 and not [name for name in widths if name.startswith(("log", "records"))]
    assert "log[6:6] = 1'h1;" in (tmp_path / "m.rdl").read_text()
    assert "#define PTEWALK_LOG_TAIL 0x1dcu\n" in (tmp_path / "m.h").read_text()
    assert "lists[8:8] = 1'h0;" in (tmp_path / "m.rdl").read_text()
    assert run("export", "-o", "m.v", "--engine", "--rings", *arguments)[0] == 0
    assert "rings[9:9] = 1'h1;" in (tmp_path / "m.rdl").read_text()
    assert "lists[8:8] = 1'h1;" in (tmp_path / "m.rdl").read_text()


@pytest.mark.thorough
def test_export_to_standard_output(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("export", "-o", "-")
    assert code == 0
    assert out.startswith("// ptewalk ") and "\nmodule ptewalk_walker(" in out
    code, out, _ = run("export", "-o", "-", "--json", "--design", "mmu-uncached")
    assert (code, json.loads(out)["top"]) == (0, "ptewalk_mmu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-o", "/proc/no/b.v"), "/proc/no/b.v: No such file or directory; name a file in a folder that can be"),
        (("-o", "b.v", "--name", "a b"), "name must be a Verilog identifier"),
        (("-o", "b.v", "--design", "mmu", "--registers"), "--registers are those of an MMU that caches, on AXI4: give"),
        (("-o", "b.v", "--design", "mmu-uncached", "--axi", "64", "--registers"), "--registers are those of an MMU"),
        (("-o", "b.v", "--design", "mmu", "--axi", "64", "--bridge"), "--bridge is used by registers: give"),
        (("-o", "b.v", "--design", "mmu", "--axi", "64", "--engine"), "--engine is used by registers: give"),
        (
            ("-o", "b.v", "--design", "mmu-8walkers", "--axi", "64", "--registers", "--engine"),
            "walkers must be 1 where a unit has an engine, not 8",
        ),
        (
            ("-o", "b.v", "--design", "mmu", "--axi", "64", "--registers", "--engine", "--atomic"),
            "table_atomic must be False where a unit has an engine, whose lines are exclusive",
        ),
        (("-o", "b.v", "--fault-depth", "8"), "--fault-depth is the MMU's"),
        (("-o", "b.v", "--axi", "64"), "--axi is the MMU's: give --design mmu"),
        (("-o", "b.v", "--user-bits", "4"), "--user-bits are the bridge's: give --bridge"),
        (("-o", "b.v", "--rings"), "--rings are of the table engine: give --engine"),
        (("-o", "b.v", "--log"), "--log is that of an MMU that caches: give --design mmu"),
        (("-o", "b.v", "--design", "mmu", "--monitor"), "--monitor stands on AXI4: give --axi 64"),
        (("-o", "b.v", "--design", "mmu", "--atomic"), "--atomic stands on AXI: give --axi 64"),
        (
            ("-o", "b.v", "--design", "mmu", "--axi", "64", "--atomic", "--monitor"),
            "--monitor takes no atomic transactions: leave out --monitor or --atomic",
        ),
        (("-o", "b.v", "--design", "mmu", "--axi", "32"), "'32' is not one of '64', '128', '256', '512'"),
        (
            ("-o", "b.v", "--design", "mmu-uncached", "--tag-bits", "11"),
            "tag_bits of a fault unit must be an integer from 1 to 10",
        ),
    ],
)
def test_what_export_refuses(run: Run, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    """One line, and nothing is written."""
    code, out, err = run("export", *arguments)
    assert (code, out) == (2, "")
    assert says in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
