"""File formats and link types: every one is read, says what is wrong with it, and is read as tshark or tcpdump do."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import re
import struct
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import zstandard
from capture_files import (
    LINUX,
    NOKIA,
    NS,
    SMP,
    classic,
    erf,
    frames,
    interface,
    lines,
    packet,
    read,
    record,
    section,
    snoop,
    statistics,
)
from checkout import ROOT, udp_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from link_frames import CASES

from netdiag.capture import chain, formats
from netdiag.capture.unpack import unpacked
from netdiag.decode import link_types
from netdiag.errors import CaptureError
from netdiag.tables.reader import open_captures

SAMPLE = ROOT / "captures" / "samples" / "sip" / "invite_timeout.hit.pcap"
DOCUMENT = ROOT / "docs" / "formats.md"


# pcap and its variants


def variant(magic: int = 0xA1B2C3D4, order: str = "<", version: tuple[int, int] = (2, 4), network: int = 1,
            more: bytes = b"", unit: int = 1000, extra: bytes = b"", swap: bool = False) -> bytes:
    records = [record(f, t, order, unit, extra, swap) for t, f in frames(5)]
    return classic(records, magic, order, version, network, more=more)


VARIANTS = {
    "microseconds": (variant(), "little-endian, µs"),
    "big-endian": (variant(order=">"), "big-endian, µs"),
    "nanoseconds": (variant(0xA1B23C4D, unit=1), "little-endian, ns"),
    "nanoseconds-big-endian": (variant(0xA1B23C4D, ">", unit=1), "big-endian, ns"),
    "modified": (variant(0xA1B2CD34, extra=LINUX), "modified, little-endian, µs"),
    "modified-smp": (variant(0xA1B2CD34, extra=SMP), "modified, SMP, little-endian, µs"),
    "modified-old-magic": (variant(extra=LINUX), "modified, little-endian, µs"),
    "nokia": (variant(extra=NOKIA), "Nokia, little-endian, µs"),
    "ixia-hardware": (variant(0x1C0001AC, more=b"\0" * 4, unit=1), "Ixia, little-endian, ns"),
    "ixia-software": (variant(0x1C0001AB, ">", more=b"\0" * 4), "Ixia, big-endian, µs"),
    "version-2.2": (variant(version=(2, 2), swap=True), "little-endian, µs, version 2.2"),
    "version-2.3": (variant(version=(2, 3)), "little-endian, µs, version 2.3"),
    "version-2.3-swapped": (variant(version=(2, 3), swap=True), "little-endian, µs, version 2.3"),
    "version-543": (variant(version=(543, 0), swap=True), "little-endian, µs, version 543.0"),
    "aix": (variant(order=">", version=(2, 2), network=6, unit=1, swap=True), "AIX, big-endian, ns, version 2.2"),
    "fcs-length": (variant(network=0x24000001), "little-endian, µs"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_pcap_variant(tmp_path: Path, name: str) -> None:
    content, form = VARIANTS[name]
    path = tmp_path / "x.pcap"
    path.write_bytes(content)
    got = read(path)
    assert got.notes.format == f"pcap ({form})"
    assert (got.notes.damage, got.notes.notes) == ("", [])
    assert got.frames == [f for _, f in frames(5)]
    assert got.wire == [len(f) + 5 for _, f in frames(5)]
    assert got.ts == [t for t, _ in frames(5)]
    assert got.links == [1] * 5
    assert got.notes.snaplen == 262144


def test_aix_fddi_has_padding_in_front(tmp_path: Path) -> None:
    frame = b"\x50" + b"\2" * 12 + bytes.fromhex("aaaa030000000800") + frames(1)[0][1][14:]
    path = tmp_path / "x.pcap"
    path.write_bytes(classic([record(b"\0\0\0" + frame, NS, ">", 1, swap=True)], order=">", version=(2, 2), network=15))
    got = read(path)
    assert (got.frames, got.links, got.wire) == ([frame], [10], [len(frame) + 5])


def test_damaged_plain_pcap_is_not_taken_for_a_variant(tmp_path: Path) -> None:
    good = variant()
    for broken in (good[: 24 + 16 + 30], good[:40] + b"\xff" * 40 + good[80:], good[:24] + bytes(16) + good[40:]):
        path = tmp_path / "x.pcap"
        path.write_bytes(broken)
        assert read(path).notes.format == "pcap (little-endian, µs)"


@pytest.mark.parametrize(("content", "says"), [
    (classic([], version=(1, 9)), "pcap version 1.9 is not known"),
    (classic([], 0x1C0001AC)[:26], "the pcap file header is cut \\(24 of 28 bytes\\)"),
    (b"snoop\0\0\0\0\0\0\x09\0\0\0\4", "snoop version 9 is not known"),
    (b"snoop\0\0\0\0\0", "snoop file header is cut")])
def test_files_that_cannot_be_used_say_why(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=says):
        read(path)


def test_reserved_bits_of_the_link_type_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(variant(network=0x02240065))
    got = read(path)
    assert got.links == [101] * 5
    assert "0x02240065" in got.notes.notes[0]


@pytest.mark.parametrize(("magic", "order"), [(0xA1B2C3D4, "<"), (0xA1B2C3D4, ">"), (0xA1B23C4D, "<")])
def test_files_put_one_behind_the_other_end_with_the_first(tmp_path: Path, magic: int, order: str) -> None:
    """The second header would be a record of 2055 or so, and its fields the start of others."""
    path = tmp_path / "x.pcap"
    path.write_bytes(variant() + variant(magic, order))
    got = read(path)
    assert got.ts == [t for t, _ in frames(5)]
    assert f"another pcap file header where frame 6 should start, at byte {len(variant())}" in got.notes.damage


def test_an_empty_record_of_that_second_is_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    odd = struct.pack("<IIII", 0xA1B2C3D4, 7, 0, 0)
    path.write_bytes(variant() + odd + variant()[24:])
    got = read(path)
    assert (len(got.frames), got.notes.damage) == (11, "")


# Sun snoop


def test_snoop(tmp_path: Path) -> None:
    path = tmp_path / "x.snoop"
    path.write_bytes(snoop(frames(5), drops=3))
    got = read(path)
    assert (got.notes.format, got.notes.damage, got.notes.drops) == ("snoop", "", 12)
    assert got.frames == [f for _, f in frames(5)]
    assert got.wire == [len(f) + 5 for _, f in frames(5)]
    assert got.ts == [t for t, _ in frames(5)]
    assert got.links == [1] * 5


@pytest.mark.parametrize(("datalink", "trailer", "link_type"), [
    (0, 0, 1), (2, 0, 6), (8, 0, 10), (14, 0, 0), (16, 0, 122), (0x80000005, 0, 226), (12, 20, 1), (13, 16, 6)])
def test_snoop_link_types(tmp_path: Path, datalink: int, trailer: int, link_type: int) -> None:
    path = tmp_path / "x.snoop"
    path.write_bytes(snoop(frames(3), datalink, trailer))
    got = read(path)
    assert got.links == [link_type] * 3
    assert got.notes.format == ("snoop (Surveyor)" if trailer else "snoop")
    assert not got.notes.notes


def test_snoop_of_an_unknown_link_type_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.snoop"
    path.write_bytes(snoop(frames(3), 5))
    got = read(path)
    assert len(got.frames) == 3
    assert got.notes.notes == ["frames of snoop datalink type 5 are not decoded"]


@pytest.mark.parametrize(("keep", "says"), [
    (-1, "cut in frame 3"), (16 + 20, "cut in the record header of frame 1 at byte 16 (20 of 24 bytes)"),
    (16 + 24 + 5, "cut in frame 1 at byte 16: 5 of")])
def test_cut_snoop_says_where(tmp_path: Path, keep: int, says: str) -> None:
    path = tmp_path / "x.snoop"
    path.write_bytes(snoop(frames(3))[:keep])
    assert says in read(path).notes.damage


def test_snoop_record_that_contradicts_itself_ends_the_reading(tmp_path: Path) -> None:
    content = bytearray(snoop(frames(3)))
    content[16 + 8 : 16 + 12] = struct.pack(">I", 30)  # shorter than what it holds
    path = tmp_path / "x.snoop"
    path.write_bytes(content)
    assert read(path).notes.damage.startswith("frame 1 at byte 16 has lengths that contradict each other")


# Endace ERF


PAD = struct.pack("<QBB", 0, 48, 0) + struct.pack(">HHH", 16, 0, 0)


@pytest.mark.parametrize("extensions", [0, 1, 3])
def test_erf(tmp_path: Path, extensions: int) -> None:
    path = tmp_path / "x.erf"
    items = frames(5)
    path.write_bytes(erf(items[:2], extensions=extensions, lost=3) + PAD + erf(items[2:], extensions=extensions))
    got = read(path)
    assert (got.notes.format, got.notes.damage, got.notes.drops) == ("ERF", "", 6)
    assert got.frames == [f for _, f in items]
    assert got.links == [1] * 5
    assert got.ts == [t for t, _ in items]


@pytest.mark.parametrize(("kind", "link_type", "frame"), [
    (1, 50, b"\xff\x03\0\x21" + udp_frame()[14:]), (22, 101, udp_frame()[14:]), (27, 197, b"\0" * 32)])
def test_erf_record_types(tmp_path: Path, kind: int, link_type: int, frame: bytes) -> None:
    path = tmp_path / "x.erf"
    path.write_bytes(erf([(NS, frame)] * 2, kind))
    got = read(path)
    assert got.links == [link_type] * 2
    assert got.frames == [frame] * 2


def test_cut_erf_says_where(tmp_path: Path) -> None:
    whole = erf(frames(4))
    path = tmp_path / "x.erf"
    path.write_bytes(whole[:-3])
    got = read(path)
    assert len(got.frames) == 3
    assert got.notes.damage.startswith("cut in frame 4 at byte ")


def test_other_files_are_not_taken_for_erf() -> None:
    noise = np.random.default_rng(7)
    assert sum(formats.reader(noise.bytes(5000)) is not None for _ in range(2000)) <= 2
    assert formats.reader(b"hello, this is a text file\n" * 300) is None
    assert formats.reader(b"\0" * 5000) is None
    assert formats.reader(b"") is None


# All formats


def _files() -> dict[str, bytes]:
    blocks = section() + interface() + b"".join(packet(f, t // 1000) for t, f in frames(6))
    return {"pcap": variant(), "modified": VARIANTS["modified"][0], "aix": VARIANTS["aix"][0],
            "snoop": snoop(frames(6)), "erf": erf(frames(6)), "pcapng": blocks + statistics(0, (5, 1))}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_ends_in_frames_and_one_line(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(_files()[data.draw(st.sampled_from(sorted(_files())))])
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from([0, 1, 2, 127, 128, 255]))
    raw = raw[: data.draw(st.integers(1, len(raw)))]
    path = tmp_path / "x"
    path.write_bytes(raw)
    try:
        got = read(path)
    except CaptureError as error:
        if len(str(error).splitlines()) != 1:
            raise
    else:
        if len(got.notes.damage.splitlines()) > 1:
            raise AssertionError(got.notes.damage)


@pytest.mark.parametrize("name", sorted(_files()))
def test_a_compressed_file_gives_the_same_frames(tmp_path: Path, name: str) -> None:
    path, packed = tmp_path / "x", tmp_path / "x.gz"
    path.write_bytes(_files()[name])
    packed.write_bytes(gzip.compress(_files()[name]))
    plain, streamed = open_captures([str(path)]), open_captures([str(packed)])
    assert plain.captures[0].complete
    assert plain.captures[0].frames == plain.captures[0].decoded == len(read(path).frames)
    assert streamed.captures[0].format == plain.captures[0].format + ", gzip"
    assert streamed.packets.ts.tolist() == plain.packets.ts.tolist() == read(path).ts
    assert [streamed.packets.payload(i) for i in range(5)] == [plain.packets.payload(i) for i in range(5)]


SKIPPED = struct.pack("<II", 0x184D2A53, 7) + b"skipped"
"""A frame without content, of zstd and LZ4."""
PACKERS: dict[str, tuple[Callable[[bytes], bytes], bytes]] = {
    "gzip": (gzip.compress, b""), "zstd": (zstandard.ZstdCompressor().compress, SKIPPED),
    "xz": (lzma.compress, bytes(8)), "bzip2": (bz2.compress, b""),
    "lz4": (lambda data: bytes(lz4.frame.compress(data)), SKIPPED)}
"""How one part of a file is packed, and what may stand between two parts."""


@pytest.mark.parametrize("kind", PACKERS)
def test_a_file_of_several_compressed_parts_is_whole(tmp_path: Path, kind: str) -> None:
    pack, between = PACKERS[kind]
    content, path = variant(), tmp_path / "x"
    parts = [pack(content[at : at + 99]) for at in range(0, len(content), 99)]
    path.write_bytes(between.join(parts) + (b"" if kind == "zstd" else bytes(512)))
    tables = open_captures([str(path)])
    assert (tables.captures[0].complete, tables.captures[0].frames) == (True, 5)


@pytest.mark.parametrize("kind", PACKERS)
def test_what_is_behind_the_compressed_stream_is_said(tmp_path: Path, kind: str) -> None:
    """It may be the next part, damaged where it says what it is."""
    pack, _ = PACKERS[kind]
    path = tmp_path / "x"
    path.write_bytes(pack(variant()) + b"\x11" + pack(variant())[1:])
    (capture,) = open_captures([str(path)]).captures
    assert (capture.complete, capture.frames) == (False, 5)
    assert capture.damage.startswith(f"{kind} stream is cut or damaged after {len(variant())} unpacked bytes")


def test_zstd_may_begin_with_a_frame_without_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(SKIPPED + zstandard.ZstdCompressor().compress(variant()) + SKIPPED)
    (capture,) = open_captures([str(path)]).captures
    assert (capture.complete, capture.frames, capture.format) == (True, 5, "pcap (little-endian, µs), zstd")


def zstd_frame(blocks: list[bytes], checksum: bytes = b"") -> bytes:
    """Uncompressed blocks, so that a cut can fall between two of them."""
    out = struct.pack("<IBB", 0xFD2FB528, 4 if checksum else 0, 0x58)
    for i, data in enumerate(blocks):
        out += (len(data) << 3 | (i == len(blocks) - 1)).to_bytes(3, "little") + data
    return out + checksum


def test_a_zstd_stream_that_ends_before_its_end_is_cut(tmp_path: Path) -> None:
    """The plain bytes before the cut end with a record here: nothing else shows that there were more."""
    content, path = variant(), tmp_path / "x"
    size = 24 + len(record(frames(1)[0][1], NS))
    whole = zstd_frame([content[:size], content[size:]])
    path.write_bytes(whole)
    assert open_captures([str(path)]).captures[0].complete
    for cut in (6 + 3 + size, 6 + 3 + size + 2):
        path.write_bytes(SKIPPED + whole[:cut])
        (capture,) = open_captures([str(path)]).captures
        assert (capture.complete, capture.frames) == (False, 1)
        assert capture.damage == (
            f"zstd stream is cut or damaged after {size} unpacked bytes (it ends before its end mark)")
    path.write_bytes(whole[:9])
    with pytest.raises(CaptureError, match="zstd stream is cut or damaged after 0 unpacked bytes"):
        open_captures([str(path)])


def zstd_part(content: bytes, level: int, checksum: bool, sized: bool) -> bytes:
    packer = zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=sized)
    return packer.compress(content)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=3000), st.sampled_from([1, 3, 19]), st.booleans(), st.booleans())),
       st.integers(1, 400), st.data())
def test_the_end_of_every_zstd_file_is_known(
        parts: list[tuple[bytes, int, bool, bool]], step: int, data: st.DataObject) -> None:
    packed = [piece for part in parts for piece in (zstd_part(*part), SKIPPED)]
    whole = b"".join(packed)
    assert b"".join(unpacked("zstd", Slow(whole, step))) == b"".join(content for content, *_ in parts)
    cut = data.draw(st.integers(0, len(whole)))
    if cut in {0, *itertools.accumulate(len(p) for p in packed)}:
        list(unpacked("zstd", Slow(whole[:cut], step)))
    else:
        with pytest.raises(EOFError, match="before its end mark"):
            list(unpacked("zstd", Slow(whole[:cut], step)))


class Slow(io.BytesIO):
    """A stream that hands out ``step`` bytes at a time, as a pipe may."""

    def __init__(self, content: bytes, step: int) -> None:
        super().__init__(content)
        self._step = step

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(self._step, self._step if size is None or size < 0 else size))


@pytest.mark.parametrize("name", ["pcap", "modified", "snoop", "erf"])
def test_walking_together_equals_walking_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    items = frames(4000)
    path = tmp_path / "x"
    path.write_bytes({
        "pcap": lambda: classic([record(f, t) for t, f in items]),
        "modified": lambda: classic([record(f, t, extra=LINUX) for t, f in items], 0xA1B2CD34),
        "snoop": lambda: snoop(items), "erf": lambda: erf(items)}[name]())
    walked: list[bool] = []
    whole = chain.walk

    def spy(*args: object, **named: object) -> object:
        result = whole(*args, **named)  # type: ignore[arg-type]
        walked.append(result is not None)
        return result

    monkeypatch.setattr(chain, "walk", spy)
    fast = read(path)
    assert walked == [True]
    monkeypatch.setattr(chain, "walk", lambda *a, **k: None)
    slow = read(path)
    assert fast.frames == slow.frames == [f for _, f in items]
    assert fast.ts == slow.ts


# Agreement


def theirs(path: Path) -> list[tuple[int, int, int]]:
    """Time, captured and wire length of each frame by tshark."""
    rows = lines("tshark", "-r", str(path), "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.cap_len", "-e",
                 "frame.len")
    return [(int(Decimal(ts) * 10**9), int(captured), int(wire)) for ts, captured, wire in rows]


def ours(path: Path) -> list[tuple[int, int, int]]:
    got = read(path)
    return [(t, len(f), w) for t, f, w in zip(got.ts, got.frames, got.wire, strict=True)]


@pytest.mark.tshark
@pytest.mark.parametrize("form", ["pcap", "nsecpcap", "modpcap", "nokiapcap", "rh6_1pcap", "suse6_3pcap", "snoop",
                                  "pcapng"])
def test_what_editcap_writes_is_read_as_tshark_reads_it(tmp_path: Path, form: str) -> None:
    path = tmp_path / "x"
    subprocess.run(["editcap", "-F", form, str(SAMPLE), str(path)], check=True, capture_output=True)
    assert len(theirs(path)) == len(ours(SAMPLE)) > 0
    assert ours(path) == theirs(path)


@pytest.mark.tshark
@pytest.mark.parametrize("name", [*VARIANTS, "snoop", "erf", "erf-extended"])
def test_crafted_files_are_read_as_tshark_reads_them(tmp_path: Path, name: str) -> None:
    others = {"snoop": snoop(frames(5)), "erf": erf(frames(5)), "erf-extended": erf(frames(5), extensions=2)}
    path = tmp_path / "x"
    path.write_bytes(others[name] if name in others else VARIANTS[name][0])
    mine, other = ours(path), theirs(path)
    if name == "ixia-hardware":  # Wireshark 4.0 takes its nanoseconds for microseconds (its issue 14073)
        mine, other = [(0, *row[1:]) for row in mine], [(0, *row[1:]) for row in other]
    assert len(other) == 5
    assert mine == other


# The document


def test_document_names_every_link_type_and_real_tests() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `?(\w+)`? \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    by_link = {int(number): (name, cases) for number, name, cases in rows}
    assert set(by_link) == set(link_types.DECODED)
    names = {c.name: c.link for c in CASES}
    for number, (name, cases) in by_link.items():
        assert name == link_types.NAMES[number]
        cited = re.findall(r"`([\w-]+)`", cases)
        assert cited, number
        assert {names[c] for c in cited} == {number}, number
    assert set(re.findall(r"\[([\w.-]+)\]`", text)) <= set(VARIANTS) | set(names)
    for file, test in re.findall(r"`tests/(\w+\.py)::(\w+)", text):
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test
