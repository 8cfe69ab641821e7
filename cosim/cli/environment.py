"""What this machine has."""

from __future__ import annotations

import json

import click

from ptewalk.cosim.cli.common import (
    DIFFER,
    json_option,
    show,
)


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """What was found, what was chosen and why, and how to mend the rest."""
    from dataclasses import asdict

    from ptewalk.cosim.simulate.doctor import doctor as examine

    rows = [asdict(row) for row in examine()]
    if as_json:
        click.echo(json.dumps({"rows": rows}))
    else:
        show(rows)
    return 0 if all(row["ok"] for row in rows) else DIFFER
