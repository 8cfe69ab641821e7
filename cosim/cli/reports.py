"""A picture of results."""

from __future__ import annotations

from pathlib import Path

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import check_writable, write_whole
from ptewalk.cosim.cli.common import option


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="FOLDER")
@option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The page, an .html file."
)
def report(folder: Path, output: Path) -> int:
    """Draw the results in FOLDER as one HTML page that needs no network.

    FOLDER holds what `run --report`, `restore --report`, `trace --json`, `cosim --output`, `cycles --json`, `campaign`
    (its result.json), `coverage --json` and `synth --json` wrote, as .json files: pages by epoch, bytes to send, costs
    in each way of tracking, TLB and walks, what was compared and covered, cycles by latency, and area and clock from
    file to file, in the order of their names. Of each file of waves in it or below, such as those of `waves` and of a
    proof that failed, the last cycles are drawn, with the line of Python of each signal.
    """
    if output.suffix != ".html":
        raise ToolError(f"{output}: name a file that ends in .html")
    check_writable(output)
    from ptewalk.cosim.report.page import render
    from ptewalk.cosim.report.results import read_results

    write_whole(output, render(read_results(folder)))
    return 0
