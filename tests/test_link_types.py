"""Link types: what a frame carries is found in it, as tshark or tcpdump find it, and nothing behind its end is read."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from capture_files import NS, classic, interface, lines, packet, record, section
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from link_frames import CASES, V4, V6, Case

from netdiag.capture.space import Space
from netdiag.decode import encap, link, link_types
from netdiag.decode.ethertype import CUT, IP4, IP6, UNKNOWN_LINK
from netdiag.tables.reader import open_captures

TICKS = NS // 1000


def network(space: Space, number: int, offset: list[int], end: list[int]) -> tuple[list[int], list[int]] | None:
    """Where the IP header starts and its EtherType, after tags and labels were followed."""
    found = link_types.strip(space, number, np.array(offset, np.int64), np.array(end, np.int64))
    if found is None:
        return None
    inner = link.follow(space, found[0], found[1], np.array(end, np.int64), encap.Paths())
    return inner.at.tolist(), inner.protocol.tolist()


def space_of(path: Path, content: bytes) -> Space:
    path.write_bytes(content)
    with path.open("rb") as file:
        return Space([(file.fileno(), len(content))])


def found_in(path: Path, case: Case) -> str | int:
    space = space_of(path, case.frame)
    if case.link == 1:
        start: tuple[list[int], list[int]] | None = [14], [IP4]
    else:
        start = network(space, case.link, [0], [len(case.frame)])
    assert start is not None
    (at,), (protocol,) = start
    if protocol == IP4:
        return ".".join(str(b) for b in space.read(at + 12, 4))
    if protocol == IP6:
        import ipaddress
        return str(ipaddress.ip_address(space.read(at + 8, 16)))
    return protocol


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_link_type(tmp_path: Path, case: Case) -> None:
    assert found_in(tmp_path / "frame", case) == case.found


@pytest.mark.parametrize("case", [c for c in CASES if isinstance(c.found, str)], ids=lambda c: c.name)
def test_link_type_from_the_file_to_the_packet(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(section() + interface(case.link) + packet(case.frame, NS // 1000))
    tables = open_captures([str(path)])
    assert tables.captures[0].skipped == {}
    assert tables.packets.dport.tolist() == [5000]
    assert tables.packets.payload(0) == b"x" * 20


def test_every_cut_of_every_frame_is_cut_or_no_ip_header(tmp_path: Path) -> None:
    """A frame that is cut before its IP header never gets one from the bytes behind it."""
    for case in CASES:
        if case.link == 1 or not isinstance(case.found, str):
            continue
        behind = b"\x45\x00" * 200
        for size in range(len(case.frame) - 40):
            space = space_of(tmp_path / "frame", case.frame[:size] + behind)
            start = network(space, case.link, [0], [size])
            assert start is not None
            at, protocol = start[0][0], start[1][0]
            if protocol in (IP4, IP6):
                assert at <= size, (case.name, size)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.sampled_from(sorted(link_types.DECODED - {1})),
       case=st.sampled_from(CASES), noise=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=12),
       cut=st.integers(0, 120))
def test_any_bytes_of_any_link_type_stay_inside_the_frame(
        tmp_path: Path, number: int, case: Case, noise: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(case.frame[: cut or None])
    for place, value in noise:
        if place < len(data):
            data[place] = value
    end = np.array([len(data), 0, len(data)], np.int64)
    start = link_types.strip(space_of(tmp_path / "frame", bytes(data)), number, np.zeros(3, np.int64), end)
    if start is None:
        raise AssertionError(number)
    at, protocol = start
    if (at > end + 512).any() or (at < 0).any():  # a length from the wire moves nothing beyond the end
        raise AssertionError(at)
    if ((at > end) & ~np.isin(protocol, (CUT, *link_types.REASONS))).any():
        raise AssertionError((at, protocol))


def test_many_frames_of_one_type_are_told_apart(tmp_path: Path) -> None:
    """Columns: each row gets its own answer, whatever its neighbours are."""
    for number in {c.link for c in CASES} - {1}:
        mine = [c for c in CASES if c.link == number]
        space = space_of(tmp_path / "frames", b"".join(c.frame for c in mine))
        ends = np.cumsum([len(c.frame) for c in mine]).tolist()
        starts = [0, *ends[:-1]]
        together = network(space, number, starts, ends)
        alone = [network(space, number, [a], [b]) for a, b in zip(starts, ends, strict=True)]
        assert together == ([a[0][0] for a in alone if a], [a[1][0] for a in alone if a])


def test_unknown_link_type_is_left_to_the_caller(tmp_path: Path) -> None:
    assert network(space_of(tmp_path / "frame", b"\0" * 40), 189, [0], [40]) is None
    assert link_types.NAMES[189] == "USB_LINUX"
    assert set(link_types.DECODED) <= set(link_types.NAMES)


def test_headers_in_headers_end(tmp_path: Path) -> None:
    case = next(c for c in CASES if c.name == "ppi-raw")
    nested = b"".join([struct.pack("<BBHI", 0, 0, 8, 192)] * 20) + case.frame
    start = network(space_of(tmp_path / "frame", nested), 192, [0], [len(nested)])
    assert start is not None
    assert start[1] == [UNKNOWN_LINK]
    twice = struct.pack("<BBHI", 0, 0, 8, 192) + case.frame
    start = network(space_of(tmp_path / "frame", twice), 192, [0], [len(twice)])
    assert start is not None
    assert start[1] == [IP4]


@pytest.mark.tshark
def test_addresses_of_all_link_types_agree_with_tshark(tmp_path: Path) -> None:
    known = [c for c in CASES if c.by == "tshark"]
    path = tmp_path / "x.pcapng"
    path.write_bytes(section() + b"".join(interface(c.link) for c in known)
                     + b"".join(packet(c.frame, TICKS + i, i) for i, c in enumerate(known)))
    rows = lines("tshark", "-r", str(path), "-T", "fields", "-e", "ip.src", "-e", "ipv6.src", "-e", "udp.dstport")
    assert len(rows) == len(known)
    differing = [c.name for c, row in zip(known, rows, strict=True)
                 if row[:2] != {V4: [V4, ""], V6: ["", V6]}.get(str(c.found), ["", ""])
                 or row[2] != ("5000" if isinstance(c.found, str) else "")]
    assert differing == []


@pytest.mark.tshark
@pytest.mark.parametrize("case", [c for c in CASES if c.by == "tcpdump"], ids=lambda c: c.name)
def test_addresses_agree_with_tcpdump(tmp_path: Path, case: Case) -> None:
    if not shutil.which("tcpdump"):
        pytest.skip("tcpdump is not installed")
    path = tmp_path / "x.pcap"
    path.write_bytes(classic([record(case.frame, NS)], network=case.link))
    (line,) = lines("tcpdump", "-nr", str(path))
    assert f"IP {V4}.4000 > 198.51.100.2.5000: UDP" in line[0]
