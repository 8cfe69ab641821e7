"""Tables are compared one to one, whatever order their numbers were given in."""

from ptewalk.model.scenario.numbering import TableIds

DEPTH_FIRST = [[3, 0, "67", 2], [2, 0, "67", 3], [3, 512, "67", 4], [2, 512, "67", 5]]
BY_LEVEL = [[3, 0, "67", 2], [3, 512, "67", 3], [2, 0, "67", 4], [2, 512, "67", 5]]


def test_the_order_of_numbering_does_not_matter() -> None:
    tables = TableIds()
    assert tables.match(DEPTH_FIRST, BY_LEVEL)
    assert tables.match(DEPTH_FIRST[:2], BY_LEVEL[::2])


def test_a_table_that_becomes_another_is_a_difference() -> None:
    tables = TableIds()
    assert tables.match(DEPTH_FIRST, BY_LEVEL)
    moved = [[3, 0, "67", 2], [2, 0, "67", 5], [3, 512, "67", 3], [2, 512, "67", 4]]
    assert not tables.match(DEPTH_FIRST, moved)


def test_one_table_at_two_places_is_a_difference() -> None:
    assert not TableIds().match([[2, 0, "67", 3], [2, 512, "67", 3]], [[2, 0, "67", 3], [2, 512, "67", 4]])
    assert not TableIds().match([[2, 0, "67", 3], [2, 512, "67", 4]], [[2, 0, "67", 3], [2, 512, "67", 3]])


def test_flags_and_places_count() -> None:
    assert not TableIds().match([[2, 0, "67", 3]], [[2, 0, "63", 3]])
    assert not TableIds().match([[2, 0, "67", 3]], [[2, 512, "67", 3]])
    assert not TableIds().match([[2, 0, "67", 3]], [[2, 0, "67", 3], [2, 512, "67", 4]])


def test_equal_numbers_may_be_of_other_tables() -> None:
    """Known as a pair they agree; a number that is another one's already is a difference."""
    tables = TableIds()
    assert tables.match([[2, 0, "67", 3]], [[2, 0, "67", 3]])
    assert tables.match([[2, 0, "67", 3]], [[2, 0, "67", 3]])
    assert not tables.match([[2, 0, "67", 4]], [[2, 0, "67", 3]])
    other = TableIds()
    assert other.match([[2, 0, "67", 3]], [[2, 0, "67", 4]])
    assert not other.match([[2, 0, "67", 3]], [[2, 0, "67", 3]])
    assert not other.match([[2, 0, "67", 4]], [[2, 0, "67", 4]])
