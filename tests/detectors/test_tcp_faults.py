"""How sure the TCP patterns are, who they blame, and what they leave open."""

from __future__ import annotations

import polars as pl
import pytest
from recipes import SAMPLES

from netdiag import engine
from netdiag.model import Confidence, Finding, Report, Status
from netdiag.tables import destinations
from netdiag.tables.reader import open_captures

SUSPECTED, PROBABLE, CONFIRMED = Confidence


def report(sample: str, *points: str, select: str, **settings: float) -> Report:
    given = {f"{select}.{name}": value for name, value in settings.items()}
    if points:
        paths = [(point, str(SAMPLES / f"{sample}.{point}.pcap")) for point in points]
        return engine.analyze(open_captures([], paths), select=[select], settings=given)
    return engine.analyze(open_captures([str(SAMPLES / f"{sample}.pcap")], []), select=[select], settings=given)


def finding(sample: str, *points: str, select: str) -> Finding:
    found = report(sample, *points, select=select).findings
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("hit", "confidence", "title"), [
    ("hit", CONFIRMED, "A device on the path refuses new connections"),
    ("hit_closed_port", PROBABLE, "New connections are refused: nothing listens on the port"),
    ("hit_other_initial_ttl", PROBABLE, "New connections are refused: nothing listens on the port"),
    ("hit_alone", SUSPECTED, "New connections are refused"),
    ("hit_prohibited", CONFIRMED, "New flows are refused by the device 203.0.113.1"),
    ("hit_port_unreachable", CONFIRMED, "New flows are refused by the host's own filter"),
    ("hit_host_unreachable", PROBABLE, "The device 203.0.113.1 finds no way to the host"),
    ("hit_prohibited_udp", CONFIRMED, "New flows are refused by the device 203.0.113.1"),
    ("hit_ipv6", CONFIRMED, "New flows are refused by the device 2001:db8:71::1"),
    ("hit_everywhere", SUSPECTED, "New connections are refused (port 25 of 21 hosts)"),
])
def test_reject_says_who(hit: str, confidence: Confidence, title: str) -> None:
    f = finding(f"fw/reject.{hit}", select="FW-REJECT")
    assert (f.confidence, f.title) == (confidence, title)


@pytest.mark.parametrize(("hosts", "works", "port", "together"), [
    (destinations.WIDE_HOSTS + 1, False, 25, True), (destinations.WIDE_HOSTS, False, 25, False),
    (destinations.WIDE_HOSTS + 1, True, 25, False), (destinations.WIDE_HOSTS + 1, True, 587, True)])
def test_many_hosts_are_one_thing_where_nothing_works(hosts: int, works: bool, port: int, together: bool) -> None:
    """What works on another port says nothing."""
    failed = pl.DataFrame([("c", f"s{i}", 25) for i in range(hosts)], orient="row",
                          schema=["client", "server", "server_port"])
    more = pl.DataFrame({"client": ["c"], "server": ["other"], "server_port": [port], "established": [works]})
    started = pl.concat([failed.with_columns(established=False), more])
    tried = hosts + (port == 25)
    assert destinations.wide(failed, started) == ({("c", 25): (hosts, tried)} if together else {})


def test_ends_over_ipv6_are_told_apart_from_their_ports() -> None:
    f = finding("fw/reject.hit_ipv6", select="FW-REJECT")
    assert f.affected == ("[2001:db8:20::15]:40000 → [2001:db8:51::20]:5061",)


def test_reject_counts_one_connection_once() -> None:
    f = finding("fw/reject.hit_prohibited", select="FW-REJECT")
    assert f.affected == ("10.20.0.15:40000 → 198.51.100.20:5061",)
    assert (f.affected_total, f.examined_total) == (1, 1)


def test_syn_drop_grows_surer_with_a_second_point() -> None:
    assert finding("fw/syn_drop.hit", select="FW-SYN-DROP").confidence is PROBABLE
    f = finding("fw/syn_drop.hit_two_points", "inside", "outside", select="FW-SYN-DROP")
    assert f.confidence is CONFIRMED
    assert "not at outside" in f.reasons[-1]


@pytest.mark.parametrize(("hit", "points", "confidence", "reason"), [
    ("hit_pings", (), PROBABLE, "the same host answers pings"),
    ("hit_gone", (), SUSPECTED, "6 SYNs, no answer of any kind"),
    ("hit_prohibited_to_others", (), CONFIRMED,
     'SYNs of others to this port are refused by 203.0.113.1 with "communication administratively prohibited"'),
    ("hit_translated", ("inside", "outside"), CONFIRMED,
     "by their sequence numbers other SYNs of 10.20.0.15 to this host are seen at outside, before and after, and none "
     "of these"),
])
def test_syn_drop_says_what_shows_the_host_alive(hit: str, points: tuple[str, ...], confidence: Confidence,
                                                 reason: str) -> None:
    f = finding(f"fw/syn_drop.{hit}", *points, select="FW-SYN-DROP")
    assert (f.confidence, f.reasons[-1]) == (confidence, reason)


def test_silent_ports_of_a_silent_host_are_one_finding() -> None:
    f = finding("fw/syn_drop.hit_silent_host", select="FW-SYN-DROP")
    assert (f.title, f.affected_total, f.examined_total) == ("No answer from the host: 3 ports are silent", 3, 3)
    assert f.confidence is SUSPECTED


def test_syn_drop_is_doubted_where_the_port_answers_meanwhile() -> None:
    f = finding("nat/port_exhaust.hit_lingering", select="FW-SYN-DROP")
    assert (f.confidence, "before and after" in f.reasons[-1]) == (SUSPECTED, True), "no fixed rule"
    both = report("nat/port_exhaust.near_miss_more_worked", select="FW-SYN-DROP").findings[0]
    assert both.alternatives


@pytest.mark.parametrize(("hit", "points", "confidence", "survived", "failed"), [
    ("hit", (), SUSPECTED, 200.98, 350.0),
    ("hit_server_speaks", (), SUSPECTED, 200.98, 350.0),
    ("hit_keepalive_in_vain", (), SUSPECTED, 200.98, 299.88),
    ("hit_alone", (), SUSPECTED, 0.0799, 350.0),
    ("hit_reset", (), CONFIRMED, 0.0799, 350.0),
    ("hit_two_points", ("inside", "outside"), CONFIRMED, 15.98, 30.0),
])
def test_idle_drop_encloses_the_timer(hit: str, points: tuple[str, ...], confidence: Confidence, survived: float,
                                      failed: float) -> None:
    f = finding(f"nat/tcp_idle_drop.{hit}", *points, select="NAT-TCP-IDLE-DROP")
    assert f.confidence is confidence
    facts = f.evidence[0].facts
    assert facts["tcp.idle_s"] == pytest.approx(failed, abs=0.01)
    assert facts["tcp.survived_s"] == pytest.approx(survived, abs=0.02)


def test_idle_drop_names_the_default_that_fits() -> None:
    assert "AWS" in finding("nat/tcp_idle_drop.hit", select="NAT-TCP-IDLE-DROP").reasons[-1]
    assert "F5" in finding("nat/tcp_idle_drop.hit_keepalive_in_vain", select="NAT-TCP-IDLE-DROP").reasons[-1]
    f = finding("nat/tcp_idle_drop.hit_two_points", "inside", "outside", select="NAT-TCP-IDLE-DROP")
    assert f.reasons[-1].endswith("the shortest that was not 30 s"), "no default is 30 s"


def test_idle_drop_says_when_nothing_shows_the_path_alive() -> None:
    assert finding("nat/tcp_idle_drop.hit_alone", select="NAT-TCP-IDLE-DROP").limitations
    assert not finding("nat/tcp_idle_drop.hit", select="NAT-TCP-IDLE-DROP").limitations


def test_idle_drop_obeys_its_setting() -> None:
    sample = "nat/tcp_idle_drop.near_miss_short_rest_inconclusive"
    assert report(sample, select="NAT-TCP-IDLE-DROP").outcomes[0].status is Status.INCONCLUSIVE
    assert report(sample, select="NAT-TCP-IDLE-DROP", min_idle_s=100).outcomes[0].status is Status.FOUND


@pytest.mark.parametrize(("hit", "points", "confidence"), [
    ("hit", (), PROBABLE), ("hit_lingering", (), PROBABLE), ("hit_two_points", ("inside", "outside"), CONFIRMED),
    ("hit_race", (), PROBABLE), ("hit_tried_again", ("inside", "outside"), CONFIRMED)])
def test_port_exhaustion_knows_the_limit(hit: str, points: tuple[str, ...], confidence: Confidence) -> None:
    f = finding(f"nat/port_exhaust.{hit}", *points, select="NAT-PORT-EXHAUST")
    assert f.confidence is confidence
    assert f.scope["nat.open_connections"] == 8
    assert f.affected_total == {"hit_race": 8, "hit_tried_again": 4}.get(hit, 3)
    assert f.examined_total == (17 if hit == "hit_race" else 12)
    assert f.reasons[0].startswith("23 SYNs failed, all but 1 with 8") is (hit == "hit_race")
    assert ("60 s after their end" in f.reasons[0]) is (hit == "hit_lingering")


def test_port_exhaustion_explains_the_silence() -> None:
    path = str(SAMPLES / "nat/port_exhaust.hit.pcap")
    result = engine.analyze(open_captures([path], []), select=["NAT-PORT-EXHAUST", "FW-SYN-DROP"])
    assert len(result.incidents) == 1
    assert {f.pattern for f in result.findings} == {"NAT-PORT-EXHAUST", "FW-SYN-DROP"}
    mechanism = next(f for f in result.findings if f.id == result.incidents[0].mechanism)
    assert mechanism.pattern == "NAT-PORT-EXHAUST"


@pytest.mark.parametrize(("hit", "confidence", "bracket"), [
    ("hit", SUSPECTED, "this NAT forgot a mapping within 70 s of silence"),
    ("hit_another_moves", PROBABLE, "this NAT forgot a mapping within 70 s of silence"),
    ("hit_two_clients", PROBABLE, "this NAT bore 20 s of silence and no longer 70 s"),
])
def test_mapping_is_measured_by_all_clients_of_a_nat(hit: str, confidence: Confidence, bracket: str) -> None:
    f = finding(f"nat/udp_expiry.{hit}", select="NAT-UDP-EXPIRY")
    assert f.confidence is confidence
    assert bracket in f.summary


def test_one_way_tap_is_sure_when_another_point_has_both_directions() -> None:
    assert finding("cap/oneway.hit", select="CAP-ONEWAY").confidence is PROBABLE
    f = finding("cap/oneway.hit_two_points", "whole", "half", select="CAP-ONEWAY")
    assert f.confidence is CONFIRMED
    assert f.scope["capture.point"] == "half"


def test_gates_name_the_flows_they_touch() -> None:
    for sample, pattern in (("cap/oneway.hit_rtcp", "CAP-ONEWAY"), ("cap/midstream.hit_rtp", "CAP-MIDSTREAM")):
        f = finding(sample, select=pattern)
        assert [o.flows for o in f.occurrences] == [(0,)]
