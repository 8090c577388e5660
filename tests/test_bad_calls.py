"""Bad SIP, SDP and RTP beside a call: each is a row in ``anomalies``, and the call is judged as without it."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from checkout import ROOT, udp_frame

import netdiag
from netdiag.model import Report
from netdiag.tables import Tables
from netdiag.tables.reader import open_captures

Record = tuple[int, bytes]
SAMPLES = ROOT / "captures" / "samples"
FAULTY = ("sip/ack_lost.hit", "sip/dialog_481.hit", "sip/codec_488.hit", "sip/session_timer.hit", "sip/auth_loop.hit",
          "rtp/oneway.hit")
HEALTHY = ("sip/ack_lost.near_miss_late_ack", "sip/session_timer.near_miss_refreshed")
STRANGER, OTHER = "192.0.2.250", "198.51.100.250"


def records(path: Path) -> list[Record]:
    data = path.read_bytes()
    magic, *_, link = struct.unpack_from("<IHHiIII", data, 0)
    assert (magic, link) == (0xA1B23C4D, 1)
    out, at = [], 24
    while at < len(data):
        seconds, ns, size, _ = struct.unpack_from("<IIII", data, at)
        out.append((seconds * 10**9 + ns, data[at + 16 : at + 16 + size]))
        at += 16 + size
    return out


def write(path: Path, rows: list[Record]) -> str:
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)]
    out += [struct.pack("<IIII", ns // 10**9, ns % 10**9, len(f), len(f)) + f for ns, f in rows]
    path.write_bytes(b"".join(out))
    return str(path)


def sip(*lines: str, start: str = "INVITE sip:b@b.example SIP/2.0", call_id: str = "odd", drop: str = "",
        body: str = "", length: str | None = None, tag: str = "odd") -> bytes:
    head = [start, f"Via: SIP/2.0/UDP {STRANGER};branch=z9hG4bK{call_id}", "Max-Forwards: 70",
            f"From: <sip:x@x.example>;tag={tag}", "To: <sip:b@b.example>", f"Call-ID: {call_id}", "CSeq: 1 INVITE",
            *lines, *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body) if length is None else length}"]
    kept = [line for line in head if not drop or not line.startswith(f"{drop}:")]
    return ("\r\n".join(kept) + "\r\n\r\n" + body).encode()


LONG = "v=0\r\no=- 1 1 IN IP4 192.0.2.250\r\ns=-\r\nc=IN IP4 192.0.2.250\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n" \
       + "a=x\r\n" * 10_000
NOISE = random.Random(7)
BAD: dict[str, tuple[list[bytes], str]] = {
    "no Call-ID": ([sip(drop="Call-ID")], "message without Call-ID"),
    "no CSeq": ([sip(drop="CSeq")], "message without CSeq"),
    "no Via": ([sip(drop="Via")], "message without Via"),
    "negative Content-Length": ([sip(length="-5")], "Content-Length is no number"),
    "huge Content-Length": ([sip(length="4294967295")], "Content-Length is larger than the datagram"),
    "absurd Content-Length": ([sip(length="9" * 40)], "Content-Length is no number"),
    "NUL": ([sip("Subject: a\0b")], "header with a NUL"),
    "NUL in an identifier": ([sip(call_id="a\0b")], "header with a NUL"),
    "not UTF-8": ([sip("Subject: x").replace(b"x\r\n", b"\xff\xfe\r\n")], "header that is not UTF-8"),
    "10 000 lines": ([sip(body=LONG)], "SDP with more than 1000 lines"),
    "two callers": ([sip(tag="one"), sip(tag="two")], "Call-ID that another call uses too"),
    "start not captured": ([sip(start="BYE sip:b@b.example SIP/2.0").replace(b"1 INVITE", b"2 BYE")],
                           "call whose INVITE was not captured"),
    "two Call-IDs": ([sip("Call-ID: second")], "several Call-ID headers: the first counts"),
}


def bad_frames(name: str, callee: str) -> list[bytes]:
    return [udp_frame(STRANGER, callee, 5060, 5060, payload) for payload in BAD[name][0]]


def no_rtp(target: str, port: int) -> list[bytes]:
    """Begins like RTP, and is noise."""
    # payload types 77 to 95 are in no use (RFC 3551 §6)
    return [udp_frame(STRANGER, target, 40000, port, bytes([0x80, 77 + i]) + NOISE.randbytes(40), ident=i)
            for i in range(8)]


def mixed(rows: list[Record], frames: list[bytes]) -> list[Record]:
    """The frames spread over the time of the rows."""
    begin, end = rows[0][0], rows[-1][0]
    step = (end - begin) // (len(frames) + 1)
    return sorted([*rows, *((begin + step * (i + 1) + 17, f) for i, f in enumerate(frames))], key=lambda r: r[0])


def callee_of(rows: list[Record]) -> str:
    """Where the first SIP request goes."""
    frame = next(f for _, f in rows if b" sip:" in f[42:])
    return ".".join(map(str, frame[30:34]))


def reasons(tables: Tables) -> set[str]:
    for name in ("calls", "media", "rtp", "quality", "transactions"):
        getattr(tables, name)
    return {a.reason for a in tables.anomalies()}


@pytest.mark.parametrize("name", BAD)
def test_a_row_in_the_anomalies(name: str, tmp_path: Path) -> None:
    rows = records(SAMPLES / f"{HEALTHY[0]}.pcap")
    assert BAD[name][1] not in reasons(open_captures([write(tmp_path / "a.pcap", rows)]))
    path = write(tmp_path / "b.pcap", mixed(rows, bad_frames(name, callee_of(rows))))
    assert BAD[name][1] in reasons(open_captures([path]))


def test_noise_and_clock_steps_are_rows_too(tmp_path: Path) -> None:
    rows = records(SAMPLES / f"{HEALTHY[0]}.pcap")
    noise = open_captures([write(tmp_path / "a.pcap", mixed(rows, no_rtp(OTHER, 50000)))])
    assert "starts like RTP, but its sequence numbers are those of no stream" in reasons(noise)
    assert len(noise.rtp) == len(open_captures([write(tmp_path / "b.pcap", rows)]).rtp)
    half = len(rows) // 2
    stepped = [*rows[:half], *((ns - 3_600_000_000_000, f) for ns, f in rows[half:])]
    assert "time goes back by more than a millisecond" in reasons(open_captures([write(tmp_path / "c.pcap", stepped)]))


Verdict = tuple[str, str, str, tuple[str, ...], frozenset[bytes]]


def verdicts(report: Report, rows: list[Record], mine: frozenset[bytes]) -> set[Verdict]:
    """Findings about calls that cite frames of ``mine``, with those that they cite."""
    out = set()
    for f in report.findings:
        cited = frozenset(rows[n - 1][1] for e in f.evidence for n in e.frames) & mine
        if cited and not f.pattern.startswith("CAP-"):
            out.add((f.pattern, f.severity.name, f.confidence.label, f.affected, cited))
    return out


@pytest.mark.parametrize("sample", [*FAULTY, *HEALTHY])
def test_the_call_beside_it_is_judged_as_alone(sample: str, tmp_path: Path) -> None:
    rows = records(SAMPLES / f"{sample}.pcap")
    mine = frozenset(f for _, f in rows)
    callee = callee_of(rows)
    media = open_captures([write(tmp_path / "quiet.pcap", rows)]).media.select("address", "port").unique(
        maintain_order=True).rows()
    frames = [f for name in BAD for f in bad_frames(name, callee)]
    frames += [f for address, port in [(callee, 50000), *media] for f in no_rtp(address, port)]
    loud = mixed(rows, frames)
    quiet_report = netdiag.analyze(str(tmp_path / "quiet.pcap"))
    loud_report = netdiag.analyze(write(tmp_path / "loud.pcap", loud))
    assert not [o for o in loud_report.outcomes if o.status.value == "error"]
    expected = verdicts(quiet_report, rows, mine)
    assert bool(expected) is (sample in FAULTY)
    assert verdicts(loud_report, loud, mine) == expected


@pytest.mark.parametrize("sample", FAULTY[:3])
def test_the_same_call_id_beside_it(sample: str, tmp_path: Path) -> None:
    """A stranger who uses the call's own Call-ID: before it, within it, and to the same host."""
    rows = records(SAMPLES / f"{sample}.pcap")
    mine = frozenset(f for _, f in rows)
    first = next(f for _, f in rows if b"INVITE sip:" in f)
    call_id = first.split(b"Call-ID: ")[1].partition(b"\r\n")[0].decode()
    bye = sip(start="BYE sip:b@b.example SIP/2.0", call_id=call_id, tag="q").replace(b"1 INVITE", b"9 BYE")
    frames = [udp_frame(STRANGER, callee_of(rows), 5060, 5060, p) for p in (sip(call_id=call_id), bye)]
    loud = mixed(rows, frames)
    expected = verdicts(netdiag.analyze(write(tmp_path / "quiet.pcap", rows)), rows, mine)
    assert verdicts(netdiag.analyze(write(tmp_path / "loud.pcap", loud)), loud, mine) == expected
