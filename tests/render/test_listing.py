"""Lists as tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from netdiag.render import facts
from netdiag.render.listing import Column, Listing, field, render
from netdiag.tables.reader import open_captures

ROWS = [
    {"name": "漢字", "size": 5, "ratio": float("nan"), "list": ["=1", "b"], "raw": b"\xff", "flag": True, "none": None},
    {"name": "=cmd\x1b", "size": -12, "ratio": 0.5, "list": [], "raw": b"", "flag": False, "none": None},
]
COLUMNS = [field("NAME", "name"), field("SIZE", "size", True), Column("LIST", lambda r: r["list"])]
MADE = Listing(ROWS, COLUMNS, "nothing")


def test_terminal_is_aligned_and_escaped() -> None:
    assert render(MADE, "terminal") == "NAME      SIZE  LIST\n漢字         5  =1, b\n=cmd\\x1b   -12\n"


def test_json_is_an_array_of_whole_rows() -> None:
    rows = json.loads(render(MADE, "json"))
    assert rows[0] == ROWS[0] | {"ratio": None, "raw": "ff"}
    assert rows[1]["name"] == "=cmd\x1b"


def test_csv_has_no_formulas_and_keeps_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(render(MADE, "csv"))))
    assert rows[1]["name"] == "'=cmd\\x1b"
    assert rows[1]["size"] == "-12"
    assert rows[0]["list"] == "'=1; b"
    assert rows[0]["flag"] == "true"
    assert rows[0]["none"] == ""


def test_empty_lists() -> None:
    none = Listing([], [], "no calls", ("call_id", "point"))
    assert render(none, "terminal") == "no calls\n"
    assert render(none, "json") == "[]\n"
    assert render(none, "csv") == "call_id,point\n"


CASES = Path(__file__).parents[2] / "captures" / "samples" / "cases"


@pytest.mark.parametrize("width", [80, 100, 120, 140])
@pytest.mark.parametrize(("noun", "path"), [
    ("streams", "one-way-audio-behind-nat/broken.relay.pcap"), ("calls", "one-way-audio-behind-nat/broken.relay.pcap"),
    ("registrations", "one-way-audio-behind-nat/broken.relay.pcap"),
    ("checks", "webrtc-through-turn/dtls.browser.pcap"),
    ("handshakes", "incomplete-chain-and-dead-cross-root/broken.client.pcap"),
    ("connections", "idle-timeout-350-seconds/broken.client.pcap")])
def test_lists_fit_the_terminal(noun: str, path: str, width: int) -> None:
    shown = render(facts.of(open_captures([str(CASES / path)]), noun), "terminal", width)
    assert max(map(len, shown.splitlines())) <= width
    assert "RESULT" in shown or "STATE" in shown or "LOST" in shown


def test_a_capture_with_dtls_does_not_list_no_handshakes_and_stop_there() -> None:
    tables = open_captures([str(CASES / "webrtc-through-turn" / "dtls.browser.pcap")])
    assert render(facts.of(tables, "handshakes"), "terminal").startswith("no TLS handshakes; DTLS handshakes: 1")


@pytest.mark.parametrize(("point", "legs"), [("browser", 1), ("turn", 2)])
def test_a_candidate_pair_is_one_row_whoever_checks_it_and_however_many_legs_show_it(point: str, legs: int) -> None:
    rows = facts.of(open_captures([str(CASES / "webrtc-through-turn" / f"fixed.{point}.pcap")]), "checks").rows
    ends = [frozenset({(r["local"], r["local_port"]), (r["remote"], r["remote_port"])}) for r in rows]
    assert len(set(ends)) == len(ends) > 3
    nominated, = (r for r in rows if r["nominated"])
    assert (nominated["successes"], nominated["peer_successes"], nominated["peer_transactions"]) == (2, 2, 2)
    assert nominated["legs"] == legs


def test_a_handshake_that_completed_is_not_called_refused_for_the_alert_that_closes_it() -> None:
    tables = open_captures([str(CASES / "incomplete-chain-and-dead-cross-root" / "cross-root.client.pcap")])
    text = render(facts.of(tables, "handshakes"), "terminal")
    assert text.count("completed; encrypted alert by server") == 1
    assert text.count("alert certificate_expired by client") == 3
