"""The entry point of the command `ptewalk`: its imports are made inside, so that a Ctrl-C ends them quietly, too."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Final, NoReturn

__all__ = ["INTERRUPTED", "start"]

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as of a shell."""


_AGAIN: Final = 0.05
"""Seconds after which a Ctrl-C that came where nothing can be raised comes again."""


def _unraisable(trouble: sys.UnraisableHookArgs) -> None:
    """A Ctrl-C that came while an object was finalised, or in a callback from C, is not lost."""
    if isinstance(trouble.exc_value, KeyboardInterrupt):
        threading.Timer(_AGAIN, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(trouble)


def start() -> NoReturn:
    """Run the command line of `sys.argv`, and exit."""
    sys.unraisablehook = _unraisable
    try:
        from ptewalk.cosim.cli.main import main
    except KeyboardInterrupt:
        print("ptewalk: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    main()
