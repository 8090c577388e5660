"""SIPp scenarios that are written step by step: well-formed, in order, and with the audio that was asked for."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from pathlib import Path

from netdiag.lab.scenario import (
    CALLED,
    CALLER,
    Packet,
    expect,
    invited,
    label,
    pause,
    play,
    request,
    response,
    scenario,
    write_rtp,
)

SDP = "\nv=0\nm=audio 16000 RTP/AVP 8\n"


def steps(*made: str) -> list[ET.Element]:
    return list(ET.fromstring(scenario(*made).encode()))


def test_steps_come_in_order_with_their_attributes(tmp_path: Path) -> None:
    made = steps(
        expect(100, optional=True), expect("BYE", timeout=500, ontimeout=1), pause(1.5), play(tmp_path / "a"), label(1))
    assert [(step.tag, dict(step.attrib)) for step in made] == [
        ("recv", {"response": "100", "optional": "true"}),
        ("recv", {"request": "BYE", "timeout": "500", "ontimeout": "1"}),
        ("pause", {"milliseconds": "1500"}), ("nop", {}), ("label", {"id": "1"})]
    played = made[3].find("action/exec")
    assert played is not None
    assert played.get("play_pcap_audio") == str(tmp_path / "a")


def test_a_request_in_a_dialog_follows_the_route_and_an_initial_one_opens_it() -> None:
    first, later, ack = steps(request(CALLER, "INVITE", 1, "Supported: timer", sdp=SDP, initial=True),
                              request(CALLED, "BYE", 2), request(CALLER, "ACK", 1))
    assert first.text is not None
    head, _, body = first.text.strip().partition("\n\n")
    assert head.startswith("INVITE sip:[number]@[domain] SIP/2.0\n")
    assert "[routes]" not in head
    assert "\nSupported: timer\n" in head
    assert head.endswith("Content-Type: application/sdp\nContent-Length: [len]")
    assert body == SDP.strip()
    assert later.text is not None
    assert later.text.strip().startswith("BYE [next_url] SIP/2.0\n")
    assert "\n[routes]\nFrom: [$local];tag=" in later.text
    assert [step.get("retrans") for step in (first, later, ack)] == ["500", "500", None]


def test_only_answers_with_sdp_are_repeated_and_only_first_ones_get_a_tag() -> None:
    ringing, answered, bye = steps(
        response("180 Ringing", tag=True), response("200 OK", sdp=SDP, tag=True), response("200 OK"))
    assert [step.get("retrans") for step in (ringing, answered, bye)] == [None, "500", None]
    assert [";tag=" in (step.text or "") for step in (ringing, answered, bye)] == [True, True, False]


def test_a_called_end_keeps_what_its_requests_need() -> None:
    received, declared = steps(invited())
    assert {(e.get("header"), e.get("assign_to")) for e in received.iter("ereg")} == {
        ("From:", "remote"), ("To:", "local")}
    assert received.get("rrs") == "true"
    assert declared.get("variables") == "remote,local"


def test_the_recording_has_each_packet_at_its_time(tmp_path: Path) -> None:
    path = write_rtp(tmp_path / "a.pcap", [Packet(0.0, 8, 0, b"ab", marker=True), Packet(1.25, 101, 10_000, b"cdef")],
                     ssrc=7, sequence=65_535)
    data = path.read_bytes()
    at, seen = 24, []
    while at < len(data):
        seconds, microseconds, size, _ = struct.unpack_from("<IIII", data, at)
        frame = data[at + 16 : at + 16 + size]
        at += 16 + size
        # Ethernet 14, IPv4 20, UDP 8 bytes.
        seen.append((seconds, microseconds, *struct.unpack_from("!BBHII", frame, 42), frame[54:]))
    assert seen == [(0, 0, 0x80, 0x80 | 8, 65_535, 0, 7, b"ab"), (1, 250_000, 0x80, 101, 0, 10_000, 7, b"cdef")]
