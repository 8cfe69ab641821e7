"""Files that the model keeps by name."""

from __future__ import annotations

import pytest

from ptewalk.model import Machine


def test_a_new_file_has_its_length_and_its_name_alone() -> None:
    files = Machine("linux-6.1").kernel.files
    file = files.create("library", 3)
    assert (file.pages, files.open("library")) == (3, file)
    with pytest.raises(ValueError, match="there is a file 'library' already"):
        files.create("library", 5)
    assert files.open("library") is file
