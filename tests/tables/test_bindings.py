"""Bindings of addresses of record: lifetime, refreshes, flow, and the requests that used them."""

from __future__ import annotations

from typing import Any

import pytest
from sip_world import Datagram, world
from test_sip_calls import End, say

from netdiag.tables.bindings import Binding
from netdiag.tables.schema import schema

UA, EDGE, REGISTRAR, X = ("192.0.2.1", 5062), ("198.51.100.2", 5060), ("203.0.113.3", 5060), ("192.0.2.66", 5060)
CONTACT = "<sip:a@192.0.2.1:5062;ob>"


def register(time_s: float, n: int, *more: str, status: str | None = "200 OK", source: End = UA,
             answer: tuple[str, ...] = (f"Contact: {CONTACT};expires=60",), call_id: str = "r",
             server: End = REGISTRAR) -> list[Datagram]:
    about: dict[str, Any] = {"cseq": f"{n} REGISTER", "branch": f"z9hG4bK{call_id}{n}", "call_id": call_id}
    rows = [say(time_s, source, server, "REGISTER", more=more or (f"Contact: {CONTACT}", "Expires: 3600"), **about)]
    if status:
        rows.append(say(time_s + 0.1, server, source, status, tags=("a", "t"), more=answer, **about))
    return rows


def later(time_s: float) -> list[Datagram]:
    """The capture goes on."""
    return [say(time_s, X, EDGE, "OPTIONS", cseq="1 OPTIONS", call_id="later")]


def bindings(*parts: list[Datagram]) -> list[dict[str, Any]]:
    table = world(sorted((d for rows in parts for d in rows), key=lambda d: d.time_s)).bindings
    assert table.schema == schema(Binding)
    return list(table.iter_rows(named=True))


def test_a_binding_with_its_refreshes() -> None:
    row, = bindings(register(0, 1, status="401 Unauthorized", answer=()), register(0.2, 2), register(50, 3),
                    register(100, 4), later(150))
    assert (row["state"], row["status"], row["expires_s"], row["refreshes"], row["registrations"]) == (
        "registered", 200, 60, 2, [0, 1, 2, 3])
    assert (row["first_ns"], row["last_ns"], row["until_ns"]) == (0, 100_000_000_000, 160_100_000_000)
    assert (row["source"], row["source_port"], row["registrar"], row["flows"]) == (*UA, REGISTRAR[0], 1)


@pytest.mark.parametrize(("rows", "state", "status"), [
    (register(0, 1) + later(61), "expired", 200),
    (register(0, 1) + register(5, 2, "Contact: *", "Expires: 0", answer=()), "removed", 200),
    (register(0, 1) + register(5, 2, f"Contact: {CONTACT};expires=0", answer=()) + later(99), "removed", 200),
    (register(0, 1, status="403 Forbidden", answer=()), "refused", 403),
    (register(0, 1, status="401 Unauthorized", answer=()), "challenged", 401),
    (register(0, 1, status=None), "unanswered", None),
    (register(0, 1) + register(5, 2, status="503 Service Unavailable", answer=()), "registered", 503),
])
def test_states(rows: list[Datagram], state: str, status: int | None) -> None:
    row, = bindings(rows)
    assert (row["state"], row["status"]) == (state, status)


def test_after_its_end_another_binding_begins() -> None:
    rows = bindings(register(0, 1), register(70, 2))
    assert [(r["state"], r["registrations"]) for r in rows] == [("expired", [0]), ("registered", [1])]
    assert rows[0]["until_ns"] == 60_100_000_000


def test_flow_via_path_and_gruu() -> None:
    asked = (f'Contact: {CONTACT};reg-id=1;+sip.instance="<urn:uuid:1>"', "Path: <sip:edge.example;lr;ob>,<sip:p2;lr>")
    gruu = (f'Contact: <sip:x@192.0.2.9>;pub-gruu="sip:no", {CONTACT};expires=60;pub-gruu="sip:a@b.example;gr=urn:1"',)
    first = register(0, 1, *asked, answer=gruu)
    moved = register(20, 2, 'Contact: <sip:a@192.0.2.1:9;ob>;reg-id=1;+sip.instance="<urn:uuid:1>"',
                     source=("192.0.2.1", 9), answer=("Contact: <sip:a@192.0.2.1:9;ob>;expires=60",))
    moved[1] = moved[1]._replace(payload=moved[1].payload.replace(
        b"branch=z9hG4bKr2", b"branch=z9hG4bKr2;received=192.0.2.200;rport=4711"))
    row, = bindings(first)
    assert (row["path_uris"], row["public_gruu"], row["reg_id"], row["instance"]) == (
        ["sip:edge.example;lr;ob", "sip:p2;lr"], "sip:a@b.example;gr=urn:1", 1, "urn:uuid:1")
    # the instance and its reg-id are the binding, whatever the Contact says
    row, = bindings(first, moved)
    assert (row["flows"], row["source_port"], row["received"], row["rport"], row["contact_uri"]) == (
        2, 9, "192.0.2.200", 4711, "sip:a@192.0.2.1:9;ob")
    other = register(21, 3, f'Contact: {CONTACT};reg-id=2;+sip.instance="<urn:uuid:1>"')
    assert len(bindings(first, moved, other)) == 2


def to_phone(time_s: float, uri: str = "sip:a@192.0.2.1:5062", call_id: str = "in", **more: Any) -> list[Datagram]:
    row = say(time_s, REGISTRAR, UA, "INVITE", call_id=call_id, branch=f"z9hG4bK{call_id}", **more)
    return [row._replace(payload=row.payload.replace(b"INVITE sip:b@b.example", f"INVITE {uri}".encode()))]


def test_requests_that_used_a_binding() -> None:
    rows = bindings(register(1, 1), to_phone(0.5, call_id="early"), to_phone(20), to_phone(20.5, tags=("a", "b")),
                    to_phone(70, call_id="late"))
    assert [r["requests"] for r in rows] == [[3]]
    # two bindings on one flow: the Request-URI decides
    two = "Contact: <sip:two@192.0.2.1:5062>"
    second = register(2, 1, two, answer=(f"{two};expires=60",), call_id="r2")
    rows = bindings(register(1, 1), second, to_phone(20), to_phone(21, "sip:two@192.0.2.1:5062;x=y", "in2"),
                    to_phone(22, "sip:other@192.0.2.1:5062", "in3"))
    assert [r["requests"] for r in rows] == [[4], [5]]


def test_a_capture_without_registrations() -> None:
    assert bindings(later(1)) == []
