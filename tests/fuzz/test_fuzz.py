"""A short search with every target, the same each time, and every input that ever failed.

The long search is ``make fuzz``; an input that fails there lands in ``crashes``, and is run here from then on.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import LIMIT, NASTY, mutate, words
from run import BEGIN, CRASHES, END, Failure, Guard, minimal, write_report
from targets import TARGETS, chunks, joined

BUDGET = 0.7
"""Seconds of processor time for the search with one target."""
FEW = 15
"""Inputs of a target that are run however slow the machine."""


@pytest.fixture(scope="session")
def found() -> seeds.Seeds:
    return seeds.collect(most=24, real=False)


@pytest.mark.parametrize("name", TARGETS)
def test_search(name: str, found: seeds.Seeds) -> None:
    r, guard = random.Random(name), Guard(TARGETS[name])
    pool = found[name]
    assert pool, "a target without seeds finds nothing"
    stop = time.process_time() + BUDGET
    while guard.executions < FEW or time.process_time() < stop:
        guard.one(mutate(r, name, r.choice(pool), r.choice(pool)))


def spoken(name: str) -> st.SearchStrategy[bytes]:
    """Inputs put together from words that mean something to the target."""
    word = st.sampled_from(words(name) + NASTY) | st.binary(max_size=8)
    return st.lists(word, max_size=40).map(b"".join)


@pytest.mark.parametrize("name", [n for n in TARGETS if words(n) and n not in ("engine", "two-points", "captures")])
def test_words(name: str) -> None:
    @settings(max_examples=25, derandomize=True, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(spoken(name) | st.lists(spoken(name), max_size=6).map(joined))
    def search(data: bytes) -> None:
        TARGETS[name](data)

    search()


@pytest.mark.parametrize("path", sorted(CRASHES.glob("*--*")), ids=lambda p: p.name)
def test_input_that_once_failed(path: Path) -> None:
    guard = Guard(TARGETS[path.name.partition("--")[0]])
    for _ in range(5):  # times count once imports are done
        guard.one(path.read_bytes())


# The tools themselves.

def test_a_slow_input_is_a_failure() -> None:
    def slow(data: bytes) -> None:
        end = time.process_time() + (1.2 if data == b"slow" else 0)
        while time.process_time() < end:
            pass

    guard = Guard(slow)
    for _ in range(5):
        guard.one(b"")
    with pytest.raises(Failure, match=r"1\.\d s of processor time for 4 bytes"):
        guard.one(b"slow")


def test_an_input_that_fails_is_cut_down() -> None:
    def picky(data: bytes) -> None:
        if b"xy" in data:
            raise IndexError

    assert minimal(picky, b"a" * 300 + b"xy" + b"b" * 300, "IndexError") == b"xy"


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_repeat_and_stay_small(name: str) -> None:
    data = bytes(range(256)) * 4
    first = [mutate(random.Random(i), name, data, data) for i in range(50)]
    assert first == [mutate(random.Random(i), name, data, data) for i in range(50)]
    assert max(map(len, first)) <= 4 * LIMIT
    assert len(set(first)) > 25


def test_chunks_round_trip() -> None:
    pieces = [b"a", b"", b"b" * 300]
    assert list(chunks(joined(pieces))) == pieces


def test_report_replaces_its_block_only(tmp_path: Path) -> None:
    path = tmp_path / "r.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write_report(path, "new\n")
    assert path.read_text(encoding="utf-8") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
