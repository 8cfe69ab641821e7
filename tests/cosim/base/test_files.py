"""Files: nothing that is there already is replaced by a name of the command's own choice."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import home_cache, keep_earlier


def test_earlier_files_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "cosim.json"
    assert keep_earlier(path) is None
    for text, kept in (("one", "cosim-1.json"), ("two", "cosim-2.json")):
        path.write_text(text)
        assert keep_earlier(path) == tmp_path / kept
        assert (tmp_path / kept).read_text() == text and not path.exists()
    assert sorted(os.listdir(tmp_path)) == ["cosim-1.json", "cosim-2.json"]


def test_who_keep_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def write(number: int) -> None:
        own = tmp_path / f"own{number}"
        own.write_text(str(number))
        while True:
            keep_earlier(path)
            try:
                os.link(own, path)
                return
            except FileExistsError:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert {int(file.read_text()) for file in tmp_path.glob("a*.json")} == set(range(40))


def test_a_file_that_cannot_be_kept_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolError, match="file/a.json: Not a directory; name a file in a folder that can be written"):
        keep_earlier(tmp_path / "file" / "a.json")


@pytest.mark.skipif(not hasattr(os, "setresuid") or os.getuid() != 0, reason="optional: only root can be another user")
def test_a_home_that_cannot_be_looked_into_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after su without -: HOME is still root's."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert home_cache() == home / ".cache" / "ptewalk"
    child = os.fork()
    if not child:
        os.setresuid(65534, 65534, 65534)
        try:
            os._exit(0 if home_cache() is None else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
