"""The page says the numbers that commands wrote, by itself, in light and dark, to keyboard and screen reader."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.report.page import render
from ptewalk.cosim.report.results import BINS, COLUMNS, heat_of, read_results

NASTY = '</title><script>alert(1)</script> & "x"'
EPOCHS = [
    {"number": 1, "pages": 5, "reported": 3, "changed": 2, "lost": 0, "same_value": 1},
    {"number": 2, "pages": 5, "reported": 1, "changed": 2, "lost": 1, "same_value": 0},
]
PAGES: list[dict[str, Any]] = [
    {"present": {"1": [[16, 4], [99, 1]]}, "reported": {"1": [[16, 3]]}, "changed": {"1": [[16, 2]]}, "lost": {}},
    {"present": {"1": [[16, 4], [99, 1]]}, "reported": {"1": [[19, 1]]}, "changed": {"1": [[19, 1], [99, 1]]},
     "lost": {"1": [[99, 1]]}},
]  # fmt: skip
RUN: dict[str, Any] = {
    "program": ["prog", NASTY], "backend": "gateware", "profile": "linux-6.1", "track": "native", "seed": 1,
    "status": 0, "system_calls": 70001, "walks": 70002, "fills": 70003, "faults": 70004, "kernel_bytes": 70005,
    "frames": 70006, "cycles": 70007, "marks": 70008, "mends": 0, "seconds": 1.5, "lost": 1,
    "epochs": {"count": 2, "pages": 10, "reported": 4, "changed": 4, "lost": 1, "epochs": EPOCHS, "losses": [],
               "pages_of_epochs": PAGES},
}  # fmt: skip
ROW = {"hits_4k": 900, "hits_2m": 50, "walks": 50, "reads": 120, "swaps": 3, "marks": 3, "mends": 0}
TRACE: dict[str, Any] = {
    "trace": ["prog"],
    "design": "mmu",
    "profile": "linux-6.1",
    "latency": 16,
    "cycles_of_a_trap": 1842,
    "rows": [
        {**ROW, "track": "off", "accesses": 1000, "faults": 9, "cycles": 2000, "trap_cycles": 16578, "total": 18578},
        {**ROW, "track": "native", "accesses": 1000, "faults": 2, "cycles": 2003, "trap_cycles": 3684, "total": 5687},
    ],
}
COSIM = {"comparisons": 12345, "rows": [{"part": "random walks", "compared": 12345, "differ": 0}]}
PART = {"kind": "walks", "chunks": 41, "comparisons": 820017, "mismatches": 3, "skipped": 0, "failed_chunks": 2}
CAMPAIGN = {"plan": "mine", "parts": [{"part": "w", **PART}], "failures": [f"w, chunk 7: {NASTY}"]}
CROSS = {"kind": "walks", "cross": "swap", "bins": 141, "met": 140, "excluded": {"not so": 84}, "surprises": ["swap/x"]}
FILE: dict[str, Any] = {
    "file": "rtl/some.py", "lines": 61, "lines_met": 60, "branches": 40, "branches_met": 39, "excluded": {"a reset": 2},
    "bits": 200, "toggled": 199, "still": [{"signal": "rtl/some.py:5 it", "bits": "7"}],
    "gaps": [{"point": "rtl/some.py:7 taken", "text": "with m.If(it < 3):"}], "surprises": ["rtl/some.py:9 line"],
}  # fmt: skip
COVERAGE = {"coverage": [CROSS | {"gaps": [{"bin": "swap/3/A RW/refused", "nearest": None}]}], "lines": [FILE]}
CYCLES = {
    "rows": [
        {"name": "walk4", "latency": 16, "cycles": 66, "target": 66},
        {"name": "walk4", "latency": 40, "cycles": 170, "target": 162},
        {"name": "first write", "latency": 40, "cycles": 1444, "target": None},
    ]
}
SYNTH: dict[str, Any] = {
    "config": "walker", "part": "ecp5", "lut4": 425, "ff": 349, "comb": 700, "dpr16x4": 0, "block_ram": 1,
    "fmax_mhz": 183.14, "fmax_of_seeds": [183.14, 190.0], "seed": 1, "critical_path": "r.state to answer, 7 levels",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of each command, and a file of somebody else's."""
    path = tmp_path / "results"
    path.mkdir()
    found = {"run": RUN, "trace": TRACE, "cosim": COSIM, "campaign": CAMPAIGN, "coverage": COVERAGE, "cycles": CYCLES}
    for name, told in {**found, "other": [1, 2]}.items():
        (path / f"{name}.json").write_text(json.dumps(told))
    return path


class Seen(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def seen(page: str) -> Seen:
    parser = Seen()
    parser.feed(page)
    return parser


def test_every_number_is_there(folder: Path) -> None:
    page = seen(render(read_results(folder)))
    words = set(re.findall(r"[0-9]+", " ".join(page.text)))
    assert {str(70000 + n) for n in range(1, 9)} <= words
    assert {"12345", "18578", "16578", "5687", "2003"} <= words
    text = " ".join(" ".join(page.text).split())
    assert "Pages compared with what was reported: 10 . Lost stores: 1 ." in text
    assert "would send 16.0 KiB in 2 rounds" in text and "95.00 %" in text and "Not read: other.json." in text


def test_campaigns_coverage_and_cycles(folder: Path) -> None:
    text = " ".join(" ".join(seen(render(read_results(folder))).text).split())
    assert "w 41 820017 3 0 2" in text and "w, chunk 7: " in text
    assert "swap walks 141 140 99.29 % 84" in text and "not met: swap/3/A RW/refused" in text
    assert "met although it is excluded: swap/x" in text and "excluded: 84 of swap: not so" in text
    assert "rtl/some.py 61 60 98.36 % 40 39 97.50 % 200 199 99.50 % 2" in text
    assert "never in force: rtl/some.py:7 taken: with m.If(it < 3):" in text
    assert "in force although it is excluded: rtl/some.py:9 line" in text and "2 of rtl/some.py: a reset" in text
    assert "walk4 66 / 66 170 / 162 first write 1444" in text
    assert "<strong>170</strong> / 162" in render(read_results(folder))


def test_syntheses_in_the_order_of_their_files(folder: Path) -> None:
    later = SYNTH | {"lut4": 431, "fmax_mhz": 179.96, "fmax_of_seeds": [179.96]}
    (folder / "synth-2026-11.json").write_text(json.dumps([SYNTH, SYNTH | {"config": "walker-no-soft-dirty"}]))
    (folder / "synth-2026-12.json").write_text(json.dumps(later))
    found = read_results(folder)
    assert [(one.config, len(one.rows)) for one in found.syntheses] == [("walker", 2), ("walker-no-soft-dirty", 1)]
    page = render(found)
    text = " ".join(" ".join(seen(page).text).split())
    assert "synth-2026-11.json 425 700 349 0 1 183.1 183.1, 190.0 r.state to answer, 7 levels" in text
    assert "synth-2026-12.json 431 700 349 0 1 180.0 180.0 r.state" in text and 'href="#synthesis"' in page
    clocks = re.findall(r'aria-label="(synth-2026-1\d: \d+ MHz, \d+ LUT4)"', page)
    assert clocks == ["synth-2026-11: 183 MHz, 425 LUT4", "synth-2026-12: 179 MHz, 431 LUT4"], (
        "of one there is no chart"
    )


@pytest.mark.parametrize(
    "told",
    [
        {key: value for key, value in SYNTH.items() if key != "comb"},
        [SYNTH | {"fmax_of_seeds": 7}],
        {"plan": "p", "failures": [], "parts": [{key: value for key, value in PART.items() if key != "chunks"}]},
        {"plan": "p", "failures": [], "parts": [PART]},
        {"coverage": [{key: value for key, value in CROSS.items() if key != "surprises"} | {"gaps": []}]},
        {"coverage": [CROSS | {"gaps": [], "surprises": 7}]},
        {"coverage": [CROSS | {"gaps": None}]},
        {"coverage": [], "lines": [{key: value for key, value in FILE.items() if key != "gaps"}]},
        {"coverage": [], "lines": [FILE | {"lines_met": "many"}]},
        {"coverage": [], "lines": 7},
        {"rows": [{"name": "walk4", "latency": 4, "cycles": float("inf"), "target": 66}]},
    ],
)
def test_what_no_command_wrote_is_one_line(folder: Path, told: Any) -> None:
    (folder / "odd.json").write_text(json.dumps(told))
    with pytest.raises(ToolError, match=r"odd\.json: it is not what a command writes"):
        read_results(folder)


def test_it_stands_alone_and_runs_nothing(folder: Path) -> None:
    text = render(read_results(folder))
    page = seen(text)
    tags = {tag for tag, _ in page.tags}
    assert "script" not in tags and not tags & {"link", "img", "iframe", "object"}
    assert not [of for _, of in page.tags if str(of.get("href", "#"))[:1] != "#" or "src" in of]
    assert not [name for _, of in page.tags for name in of if name.startswith("on")]
    assert "://" not in text.replace("http://www.w3.org", "") and "url(" not in text and "@import" not in text
    assert NASTY in "".join(page.text)


def test_what_is_drawn_has_a_name_and_can_be_reached(folder: Path) -> None:
    page = seen(render(read_results(folder)))
    ids = {of["id"] for _, of in page.tags if "id" in of}
    marks = [of for tag, of in page.tags if tag == "g"]
    assert len(marks) == 2 + 2 + 2 and all(of["tabindex"] == "0" and of["aria-label"] for of in marks)
    assert [of["aria-label"] for of in marks[:2]] == [
        "epoch 1: 5 pages, 3 reported, 2 changed, 0 lost",
        "epoch 2: 5 pages, 1 reported, 2 changed, 1 lost",
    ]
    named = [of["aria-labelledby"] for _, of in page.tags if "aria-labelledby" in of]
    assert named and set(named) <= ids
    assert {of["href"] for tag, of in page.tags if tag == "a"} <= {f"#{one}" for one in ids}


def test_the_heat_map() -> None:
    heat = heat_of(PAGES, EPOCHS)
    assert heat is not None and (heat.rows, heat.pages) == (5, 5)
    first, second = heat.columns
    assert first.runs == [(0, 2, "changed"), (2, 1, "reported"), (3, 2, "present")]
    assert second.runs == [(0, 3, "present"), (3, 1, "changed"), (4, 1, "lost")]


@pytest.mark.thorough
def test_a_large_heat_map_hides_no_loss() -> None:
    count = 3 * COLUMNS + 1
    pages = [
        {
            "present": {"1": [[0, 40 * BINS]]},
            "reported": {},
            "changed": {},
            "lost": {"1": [[77, 1]]} if n == 200 else {},
        }
        for n in range(count)
    ]
    heat = heat_of(pages, [{"number": n + 1, "lost": int(n == 200)} for n in range(count)])
    assert heat is not None and heat.rows == BINS and len(heat.columns) <= COLUMNS
    losing = [column for column in heat.columns if any(state == "lost" for _, _, state in column.runs)]
    assert len(losing) == 1 and losing[0].first <= 201 <= losing[0].last and losing[0].counts["lost"] == 1
    assert heat.columns[-1].last == count
    assert heat_of([{"present": {}, "reported": {}, "changed": {}, "lost": {}}], [{"number": 1}]) is None


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.json", "{", "it is no JSON"),
        ("x.json", json.dumps({**TRACE, "rows": [{"track": "off"}]}), "it is not what a command writes: KeyError"),
        ("x.json", json.dumps({**RUN, "epochs": {**RUN["epochs"], "epochs": []}}), "it is not what a command writes"),
        ("x.txt", "", "no results in it; write some with"),
    ],
)
def test_bad_folders(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ToolError) as error:
        read_results(tmp_path)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.thorough
def test_the_command(folder: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("ptewalk")), "report", str(folder), "-o"]
    ended = subprocess.run([*command, str(tmp_path / "page.html")], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert (tmp_path / "page.html").read_text() == render(read_results(folder))
    ended = subprocess.run([*command, str(tmp_path / "page.pdf")], capture_output=True, text=True)
    assert ended.returncode == 2 and "name a file that ends in .html" in ended.stderr


def _browser() -> Any:
    spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Browser


@pytest.mark.slow
def test_in_a_browser(folder: Path, tmp_path: Path) -> None:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed: the page was looked at by no browser")
    path = tmp_path / "page.html"
    path.write_text(render(read_results(folder)))
    with _browser()(program, tmp_path / "profile") as browser:
        browser.open(path)
        assert browser.value("document.getElementById('compared').innerText") == "10"
        assert browser.value("document.querySelectorAll('svg.heat rect.lost').length") == 1
        cells = browser.value("[...document.querySelectorAll('#results td')].map(cell => cell.innerText)")
        assert {"70001", "18578", "12345", "95.00 %"} <= set(cells)
        box = browser.value(
            "(() => { const b = document.querySelector('svg.heat rect.lost').getBoundingClientRect();"
            " return [b.width, b.height]; })()"
        )
        assert min(box) >= 4
        colours = {}
        for scheme in ("light", "dark"):
            browser.scheme(scheme)
            ask = "getComputedStyle(document.{}).{}"
            ground = browser.value(ask.format("body", "backgroundColor"))
            ink = browser.value(ask.format("body", "color"))
            lost = browser.value(ask.format("querySelector('svg.heat rect.lost')", "fill"))
            colours[scheme] = ground, ink, lost
            assert contrast(ground, ink) >= 7 and contrast(ground, lost) >= 3
        assert colours["light"] != colours["dark"]
        browser.key("Tab")
        assert browser.value("document.activeElement.className") == "skip"
        reached = set()
        for _ in range(20):
            browser.key("Tab")
            reached.add(browser.value("document.activeElement.getAttribute('aria-label')"))
        assert "epoch 2: 5 pages, 1 reported, 2 changed, 1 lost" in reached
        tree = browser.ask("Accessibility.getFullAXTree")["nodes"]
        spoken = {(node.get("role", {}).get("value"), node.get("name", {}).get("value")) for node in tree}
        roles = {role for role, name in spoken if name == "epoch 2: 5 pages, 1 reported, 2 changed, 1 lost"}
        assert roles & {"image", "img"}
        assert ("heading", "ptewalk report") in spoken and "main" in {role for role, _ in spoken}


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminances [WCAG 2.1, 1.4.3]."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"[0-9]+", colour)[:3]]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
