"""pcapng: what its blocks say besides packets, and what is odd in them."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
from capture_files import NS, Read, block, interface, old_packet, option, packet, read, section, statistics
from checkout import udp_frame

from netdiag import cli
from netdiag.tables.reader import open_captures

FRAME = udp_frame(payload=b"odd length, so that padding follows")
TICKS = NS // 1000


def pcapng(tmp_path: Path, *blocks: bytes) -> Read:
    path = tmp_path / "x.pcapng"
    path.write_bytes(section() + b"".join(blocks))
    return read(path)


def test_the_last_statistics_of_an_interface_count(tmp_path: Path) -> None:
    one = packet(FRAME, TICKS)
    got = pcapng(tmp_path, interface(), interface(), one, statistics(0, (5, 7)), one, statistics(0, (5, 9), (7, 1)),
                 statistics(1, (5, 100)), statistics(1, (4, 55)))
    assert got.notes.drops == 9 + 1 + 100
    assert len(got.frames) == 2


def test_drop_counts_at_packets_add_up(tmp_path: Path) -> None:
    def lost(n: int) -> bytes:
        return packet(FRAME, TICKS, options=option(2, b"\1\0\0\0") + option(4, struct.pack("<Q", n)) + option(0, b""))
    got = pcapng(tmp_path, interface(), lost(7), lost(3), old_packet(FRAME, TICKS, 5), old_packet(FRAME, TICKS, 0xFFFF))
    assert got.notes.drops == 15
    got = pcapng(tmp_path, interface(), lost(7), statistics(0, (5, 9)))
    assert got.notes.drops == 9  # the statistics hold the seven too
    assert pcapng(tmp_path, interface(), packet(FRAME, TICKS)).notes.drops is None


def test_drops_of_two_sections_are_of_two_captures(tmp_path: Path) -> None:
    got = pcapng(tmp_path, interface(), statistics(0, (5, 7)), section(), interface(), statistics(0, (5, 2)))
    assert got.notes.drops == 9


def test_comments_behind_many_packets_with_options(tmp_path: Path) -> None:
    flagged = packet(FRAME, TICKS, options=option(2, b"\1\0\0\0"))
    got = pcapng(tmp_path, interface(options=option(1, b"the tap")), *[flagged] * 300,
                 packet(FRAME, TICKS, options=option(2, b"\1\0\0\0") + option(1, b"this one")))
    assert got.notes.comments == ["the tap", "this one"]
    assert len(got.frames) == 301


def test_names_snap_length_and_secrets(tmp_path: Path) -> None:
    names = (option(1, bytes([192, 0, 2, 1]) + b"pbx.example\0pbx\0")
             + option(2, bytes.fromhex("20010db8000000000000000000000001") + b"proxy.example\0") + option(3, b"x" * 9)
             + option(0, b""))
    got = pcapng(tmp_path, interface(snaplen=96), interface(snaplen=200), block(4, names),
                 block(10, struct.pack("<II", 0x544C534B, 3) + b"abc\0"),
                 block(10, struct.pack("<II", 0x57474B4C, 3) + b"abc\0"),
                 block(10, struct.pack("<II", 0x544C534B, 300) + b"abc\0"), packet(FRAME, TICKS))
    assert got.notes.names == {"192.0.2.1": "pbx.example", "2001:db8::1": "proxy.example"}
    assert got.notes.snaplen == 200
    assert got.notes.secrets == [b"abc"]
    assert got.notes.notes == ["WireGuard secrets in the file are not used",
                               "a secrets block states more bytes than it holds; it is not used"]
    assert got.notes.damage == ""
    assert pcapng(tmp_path, interface(snaplen=96), interface()).notes.snaplen == 262144


def test_names_of_addresses_in_the_packets_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    addresses = [bytes([192, 0, 2, 1]), bytes([192, 0, 2, 99]), ip_address("2001:db8::1").packed]
    names = b"".join(option(2 if len(a) == 16 else 1, a + name + b"\0") for a, name in zip(
        addresses, (b"pbx.example", b"not.here.example", b"\x1b[31m" + b"n" * 400), strict=True))
    path = tmp_path / "x.pcapng"
    six = (FRAME[:12] + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(FRAME) - 34, 17, 64) + addresses[2]
           + ip_address("2001:db8::2").packed + FRAME[34:])
    path.write_bytes(section() + interface() + block(4, names + option(0, b"")) + packet(FRAME, TICKS)
                     + packet(six, TICKS))
    (summary,) = open_captures([str(path)]).captures
    told = f"names in the file, from whoever wrote it: 192.0.2.1 pbx.example, 2001:db8::1 \x1b[31m{'n' * 248}"
    assert summary.notes == (told,)
    cli.run(["analyze", str(path)])
    printed = " ".join(capsys.readouterr().out.split())  # lines are broken where the path ends
    assert "192.0.2.1 pbx.example" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("length", [-1, 0, 1000])
def test_section_length_does_not_matter(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.pcapng"
    one, other = interface() + packet(FRAME, TICKS), interface(order=">") + packet(FRAME, TICKS, order=">")
    path.write_bytes(section(length=length) + one + section(">", length) + other)
    got = read(path)
    assert (got.frames, got.notes.damage) == ([FRAME] * 2, "")
    assert got.ts == [TICKS * 1000] * 2


def test_block_length_that_is_no_multiple_of_four_is_rounded_up(tmp_path: Path) -> None:
    aligned = packet(FRAME, TICKS)
    size = struct.pack("<I", len(aligned) - 3)
    odd = aligned[:4] + size + aligned[8:-4] + size
    got = pcapng(tmp_path, interface(), odd, packet(FRAME, TICKS))
    assert (got.frames, got.notes.damage) == ([FRAME] * 2, "")


def test_blocks_without_packets_that_have_a_number(tmp_path: Path) -> None:
    others = [block(k, b"\0" * 32) for k in (9, 0xBAD, 0x40000BAD, 0x204, 0x216, 0x221)]
    silent = [block(k, b"\0" * 32) for k in (7, 8, 0x201, 0x208, 0x217, 0x80000001)]
    got = pcapng(tmp_path, interface(), *others, *silent, packet(FRAME, TICKS))
    assert got.links == [0xFFFF] * 6 + [1]


def test_options_that_run_over_their_block_are_noted(tmp_path: Path) -> None:
    got = pcapng(tmp_path, interface(), packet(FRAME, TICKS, options=struct.pack("<HH", 1, 400) + b"abcd"))
    assert got.frames == [FRAME]
    assert got.notes.notes == ["options of a block claim more bytes than it has; they were not read"]


@pytest.mark.parametrize(("blocks", "says"), [
    ([packet(FRAME, TICKS)], "names interface 0, which no interface block describes"),
    ([block(3, struct.pack("<I", len(FRAME)) + FRAME)], "names interface 0, which no interface block describes"),
    ([block(1, b"\1\0\0\0"), packet(FRAME, TICKS)], "names interface 0"),
    ([packet(FRAME, TICKS), interface()], "names interface 0")])
def test_packets_before_their_interface(tmp_path: Path, blocks: list[bytes], says: str) -> None:
    got = pcapng(tmp_path, *blocks)
    assert got.frames == []
    assert says in got.notes.damage


def test_interfaces_described_between_packets(tmp_path: Path) -> None:
    fine = option(9, b"\x09")
    got = pcapng(tmp_path, interface(), packet(FRAME, TICKS), interface(101, options=fine),
                 packet(FRAME[14:], NS + 5, 1), packet(FRAME, TICKS + 1))
    assert got.links == [1, 101, 1]
    assert got.ts == [NS, NS + 5, NS + 1000]


def test_unknown_version_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(section(version=(2, 0)) + interface() + packet(FRAME, TICKS))
    got = read(path)
    assert got.frames == [FRAME]
    assert got.notes.notes == ["pcapng version 2.0 is not known; read as 1.0"]


def test_many_interfaces_and_many_sections_are_read(tmp_path: Path) -> None:
    """Work must grow with the file, not with interfaces times packets:"""
    many = b"".join(interface(options=option(9, bytes([i % 256]))) + packet(FRAME, TICKS, i) for i in range(3000))
    assert len(pcapng(tmp_path, many).frames) == 3000
    short = section() + interface() + packet(FRAME, TICKS) + statistics(0, (5, 1))
    got = pcapng(tmp_path, *[short] * 2000)
    assert (len(got.frames), got.notes.drops) == (2000, 2000)
