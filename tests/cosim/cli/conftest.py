"""The command, run in a folder of its own."""

import sys
from pathlib import Path

import pytest

from ptewalk.cosim.cli import main as cli

from .program import Run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command in a folder of its own; (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ptewalk", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, seen.out, seen.err

    return go
