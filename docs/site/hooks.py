"""What the site does to the documents: README is its first page, and a claim's test becomes a footnote.

In the repository a claim's test stands behind it, in brackets, so that it is seen by who changes either. On the site a
page is to be read, so it goes to the page's end.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Page to the file at the top of the repository that it is."""
API: Final = {
    "api.md": (
        "The model's API",
        ("ptewalk.model.Machine", "ptewalk.model.Task", "ptewalk.model.paging", "ptewalk.model.bulk"),
    ),
    "rtl-api.md": (
        "The gateware's API",
        (
            "ptewalk.rtl.presets",
            "ptewalk.rtl.walker.WalkerConfig",
            "ptewalk.rtl.walker.Walker",
            "ptewalk.rtl.mmu.MmuConfig",
            "ptewalk.rtl.mmu.Mmu",
            "ptewalk.rtl.caching_mmu.CachingMmuConfig",
            "ptewalk.rtl.caching_mmu.CachingMmu",
            "ptewalk.rtl.registers.unit.UnitConfig",
            "ptewalk.rtl.registers.unit.Unit",
            "ptewalk.rtl.export.describe",
            "ptewalk.rtl.export.export_verilog",
            "ptewalk.rtl.description",
        ),
    ),
}
"""Page to its title and what it tells of."""
_LINK: Final = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")
_PROOF: Final = re.compile(r"[ \n]?\((`tests/[^()]*`)\)")
_CODE: Final = re.compile(r"(^```[\s\S]*?^```$|^(?: {4}.*\n)+)", re.M)


def _at_home(match: re.Match[str], uri: str) -> str:
    """A link in the page at `uri`: to a page or picture of the site where there is one, else its text."""
    text, target = match[1], match[2]
    place, _, anchor = target.partition("#")
    file = posixpath.normpath(posixpath.join("" if uri in PAGES else posixpath.dirname(f"docs/{uri}"), place))
    page = {name: page for page, name in PAGES.items()}.get(file, file.removeprefix("docs/"))
    if page in PAGES or (page.endswith((".md", ".svg")) and (ROOT / "docs" / page).is_file()):
        there = posixpath.relpath(page, posixpath.dirname(uri) or ".")
        return f"[{text}]({there}{'#' + anchor if anchor else ''})"
    return text


def with_footnotes(markdown: str) -> str:
    """Each test in brackets as a footnote; code stays as it is."""
    notes: list[str] = []

    def noted(match: re.Match[str]) -> str:
        notes.append(match[1])
        return f"[^test-{len(notes)}]"

    pieces = _CODE.split(markdown)
    text = "".join(piece if place % 2 else _PROOF.sub(noted, piece) for place, piece in enumerate(pieces))
    return text + "".join(f"\n\n[^test-{number}]: Tested by {note}." for number, note in enumerate(notes, 1))


def on_files(files: Files, config: Any) -> Files:
    """The pages that are no file of docs/."""
    for page, name in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    for page, (title, names) in API.items():
        told = "\n\n".join(f"::: {name}" for name in names)
        files.append(File.generated(config, page, content=f"# {title}\n\nFrom its docstrings.\n\n{told}\n"))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The document as the site shows it."""
    pieces = _CODE.split(markdown)
    uri = page.file.src_uri
    linked = "".join(
        piece if place % 2 else _LINK.sub(lambda link: _at_home(link, uri), piece) for place, piece in enumerate(pieces)
    )
    return with_footnotes(linked)
