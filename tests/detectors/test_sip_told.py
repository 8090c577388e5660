"""What findings on SIP say: who wrote a Contact, where an ACK ends, what to do now, and which fault is the cause."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from netdiag import engine
from netdiag.detectors.sip._auth_kinds import DO_NOW
from netdiag.model import Confidence, Finding, Report, Severity
from netdiag.registry import get
from netdiag.tables.reader import open_captures

TESTS = Path(__file__).parents[1]
SAMPLES = TESTS.parent / "captures" / "samples"
sys.path[:0] = [str(TESTS), str(SAMPLES)]
network: Any = importlib.import_module("_craft.network")
sip: Any = importlib.import_module("_craft.sip")
recipes: Any = importlib.import_module("recipes")


def analyzed(path: Path) -> Report:
    return engine.analyze(open_captures([str(path)]))


def sample(name: str) -> Report:
    return analyzed(SAMPLES / "sip" / f"{name}.pcap")


def points(name: str, *which: str) -> Report:
    return engine.analyze(open_captures([], [(p, str(SAMPLES / "sip" / f"{name}.{p}.pcap")) for p in which]))


def only(report: Report, pattern: str) -> Finding:
    finding, = (f for f in report.findings if f.pattern == pattern)
    return finding


def test_a_lost_route_set_and_the_private_contact_behind_it_are_one_incident() -> None:
    report = sample("route_set_lost.hit_private_contact")
    incident, = report.incidents
    patterns = {f.id: f.pattern for f in report.findings}
    assert patterns[incident.mechanism] == "SIP-ROUTE-SET-LOST"
    assert sorted(patterns[i] for i in incident.impacts) == ["SIP-ACK-LOST", "SIP-CONTACT-PRIVATE"]
    assert incident.confidence is Confidence.PROBABLE
    assert not incident.alternatives


def test_a_contact_belongs_to_who_wrote_it_and_not_to_the_proxy_that_passes_it_on() -> None:
    finding = only(sample("route_set_lost.hit_private_contact"), "SIP-CONTACT-PRIVATE")
    assert finding.summary.startswith("203.0.113.90 names 10.20.0.15 in its Contact; what 203.0.113.5 sends there")
    assert (finding.affected_total, finding.examined_total) == (1, 1)


def test_a_2xx_is_repeated_by_the_callee_and_not_by_the_proxy_before_it() -> None:
    finding = only(sample("route_set_lost.hit_private_contact"), "SIP-ACK-LOST")
    assert finding.summary.startswith("203.0.113.90 repeats its 200 response 5 times")


def test_an_ack_that_a_proxy_keeps_is_said_to_come_that_far() -> None:
    finding = only(sample("ack_lost.hit_kept_by_proxy"), "SIP-ACK-LOST")
    assert "the ACK comes to 198.51.100.9 only" in finding.summary
    assert "11 ACKs on the way to 198.51.100.9 passed here, and none leaves it for 198.51.100.30" in finding.reasons
    assert finding.confidence is Confidence.PROBABLE


@pytest.mark.parametrize(("name", "kind"), [
    ("hit", "the credentials are wrong"), ("hit_stale", "each nonce is called stale"),
    ("hit_nodes", "servers do not share their nonces"), ("hit_no_credentials", "no credentials are sent")])
def test_what_to_do_now_fits_the_kind_of_challenge_loop(name: str, kind: str) -> None:
    finding = only(sample(f"auth_loop.{name}"), "SIP-AUTH-LOOP")
    assert finding.title.endswith(kind)
    assert finding.mitigation == DO_NOW[kind] != get("SIP-AUTH-LOOP").pattern.mitigation


def test_a_refused_change_leaves_the_call_as_it_was() -> None:
    finding = only(sample("srtp_offer.hit_running"), "SIP-SRTP-OFFER")
    assert finding.severity is Severity.MEDIUM
    assert "earlier in this call 198.51.100.20 has SRTP by SDES" in finding.reasons


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_request_that_tcp_acknowledges_has_reached_the_host(acknowledged: bool, tmp_path: Path) -> None:
    wire = network.Wire()
    connection = network.Connection(wire, "203.0.113.9", 40000, "198.51.100.20", 5060)
    connection.open(0.0)
    request = (b"INVITE sip:b@b.example SIP/2.0\r\nVia: SIP/2.0/TCP 203.0.113.9:40000;branch=z9hG4bK1\r\n"
               b"From: <sip:a@a.example>;tag=1\r\nTo: <sip:b@b.example>\r\nCall-ID: 1@a.example\r\nCSeq: 1 INVITE\r\n"
               b"Content-Length: 0\r\n\r\n")
    connection.data(1.0, True, request, acked_after=0.02 if acknowledged else None)
    for at in () if acknowledged else (1.2, 1.6, 2.4, 4.0, 7.2):
        connection.again(at, True, request)
    sip.Dialog(wire, "203.0.113.8", "198.51.100.21").answered(40.0, "", "")
    path = tmp_path / "one.pcap"
    path.write_bytes(recipes.encode(wire.sorted()))
    finding = only(analyzed(path), "SIP-INVITE-TIMEOUT")
    assert ("its TCP acknowledges it: the host has the request" in finding.reasons) is acknowledged


def test_a_refusal_that_a_proxy_passes_on_to_another_point_is_one_finding() -> None:
    finding = only(points("dialog_481.hit_two_points", "phone", "node"), "SIP-DIALOG-481")
    assert finding.summary.startswith("192.0.2.22 answers BYE with 481")
    assert {e.point for e in finding.evidence} == {"phone", "node"}


def test_an_answer_seen_elsewhere_says_which_way_is_broken() -> None:
    finding = only(points("invite_timeout.hit_two_points_way_back", "inside", "outside"), "SIP-INVITE-TIMEOUT")
    assert "at inside it is answered with 100, which is lost on the way back" in finding.reasons
    assert finding.confidence is Confidence.CONFIRMED
    assert not finding.alternatives


@pytest.mark.parametrize(("name", "pattern"), [
    ("rport_missing.hit_invite", "SIP-RPORT-MISSING"), ("contact_private.hit", "SIP-CONTACT-PRIVATE"),
    ("route_set_lost.hit_ack", "SIP-ROUTE-SET-LOST"), ("udp_oversize.hit", "SIP-UDP-OVERSIZE")])
def test_what_is_wrong_with_calls_explains_those_calls_and_not_others_of_the_host(name: str, pattern: str) -> None:
    keys = only(sample(name), pattern).keys
    assert keys
    assert all(key.startswith("call:") for key in keys)


def test_of_a_chain_of_impacts_the_nearest_one_gives_the_title() -> None:
    report = analyzed(SAMPLES / "cases" / "registration-outlives-nat-binding" / "broken.outside.pcap")
    patterns = {f.id: f.pattern for f in report.findings}
    chains = [[patterns[i.mechanism], *(patterns[x] for x in i.impacts)] for i in report.incidents]
    wanted = next(c for c in chains if "SIP-INVITE-TIMEOUT" in c and "SIP-REG-NAT-EXPIRY" in c)
    assert wanted.index("SIP-REG-NAT-EXPIRY") < wanted.index("SIP-INVITE-TIMEOUT")


def test_the_warning_about_formats_counts_wherever_it_stands() -> None:
    finding = only(sample("codec_488.hit_second_warning"), "SIP-CODEC-488")
    assert finding.confidence is Confidence.CONFIRMED
    assert "Warning 305: No G.729" in finding.reasons


def test_a_refresh_that_is_missing_at_the_other_point_is_more_than_absence() -> None:
    finding = only(points("session_timer.hit_two_points", "caller", "callee"), "SIP-SESSION-TIMER")
    assert finding.confidence is Confidence.CONFIRMED
    assert not finding.occurrences[0].absence
    assert finding.occurrences[0].clock


def test_an_ack_past_both_addresses_of_a_proxy_goes_astray(tmp_path: Path) -> None:
    wire, caller, outer, inner, callee = network.Wire(), "203.0.113.5", "198.51.100.9", "10.0.0.5", "10.0.0.9"
    vias = [f"Via: SIP/2.0/UDP {host}:5060;branch=z9hG4bK{n}\r\n" for n, host in enumerate((caller, inner))]

    def send(at: float, start: str, src: str, dst: str, via: str, tag: str = ";tag=2", method: str = "INVITE") -> None:
        wire.udp(at, src, 5060, dst, 5060, (
            f"{start}\r\n{via}From: <sip:a@x.example>;tag=1\r\nTo: <sip:b@x.example>{tag}\r\nCall-ID: 1@x.example\r\n"
            f"CSeq: 1 {method}\r\nContact: <sip:{callee}>\r\nContent-Length: 0\r\n\r\n").encode())

    send(0.0, "INVITE sip:b@x.example SIP/2.0", caller, outer, vias[0], "")
    send(0.01, "INVITE sip:b@x.example SIP/2.0", inner, callee, vias[1] + vias[0], "")
    for at in (2.0, 2.5, 3.5, 5.5, 9.5):
        send(at, "SIP/2.0 200 OK", callee, inner, vias[1] + vias[0])
        send(at + 0.01, "SIP/2.0 200 OK", outer, caller, vias[0])
        send(at + 0.05, f"ACK sip:{callee} SIP/2.0", caller, callee, vias[0].replace("bK0", "bK9"), method="ACK")
    path = tmp_path / "one.pcap"
    path.write_bytes(recipes.encode(wire.sorted()))
    reasons = only(analyzed(path), "SIP-ACK-LOST").reasons
    assert any(r.startswith(f"the ACK goes to {callee}:5060") and r.endswith(f"not to {outer}") for r in reasons)


@pytest.mark.parametrize("follows", [True, False])
def test_a_changed_description_that_nobody_follows_is_severe(follows: bool, tmp_path: Path) -> None:
    wire, phone, trunk = network.Wire(), "203.0.113.10", "198.51.100.20"
    dialog = sip.Dialog(wire, phone, trunk)
    dialog.answered(0.0, sip.sdp(phone, 16000), sip.sdp(trunk, 20000))
    dialog.cseq += 1
    dialog.request(5.0, "INVITE", to_tag=True, body=sip.sdp(phone, 17000))
    dialog.response(5.1, 200, "OK", body=sip.sdp(trunk, 20000))
    dialog.request(5.2, "ACK", to_tag=True)
    sip.rtp(wire, 5.3, trunk, 20000, phone, 17000 if follows else 16000, 3.0)
    path = tmp_path / "one.pcap"
    path.write_bytes(recipes.encode(wire.sorted()))
    finding = only(analyzed(path), "SIP-SDP-OA-BROKEN")
    assert finding.severity is (Severity.MEDIUM if follows else Severity.HIGH)
    assert ("audio keeps going to the first" in finding.summary) is not follows


def test_probes_whose_connections_are_reset_are_not_lost_on_the_way(tmp_path: Path) -> None:
    wire, prober, peer = network.Wire(), "203.0.113.9", "198.51.100.20"
    for i in range(12):
        connection = network.Connection(wire, prober, 40000 + i, peer, 5060)
        connection.open(30.0 * i)
        head = (f"Via: SIP/2.0/TCP {prober};branch=z9hG4bK{i}\r\nFrom: <sip:a@a.example>;tag={i}\r\n"
                f"To: <sip:b@b.example>\r\nCall-ID: {i}@a.example\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")
        connection.data(30.0 * i + 0.1, True, f"OPTIONS sip:b@b.example SIP/2.0\r\n{head}".encode())
        if i in (4, 5, 8):
            connection.segment(30.0 * i + 0.2, False, "RA")
        else:
            connection.data(30.0 * i + 0.2, False, f"SIP/2.0 200 OK\r\n{head}".encode())
    path = tmp_path / "one.pcap"
    path.write_bytes(recipes.encode(wire.sorted()))
    finding = only(analyzed(path), "SIP-OPTIONS-FLAP")
    assert f"{peer} resets 3 connections of these probes" in finding.reasons
    assert not finding.occurrences[0].absence


@pytest.mark.parametrize("name", ["auth_loop.hit", "auth_loop.hit_other_realm"])
def test_what_a_finding_says_is_not_its_own_alternative(name: str) -> None:
    finding = only(sample(name), "SIP-AUTH-LOOP")
    assert [a.title for a in finding.alternatives] == [
        "something on the way changes the request URI or the credentials"]
    assert "balancer:" not in finding.next_capture


def test_nobody_is_told_to_correct_a_record_route_by_the_source_of_a_packet() -> None:
    route = only(sample("contact_private.hit_record_route"), "SIP-CONTACT-PRIVATE")
    contact = only(sample("contact_private.hit_bye"), "SIP-CONTACT-PRIVATE")
    assert "fix_nated_contact" not in route.mitigation
    assert "fix_nated_contact" in contact.mitigation
