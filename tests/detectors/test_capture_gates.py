"""CAP-FILTER and CAP-CLOCK where a recipe's pcap cannot hold the case: stored filters, many points."""

from __future__ import annotations

import importlib
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from netdiag import engine
from netdiag.model import Confidence, Report, Status
from netdiag.tables.reader import open_captures

SAMPLES = Path(__file__).parents[2] / "captures" / "samples"
sys.path[:0] = [str(SAMPLES)]
network: Any = importlib.import_module("_craft.network")
sip: Any = importlib.import_module("_craft.sip")
PHONE, PROXY = "10.20.0.15", "198.51.100.20"


def block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def pcapng(path: Path, frames: list[Any], *filters: str) -> Path:
    """One interface for each filter; all frames come from the first (if_filter: option 11, first byte 0 for text)."""
    out = [block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    for text in filters or ("",):
        value = b"\0" + text.encode()
        option = struct.pack("<HH", 11, len(value)) + value + bytes(-len(value) % 4) + bytes(4) if text else b""
        out.append(block(1, struct.pack("<HHI", 1, 0, 0) + option))
    for frame in frames:
        data, at = bytes(frame), round(float(frame.time) * 10**6)
        head = struct.pack("<IIIII", 0, at >> 32, at & 0xFFFFFFFF, len(data), len(data))
        out.append(block(6, head + data + bytes(-len(data) % 4)))
    path.write_bytes(b"".join(out))
    return path


def call(rtp: bool = False) -> list[Any]:
    wire = network.Wire()
    dialog = sip.Dialog(wire, PHONE, PROXY)
    dialog.bye(dialog.answered(0.0, sip.sdp(PHONE, 4000), sip.sdp(PROXY, 4000)) + 10)
    if rtp:
        sip.rtp(wire, 0.2, PHONE, 4000, PROXY, 4000, 0.2)
    return list(wire.sorted())


def judged(path: Path, pattern: str) -> Report:
    return engine.analyze(open_captures([str(path)]), select=[pattern])


@pytest.mark.parametrize("text", ["udp port 5060", "tcp or port 5060", "not a filter at all ("])
def test_stored_filter_is_confirmed(tmp_path: Path, text: str) -> None:
    (finding,) = judged(pcapng(tmp_path / "t.pcapng", call(), text), "CAP-FILTER").findings
    assert finding.confidence is Confidence.CONFIRMED
    assert text in finding.scope["capture.filter"]  # type: ignore[operator]
    assert any(repr(text) in reason for reason in finding.reasons)


@pytest.mark.parametrize("text", ["not port 22", "host 10.20.0.15", "ip or ip6", ""])
def test_stored_filter_that_keeps_no_evidence_out(tmp_path: Path, text: str) -> None:
    """Of a call with its media: only hosts are chosen, or what nobody asks for is left out."""
    (outcome,) = judged(pcapng(tmp_path / "t.pcapng", call(rtp=True), text), "CAP-FILTER").outcomes
    assert outcome.status is Status.CLEAR
    assert text in outcome.reason


def test_recommended_filter_matters_only_where_media_is_announced(tmp_path: Path) -> None:
    text = "(udp port 5060) or (ip[6:2] & 0x3fff != 0) or (ip6 proto 44) or icmp or icmp6"
    (finding,) = judged(pcapng(tmp_path / "a.pcapng", call(), text), "CAP-FILTER").findings
    assert finding.confidence is Confidence.CONFIRMED
    assert "ports that it does not name" in finding.summary
    options = network.Wire()
    sip.Dialog(options, PHONE, PROXY).request(0.0, "OPTIONS")
    (outcome,) = judged(pcapng(tmp_path / "b.pcapng", options.sorted(), text), "CAP-FILTER").outcomes
    assert outcome.status is Status.CLEAR


def test_one_of_two_interfaces_with_a_filter_is_enough(tmp_path: Path) -> None:
    (finding,) = judged(pcapng(tmp_path / "t.pcapng", call(True), "not port 22", "port 53"), "CAP-FILTER").findings
    assert "ICMP errors" in finding.summary


def test_long_filter_is_quoted_in_part(tmp_path: Path) -> None:
    text = " or ".join(f"port {n}" for n in range(1, 600))
    (finding,) = judged(pcapng(tmp_path / "t.pcapng", call(), text), "CAP-FILTER").findings
    assert len(str(finding.scope["capture.filter"])) <= 200
    assert max(map(len, finding.reasons)) < 300


def test_one_port_touches_its_calls_only(tmp_path: Path) -> None:
    """Suspected by the port alone, the gate caps findings about these calls and no others of the point."""
    wire = network.Wire()
    dialog = sip.Dialog(wire, PHONE, PROXY)
    dialog.bye(dialog.answered(0.0, sip.sdp(PHONE, 4000), sip.sdp(PROXY, 4000)) + 10)
    other = sip.Dialog(wire, "10.20.0.16", PROXY, call_id="call-2@a.example")
    other.request(1.0, "OPTIONS")
    (finding,) = judged(pcapng(tmp_path / "t.pcapng", wire.sorted()), "CAP-FILTER").findings
    (occurrence,) = finding.occurrences
    assert (finding.confidence, len(occurrence.flows)) == (Confidence.SUSPECTED, 1)


def test_missing_icmp_touches_the_unanswered_flows_only() -> None:
    tables = open_captures([str(SAMPLES / "cap" / "filter.hit_no_icmp.pcap")])
    (finding,) = engine.analyze(tables, select=["CAP-FILTER"]).findings
    (occurrence,) = finding.occurrences
    unanswered = tables.tcp.filter(tables.tcp["packets_server"] == 0)["flow"].to_list()
    assert (len(unanswered), sorted(occurrence.flows)) == (3, sorted(unanswered))


def test_offset_names_the_command_that_corrects_it() -> None:
    paths = [(point, str(SAMPLES / "cap" / f"clock.hit_second.{point}.pcap")) for point in ("inside", "outside")]
    (finding,) = engine.analyze(open_captures([], paths), select=["CAP-CLOCK"]).findings
    assert "`editcap -t 1.500000 clock.hit_second.outside.pcap aligned-clock.hit_second.outside.pcap`" in (
        finding.next_capture)
    points = {o.scope["capture.point"] for o in finding.occurrences}
    assert points == {"inside", "outside"}  # the gate touches all of both points


def test_third_point_without_common_packets_is_said(tmp_path: Path) -> None:
    paths = [(point, str(SAMPLES / "cap" / f"clock.near_miss_same_clock.{point}.pcap"))
             for point in ("inside", "outside")]
    third = pcapng(tmp_path / "third.pcapng", call())
    (outcome,) = engine.analyze(open_captures([], [*paths, ("third", str(third))]), select=["CAP-CLOCK"]).outcomes
    assert outcome.status is Status.CLEAR
    assert "no packet of third was recognised at another point" in outcome.reason
    assert "the clocks of inside and outside agree" in outcome.reason


def test_copies_cap_nothing() -> None:
    (finding,) = judged(SAMPLES / "cap" / "dup.hit.pcap", "CAP-DUP").findings
    (occurrence,) = finding.occurrences
    assert occurrence.flows == ()
    assert "capture.point" not in occurrence.scope


def test_clocks_compared_in_one_direction_alone_are_told_with_both_bounds() -> None:
    paths = [(point, str(SAMPLES / "cap" / f"clock.hit_one_direction.{point}.pcap")) for point in ("near", "far")]
    (finding,) = engine.analyze(open_captures([], paths), select=["CAP-CLOCK"]).findings
    low, high = sorted(abs(float(n)) for n in finding.limitations[0].removesuffix(" s.").split()[-3::2])
    assert high - low > 0.9
    assert f"{low:.3f} to {high:.3f} s " in finding.summary
