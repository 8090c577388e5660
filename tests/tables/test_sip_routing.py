"""What single messages say about their way."""

from __future__ import annotations

from sip_world import Datagram, world

from netdiag.tables.sip_routing import MAX_HOPS, RouteUri, Routing, routing


def read(*lines: str) -> Routing:
    head = ["BYE sip:bob@203.0.113.9 SIP/2.0", "Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK0", *lines,
            "From: <sip:a@a.example>;tag=1", "To: <sip:b@b.example>;tag=2", "Call-ID: c1", "CSeq: 2 BYE", "", ""]
    return routing(world([Datagram(0, "192.0.2.1", 5060, "203.0.113.9", 5060, "\r\n".join(head).encode())]), 0)


def test_vias_in_order_with_received_address_and_compact_form() -> None:
    said = read("v: SIP / 2.0 / TCP proxy.example;received=198.51.100.7;branch=z9, SIP/2.0/UDP [2001:db8::7]:5060")
    assert said.via == ({"192.0.2.9"}, {"proxy.example", "198.51.100.7"}, {"2001:db8::7"})
    assert said.passed == {"192.0.2.9", "proxy.example", "198.51.100.7", "2001:db8::7"}


def test_routes_tell_loose_from_strict() -> None:
    said = read("Route: <sip:192.0.2.5;lr>, <sip:192.0.2.6:5070;transport=tcp;lr=on>", "Route: <sip:edge.example;lrx>",
                "Record-Route: <sip:192.0.2.5;r2=on;LR>")
    assert said.route == (RouteUri("192.0.2.5", True), RouteUri("192.0.2.6", True), RouteUri("edge.example", False))
    assert said.record_route == (RouteUri("192.0.2.5", True),)


def test_numbers_are_read_once_and_odd_ones_are_unknown() -> None:
    said = read("Max-Forwards: 7", "Max-Forwards: 8", "Retry-After: 120 (busy);duration=3600")
    assert (said.max_forwards, said.retry_after) == (7, 120)
    assert read("Max-Forwards: many").max_forwards is None


def test_endless_via_list_is_cut() -> None:
    assert len(read("Via: " + ", ".join(["SIP/2.0/UDP 192.0.2.1"] * 500)).via) == MAX_HOPS
