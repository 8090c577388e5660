"""What capture filters keep out, compared with what tcpdump passes."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from tcp_wire import START, ip4, write

from netdiag.tables.capture_filters import DEPTH, LIMIT, Kind, lost

A, B, ROUTER = "192.0.2.1", "192.0.2.9", "198.51.100.1"


def udp(sport: int, dport: int, payload: bytes = b"x" * 8) -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


NAMED = ip4(A, B, 17, udp(5060, 5060))
PACKETS = {
    Kind.ICMP: ip4(ROUTER, A, 1, b"\x03\x01" + bytes(6) + NAMED[14:42]),
    Kind.LATER_FRAGMENT: ip4(A, B, 17, b"x" * 40, fragment=185),
    Kind.OTHER_PORT: ip4(A, B, 17, udp(4000, 4002)),
    Kind.TAGGED: NAMED[:12] + b"\x81\x00\x00\x64" + NAMED[12:],
}
ALL = (Kind.ICMP, Kind.LATER_FRAGMENT, Kind.OTHER_PORT, Kind.TAGGED)
EXACT = {
    "": (),
    "port 5060": ALL,
    "udp port 5060": ALL,
    "port 5060 or 5061": ALL,
    "udp dst port 5060 && dst net 192.0.2.0/24": ALL,
    "src port 5060": ALL,
    "tcp": ALL,
    "ip proto 6": ALL,
    "tcp port 5061 || udp port 5060": ALL,
    "not port 22": (),
    "!(tcp port 22) && !arp": (),
    "host 192.0.2.1": (Kind.TAGGED,),
    "host 192.0.2.1 or 192.0.2.2": (Kind.TAGGED,),
    "net 192.0.2.0/24": (Kind.TAGGED,),
    "net 192.0.2.0 mask 255.255.255.0 and udp": (Kind.ICMP, Kind.TAGGED),
    "ip or ip6": (Kind.TAGGED,),
    "udp": (Kind.ICMP, Kind.TAGGED),
    "ip proto 17": (Kind.ICMP, Kind.TAGGED),
    "udp and not port 53": (Kind.ICMP, Kind.TAGGED),
    "src host 192.0.2.1": (Kind.ICMP, Kind.TAGGED),
    "port 5060 or icmp": (Kind.LATER_FRAGMENT, Kind.OTHER_PORT, Kind.TAGGED),
    "proto \\icmp": (Kind.LATER_FRAGMENT, Kind.OTHER_PORT, Kind.TAGGED),
    "not (udp port 53 or icmp)": (Kind.ICMP,),
    "arp": ALL,
    "port 5060 or ip[6:2] & 0x1fff != 0": (Kind.ICMP, Kind.OTHER_PORT, Kind.TAGGED),
    "((ip[6:2] & 0x3fff) > 0) or port 5060": (Kind.ICMP, Kind.OTHER_PORT, Kind.TAGGED),
    "udp and ip[6:2] & 0x1fff = 0": (Kind.ICMP, Kind.LATER_FRAGMENT, Kind.TAGGED),
    "(udp port 5060) or (ip[6:2] & 0x3fff != 0) or (ip6 proto 44) or icmp or icmp6": (Kind.OTHER_PORT, Kind.TAGGED),
    "icmp or port 5060 or (vlan and port 5060)": (Kind.LATER_FRAGMENT, Kind.OTHER_PORT),
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0": ALL,
    "icmp[icmptype] != icmp-echo": (Kind.LATER_FRAGMENT, Kind.OTHER_PORT, Kind.TAGGED),
    "host 192.0.2.1 and (port 5060 or port 5061)": ALL,
}
"""Filters without a byte test of another kind: here what is said is what tcpdump does."""


@pytest.mark.parametrize("text", EXACT)
def test_kept_out(text: str) -> None:
    assert lost(text) == EXACT[text]


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump")
@pytest.mark.parametrize("text", EXACT)
def test_tcpdump_keeps_out_the_same(text: str, tmp_path: Path) -> None:
    out = set()
    for kind, frame in PACKETS.items():
        path = write(tmp_path / "t.pcap", [(START, frame)])
        done = subprocess.run(["tcpdump", "-nr", str(path), text], capture_output=True, text=True, check=True)
        if not done.stdout.strip():
            out.add(kind)
    assert out == set(EXACT[text])


DEPENDS = ["greater 500", "len > 500", "ip[9] == 17", "ip[12:4] == 1", "ether host 02:00:00:00:00:01", "vlan 100",
           "portrange 10000-20000 or icmp or ip[6:2] & 0x1fff != 0"]
BROKEN = ["(", ")", "port", "udp and", "or udp", "foo(bar", "port 5060 udp", "host", "\x00", "'", "ip[6:2",
          "(" * (DEPTH + 2) + "udp" + ")" * (DEPTH + 2), "not " * LIMIT + "udp", "!" * (LIMIT - 2)]


@pytest.mark.parametrize("text", DEPENDS)
def test_what_depends_is_not_lost(text: str) -> None:
    kinds = lost(text)
    assert kinds is not None
    assert set(kinds) <= {Kind.TAGGED}


@pytest.mark.parametrize("text", BROKEN, ids=lambda t: t[:10])
def test_what_is_not_a_filter_is_not_understood(text: str) -> None:
    assert lost(text) is None


def test_many_negations_do_not_overflow() -> None:
    assert lost("!" * 3000 + "udp") == (Kind.ICMP, Kind.TAGGED)
    assert lost("!" * 3001 + "udp") == (Kind.LATER_FRAGMENT, Kind.OTHER_PORT)
