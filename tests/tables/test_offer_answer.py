"""Offers and answers, put together hop by hop."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import recipes

from netdiag.tables.offer_answer import Exchange, exchanges
from netdiag.tables.reader import open_captures

sys.path.insert(0, str(recipes.SAMPLES))
network: Any = importlib.import_module("_craft.network")
offer: Any = importlib.import_module("_craft.offer")
sip: Any = importlib.import_module("_craft.sip")
Dialog, Wire, body, media = sip.Dialog, network.Wire, offer.body, offer.media

PHONE, RELAY, TRUNK = "203.0.113.10", "198.51.100.40", "198.51.100.20"
OFFER, ANSWER = body(PHONE, media(16000, (0, 8))), body(TRUNK, media(20000, (8,)))


def of(tmp_path: Path, wire: Any) -> list[Exchange]:
    path = tmp_path / "made.pcap"
    path.write_bytes(recipes.encode(wire.sorted()))
    return exchanges(open_captures([str(path)]), [0])[0]


def test_answer_in_the_response(tmp_path: Path) -> None:
    wire = Wire()
    Dialog(wire, PHONE, TRUNK).answered(0.0, OFFER, ANSWER)
    (only,) = of(tmp_path, wire)
    assert only.offer
    assert not only.delayed
    assert only.accepted
    assert only.offer.voices == {"pcmu/8000", "pcma/8000"}
    assert [a.voices for a in only.answers] == [{"pcma/8000"}]
    assert [m.status for m in only.responses] == [100, 180, 200]


def test_delayed_offer_is_answered_by_the_ack(tmp_path: Path) -> None:
    wire = Wire()
    dialog = Dialog(wire, PHONE, TRUNK)
    dialog.request(0.0, "INVITE")
    dialog.response(0.1, 200, "OK", body=ANSWER)
    dialog.request(0.2, "ACK", to_tag=True, body=OFFER)
    (only,) = of(tmp_path, wire)
    assert only.delayed
    assert [a.message.method for a in only.answers] == ["ACK"]


def test_delayed_offer_is_answered_by_the_prack(tmp_path: Path) -> None:
    wire = Wire()
    dialog = Dialog(wire, PHONE, TRUNK)
    dialog.request(0.0, "INVITE")
    dialog.response(0.1, 183, "X", body=ANSWER, extra="Require: 100rel\r\nRSeq: 1\r\n")
    dialog.branches += 9
    dialog.request(0.2, "PRACK", to_tag=True, cseq=2, body=OFFER)
    dialog.response(0.3, 200, "OK", "PRACK", cseq=2)
    first, prack = of(tmp_path, wire)
    assert [a.message.method for a in first.answers] == ["PRACK"]
    assert prack.offer is None


def test_each_hop_has_its_own(tmp_path: Path) -> None:
    """A relay that changes both bodies answers each side with what belongs to its offer."""
    wire = Wire()
    outer, inner = Dialog(wire, PHONE, RELAY), Dialog(wire, RELAY, TRUNK, branches=20)
    outer.request(0.0, "INVITE", body=OFFER)
    inner.request(0.1, "INVITE", body=body(RELAY, media(30000, (18,))))
    inner.response(0.5, 200, "OK", body=body(TRUNK, media(20000, (18,))))
    outer.response(0.6, 200, "OK", body=body(RELAY, media(30002, (0,))))
    found = of(tmp_path, wire)
    assert [[a.voices for a in e.answers] for e in found] == [[{"pcmu/8000"}], [{"g729/8000"}]]


def test_refusal_with_sdp_is_no_answer(tmp_path: Path) -> None:
    wire = Wire()
    dialog = Dialog(wire, PHONE, TRUNK)
    dialog.request(0.0, "INVITE", body=OFFER)
    dialog.response(0.1, 488, "X", body=ANSWER)
    (only,) = of(tmp_path, wire)
    assert not only.answers
    assert not only.accepted
    assert [b.voices for b in only.refused] == [{"pcma/8000"}]
    assert only.final
    assert only.final.status == 488


def test_responses_without_their_request_give_nothing(tmp_path: Path) -> None:
    wire = Wire()
    Dialog(wire, PHONE, TRUNK, branches=1).response(0.0, 200, "OK", body=ANSWER)
    assert of(tmp_path, wire) == []
