"""How RTP finds its call beyond c= and m=: candidates, latched sources, RTCP, the only call it can be, bundles."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl
import pytest
from checkout import PcapWriter, udp_frame

from netdiag.decode import rtp as header
from netdiag.decode import sdp_sources
from netdiag.tables import Tables, rtp_lines
from netdiag.tables.reader import open_captures
from netdiag.tables.rtp import RtpStream
from netdiag.tables.schema import rows

T0 = 1_767_225_600_000_000_000
MS = 1_000_000
A, B, NAT, OTHER = "192.0.2.1", "198.51.100.2", "203.0.113.3", "203.0.113.200"
Frames = list[tuple[int, bytes]]


def sdp(address: str, *media: str, session: str = "") -> str:
    return (f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n{session}"
            + "".join(f"m={m}\r\n" for m in media))


def audio(port: int, formats: str = "0", extra: str = "") -> str:
    return f"audio {port} RTP/AVP {formats}" + "".join(f"\r\na={line}" for line in extra.split("|") if line)


def call(offer: str, answer: str, number: int = 1, begin_ms: int = 0, end_ms: int | None = 30_000) -> Frames:
    """INVITE, 200, ACK and BYE between A and B."""
    def message(start: str, cseq: str, to_tag: str, body: str = "") -> bytes:
        kind = "Content-Type: application/sdp\r\n" if body else ""
        return (f"{start}\r\nVia: SIP/2.0/UDP {A}:5060;branch=z9hG4bK{number}{cseq.split()[0]}\r\n"
                f"From: <sip:a@a.example>;tag=f{number}\r\nTo: <sip:b@b.example>{to_tag}\r\n"
                f"Call-ID: call{number}@a.example\r\nCSeq: {cseq}\r\nContact: <sip:a@{A}>\r\n{kind}"
                f"Content-Length: {len(body)}\r\n\r\n{body}").encode()

    def at(ms: int, there: bool, text: bytes) -> tuple[int, bytes]:
        ends = (A, B) if there else (B, A)
        return T0 + (begin_ms + ms) * MS, udp_frame(*ends, 5060, 5060, text)

    tag, uri = f";tag=t{number}", "sip:b@b.example SIP/2.0"
    out = [at(0, True, message(f"INVITE {uri}", "1 INVITE", "", offer)),
           at(100, False, message("SIP/2.0 200 OK", "1 INVITE", tag, answer)),
           at(110, True, message(f"ACK {uri}", "1 ACK", tag))]
    if end_ms is not None:
        out += [at(end_ms, True, message(f"BYE {uri}", "2 BYE", tag)),
                at(end_ms + 10, False, message("SIP/2.0 200 OK", "2 BYE", tag))]
    return out


def talk(source: tuple[str, int], to: tuple[str, int], ssrc: int, begin_ms: int = 500, packets: int = 50, pt: int = 0,
         body: bytes = bytes(20), extension: bytes = b"") -> Frames:
    return [(T0 + (begin_ms + 20 * i) * MS, udp_frame(source[0], to[0], source[1], to[1], struct.pack(
        ">BBHII", 0x90 if extension else 0x80, pt, 100 + i, 160 * i, ssrc) + extension + body)) for i in range(packets)]


def report(source: tuple[str, int], to: tuple[str, int], ssrc: int, about: int = 0, at_ms: int = 1200) -> Frames:
    block = struct.pack(">IIIIII", about, 0, 130, 5, 0, 0) if about else b""
    data = struct.pack(">BBHI", 0x80 | bool(about), 201, (4 + len(block)) // 4, ssrc) + block
    return [(T0 + at_ms * MS, udp_frame(source[0], to[0], source[1], to[1], data))]


def load(pcap: PcapWriter, *parts: Frames) -> Tables:
    frames: Iterable[tuple[int, bytes]] = sorted((f for part in parts for f in part), key=lambda f: f[0])
    path: Path = pcap(list(frames))
    return open_captures([str(path)])


def streams(tables: Tables) -> dict[int, RtpStream]:
    return {s.ssrc: s for s in rows(tables.rtp, RtpStream)}


def bound(s: RtpStream) -> tuple[str, str | None, str | None, int | None]:
    return s.bound_by, s.call_id, s.sender, s.media_index


PLAIN = call(sdp(A, audio(4000)), sdp(B, audio(5000)))
CALL = "call1@a.example"


# ---------------------------------------------------------------- comedia

def test_latched_stream_behind_a_translator(pcap: PcapWriter) -> None:
    # The phone's SDP has an inside address; the relay B sends to where the audio really comes from.
    said = call(sdp("10.20.0.15", audio(4000)), sdp(B, audio(5000)))
    got = streams(load(pcap, said, talk((NAT, 7000), (B, 5000), 1), talk((B, 5000), (NAT, 7000), 2, 560)))
    assert bound(got[1]) == ("sdp", CALL, "caller", 0)
    assert bound(got[2]) == ("comedia", CALL, "callee", 0)


def test_from_the_address_in_sdp_to_a_place_that_nothing_comes_from(pcap: PcapWriter) -> None:
    [s] = streams(load(pcap, PLAIN, talk((B, 5000), (NAT, 7000), 2))).values()
    assert bound(s) == ("sdp", CALL, "callee", 0)


# ---------------------------------------------------------------- RTCP and the only call

def test_bound_by_the_reports_of_its_receiver(pcap: PcapWriter) -> None:
    # Ports are those of no SDP; the RTCP of the call names both SSRCs.
    media = talk((A, 6000), (B, 6100), 1) + talk((B, 6100), (A, 6000), 2)
    told = report((B, 5001), (A, 4001), 2, about=1)
    tables = load(pcap, PLAIN, media, told, report((OTHER, 5001), (A, 4999), 77, about=1))
    got = streams(tables)
    assert bound(got[1]) == ("rtcp", CALL, "caller", 0)
    assert bound(got[2]) == ("rtcp", CALL, "callee", 0)
    assert tables.rtcp.select("call_id", "bound_by").rows() == [(CALL, "sdp"), (None, "")]


def test_reports_of_two_calls_about_one_stream_bind_nothing(pcap: PcapWriter) -> None:
    two = call(sdp(A, audio(4200)), sdp(B, audio(5200)), 2)
    tables = load(pcap, PLAIN, two, talk((A, 6000), (B, 6100), 1), report((B, 5001), (A, 4001), 2, about=1),
                  report((B, 5201), (A, 4201), 2, about=1))
    assert bound(streams(tables)[1]) == ("", None, None, None)
    assert streams(tables)[1].heuristic


@pytest.mark.parametrize(("profile", "read"), [("RTP/AVP", 26), ("RTP/SAVP", 0)])
def test_cut_rtcp_of_a_call_with_srtp_is_not_read(pcap: PcapWriter, profile: str, read: int) -> None:
    # The cut hides what follows: blocks, or ciphertext with a tag of 16 bytes (RFC 7714 §9).
    said = call(*(sdp(*end).replace("RTP/AVP", profile) for end in ((A, audio(4000)), (B, audio(5000)))))
    data = struct.pack(">BBHI", 0x80 | 27, 201, 1 + 6 * 27, 2) + bytes(24 * 27 + 20)
    told = [(T0 + 900 * MS, udp_frame(B, A, 5001, 4001, data))]
    tables = open_captures([str(pcap(sorted(said + told), snaplen=690))])
    assert tables.rtcp.height == read
    cut = {"RTCP of a call with SRTP, cut by the snap length: not read": 1} if not read else {}
    assert {a.reason: a.count for a in tables.anomalies() if a.table == "rtcp"} == {
        "RTCP cut by the snap length": 1, **cut}


def test_bound_as_the_only_call_of_its_hosts(pcap: PcapWriter) -> None:
    [s] = streams(load(pcap, PLAIN, talk((A, 6000), (B, 6100), 1))).values()
    assert bound(s) == ("heuristic", CALL, "caller", 0)
    assert not s.heuristic


@pytest.mark.parametrize(("why", "more", "media"), [
    ("two calls of these hosts run", call(sdp(A, audio(4200)), sdp(B, audio(5200)), 2, 100), {}),
    ("the payload type is not in the SDP of the receiver", [], {"pt": 8}),
    ("the call was over", [], {"begin_ms": 31_500}),
    ("it goes on behind the call", [], {"packets": 1700}),
    ("it came before the call", [], {"begin_ms": -1500}),
    ("its port hears another stream already", talk((OTHER, 9000), (B, 5000), 9), {}),
    ("another stream could be it as well", talk((A, 6002), (B, 6102), 8, 700), {}),
    ("another host", [], {"source": (OTHER, 6000)}),
    ("too few packets to be RTP for certain", [], {"packets": 9}),
])
def test_ambiguous_stays_unbound(pcap: PcapWriter, why: str, more: Frames, media: dict[str, int]) -> None:
    source = media.pop("source", (A, 6000))
    got = streams(load(pcap, PLAIN, more, talk(source, (B, 6100), 1, **media)))  # type: ignore[arg-type]
    assert 1 not in got or bound(got[1]) == ("", None, None, None), why


def test_the_next_call_of_the_same_hosts_gets_its_own(pcap: PcapWriter) -> None:
    two = call(sdp(A, audio(4200)), sdp(B, audio(5200)), 2, 40_000)
    got = streams(load(pcap, PLAIN, two, talk((A, 6000), (B, 6100), 1), talk((A, 6000), (B, 6100), 2, 41_000)))
    assert [got[i].call_id for i in (1, 2)] == [CALL, "call2@a.example"]
    assert {s.bound_by for s in got.values()} == {"heuristic"}


def test_two_that_could_be_it_in_different_blocks(pcap: PcapWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netdiag.tables.rtp.BLOCK", 1)
    got = streams(load(pcap, PLAIN, talk((A, 6000), (B, 6100), 1), talk((A, 6002), (B, 6102), 2, 700)))
    assert [bound(s) for s in got.values()] == [("", None, None, None)] * 2
    assert all(s.heuristic for s in got.values())


# ---------------------------------------------------------------- ICE

def candidates(address: str, port: int, ufrag: str) -> str:
    return (f"candidate:1 1 UDP 2130706431 {address} {port} typ host|candidate:2 1 UDP 1694498815 {NAT} {port + 1} typ "
            f"srflx raddr {address} rport {port}|candidate:3 1 TCP 1 {address} 9 typ host|ice-ufrag:{ufrag}|"
            f"ice-pwd:{'p' * 22}")


ICE = call(sdp("10.0.0.1", audio(9, extra=candidates("10.0.0.1", 4000, "aaaa"))),
           sdp("10.0.0.2", audio(9, extra=candidates("10.0.0.2", 5000, "bbbb"))))


def check(source: tuple[str, int], to: tuple[str, int], username: str, answered: bool = True) -> Frames:
    def stun(kind: int, attributes: bytes) -> bytes:
        def head(size: int) -> bytes:
            return struct.pack(">HHI", kind, size, 0x2112A442) + b"transaction1"
        covered = head(len(attributes) + 8) + attributes
        mark = struct.pack(">HHI", 0x8028, 4, zlib.crc32(covered) ^ 0x5354554E)
        return head(len(attributes) + 8) + attributes + mark

    name = username.encode()
    asked = struct.pack(">HH", 6, len(name)) + name + bytes(-len(name) % 4) + struct.pack(">HHI", 0x24, 4, 1)
    out = [(T0 + 200 * MS, udp_frame(source[0], to[0], source[1], to[1], stun(1, asked)))]
    if answered:
        out.append((T0 + 220 * MS, udp_frame(to[0], source[0], to[1], source[1], stun(0x101, b""))))
    return out


def test_bound_by_a_candidate(pcap: PcapWriter) -> None:
    got = streams(load(pcap, ICE, talk((OTHER, 7000), (NAT, 5001), 1)))
    assert bound(got[1]) == ("ice", CALL, "caller", 0)


def test_bound_by_a_peer_reflexive_candidate(pcap: PcapWriter) -> None:
    # Nobody names 203.0.113.200:7000 or :7100; a check with the ufrags of both descriptions comes from there.
    checked = check((OTHER, 7000), (OTHER, 7100), "bbbb:aaaa")
    got = streams(load(pcap, ICE, checked, talk((OTHER, 7000), (OTHER, 7100), 1),
                       talk((OTHER, 7100), (OTHER, 7000), 2)))
    assert bound(got[1]) == ("ice", CALL, "caller", 0)
    assert bound(got[2]) == ("ice", CALL, "callee", 0)


@pytest.mark.parametrize(("username", "answered"), [("bbbb:aaaa", False), ("dddd:cccc", True)])
def test_checks_that_prove_nothing(pcap: PcapWriter, username: str, answered: bool) -> None:
    checked = check((OTHER, 7000), (OTHER, 7100), username, answered)
    got = streams(load(pcap, ICE, checked, talk((OTHER, 7000), (OTHER, 7100), 1)))
    assert bound(got[1]) == ("", None, None, None)


# ---------------------------------------------------------------- bundles

def bundle(port: int, audio_types: str = "0", video_types: str = "0", ssrcs: tuple[int, int] = (0, 0)) -> str:
    def lines(mid: str, ssrc: int) -> str:
        return (f"\r\na=mid:{mid}\r\na=rtcp-mux\r\na=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid"
                + (f"\r\na=ssrc:{ssrc} cname:x" if ssrc else ""))
    return sdp(A if port == 4000 else B, f"audio {port} RTP/AVP {audio_types}{lines('a0', ssrcs[0])}",
               f"video {port} RTP/AVP {video_types}{lines('v1', ssrcs[1])}", session="a=group:BUNDLE a0 v1\r\n")


def test_bundle_told_apart_by_payload_type(pcap: PcapWriter) -> None:
    said = call(bundle(4000, "0", "97\r\na=rtpmap:97 VP8/90000"), bundle(5000, "0", "97\r\na=rtpmap:97 VP8/90000"))
    got = streams(load(pcap, said, talk((A, 4000), (B, 5000), 1), talk((A, 4000), (B, 5000), 2, pt=97)))
    assert [bound(got[i]) for i in (1, 2)] == [("sdp", CALL, "caller", 0), ("sdp", CALL, "caller", 1)]
    assert [(got[i].codec, got[i].clock_rate) for i in (1, 2)] == [("PCMU", 8000), ("VP8", 90000)]


def test_one_port_for_two_lines_is_a_bundle_unsaid(pcap: PcapWriter) -> None:
    both = [bundle(port, "0", "97").replace("a=group:BUNDLE a0 v1\r\n", "") for port in (4000, 5000)]
    got = streams(load(pcap, call(*both), talk((A, 4000), (B, 5000), 1), talk((A, 4000), (B, 5000), 2, pt=97)))
    assert [got[i].media_index for i in (1, 2)] == [0, 1]


def test_bundle_of_an_offer_whose_lines_have_ports_of_their_own(pcap: PcapWriter) -> None:
    # RFC 9143 §7.2: once bundled, all media go to the port of the first line; here back to the offerer.
    offer = sdp(A, audio(4000, "0", "mid:a"), "video 4002 RTP/AVP 97\r\na=rtpmap:97 VP8/90000\r\na=mid:v",
                session="a=group:BUNDLE a v\r\n")
    got = streams(load(pcap, call(offer, bundle(5000, "0", "97")), talk((B, 5000), (A, 4000), 2, pt=97)))
    assert bound(got[2]) == ("sdp", CALL, "callee", 1)
    assert got[2].codec == "VP8"


def test_bundle_told_apart_by_ssrc(pcap: PcapWriter) -> None:
    said = call(bundle(4000, ssrcs=(21, 22)), bundle(5000))
    got = streams(load(pcap, said, talk((A, 4000), (B, 5000), 22), talk((A, 4000), (B, 5000), 21)))
    assert [got[i].media_index for i in (21, 22)] == [0, 1]


def test_no_more_than_so_many_are_compared(pcap: PcapWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netdiag.tables.rtp_bundles.COMPARED", 1)
    said = call(bundle(4000, ssrcs=(21, 22)), bundle(5000))
    got = streams(load(pcap, said, talk((A, 4000), (B, 5000), 21), talk((A, 4000), (B, 5000), 22)))
    assert [got[i].media_index for i in (21, 22)] == [0, None]


def test_bundle_told_apart_by_mid(pcap: PcapWriter) -> None:
    extension = struct.pack(">HH", 0xBEDE, 1) + b"\x31v1\0"
    got = streams(load(pcap, call(bundle(4000), bundle(5000)), talk((A, 4000), (B, 5000), 5, extension=extension)))
    assert bound(got[5]) == ("sdp", CALL, "caller", 1)


def test_bundle_that_nothing_tells_apart(pcap: PcapWriter) -> None:
    got = streams(load(pcap, call(bundle(4000), bundle(5000)), talk((A, 4000), (B, 5000), 5)))
    assert bound(got[5]) == ("sdp", CALL, "caller", None)
    assert got[5].codec == "PCMU"


def test_two_lines_at_ports_of_their_own_are_no_bundle(pcap: PcapWriter) -> None:
    offer = sdp(A, audio(4000), "video 4002 RTP/AVP 97\r\na=rtpmap:97 VP8/90000")
    got = streams(load(pcap, call(offer, sdp(B, audio(5000), "video 0 RTP/AVP 97")),
                       talk((B, 5000), (A, 4000), 2, pt=97)))
    assert bound(got[2]) == ("sdp", CALL, "callee", 0)


# ---------------------------------------------------------------- parts

@pytest.mark.parametrize(("packet", "found"), [
    (struct.pack(">HH", 0xBEDE, 1) + b"\x31v1\0", b"v1"),
    (struct.pack(">HH", 0xBEDE, 2) + b"\x10x\0\x32abc\0", b"abc"),
    (struct.pack(">HH", 0x1000, 2) + b"\x03\x02v1\0\0\0\0", b"v1"),
    (struct.pack(">HH", 0xBEDE, 1) + b"\xf1\x31v\0", None),
    (struct.pack(">HH", 0xBEDE, 1) + b"\x20\0\0\0", None),
    (struct.pack(">HH", 0x1234, 1) + b"\x31v1\0", None),
    (struct.pack(">HH", 0xBEDE, 9), None), (b"", None),
])
def test_header_extension(packet: bytes, found: bytes | None) -> None:
    assert header.extension(struct.pack(">BBHII", 0x90, 0, 1, 1, 1) + packet, 3) == found


def test_header_extension_behind_contributing_sources() -> None:
    packet = struct.pack(">BBHIII", 0x91, 0, 1, 1, 1, 77) + struct.pack(">HH", 0xBEDE, 1) + b"\x31v1\0"
    assert header.extension(packet, 3) == b"v1"
    assert header.extension(packet[:5], 3) is None
    assert header.extension(b"\x80" + packet[1:], 3) is None


def test_sources_of_sections() -> None:
    one, two = sdp_sources.sections(bundle(4000, ssrcs=(21, 4294967295)).encode())
    assert (one.ssrcs, one.mid, one.extension) == (frozenset({21}), b"a0", 3)
    assert two.ssrcs == frozenset({4294967295})
    assert sdp_sources.bundled(bundle(4000).encode())
    assert not sdp_sources.bundled(sdp(A, audio(4000)).encode())
    odd = b"v=0\r\nm=a\r\na=ssrc:\r\na=ssrc:x\r\na=ssrc:99999999999\r\na=extmap:\r\na=extmap:999999 b\r\na=mid:\r\n"
    assert sdp_sources.sections(odd) == [sdp_sources.Sources(frozenset(), b"", 0)]


def test_only_lines_that_a_flow_touches_are_kept(pcap: PcapWriter) -> None:
    silent = call(sdp(A, audio(4400)), sdp(B, audio(5400)), 2)
    tables = load(pcap, PLAIN, silent, talk((A, 4000), (B, 5000), 1))
    lines = rtp_lines.advertised(tables)
    assert sorted((lines.key & 0xFFFF).tolist()) == [4000, 5000]
    assert tables.media.filter(pl.col("port").is_in([4400, 5400])).height == 2


# ---------------------------------------------------------------- input made to cost more than its size

def one_call_of_many_offers(n: int) -> Frames:
    """Each offer, of either side, names another address; streams between all of them."""
    out = PLAIN[:3]
    for i in range(n):
        address = f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}"
        text = sdp(address, audio(4000 + i % 900, " ".join(map(str, range(96)))))
        ends, tags = ((A, B), ("f1", "t1")) if i % 2 else ((B, A), ("t1", "f1"))
        request = (f"INVITE sip:b@b.example SIP/2.0\r\nVia: SIP/2.0/UDP {ends[0]}:5060;branch=z9hG4bKr{i}\r\n"
                   f"From: <sip:a@a.example>;tag={tags[0]}\r\nTo: <sip:b@b.example>;tag={tags[1]}\r\n"
                   f"Call-ID: {CALL}\r\nCSeq: {i + 2} INVITE\r\nContent-Type: application/sdp\r\n"
                   f"Content-Length: {len(text)}\r\n\r\n{text}")
        out.append((T0 + (200 + i) * MS, udp_frame(*ends, 5060, 5060, request.encode())))
        out += talk((address, 6000), (B, 6100), i, 300 + n, 12)
    return out


def one_ssrc_of_many_calls(n: int) -> Frames:
    """The reports of all calls name the one SSRC that all streams have."""
    out = []
    for i in range(n):
        a, b = 10_000 + 2 * i % 20_000, 30_002 + 2 * i % 20_000
        out += call(sdp(A, audio(a)), sdp(B, audio(b)), i, i, 60_000)
        out += report((B, b + 1), (A, a + 1), 5, about=7, at_ms=1000 + i)
        out += talk((A, 50_000 + i % 10_000), (B, 6100), 7, 900 + i, 12)
    return out


def one_bundle_of_many_streams(n: int) -> Frames:
    """Nothing but MIDs, which are not there, could tell them apart; many calls beside."""
    out = call(bundle(4000), bundle(5000))
    for i in range(n):
        out += call(bundle(4000), bundle(5000), i + 2, 1000 + i)
        out += talk((A, 4000), (B, 5000), i, 500 + i % 400, 2)
    return out


@pytest.mark.parametrize("frames", [one_call_of_many_offers, one_ssrc_of_many_calls, one_bundle_of_many_streams])
def test_time_grows_with_size(pcap: PcapWriter, frames: Callable[[int], Frames]) -> None:
    times = []
    for n in (500, 2000):
        tables = load(pcap, frames(n))
        assert len(tables.media)
        begin = time.process_time()
        assert len(tables.rtp)
        times.append(time.process_time() - begin)
    assert times[1] < max(9 * times[0], 1.0), times
