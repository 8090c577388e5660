"""Small frames of every link type that is decoded, with what must be found in them and who else finds it there.

The headers are written by hand from the same sources that docs/formats.md names; what they carry is one UDP datagram
from 192.0.2.1 or 2001:db8::1.
"""

from __future__ import annotations

import ipaddress
import struct
import zlib
from dataclasses import dataclass

from checkout import udp_frame

from netdiag.decode.ethertype import AGGREGATE, LABELLED, LLC, NO_DATA, PIECE, PROTECTED, UNKNOWN_LINK

V4, V6 = "192.0.2.1", "2001:db8::1"
MAC = bytes.fromhex("020000000002020000000001")
SNAP = bytes.fromhex("aaaa03000000")
IP4_TYPE, IP6_TYPE = b"\x08\x00", b"\x86\xdd"


@dataclass(frozen=True, slots=True)
class Case:
    """One frame."""

    name: str
    link: int
    frame: bytes
    found: str | int = V4
    """Source address of the packet inside, or why there is none."""
    by: str = "tshark"
    """Who finds the same: tshark, tcpdump, or "" when neither knows this form."""


def _ip6() -> bytes:
    udp = struct.pack(">HHHH", 4000, 5000, 28, 0) + b"x" * 20
    source, target = (ipaddress.ip_address(a).packed for a in (V6, "2001:db8::2"))
    return struct.pack(">IHBB", 0x60000000, len(udp), 17, 64) + source + target + udp


IP, IP6 = udp_frame()[14:], _ip6()
ETHERNET = MAC + IP4_TYPE + IP


def _wifi(control: bytes = b"\x08\x01", extra: bytes = b"", kind: bytes = IP4_TYPE, packet: bytes = IP) -> bytes:
    """An 802.11 frame: control, three addresses, sequence, ``extra``, LLC/SNAP, packet."""
    return control + b"\0\0" + b"\2" * 18 + b"\x10\0" + extra + SNAP + kind + packet


def _attribute(kind: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _juniper(flags: int = 0, extension: bytes = b"") -> bytes:
    if not extension:
        return b"MGC" + bytes([flags])
    return b"MGC" + bytes([flags | 0x80]) + struct.pack(">H", len(extension)) + extension


def _pflog(size: int) -> bytes:
    return bytes([size, 2]) + b"\0" * (size - 2) + b"\0" * (-size % 4) + IP


def _pktap(link: int) -> bytes:
    return struct.pack("<III", 108, 1, link) + b"en0".ljust(24, b"\0") + b"\0" * 72


def _subframe(packet: bytes) -> bytes:
    return b"\2" * 12 + struct.pack(">H", 8 + len(packet)) + SNAP + IP4_TYPE + packet


def _ppi(link: int, fields: bytes = b"") -> bytes:
    return struct.pack("<BBHI", 0, 0, 8 + len(fields), link) + fields


def _loopbacks() -> list[Case]:
    return [
        Case("null-le", 0, b"\2\0\0\0" + IP), Case("null-be", 0, b"\0\0\0\2" + IP),
        Case("null-macos-v6", 0, b"\x1e\0\0\0" + IP6, V6), Case("null-openbsd-v6", 0, b"\0\0\0\x18" + IP6, V6),
        Case("null-ppp", 0, b"\xff\x03\0\x21" + IP), Case("null-ethertype", 0, b"\0\x08\0\0" + IP),
        Case("null-ethertype-be", 0, b"\0\0\x08\0" + IP), Case("null-two-bytes", 0, b"\0\2\0\0" + IP),
        Case("null-osi", 0, b"\7\0\0\0" + b"\x81" * 40, UNKNOWN_LINK),
        Case("loop", 108, b"\0\0\0\2" + IP), Case("loop-v6", 108, b"\0\0\0\x18" + IP6, V6),
        Case("raw-12", 12, IP), Case("raw-14", 14, IP), Case("raw", 101, IP), Case("raw-v6", 101, IP6, V6),
        Case("ipv4", 228, IP), Case("ipv6", 229, IP6, V6),
        Case("enc", 109, b"\2\0\0\0" + b"\0" * 8 + IP), Case("enc-v6", 109, b"\x18\0\0\0" + b"\0" * 8 + IP6, V6),
        Case("pflog-45", 117, _pflog(45)), Case("pflog-61", 117, _pflog(61)), Case("pflog-100", 117, _pflog(100)),
        Case("ipnet", 226, b"\2\2\0\0" + struct.pack(">I", len(IP)) + b"\0" * 16 + IP),
        Case("ipnet-v6", 226, b"\2\x1a\0\0" + struct.pack(">I", len(IP6)) + b"\0" * 16 + IP6, V6),
    ]


def _cooked(name: str, link: int) -> list[Case]:
    def header(device: int, kind: int) -> bytes:
        if link == 113:
            return struct.pack(">HHH", 0, device, 6) + b"\2" * 8 + struct.pack(">H", kind)
        return struct.pack(">HHIHBB", kind, 0, 3, device, 0, 6) + b"\2" * 8
    return [
        Case(name, link, header(1, 0x0800) + IP), Case(f"{name}-v6", link, header(1, 0x86DD) + IP6, V6),
        Case(f"{name}-tun", link, header(65534, 0x0800) + IP),
        Case(f"{name}-vlan", link, header(1, 0x8100) + b"\0\x05" + IP4_TYPE + IP),
        Case(f"{name}-vlan-llc", link,
             header(1, 0x8100) + b"\0\x05" + struct.pack(">H", 8 + len(IP)) + SNAP + IP4_TYPE + IP),
        Case(f"{name}-gre", link, header(778, 0x0800) + IP),
        Case(f"{name}-gretap", link, header(778, 0x6558) + ETHERNET),
        Case(f"{name}-frad", link, header(770, 0) + b"\x18\x41\x03\xcc" + IP),
        Case(f"{name}-radiotap", link, header(803, 0) + b"\0\0\x08\0\0\0\0\0" + _wifi()),
        Case(f"{name}-wifi", link, header(801, 0) + _wifi(), by=""),
        Case(f"{name}-llc", link, header(1, 4) + SNAP + IP4_TYPE + IP),
        Case(f"{name}-netlink", link, header(824, 0x0800) + IP, UNKNOWN_LINK),
        Case(f"{name}-can", link, header(280, 0x000C) + b"\0" * 16, LLC),
    ]


def _serial() -> list[Case]:
    return [
        Case("ppp", 9, b"\0\x21" + IP), Case("ppp-framed", 9, b"\xff\x03\0\x21" + IP),
        Case("ppp-compressed", 9, b"\x21" + IP), Case("ppp-framed-compressed-v6", 9, b"\xff\x03\x57" + IP6, V6),
        Case("ppp-mpls", 9, b"\xff\x03\x02\x81\0\0\x11\x40" + IP), Case("ppp-lcp", 9, b"\xff\x03\xc0\x21\1\1\0\4", LLC),
        Case("ppp-hdlc", 50, b"\xff\x03\0\x21" + IP), Case("ppp-hdlc-cisco", 50, b"\x0f\0\x08\0" + IP),
        Case("ppp-hdlc-bare", 50, b"\0\x21" + IP),
        Case("pppoe", 51, b"\x11\0\0\1" + struct.pack(">H", 2 + len(IP)) + b"\0\x21" + IP),
        Case("pppoe-compressed", 51, b"\x11\0\0\1" + struct.pack(">H", 1 + len(IP)) + b"\x21" + IP),
        Case("pppoe-mpls", 51, b"\x11\0\0\1" + struct.pack(">H", 6 + len(IP)) + b"\x02\x81\0\0\x11\x40" + IP),
        Case("pppd-in", 166, b"\0\x03\0\x21" + IP, by="tcpdump"),
        Case("pppd-out", 166, b"\1\x03\0\x21" + IP, by="tcpdump"),
        Case("ppp-direction", 204, b"\1\xff\x03\0\x21" + IP), Case("ppp-direction-bare", 204, b"\0\0\x21" + IP),
        Case("cisco-hdlc", 104, b"\x0f\0\x08\0" + IP), Case("cisco-hdlc-v6", 104, b"\x8f\0\x86\xdd" + IP6, V6),
        Case("cisco-hdlc-slarp", 104, b"\x8f\0\x80\x35" + b"\0" * 18, 0x8035),
        Case("cisco-hdlc-direction", 205, b"\1\x0f\0\x08\0" + IP, by=""),
        Case("frame-relay", 107, b"\x18\x41\x03\xcc" + IP), Case("frame-relay-v6", 107, b"\x18\x41\x03\x8e" + IP6, V6),
        Case("frame-relay-snap", 107, b"\x18\x41\x03\0\x80\0\0\0\x08\0" + IP),
        Case("frame-relay-cisco", 107, b"\x18\x41\x08\0" + IP),
        Case("frame-relay-long", 107, b"\x18\x40\0\x41\x03\xcc" + IP),
        Case("frame-relay-direction", 206, b"\1\x18\x41\x03\xcc" + IP, by=""),
        Case("frame-relay-bridged", 107, b"\x18\x41\x03\0\x80\0\x80\xc2\0\7" + ETHERNET),
        Case("mpls", 219, b"\0\0\x11\x40" + IP, by=""),
        Case("mpls-ethernet", 219, b"\0\0\x11\x40" + ETHERNET, by=""),
        Case("mpls-ethernet-control-word", 219, b"\0\0\x11\x40\0\0\0\7" + ETHERNET, by=""),
        Case("mpls-ethernet-vlan-v6", 219, b"\0\0\x11\x40\0\0\0\0" + MAC + b"\x81\0\0\5" + IP6_TYPE + IP6, V6, ""),
        Case("mpls-oam", 219, b"\0\0\xd1\x40\x10\0\0\7\x20\x40\x03\x18" + b"\0" * 40, LABELLED, ""),
    ]


def _wireless() -> list[Case]:
    twice = _subframe(IP) + b"\0" * (-len(_subframe(IP)) % 4) + _subframe(IP)
    return [
        Case("wifi", 105, _wifi()), Case("wifi-v6", 105, _wifi(kind=IP6_TYPE, packet=IP6), V6),
        Case("wifi-qos", 105, _wifi(b"\x88\x01", b"\0\0")),
        Case("wifi-four-addresses", 105, _wifi(b"\x08\x03", b"\2" * 6)),
        Case("wifi-four-addresses-qos", 105, _wifi(b"\x88\x03", b"\2" * 6 + b"\0\0")),
        Case("wifi-ht-control", 105, _wifi(b"\x88\x81", b"\0" * 6)),
        Case("wifi-bridge-tunnel", 105, _wifi().replace(SNAP, bytes.fromhex("aaaa030000f8"))),
        Case("wifi-amsdu", 105, b"\x88\x01\0\0" + b"\2" * 18 + b"\x10\0\x80\0" + _subframe(IP)),
        Case("wifi-amsdu-two", 105, b"\x88\x01\0\0" + b"\2" * 18 + b"\x10\0\x80\0" + twice, AGGREGATE, ""),
        Case("wifi-fragment", 105, b"\x08\x01\0\0" + b"\2" * 18 + b"\x11\0" + IP[60:] + IP, PIECE),
        Case("wifi-protected", 105, _wifi(b"\x08\x41"), PROTECTED),
        Case("wifi-null", 105, b"\x48\x01" + b"\0" * 22, NO_DATA),
        Case("wifi-beacon", 105, b"\x80\0" + b"\0" * 40, NO_DATA),
        Case("wifi-ack", 105, b"\xd4\0" + b"\0" * 8, NO_DATA),
        Case("radiotap", 127, b"\0\0\x08\0\0\0\0\0" + _wifi()),
        Case("radiotap-two-words", 127, b"\0\0\x10\0" + struct.pack("<II", 1 << 31, 0) + b"\0" * 4 + _wifi()),
        Case("radiotap-padded", 127, b"\0\0\x11\0" + struct.pack("<I", 3) + b"\0" * 8 + b"\x20"
             + _wifi(b"\x88\x01", b"\0" * 4)),
        Case("radiotap-fcs", 127, b"\0\0\x09\0" + struct.pack("<I", 2) + b"\x10" + _wifi() + b"\1\2\3\4"),
        Case("prism", 119, struct.pack("<II", 0x44, 144) + b"\0" * 136 + _wifi()),
        Case("prism-be", 119, struct.pack(">II", 0x44, 144) + b"\0" * 136 + _wifi()),
        Case("prism-avs", 119, struct.pack(">II", 0x80211001, 64) + b"\0" * 56 + _wifi()),
        Case("avs", 163, struct.pack(">II", 0x80211001, 64) + b"\0" * 56 + _wifi()),
        Case("ppi-wifi", 192, _ppi(105) + _wifi()), Case("ppi-ethernet", 192, _ppi(1) + ETHERNET),
        Case("ppi-raw", 192, _ppi(101, b"\0" * 4) + IP), Case("ppi-usb", 192, _ppi(189) + b"\0" * 64, UNKNOWN_LINK),
    ]


def _lans() -> list[Case]:
    routed = MAC[:6] + b"\x82" + MAC[7:] + b"\x06\0\0\1\0\2"
    checksum = struct.pack("<I", zlib.crc32(ETHERNET))
    return [
        Case("ethernet", 1, ETHERNET), Case("fddi", 10, b"\x50" + MAC + SNAP + IP4_TYPE + IP),
        Case("token-ring", 6, b"\x10\x40" + MAC + SNAP + IP4_TYPE + IP),
        Case("token-ring-routed", 6, b"\x10\x40" + routed + SNAP + IP4_TYPE + IP),
        Case("atm", 100, SNAP + IP4_TYPE + IP), Case("atm-nlpid", 100, b"\xfe\xfe\x03\xcc" + IP),
        Case("atm-bridged", 100, bytes.fromhex("aaaa030080c200070000") + ETHERNET),
        Case("atm-bridged-checksum", 100, bytes.fromhex("aaaa030080c200010000") + ETHERNET + checksum),
        Case("atm-clip", 106, IP), Case("atm-clip-llc", 106, SNAP + IP4_TYPE + IP, by=""),
        Case("fibre-channel", 122, b"\0" * 16 + SNAP + IP4_TYPE + IP),
        Case("firewire", 138, b"\2" * 16 + IP4_TYPE + IP),
        Case("infiniband", 242, b"\2" * 40 + IP4_TYPE + b"\0\0" + IP),
        Case("netanalyzer", 240, b"\0\x04\0\0" + ETHERNET + checksum),
        Case("netanalyzer-transparent", 241, b"\0\x06\0\0" + b"\x55" * 7 + b"\xd5" + ETHERNET + checksum, by="tcpdump"),
        Case("mpacket", 274, b"\x55" * 7 + b"\xd5" + ETHERNET + checksum),
        Case("dsa-broadcom", 281, MAC + b"\0\0\0\1" + IP4_TYPE + IP, by="tcpdump"),
        Case("dsa-broadcom-prepended", 282, b"\0\0\0\1" + ETHERNET, by="tcpdump"),
        Case("dsa-marvell", 284, MAC + b"\x40\0\0\0" + IP4_TYPE + IP, by="tcpdump"),
        Case("dsa-marvell-ethertype", 285, MAC + b"\xda\xda\0\0\x40\0\0\0" + IP4_TYPE + IP, by="tcpdump"),
    ]


def _taps() -> list[Case]:
    second = bytes([40, 0, 0, 0, 0, 0]) + struct.pack("<H", 1) + b"\0" * 28 + struct.pack("<I", 0x80000)
    return [
        Case("nflog", 239, b"\2\0\0\0" + _attribute(1, b"\x08\0\0\0") + _attribute(10, b"x\0") + _attribute(9, IP)),
        Case("nflog-be-v6", 239, b"\x0a\0\0\0" + _attribute(1, b"\x86\xdd\0\0", ">") + _attribute(9, IP6, ">"), V6, ""),
        Case("nflog-bridge", 239, b"\7\0\0\0" + _attribute(1, b"\x08\0\0\0") + _attribute(9, IP)),
        Case("nflog-no-payload", 239, b"\2\0\0\0" + _attribute(10, b"x\0"), UNKNOWN_LINK),
        Case("pktap-ethernet", 258, _pktap(1) + ETHERNET), Case("pktap-raw", 258, _pktap(12) + IP),
        Case("pktap-null", 258, _pktap(0) + b"\2\0\0\0" + IP), Case("pktap-v2", 258, second + ETHERNET, by=""),
        Case("pktap-user2", 149, _pktap(1) + ETHERNET),
    ]


def _junos() -> list[Case]:
    outer = bytearray(IP[:20])
    outer[9] = 50  # ESP
    cookie = b"\x47" + b"\0" * 7
    return [
        Case("juniper-ethernet", 178, _juniper(1) + ETHERNET),
        Case("juniper-ethernet-extended", 178, _juniper(1, b"\1\2\x10\0") + ETHERNET),
        Case("juniper-no-link", 178, _juniper(3) + struct.pack("<I", 2) + IP),
        Case("juniper-no-link-v6", 178, _juniper(3, b"\1\2\x10\0") + struct.pack("<I", 6) + IP6, V6),
        Case("juniper-ppp", 179, _juniper(1) + b"\xff\x03\0\x21" + IP),
        Case("juniper-frame-relay", 180, _juniper(1) + b"\x18\x41\x03\xcc" + IP),
        Case("juniper-cisco-hdlc", 181, _juniper() + b"\x0f\0\x08\0" + IP),
        Case("juniper-pppoe", 167, _juniper() + ETHERNET),
        Case("juniper-pppoe-atm", 168, _juniper() + IP4_TYPE + IP, by="tcpdump"),
        Case("juniper-atm1-snap", 137, _juniper() + b"\1\0\0\0" + SNAP + IP4_TYPE + IP),
        Case("juniper-atm1-ip", 137, _juniper() + b"\1\0\0\0" + IP),
        Case("juniper-atm1-nlpid", 137, _juniper() + b"\1\0\0\0\x03\xcc" + IP),
        Case("juniper-atm1-cell", 137, _juniper() + b"\x80\0\0\0" + b"\0" * 48, LLC),
        Case("juniper-atm2-snap", 135, _juniper() + b"\0" * 8 + SNAP + IP4_TYPE + IP),
        Case("juniper-atm2-ip", 135, _juniper() + b"\0" * 8 + IP),
        Case("juniper-atm2-ppp", 135, _juniper() + b"\0" * 8 + b"\0\x21" + IP),
        Case("juniper-atm2-ethernet", 135, _juniper() + b"\0\0\0\1\0\0\0\0" + ETHERNET),
        Case("juniper-atm2-received", 135, _juniper(1) + b"\0\0\0\1\0\0\0\0" + IP),
        Case("juniper-mlppp-services", 130, _juniper() + cookie + IP),
        Case("juniper-mlppp-cookie", 130, _juniper(1) + b"\x54\0\0\0\0\x21" + IP),
        Case("juniper-mlppp-child", 130, _juniper(1) + b"\0\x21" + IP),
        Case("juniper-mlppp-framed", 130, _juniper(1) + b"\xff\x03\0\x21" + IP),
        Case("juniper-mlppp-bundle", 130, _juniper(1) + b"\0\x05\0\x21" + IP),
        Case("juniper-mlfr-services", 131, _juniper() + cookie + IP),
        Case("juniper-mlfr-cookie", 131, _juniper() + b"\x54\0\0\0\x03\xcc" + IP),
        Case("juniper-mlfr-bundle", 131, _juniper() + b"\0\1\x03\xcc" + IP),
        Case("juniper-services-sent", 136, _juniper() + b"\0" * 12 + IP),
        Case("juniper-services-received", 136, _juniper(1) + b"\0" * 16 + IP),
        Case("juniper-services-short", 136, _juniper(1) + b"\0" * 8 + IP, by="tcpdump"),
        Case("juniper-ggsn", 133, _juniper() + b"\2\0\0\0" + IP),
        Case("juniper-monitor", 164, _juniper() + b"\0" * 8 + IP, by="tcpdump"),
        Case("juniper-voice", 183, _juniper() + b"\0" * 18 + IP),
        Case("juniper-tunnel", 200, _juniper(1) + MAC + IP4_TYPE + bytes(outer) + b"\0" * 24 + IP),
    ]


CASES = [*_loopbacks(), *_cooked("sll", 113), *_cooked("sll2", 276), *_serial(), *_wireless(), *_lans(), *_taps(),
         *_junos()]
