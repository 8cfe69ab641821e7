"""The command line: `ptewalk COMMAND`.

Exit codes: 0 agree, 1 differ or miss a target, 2 bad use or bad input, 3 a defect of ptewalk, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
import traceback
import warnings
from importlib.metadata import version
from typing import NoReturn

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.places import settle_homes
from ptewalk.cosim.cli import (
    campaigns,
    demo,
    environment,
    gateware,
    kernels,
    machines,
    measurements,
    programs,
    regression,
    reports,
    scenarios,
    traces,
    walks,
    workloads,
)
from ptewalk.cosim.cli.common import BAD_USE, DEFECT, INTERRUPTED
from ptewalk.cosim.cli.extras import missing_extra

_SURROUNDINGS = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Errors of the file system that are no defect of ptewalk."""


def main() -> NoReturn:
    """Entry point of the command `ptewalk`."""
    settle_homes()
    try:
        result = commands.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(BAD_USE)
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see '{error.ctx.command_path} --help')"
        _fail(f"{error.format_message()}{hint}")
    except ToolError as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        warnings.simplefilter("ignore")  # of gateware that is half made, and never used
        click.echo("ptewalk: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        command = next((word for word in sys.argv[1:] if word in commands.commands), "ptewalk")
        missing = missing_extra(command, error.name)
        if missing is None:
            traceback.print_exc()
            sys.exit(DEFECT)
        _fail(missing)
    except OSError as error:
        if error.errno not in _SURROUNDINGS or error.filename is None:
            traceback.print_exc()
            sys.exit(DEFECT)
        _fail(f"{error.filename}: {error.strerror}; HOME and the temporary folder must be writable and have room")
    except Exception:
        traceback.print_exc()
        sys.exit(DEFECT)
    sys.exit(result if isinstance(result, int) else 0)


def _fail(message: str) -> NoReturn:
    """One line, whatever a tool's log had to say: its first line, and the last one of the log."""
    first, *rest = message.splitlines() or [""]
    text = f"{first.removesuffix('; the log ends:')}: {rest[-1].strip()}" if rest else first
    click.echo(f"ptewalk: {text}", err=True)
    sys.exit(BAD_USE)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("ptewalk"), prog_name="ptewalk")
def commands() -> None:
    """An x86-64 MMU in gateware that tracks written pages, beside its golden model."""


for _command in (
    demo.demo,
    environment.doctor,
    walks.walks,
    scenarios.scenarios,
    scenarios.replay,
    scenarios.accuracy,
    kernels.kernels,
    machines.procfs,
    machines.record,
    regression.cosim,
    regression.waves,
    campaigns.campaign,
    campaigns.coverage,
    measurements.cycles,
    measurements.bench,
    gateware.synth,
    gateware.prove,
    gateware.export,
    gateware.board,
    programs.run,
    programs.restore,
    traces.trace,
    workloads.workloads,
    reports.report,
):
    commands.add_command(_command)


if __name__ == "__main__":
    main()
