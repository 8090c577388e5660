"""Formats, damage and accounting: what can be read is read, what cannot is said, and nothing is lost."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard
from checkout import PcapWriter, real_captures, udp_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netdiag.capture import chain
from netdiag.capture import pcapng as pcapng_format
from netdiag.errors import CaptureError
from netdiag.tables.reader import open_captures

NS = 1_767_225_600_000_000_000


def frames(n: int) -> list[tuple[int, bytes]]:
    return [(NS + i * 20_000_001, udp_frame(sport=4000 + i % 7, payload=bytes([i % 251]) * (20 + i % 90)))
            for i in range(n)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("ns", [True, False])
def test_byte_orders_and_resolutions(pcap: PcapWriter, order: str, ns: bool) -> None:
    tables = open_captures([str(pcap(frames(5), order=order, ns=ns))])
    expected = [t if ns else t // 1000 * 1000 for t, _ in frames(5)]
    assert tables.packets.ts.tolist() == expected
    assert tables.packets.sport.tolist() == [4000, 4001, 4002, 4003, 4004]
    assert tables.packets.payload(3) == b"\x03" * 23


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress, lzma.compress])
def test_compressed(pcap: PcapWriter, tmp_path: Path, pack) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "packed"
    path.write_bytes(pack(pcap(frames(50)).read_bytes()))
    tables = open_captures([str(path)])
    assert tables.captures[0].frames == 50
    assert tables.captures[0].complete


def test_cut_gzip_is_read_as_far_as_it_goes(pcap: PcapWriter, tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    plain = pcap([(NS + i, udp_frame(payload=noise.bytes(500))) for i in range(400)])
    path = tmp_path / "cut.pcap.gz"
    packed = gzip.compress(plain.read_bytes())
    path.write_bytes(packed[: len(packed) * 2 // 3])
    summary = open_captures([str(path)]).captures[0]
    assert 100 < summary.frames < 400
    assert not summary.complete
    assert "gzip stream is cut" in summary.damage


def test_standard_input(pcap: PcapWriter) -> None:
    code = ("from netdiag.tables.reader import open_captures as o; t = o(['-']); "
            "print(t.captures[0].frames, t.captures[0].sha256)")
    data = pcap(frames(9)).read_bytes()
    out = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    import hashlib
    assert out.stdout.decode().split() == ["9", hashlib.sha256(data).hexdigest()]


@pytest.mark.parametrize(("keep", "says"), [
    (-7, "cut in frame 20"), (24 + 5, "cut in the record header of frame 1"),
    (24 + 16 + 3, "cut in frame 1 at byte 24")])
def test_cut_pcap_says_where(pcap: PcapWriter, keep: int, says: str) -> None:
    path = pcap(frames(20))
    path.write_bytes(path.read_bytes()[:keep])
    summary = open_captures([str(path)]).captures[0]
    assert says in summary.damage
    assert not summary.complete


def test_length_that_cannot_be_believed_stops_the_reading(pcap: PcapWriter) -> None:
    path = pcap(frames(3))
    data = bytearray(path.read_bytes())
    second = 24 + 16 + len(frames(1)[0][1])
    data[second + 8 : second + 12] = struct.pack("<I", 300_000)
    path.write_bytes(data)
    summary = open_captures([str(path)]).captures[0]
    assert summary.frames == 1
    assert "frame 2" in summary.damage
    assert "300000" in summary.damage


def test_record_longer_than_the_snap_length_is_noted(pcap: PcapWriter) -> None:
    path = pcap(frames(3))
    data = bytearray(path.read_bytes())
    data[16:20] = struct.pack("<I", 40)
    path.write_bytes(data)
    summary = open_captures([str(path)]).captures[0]
    assert summary.frames == 3
    assert summary.complete
    assert "3 frames are longer than the snap length 40" in summary.notes[0]


@pytest.mark.parametrize(("content", "says"), [
    (b"", "empty"), (b"hello, this is a text file\n" * 3, "text file"), (b"\x00\x01\x02\x03" * 20, "not a capture"),
    (b"\xd4\xc3\xb2\xa1\x02\x00", "file header is cut")])
def test_useless_files(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=says) as caught:
        open_captures([str(path)])
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_such_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file"):
        open_captures([str(tmp_path / "absent.pcap")])
    with pytest.raises(CaptureError, match="is a directory"):
        open_captures([str(tmp_path)])


def test_point_given_twice(pcap: PcapWriter) -> None:
    path = str(pcap(frames(1)))
    with pytest.raises(CaptureError, match="given twice"):
        open_captures([], [("inside", path), ("inside", path)])


def test_unknown_link_type_is_named_and_counted(pcap: PcapWriter) -> None:
    summary = open_captures([str(pcap(frames(4), link=195))]).captures[0]
    assert summary.skipped == {"link type 195 (IEEE802_15_4_WITHFCS)": 4}
    assert summary.decoded == 0
    assert summary.complete


def test_capture_without_ip(pcap: PcapWriter) -> None:
    arp = b"\xff" * 6 + b"\x02" * 6 + b"\x08\x06" + b"\x00" * 28
    tables = open_captures([str(pcap([(NS, arp)] * 3))])
    assert tables.captures[0].skipped == {"ARP": 3}
    assert len(tables.packets.flow_start) == 0


def test_empty_gzip_member_and_several_members(pcap: PcapWriter, tmp_path: Path) -> None:
    data = pcap(frames(30)).read_bytes()
    path = tmp_path / "members.gz"
    path.write_bytes(gzip.compress(data[:500]) + gzip.compress(b"") + gzip.compress(data[500:]) + b"\x00" * 64)
    assert open_captures([str(path)]).captures[0].frames == 30


def test_rotated_files_in_any_order_are_one_point(pcap: PcapWriter) -> None:
    first, second = pcap(frames(20)[:10]), pcap(frames(20)[10:])
    tables = open_captures([str(second), str(first)])
    assert tables.points == ("capture",)
    assert tables.packets.ts.tolist() == sorted(tables.packets.ts.tolist())
    capture, frame = tables.packets.locate([0, 9, 10, 19])
    assert capture.tolist() == [1, 1, 0, 0]
    assert frame.tolist() == [1, 10, 1, 10]


def test_overlapping_files_of_one_point_are_interleaved(pcap: PcapWriter) -> None:
    all_frames = frames(20)
    even, odd = pcap(all_frames[::2]), pcap(all_frames[1::2])
    packets = open_captures([str(even), str(odd)]).packets
    assert packets.ts.tolist() == [t for t, _ in all_frames]
    capture, frame = packets.locate([0, 1, 18, 19])
    assert capture.tolist() == [0, 1, 0, 1]
    assert frame.tolist() == [1, 1, 10, 10]


def test_points_do_not_share_flows(pcap: PcapWriter) -> None:
    path = str(pcap(frames(14)))
    tables = open_captures([], [("a", path), ("b", path)])
    assert len(tables.packets.flow_start) == 14
    assert set(tables.packets.points(np.arange(28)).tolist()) == {0, 1}


def _block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += b"\x00" * (-len(body) % 4)
    size = len(body) + 12
    return struct.pack(order + "II", kind, size) + body + struct.pack(order + "I", size)


def _option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + b"\x00" * (-len(value) % 4)


def section(order: str = "<") -> bytes:
    return _block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(order: str = "<", link: int = 1, options: bytes = b"", snaplen: int = 0) -> bytes:
    return _block(1, struct.pack(order + "HHI", link, 0, snaplen) + options, order)


def packet(frame: bytes, ticks: int, order: str = "<", which: int = 0, options: bytes = b"") -> bytes:
    body = struct.pack(order + "IIIII", which, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return _block(6, body + frame + b"\x00" * (-len(frame) % 4) + options, order)


@pytest.mark.parametrize(("resolution", "ticks", "ns"), [
    (6, 1_767_225_600_000_001, 1_767_225_600_000_001_000), (9, NS + 1, NS + 1), (3, 1_767_225_600_001, NS + 1_000_000),
    (12, 5_000_000_000_123, 5_000_000_000), (0x80 | 10, (7 << 10) + 512, 7_500_000_000)])
def test_pcapng_time_resolutions(tmp_path: Path, resolution: int, ticks: int, ns: int) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(section() + interface(options=_option(9, bytes([resolution]))) + packet(udp_frame(), ticks))
    assert open_captures([str(path)]).packets.ts.tolist() == [ns]


def test_pcapng_sections_of_both_byte_orders_comments_secrets_and_drops(tmp_path: Path) -> None:
    secret = b"CLIENT_RANDOM 00 11\n"
    path = tmp_path / "a.pcapng"
    path.write_bytes(
        section() + interface(options=_option(11, b"\x00udp port 5060"))
        + packet(udp_frame(), 1, options=_option(1, b"odd one"))
        + _block(10, struct.pack("<II", 0x544C534B, len(secret)) + secret)
        + _block(5, struct.pack("<III", 0, 0, 0) + _option(5, struct.pack("<Q", 17)))
        + section(">") + interface(">", link=101) + packet(udp_frame()[14:], 2, ">"))
    tables = open_captures([str(path)])
    assert tables.captures[0].frames == 2
    assert tables.captures[0].decoded == 2
    assert tables.captures[0].comments == ("odd one",)
    assert tables.secrets == (secret,)
    assert tables.interface_drops == {"capture": 17}
    assert tables.capture_filters == {"capture": "udp port 5060"}


@pytest.mark.parametrize(("tail", "says"), [
    (_block(6, b"\x00" * 20)[:-2], "cut in a block"),
    (struct.pack("<II", 6, 30) + b"\x00" * 30, "claims a length of 30"),
    (_block(6, struct.pack("<IIIII", 0, 0, 0, 5000, 5000) + b"\x00" * 40), "claims 5000 captured bytes"),
    (_block(6, struct.pack("<IIIII", 9, 0, 0, 4, 4) + b"\x00" * 4), "names interface 9"),
    (struct.pack("<II", 6, 32) + b"\x00" * 20 + struct.pack("<I", 36), "two lengths differ")])
def test_broken_pcapng_block(tmp_path: Path, tail: bytes, says: str) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(section() + interface() + packet(udp_frame(), 1) + tail)
    summary = open_captures([str(path)]).captures[0]
    assert summary.frames == 1
    assert says in summary.damage


@pytest.mark.parametrize("path", real_captures(), ids=lambda p: p.name)
def test_accounting_adds_up_on_real_captures(path: Path) -> None:
    summary = open_captures([str(path)]).captures[0]
    assert summary.frames == summary.decoded + sum(summary.skipped.values())


def _big(tmp_path: Path, n: int) -> tuple[Path, Path]:
    """The same frames as pcap and pcapng, larger than one cursor's walk, with a pcap inside as payload."""
    inner = struct.pack("<IIII", 1_767_225_600, 5, 90, 90) + udp_frame()
    all_frames = [(NS + i * 1000, udp_frame(payload=(inner * 12)[: 40 + i % 900])) for i in range(n)]
    classic = b"".join([struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)] + [
        struct.pack("<IIII", t // 10**9, t % 10**9, len(f), len(f)) + f for t, f in all_frames])
    blocks = section() + interface(options=_option(9, b"\x09")) + b"".join(packet(f, t) for t, f in all_frames)
    (tmp_path / "big.pcap").write_bytes(classic)
    (tmp_path / "big.pcapng").write_bytes(blocks)
    return tmp_path / "big.pcap", tmp_path / "big.pcapng"


def test_lockstep_walk_equals_walking_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classic, blocks = _big(tmp_path, 6000)
    fast = [open_captures([str(p)]).packets for p in (classic, blocks)]
    monkeypatch.setattr(chain, "walk", lambda *a, **k: None)
    monkeypatch.setattr(pcapng_format, "walk", lambda *a, **k: None)
    slow = [open_captures([str(p)]).packets for p in (classic, blocks)]
    for one, other in zip(fast, slow, strict=True):
        assert one.n == 6000
        assert (one.offset == other.offset).all()
    assert (fast[0].ts == fast[1].ts).all()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_ends_in_a_report_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(["a.pcap", "a.pcapng"]))
    whole = (struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1) + b"".join(
        struct.pack("<IIII", 1, 2, len(f), len(f)) + f for _, f in frames(6))) if source == "a.pcap" else (
        section() + interface() + b"".join(packet(f, t) for t, f in frames(6)))
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(1, len(raw)))]
    path = tmp_path / source
    path.write_bytes(raw)
    try:
        summary = open_captures([str(path)]).captures[0]
    except CaptureError as error:
        if len(str(error).splitlines()) != 1:
            raise
    else:
        assert summary.frames == summary.decoded + sum(summary.skipped.values())


def test_nothing_stays_open(pcap: PcapWriter) -> None:
    path = str(pcap(frames(3)))
    open_captures([path])
    before = len(os.listdir("/proc/self/fd"))
    open_captures([path]).captures[0]
    assert len(os.listdir("/proc/self/fd")) == before
