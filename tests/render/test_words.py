"""Numbers, times and frame lists."""

from __future__ import annotations

import pytest

from netdiag.model import number_of, times
from netdiag.render import words

START = 1_790_000_000_123_456_789


def test_times_are_utc_and_cut_not_rounded() -> None:
    assert words.iso(START) == "2026-09-21T14:13:20.123456789Z"
    assert words.utc(START, 0) == "2026-09-21 14:13:20"
    assert words.utc(START + 999_600_000 - 123_456_789, 3) == "2026-09-21 14:13:20.999"
    assert words.clock(START, 6) == "14:13:20.123456"
    assert words.iso(-1) == "1969-12-31T23:59:59.999999999Z"


@pytest.mark.parametrize("ns", [-(2**63), 2**63 - 1])
def test_every_64_bit_time_has_a_text(ns: int) -> None:
    assert words.iso(ns).endswith("Z")


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 ms"), (0.00021, "0.21 ms"), (0.35, "350 ms"), (12.34, "12.3 s"), (59.97, "1 min"), (122, "2 min 2 s"),
    (3600, "1 h"), (3900, "1 h 5 min"), (86400 * 3 + 4 * 3600, "3 d 4 h"), (-1.5, "-1.5 s"),
])
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize("seconds", [59.9499, 59.95, 3599.6, 86399.9, 86400 * 400.0])
def test_a_duration_never_says_sixty_seconds(seconds: float) -> None:
    text = words.duration(seconds)
    assert "60 " not in text
    assert "24 h" not in text


def test_a_span_names_the_date_once() -> None:
    assert words.span(START, START + 122 * 10**9) == "2026-09-21 14:13:20 – 14:15:22 UTC (2 min 2 s)"
    assert words.span(START, START + 86400 * 10**9).count("2026-") == 2
    assert words.span(START, START + 7 * 10**6) == "2026-09-21 14:13:20 UTC (7 ms)"


def test_frames_as_ranges() -> None:
    assert words.frames([3, 1, 2, 9, 9, 5, 6]) == "1–3, 5, 6, 9"
    assert words.frames(range(1, 40, 2)).endswith("and 8 more")
    assert words.framed([7]) == "frame 7"
    assert words.framed([]) == "no frame"


def test_n_of_m() -> None:
    assert words.of(3, 12, "calls") == "3 of 12 calls"
    assert words.of(1, 1, "calls") == "1 of 1 call"
    assert words.of(3, 0, "calls") == "3 calls"
    assert words.of(3, 2, "calls") == "3 calls"
    assert words.of(1, 1, "users challenged more than once") == "1 of 1 user challenged more than once"
    assert words.of(1, 4, "calls with a session timer") == "1 of 4 calls with a session timer"


@pytest.mark.parametrize(("nouns", "one"), [
    ("calls", "1 call"), ("answered calls", "1 answered call"),
    ("calls with requests to it", "1 call with requests to it"), ("addresses", "1 address"),
    ("responses", "1 response"), ("INVITEs", "1 INVITE"), ("less", "1 less")])
def test_one_of_a_kind_is_singular(nouns: str, one: str) -> None:
    assert number_of(1, nouns) == one
    assert number_of(0, nouns) == f"0 {nouns}"
    assert times(1) == "once"
    assert times(2) == "2 times"
