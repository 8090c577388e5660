from __future__ import annotations

import struct

import dns.edns
import dns.message
import dns.rcode
import dns.rrset
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdiag.decode import dns as decode


def made(*records: tuple[str, int, str, str], name: str = "www.voice.example", kind: str = "A") -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
    answer = dns.message.make_response(query)
    for owner, ttl, rtype, data in records:
        answer.answer.append(dns.rrset.from_text(owner, ttl, "IN", rtype, data))
    return answer


def read(wire: bytes) -> decode.Details:
    counts = struct.unpack_from(">4H", wire, 4)
    return decode.details(wire, decode.question(wire).end, counts, wire[3] & 15)


def test_headers_as_columns() -> None:
    wires = [struct.pack(">6H", 7, 0x8583, 1, 2, 3, 4), struct.pack(">6H", 65535, 0x2310, 1, 0, 0, 0)]
    h = decode.headers(np.frombuffer(b"".join(wires), np.uint8).reshape(2, 12))
    assert h.id.tolist() == [7, 65535]
    assert h.response.tolist() == [True, False]
    assert h.opcode.tolist() == [0, 4]
    assert h.authoritative.tolist() == [True, False]
    assert h.truncated.tolist() == [False, True]
    assert h.recursion_desired.tolist() == [True, True]
    assert h.recursion_available.tolist() == [True, False]
    assert h.checking_disabled.tolist() == [False, True]
    assert h.rcode.tolist() == [3, 0]
    assert h.counts.tolist() == [[1, 2, 3, 4], [1, 0, 0, 0]]


def test_answers_agree_with_dnspython() -> None:
    message = made(("www.voice.example.", 300, "CNAME", "lb.voice.example."),
                   ("lb.voice.example.", 60, "A", "192.0.2.1"),
                   ("lb.voice.example.", 60, "AAAA", "2001:db8::1"),
                   ("_sip._udp.voice.example.", 60, "SRV", "10 20 5060 a.voice.example."),
                   ("voice.example.", 60, "NAPTR", '10 100 "S" "SIP+D2U" "" _sip._udp.voice.example.'),
                   ("voice.example.", 60, "TXT", '"a b"'))
    found = read(message.to_wire())
    assert list(found.answers) == [rrset.to_text() for rrset in message.answer]
    assert found.problem == ""
    assert found.edns_size is not None


@pytest.mark.parametrize(
    "name", ["www.voice.example", "a\\.b.voice.example", "caf\\195\\169.example", "_sip._udp.voice.example"])
def test_names_are_escaped_as_dnspython_does(name: str) -> None:
    asked = decode.question(dns.message.make_query(name, "SRV").to_wire())
    assert asked.name == dns.name.from_text(name).to_text(omit_final_dot=True)
    assert asked.type == "SRV"


def test_question_case_root_and_unknown_type() -> None:
    assert decode.question(dns.message.make_query("WwW.Voice.Example", "A").to_wire()).name == "www.voice.example"
    assert decode.question(dns.message.make_query(".", "NS").to_wire()).name == "."
    assert decode.question(dns.message.make_query("a.example", "TYPE65280").to_wire()).type == "TYPE65280"


def test_extended_rcode_and_errors() -> None:
    message = made()
    message.use_edns(0, payload=1232, options=[dns.edns.EDEOption(6, "bogus")])
    message.set_rcode(dns.rcode.BADVERS)
    found = read(message.to_wire())
    assert decode.rcode_text(found.rcode) == "BADVERS"
    assert found.edns_size == 1232
    assert found.errors == (6,)


def test_name_loops_and_long_names_end() -> None:
    head = bytes(12)
    for wire in (head + b"\xc0\x0c\0\1\0\1", head + b"\1a\xc0\x0c\0\1\0\1",
                 head + b"\xc0\x20\0\1\0\1" + bytes(20) + b"\xc0\x0c"):
        with pytest.raises(ValueError, match="does not point back"):
            decode.question(wire)
    with pytest.raises(ValueError, match="255 bytes"):
        decode.question(head + b"\x3fa" + b"b" * 62 + b"\x3f" * 1000)
    with pytest.raises(ValueError, match="reserved"):
        decode.question(head + b"\x40abc\0\0\1\0\1")
    with pytest.raises(ValueError, match="before its type"):
        decode.question(head + b"\1a\0\0\1")


def test_record_counts_that_lie() -> None:
    wire = bytearray(made(("www.voice.example.", 300, "A", "192.0.2.1")).to_wire())
    wire[6:8] = b"\xff\xff"
    found = read(bytes(wire))
    assert found.answers[0] == "www.voice.example. 300 IN A 192.0.2.1"
    assert found.problem
    wire = bytearray(made(("www.voice.example.", 300, "MX", "10 a.example.")).to_wire())
    at = wire.index(b"\0\x0f\0\1", 30) + 8
    wire[at : at + 2] = b"\0\1"
    assert read(bytes(wire)).problem


def test_only_the_first_answers_are_kept() -> None:
    found = read(made(*[("a.example.", 1, "A", f"192.0.2.{i}") for i in range(40)]).to_wire())
    assert len(found.answers) == decode.MAX_ANSWERS
    assert found.edns_size is not None


REAL = made(("www.voice.example.", 300, "CNAME", "lb.voice.example."),
            ("lb.voice.example.", 60, "A", "192.0.2.1")).to_wire()


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(REAL) - 1), st.integers(0, 255)), max_size=6), st.integers(12, len(REAL)))
def test_mutated_messages_never_raise(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(REAL)
    for at, value in changes:
        data[at] = value
    wire = bytes(data[:cut])
    try:
        end = decode.question(wire).end
    except ValueError:
        end = 12
    found = decode.details(wire, end, struct.unpack_from(">4H", wire, 4), 0)
    decode.rcode_text(found.rcode)
    assert len(found.answers) <= decode.MAX_ANSWERS
