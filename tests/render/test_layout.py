"""Widths in cells, wrapping, tables."""

from __future__ import annotations

from rich.cells import cell_len

from netdiag.render import layout


def test_wide_characters_count_twice() -> None:
    assert cell_len(layout.pad("漢字", 6)) == 6
    assert layout.clip("漢字漢字", 5) == "漢字…"
    assert all(cell_len(line) <= 8 for line in layout.wrap("漢字漢字漢字 ab", 8))


def test_wrap_keeps_every_word_and_its_order() -> None:
    text = "one two three four five"
    assert " ".join(layout.wrap(text, 9)) == text
    assert layout.wrap("x" * 20, 8) == ["x" * 8, "x" * 8, "x" * 4]
    assert layout.wrap("x" * 20, 8, whole_words=True) == ["x" * 20]


def test_a_table_is_cut_at_its_widest_column() -> None:
    lines = layout.table(("A", "LONG"), [("1", "y" * 80)], width=30)
    assert [cell_len(line) for line in lines] == [7, 30]
    assert lines[1].endswith("…")


def test_firm_columns_are_never_cut() -> None:
    lines = layout.table(("A", "B"), [("a" * 20, "b" * 20)], width=30, firm=frozenset({0}))
    assert lines[1] == "a" * 20 + "  " + "b" * 7 + "…"
    assert layout.table(("A",), [("a" * 20,)], width=10, firm=frozenset({0}))[1] == "a" * 20


def test_a_table_without_width_loses_nothing() -> None:
    assert layout.table(("A", "LONG"), [("1", "y" * 300)])[1].endswith("y" * 300)


def test_no_colour_no_escape_sequence() -> None:
    assert layout.Palette(False).alarm("x") == "x"
    assert layout.Palette(True).alarm("x").startswith("\x1b[")
