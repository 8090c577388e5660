"""Hostile text in each output."""

from __future__ import annotations

import csv
import io
import sys

import pytest

from netdiag.render import escape

ESC = "\x1b[31mred\x07"


def test_plain_shows_control_characters_and_leaves_text_alone() -> None:
    assert escape.plain(ESC) == r"\x1b[31mred\x07"
    assert escape.plain("a\r\nb\tc") == r"a\x0d\x0ab\x09c"
    assert escape.plain("sip:ülrich@例え.example 👋") == "sip:ülrich@例え.example 👋"


@pytest.mark.parametrize(("hidden", "shown"), [
    ("\u202e", r"\u202e"), ("\u2066", r"\u2066"), ("\u200b", r"\u200b"), ("\ufeff", r"\ufeff"), ("\u2028", r"\u2028"),
    ("\x9b", r"\x9b"), ("\ud800", r"\ud800"), ("\U000e0041", r"\U000e0041"), ("\u3164", r"\u3164"),
    ("\ufe0f", r"\ufe0f"), ("\u00a0", r"\xa0"),
])
def test_plain_shows_what_cannot_be_seen(hidden: str, shown: str) -> None:
    assert escape.plain(f"a{hidden}b") == f"a{shown}b"


def test_plain_leaves_nothing_unprintable_in_all_of_unicode() -> None:
    text = "".join(map(chr, range(sys.maxunicode + 1)))
    assert escape.plain(text).isprintable()


def test_escaping_twice_changes_nothing() -> None:
    assert escape.plain(escape.plain(ESC)) == escape.plain(ESC)


def test_markdown_takes_the_meaning_from_markup() -> None:
    assert escape.markdown("[x](javascript:y) `z` <b> a|b") == r"\[x\](javascript:y) \`z\` \<b\> a\|b"
    assert escape.markdown("http://evil.example www.evil.example") == r"http:\/\/evil.example www\.evil.example"
    assert escape.markdown("- item") == r"\- item"
    assert escape.markdown("1. item") == r"1\. item"
    assert escape.markdown("198.51.100.5") == "198.51.100.5"


def test_markdown_never_starts_html_or_breaks_a_table_row() -> None:
    out = escape.markdown("<script>|\n")
    assert out == r"\<script\>\|\\x0a"


def test_our_own_advice_keeps_code() -> None:
    assert escape.advice("run `tcpdump -w x` on <eth0>") == r"run `tcpdump -w x` on \<eth0\>"


def test_a_code_span_outgrows_its_ticks() -> None:
    assert escape.code("a`b``c") == "```a`b``c```"
    assert escape.code("`") == "`` ` ``"
    assert escape.code("a|b", cell=True) == r"`a\|b`"
    assert escape.code("") == "–"


def test_a_fence_outgrows_its_ticks() -> None:
    assert escape.block("a\n````\nb").startswith("`````\n")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\uff1d"])
def test_a_formula_in_a_sheet_becomes_text(start: str) -> None:
    assert escape.cell(f"{start}cmd|' /C calc'!A0").startswith("'")


def test_tab_and_return_cannot_start_a_cell() -> None:
    assert escape.cell("\t=1") == r"'\x09=1"
    assert escape.cell("\r=1") == r"'\x0d=1"


def test_a_cell_survives_csv() -> None:
    out = io.StringIO()
    csv.writer(out).writerow([escape.cell('a,"b"\n=c')])
    assert next(csv.reader(io.StringIO(out.getvalue()))) == ['a,"b"\\x0a=c']


def test_a_file_name_that_is_no_utf8_becomes_valid_text() -> None:
    assert escape.valid(b"a\xffb.pcap".decode("utf-8", "surrogateescape")) == "a\\xffb.pcap"
    assert escape.valid("漢字") == "漢字"


@pytest.mark.parametrize(("bad", "shown"), [
    (";", "#59;"), ("#", "#35;"), ("<", "#lt;"), (">", "#gt;"), ("%%{", "#37;#37;#123;"), ('"', "#quot;"),
    ("`", "#96;"), ("$", "#36;"), ("&", "#amp;"), ("\n", "#92;x0a"),
])
def test_mermaid_loses_what_ends_a_message(bad: str, shown: str) -> None:
    assert escape.mermaid(f"a{bad}b") == f"a{shown}b"
