"""The torture messages of RFC 4475 and RFC 5118: which are read as messages, with which fields, and what is noted."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from checkout import REAL
from sip_world import Datagram, world
from test_sip_calls import answered

from netdiag.tables import Tables
from netdiag.tables.reader import open_captures
from netdiag.tables.sip_details import detail

EDGE, SERVER = ("198.51.100.20", 5060), ("198.51.100.21", 5060)
STRANGE_START = "starts like SIP, but its first line is not valid"
AGAIN = "several {} headers: the first counts"


CAPTURE = REAL / "sip-malformed__resiprocate__rfc4475-torture-udp.pcap"
INDEX = REAL / "rfc4475-torture-index.tsv"
"""Which message of RFC 4475 §3 is which frame; both lie beside the checkout, for the messages are not ours."""


@cache
def messages() -> dict[str, bytes]:
    """The 49 messages by the names that the RFC gives them. Skips where the real captures are not there."""
    if not CAPTURE.exists():
        pytest.skip("the real captures are not beside the checkout")
    names = [line.split("\t")[1].removesuffix(".dat") for line in INDEX.read_text().splitlines()[1:]]
    packets = open_captures([str(CAPTURE)]).packets
    return {name: packets.payload(row, 1 << 16) for row, name in enumerate(names)}


READ: dict[str, tuple[str | int, int | None, str | None, str | None, str | None, bool, tuple[str, ...]]] = {
    "badaspec": ("OPTIONS", 3923239, "433423", None, "z9hG4bKkdju43234", False, ()),
    "badbranch": ("OPTIONS", 8, "33242", None, "z9hG4bK", False, ()),
    "baddate": ("INVITE", 1392934, "2234923", None, "z9hG4bKkdjuw", True, ()),
    "baddn": ("OPTIONS", 3923239, "43", None, "z9hG4bKkdjuw", False, ("header without an end",)),
    "badinv01": ("INVITE", 8, "134161461246", None, None, True, ()),
    "bcast": (200, 35, "11141343", "2229", "z9hG4bK1324923", True, ()),
    "bext01": ("OPTIONS", 8, "242etr", None, "z9hG4bKkdjuw", False, ()),
    "clerr": ("INVITE", 8, "93942939o2", None, "z9hG4bK-39234-23523", True,
                ("Content-Length is larger than the datagram",)),
    "cparam01": ("REGISTER", 2, "DkfVgjkrtMwaerKKpe", None, "z9hG4bKkdjuw", False, ()),
    "cparam02": ("REGISTER", 3, "838293", None, "z9hG4bKkdjuw", False, ()),
    "dblreq": ("REGISTER", 8, "43251j3j324", None, "z9hG4bKkdjuw23492", False,
                ("bytes behind the body in a datagram: not looked at",)),
    "esc01": ("INVITE", 234234, "938", None, "z9hG4bKkdjuw", True, ()),
    "esc02": ("RE%47IST%45R", 29344, "f232jadfj23", None, "z9hG4bK209%fzsnel234", False, ()),
    "escnull": ("REGISTER", 14398234, "839923423", None, "z9hG4bKkdjuw", False, ()),
    "escruri": ("INVITE", 149209342, "341518", None, "z9hG4bKkdjuw", True, ()),
    "insuf": ("INVITE", 193942, None, None, "z9hG4bKkdj.insuf", True,
                ("message without Call-ID", "message without From", "message without To")),
    "intmeth": ("!interesting-Method0123456789_*+`.%indeed'~", 139122385, "_token~1'+`*%!-.", None,
                "z9hG4bK-.!%66*_+`'~", False, ()),
    "inv2543": ("INVITE", 56, None, None, None, True, ()),
    "invut": ("INVITE", 235448, "8392034", None, "z9hG4bKkdjuw", False, ()),
    "longreq": ("INVITE", 3882340, "1" + "298" * 50 + "2424", None, None, True, ()),
    "ltgtruri": ("INVITE", 1, "39291", None, None, True, ()),
    "lwsdisp": ("OPTIONS", 60, "323", None, "z9hG4bKkdjuw", False, ()),
    "mcl01": ("OPTIONS", 15932, "3923942", None, "z9hG4bK293423", False,
                ("bytes behind the body in a datagram: not looked at", AGAIN.format("Content-Length"))),
    "mismatch01": ("OPTIONS", 8, "34525", None, "z9hG4bKkdjuw", False, ("CSeq method is not the request's",)),
    "mismatch02": ("NEWMETHOD", 8, "34525", None, "z9hG4bKkdjuw", True, ("CSeq method is not the request's",)),
    "mpart01": ("MESSAGE", 1, "2fb0dcc9", None, "z9hG4bK-d87543-4dade06d0bdb11ee-1--d87543-", False, ()),
    "multi01": ("INVITE", 5, "3413415", None, "z9hG4bKkdjuw", True,
                (AGAIN.format("CSeq"), AGAIN.format("Call-ID"), AGAIN.format("From"), AGAIN.format("To"))),
    "ncl": ("INVITE", 0, "32394234", None, "z9hG4bKkdjuw", True, ("Content-Length is no number",)),
    "noreason": (100, 35, "39ansfi3", "902jndnke3", "z9hG4bK2398ndaoe", False, ()),
    "novelsc": ("OPTIONS", 3923423, "384", None, "z9hG4bKkdjuw39234", False, ()),
    "quotbal": ("INVITE", 8, "93334", None, "z9hG4bKkdjuw39234", True, ()),
    "regaut01": ("REGISTER", 9338, "87321hj23128", None, "z9hG4bKkdjuw", False, ()),
    "regbadct": ("REGISTER", 1, "998332", None, "z9hG4bKkdjuw", False, ()),
    "regescrt": ("REGISTER", 14398234, "8", None, "z9hG4bKkdjuw", False, ()),
    "scalar02": ("REGISTER", None, "239232jh3", None, "z9hG4bK342sdfoi3", False, ("CSeq is no number of 32 bits",)),
    "scalarlg": (503, None, "2easdjfejw", None, "z9hG4bKzzxdiwo34sw", False, ("CSeq is no number of 32 bits",)),
    "sdp01": ("INVITE", 8, "234", None, "z9hG4bKkdjuw", True, ()),
    "semiuri": ("OPTIONS", 8, "33242", None, "z9hG4bKkdjuw", False, ()),
    "transports": ("OPTIONS", 60, "323", None, "z9hG4bKkdjuw", False, ()),
    "unkscm": ("OPTIONS", 3923423, "384", None, "z9hG4bKkdjuw39234", False, ()),
    "unksm2": ("REGISTER", 234902, "3234233", None, "z9hG4bKkdjuw", False, ()),
    "unreason": (200, 35, "11141343", "2229", "z9hG4bK1324923", True, ()),
    "wsinv": ("INVITE", 9, "98asjd8", "1918181833n", "390skdjuw", True, ()),
    "zeromf": ("OPTIONS", 39234321, "3ghsd41", None, "z9hG4bKkdjuw2349i", False, ()),
}
"""Method or status, CSeq number, From tag, To tag, topmost branch, is an SDP body seen, and what is noted.

A parser that only shows what was sent takes more than an element that has to answer: what RFC 4475 has rejected for
the contents of header fields that nobody reads here (baddate, badaspec, badinv01, ltgtruri, …) is read.
"""
REFUSED = ("badvers", "bigcode", "lwsruri", "lwsstart", "trws")
"""Their start lines break the grammar (§3.1.2.16, .19, .9, .10, .11)."""


def alone(payload: bytes) -> Tables:
    return world([Datagram(1, *EDGE, *SERVER, payload)])


def noted(tables: Tables) -> tuple[str, ...]:
    return tuple(sorted(a.reason for a in tables.anomalies() if a.table == "sip"))


def test_all_messages_are_judged() -> None:
    assert len(messages()) == 49
    assert sorted(messages()) == sorted([*READ, *REFUSED])


@pytest.mark.parametrize("name", READ)
def test_read(name: str) -> None:
    tables = alone(messages()[name])
    row, = tables.sip.iter_rows(named=True)
    start, *identity, described, reasons = READ[name]
    assert (row["method"] or row["status"]) == start
    assert [row[c] for c in ("cseq", "from_tag", "to_tag", "branch")] == identity
    assert (row["sdp_offset"] is not None) is described
    assert noted(tables) == tuple(sorted(reasons))
    if name == "insuf":
        assert row["call_id"] is None
    elif name != "mpart01":
        assert row["call_id"].startswith(f"{name}.")


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    tables = alone(messages()[name])
    assert len(tables.sip) == 0
    assert noted(tables) == (STRANGE_START,)


@pytest.mark.parametrize(("name", "column", "value"), [
    ("wsinv", "via", "SIP  /   2.0   /UDP      192.0.2.2;branch=390skdjuw"),
    ("wsinv", "contact", r'"Quoted string \"\"" <sip:jdrosen@example.com> ; newparam =        newvalue ;'
                         "    secondparam ; q = 0.33"),
    ("wsinv", "to_uri", "sip:vivekg@chair-dnrc.example.com"), ("wsinv", "from_uri", "sip:jdrosen@example.com"),
    ("intmeth", "from_uri", "sip:mundane@example.com"), ("esc01", "uri", "sip:sips%3Auser%40example.com@example.net"),
    ("escnull", "contact", "<sip:%00@host5.example.com>"),
    ("semiuri", "uri", "sip:user;par=u%40example.net@example.com"),
    ("unreason", "reason", "= 2**3 * 5**2 но сто девяносто девять - простое"), ("noreason", "reason", ""),
    ("cparam01", "contact", "sip:+19725552222@gw1.example.net;unknownparam"),
    ("badaspec", "to_uri", "sip:t.watson@example.org"), ("baddn", "from_uri", "sip:a.g.bell@example.com"),
    ("quotbal", "to_uri", "sip:j.user@example.com"), ("inv2543", "to_uri", "sip:+16505552222@ss1.example.net"),
    ("multi01", "from_uri", "sip:caller@example.com"), ("unksm2", "to_uri", "isbn:2983792873"),
    ("scalar02", "expires", None),
])
def test_fields(name: str, column: str, value: Any) -> None:
    assert getattr(detail(alone(messages()[name]), 0), column) == value


def test_a_healthy_call_among_all_of_them() -> None:
    quiet = world(answered())
    rows = [Datagram(3 + i / 10, *EDGE, *SERVER, m) for i, m in enumerate(messages().values())]
    loud = world(sorted(answered() + rows, key=lambda d: d.time_s))
    for name in ("calls", "transactions"):
        here = getattr(loud, name).filter(call_id="c1").drop("call", "transaction", "messages", strict=False)
        mine = [c for c in here.columns if not c.endswith(("message", "messages"))]
        assert here.select(mine).equals(getattr(quiet, name).select(mine))
    assert loud.media.filter(call_id="c1").drop("call", "message", "packet").equals(
        quiet.media.drop("call", "message", "packet"))
    loud.registrations.height + loud.bindings.height + loud.legs.height  # none of them fails


# --- RFC 5118

V6, V6_OUT = ("2001:db8::9:1", 5060), ("2001:db8::10", 5060)


def ipv6(start: str, cseq: str, *lines: str, to: str = "sip:user@example.com", tag: str = "81x2",
         body: str = "") -> bytes:
    head = [f"{start} SIP/2.0", f"To: {to}", f"From: sip:user@example.com;tag={tag}",
            "Call-ID: SSG9559905523997077@hlau.example", f"CSeq: {cseq}", *lines, "Max-Forwards: 70",
            *(["Content-Type: application/sdp"] if body else []), f"Content-Length: {len(body)}"]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


VIA = "Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111"
CONTACT = 'Contact: "Caller" <sip:caller@[2001:db8::9:1]>'
MIXED = "v=0\r\no=bob 280744730 28977631 IN IP4 host.example.com\r\ns=\r\nt=0 0\r\nm=audio 22334 RTP/AVP 0\r\n" \
        "c=IN IP4 192.0.2.1\r\nm=video 6024 RTP/AVP 107\r\nc=IN IP6 2001:db8::1\r\na=rtpmap:107 H263-1998/90000\r\n"


def one(address: str) -> str:
    return (f"v=0\r\no=assistant 971731711378798081 0 IN IP6 {address}\r\ns=-\r\nc=IN IP6 {address}\r\n"
            "t=3338481189 3370017201\r\nm=audio 6000 RTP/AVP 2\r\na=rtpmap:2 G726-32/8000\r\n"
            "m=video 6024 RTP/AVP 107\r\na=rtpmap:107 H263-1998/90000\r\n")


SIX: dict[str, tuple[bytes, dict[str, Any]]] = {
    "4.1": (ipv6("REGISTER sip:[2001:db8::10]", "98176 REGISTER", VIA, CONTACT),
            {"host": "2001:db8::10", "port": 5060}),
    # without brackets it is invalid, and answered with 400; what was sent is shown
    "4.2": (ipv6("REGISTER sip:2001:db8::10", "98176 REGISTER", VIA, CONTACT), {"uri": "sip:2001:db8::10"}),
    # the brackets hold all of it: no port
    "4.3": (ipv6("REGISTER sip:[2001:db8::10:5070]", "98176 REGISTER", VIA, CONTACT),
            {"host": "2001:db8::10:5070", "port": 5060}),
    "4.4": (ipv6("REGISTER sip:[2001:db8::10]:5070", "98176 REGISTER", VIA, CONTACT),
            {"host": "2001:db8::10", "port": 5070}),
    "4.5 bracketed": (ipv6("BYE sip:[2001:db8::10]", "8912 BYE", "Via: SIP/2.0/UDP [2001:db8::9:1];received="
                           "[2001:db8::9:255];branch=z9hG4bKas3-111"), {"passed": "2001:db8::9:255"}),
    "4.5": (ipv6("OPTIONS sip:[2001:db8::10]", "921 OPTIONS", "Via: SIP/2.0/UDP [2001:db8::9:1];received="
                 "2001:db8::9:255;branch=z9hG4bKas3-111", CONTACT), {"passed": "2001:db8::9:255"}),
    "4.6": (ipv6("INVITE sip:user@[2001:db8::10]", "8612 INVITE", VIA, CONTACT, body=one("2001:db8::20")),
            {"media": ["2001:db8::20"] * 2}),
    "4.7": (ipv6("BYE sip:user@host.example.net", "89187 BYE", "Via: SIP/2.0/UDP [2001:db8::9:1]:6050;"
                 "branch=z9hG4bKas3-111", "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144",
                 "Via: SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bK451jj;received=192.0.2.200"),
            {"passed": "192.0.2.200"}),
    "4.8": (ipv6("INVITE sip:user@[2001:db8::10]", "8912 INVITE", VIA, CONTACT, body=MIXED),
            {"media": ["192.0.2.1", "2001:db8::1"]}),
    "4.9": (ipv6("INVITE sip:user@example.com", "612 INVITE", VIA, "Contact: <sip:ted@[::ffff:192.0.2.2]>",
                 body=one("::ffff:192.0.2.2")), {"media": ["::ffff:192.0.2.2"] * 2, "contact": "::ffff:192.0.2.2"}),
    # the grammar of RFC 3261 allowed a colon too many: to be tolerated
    "4.10": (ipv6("OPTIONS sip:user@[2001:db8:::192.0.2.1]", "689 OPTIONS", VIA, to="sip:user@[2001:db8:::192.0.2.1]"),
             {"uri": "sip:user@[2001:db8:::192.0.2.1]"}),
    "4.10 right": (ipv6("OPTIONS sip:user@[2001:db8::192.0.2.1]", "689 OPTIONS", VIA),
                   {"uri": "sip:user@[2001:db8::192.0.2.1]"}),
}


@pytest.mark.parametrize("name", SIX)
def test_ipv6(name: str) -> None:
    from netdiag.tables.contacts import contact_host
    from netdiag.tables.sip_routing import routing
    from netdiag.tables.sip_via import sent_by
    payload, says = SIX[name]
    tables = world([Datagram(1, *V6, *V6_OUT, payload)])
    row, = tables.sip.iter_rows(named=True)
    said = detail(tables, 0)
    assert (row["method"], row["from_tag"], row["branch"]) == (payload.split()[0].decode(), "81x2", "z9hG4bKas3-111")
    assert noted(tables) == ()
    via = sent_by(said.via)
    assert via is not None
    assert (via.host, via.port) == ("2001:db8::9:1", 6050 if name == "4.7" else 5060)
    if "host" in says:
        target = sent_by(f"SIP/2.0/UDP {(said.uri or '').removeprefix('sip:')}")  # both are a hostport (§25.1)
        assert target is not None
        assert (target.host, target.port) == (says["host"], says["port"])
    if "uri" in says:
        assert said.uri == says["uri"]
    if "passed" in says:
        assert says["passed"] in routing(tables, 0).passed
    if "media" in says:
        assert tables.media["address"].to_list() == says["media"]
    if "contact" in says:
        assert contact_host(said.contact) == says["contact"]
