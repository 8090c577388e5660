"""``netdiag calls``, ``registrations`` and ``ladder`` on calls of several legs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from checkout import PcapWriter, udp_frame
from sip_world import Datagram
from test_bindings import register, to_phone
from test_call_ids import intruder
from test_legs import OTHER, A, B, S, leg
from test_sip_calls import answered

from netdiag import cli

START = 1_800_000_000_000_000_000


def put(pcap: PcapWriter, *parts: list[Datagram]) -> str:
    rows = sorted((d for rows in parts for d in rows), key=lambda d: d.time_s)
    path: Path = pcap([(START + round(d.time_s * 1e9), udp_frame(
        d.source, d.destination, d.source_port, d.destination_port, d.payload)) for d in rows])
    return str(path)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> str:
        assert cli.run(list(arguments)) == 0
        return capsys.readouterr().out
    return run


@pytest.fixture
def two_legs(pcap: PcapWriter) -> str:
    return put(pcap, leg(0, A, S, "l1@a.example"), leg(0.05, S, B, "l2@pbx.example", **OTHER),
               [d._replace(time_s=d.time_s + 60) for d in answered()])


def test_calls_for_programs(two_legs: str, said: Any) -> None:
    one, two, other = json.loads(said("calls", two_legs, "--format", "json"))
    assert (one["legs"], one["legs_confidence"], two["legs"], other["legs"]) == (
        ["l2@pbx.example"], "probable", ["l1@a.example"], [])
    assert (other["release"], other["released_by"], other["q850"], other["cause"], other["ring_s"]) == (
        "BYE", "caller", 16, "normal call clearing (Q.850 16)", 1.5)
    table = list(csv.DictReader(io.StringIO(said("calls", two_legs, "--format", "csv"))))
    assert [r["legs"] for r in table] == ["l2@pbx.example", "l1@a.example", ""]


@pytest.mark.parametrize(("width", "shown", "hidden"), [
    (80, ("STATE", "FROM", "TO", "PDD", "TALK", "ENDED BY AND WHY"), ("CALL-ID", "FRAME", "LEGS", "RING")),
    (100, ("STATE", "PDD", "TALK", "ENDED BY AND WHY", "LEGS", "CALL-ID"), ("FRAME", "RING")),
    (130, ("STATE", "PDD", "RING", "TALK", "LEGS", "FRAME", "CALL-ID"), ()),
])
def test_calls_for_people(width: int, shown: tuple[str, ...], hidden: tuple[str, ...], two_legs: str) -> None:
    from netdiag.render import facts, listing
    from netdiag.tables.reader import open_captures
    lines = listing.render(facts.of(open_captures([two_legs]), "calls"), "terminal", width).splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= width
    heads = [word for word in lines[0].split("  ") if word]
    assert {h.strip() for h in heads} >= set(shown)
    assert not {h.strip() for h in heads} & set(hidden)
    assert "caller BYE" in lines[1]
    assert "caller normal" in lines[3]


def test_registrations(pcap: PcapWriter, said: Any) -> None:
    path = put(pcap, register(0, 1, status="401 Unauthorized", answer=()), register(0.2, 2), register(50, 3),
               to_phone(20))
    row, = json.loads(said("registrations", path, "--format", "json"))
    assert (row["state"], row["aor"], row["registration_frames"], row["request_frames"], row["refreshes"]) == (
        "registered", "sip:b@b.example", [1, 3, 6], [5], 1)
    assert (row["until"], row["path"]) == ("2027-01-15T08:01:50.100000000Z", path)
    assert (row["expires_s"], row["path_uris"]) == (60, [])
    text = said("registrations", path)
    assert "registered" in text
    assert "192.0.2.1:5062" in text


def test_a_ladder_of_all_legs(two_legs: str, said: Any) -> None:
    whole = said("ladder", two_legs, "--call-id", "l2")
    told = " ".join(whole.split())  # the line is broken at the width of the terminal
    assert "Leg l1@a.example goes on as l2@pbx.example: probable (ends where the other begins" in told
    assert whole.count(" INVITE -") == 2
    alone = said("ladder", two_legs, "--call-id", "l2@pbx.example", "--no-legs")
    assert alone.count(" INVITE -") == 1
    assert "goes on as" not in alone
    assert "Note over h0: Leg l1@a.example" in said("ladder", two_legs, "--call-id", "l1", "--format", "markdown")


def test_a_ladder_tells_of_other_calls_with_its_call_id(pcap: PcapWriter, said: Any,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    path = put(pcap, answered(), intruder(3))
    text = said("ladder", path, "--call-id", "c1")
    assert "Not drawn, other calls with a Call-ID that is used here: c1;from-tag=x" in text
    assert "486" not in text
    assert "486 Busy Here" in said("ladder", path, "--call-id", "c1;from-tag=x")
    both = put(pcap, answered(), answered(call_id="c2"))
    assert cli.run(["ladder", both, "--call-id", "c"]) == 2
    assert "2 Call-IDs begin with c: c1, c2" in " ".join(capsys.readouterr().err.split())
