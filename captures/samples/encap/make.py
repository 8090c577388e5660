"""One small capture of each tag and tunnel: a SIP request with its answer and a TCP handshake, wrapped.

``python captures/samples/encap/make.py`` writes ``made/<name>.pcap``; the tests compare every byte, and what is read
back, also with tshark. No hit or near miss of a pattern. Layers that scapy lacks are written by hand, each with its
source.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III, ERSPAN_PlatformSpecific
    from scapy.contrib.etherip import EtherIP
    from scapy.contrib.geneve import GENEVE, GeneveOptions
    from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
    from scapy.contrib.mpls import MPLS

START_NS = 1_767_225_600 * 10**9
"""2026-01-01 00:00:00 UTC: when all samples begin."""
INSIDE4 = ("192.0.2.10", "198.51.100.20")
INSIDE6 = ("2001:db8:1::10", "2001:db8:2::20")
OUTSIDE4 = ("10.0.0.1", "10.0.0.2")
OUTSIDE6 = ("2001:db8:f::1", "2001:db8:f::2")
SIP, CLIENT, SERVER = 5060, 40000, 8080

Wrap = Callable[[Packet, bool], Packet]
"""(IP packet, is it from the client?) to a whole frame."""


class Sample(NamedTuple):
    """How its packets are wrapped."""

    wrap: Wrap
    encap: str
    """What the table of flows says of it."""
    inside: tuple[str, str] = INSIDE4
    datagrams_only: bool = False


def talk(client: str, server: str) -> list[tuple[bool, Packet]]:
    """(from the client, IP packet): OPTIONS and 200, SYN, SYN-ACK, ACK."""
    def sip(start: str) -> bytes:
        return (f"{start}\r\nVia: SIP/2.0/UDP client.example;branch=z9hG4bKwrapped\r\n"
                "From: <sip:a@client.example>;tag=1\r\nTo: <sip:b@server.example>\r\n"
                "Call-ID: wrapped@client.example\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n").encode()

    out: list[tuple[bool, Packet]] = []

    def add(up: bool, layer: Packet) -> None:
        ends = (client, server) if up else (server, client)
        if ":" in client:
            header = IPv6(src=ends[0], dst=ends[1])
        else:
            header = IP(src=ends[0], dst=ends[1], id=len(out) + 1, flags="DF")
        out.append((up, header / layer))

    add(True, UDP(sport=SIP, dport=SIP) / Raw(sip("OPTIONS sip:server.example SIP/2.0")))
    add(False, UDP(sport=SIP, dport=SIP) / Raw(sip("SIP/2.0 200 OK")))
    add(True, TCP(sport=CLIENT, dport=SERVER, flags="S", seq=1000, options=[("MSS", 1360)]))
    add(False, TCP(sport=SERVER, dport=CLIENT, flags="SA", seq=5000, ack=1001, options=[("MSS", 1360)]))
    add(True, TCP(sport=CLIENT, dport=SERVER, flags="A", seq=1001, ack=5001))
    return out


def ether(up: bool, type: int | None = None, last: int = 0) -> Packet:
    """The header of a frame; ``last`` is the last byte of the client's address."""
    ends = (f"02:00:00:00:00:{last + 1:02x}", f"02:00:00:00:00:{last + 2:02x}")
    header = Ether(src=ends[not up], dst=ends[up])
    if type is not None:
        header.type = type
    return header


def outer(up: bool, six: bool = False, **fields: object) -> Packet:
    """Ethernet and IP between the ends of the tunnel."""
    ends = OUTSIDE6 if six else OUTSIDE4
    header = IPv6 if six else IP
    return ether(up) / header(src=ends[not up], dst=ends[up], **fields)


def udp(up: bool, port: int, six: bool = False, to_port_only: bool = True) -> Packet:
    """UDP to ``port``; from there too where tunnels use it on both sides."""
    return outer(up, six) / UDP(sport=50000 + up if to_port_only else port, dport=port)


def network(inner: Packet) -> int:
    """EtherType of an IP packet."""
    return 0x86DD if isinstance(inner, IPv6) else 0x0800


def bridged(inner: Packet, up: bool) -> Packet:
    """An Ethernet frame, as tunnels carry it."""
    return ether(up, last=0x10) / inner


def labelled(inner: Packet, depth: int, up: bool) -> Packet:
    """MPLS labels, which each direction chooses for itself."""
    stack = MPLS(label=100 + up, s=int(depth == 1), ttl=60)
    for i in range(1, depth):
        stack = stack / MPLS(label=200 + i, s=int(i == depth - 1), ttl=60)
    return stack / inner


def gre(inner: Packet, up: bool, proto: int | None = None, six: bool = False, **fields: object) -> Packet:
    return outer(up, six) / GRE(proto=proto or network(inner), **fields) / inner


def pptp(inner: Packet, up: bool) -> Packet:
    """RFC 2637 §4.1: key and sequence present, version 1; the key is payload length and call id."""
    payload = bytes(HDLC() / PPP(proto=0x21) / inner)
    flags = 0x3001 | (0x0080 if up else 0)
    header = struct.pack(">HHHHI", flags, 0x880B, len(payload), 17 + up, 5) + (struct.pack(">I", 4) if up else b"")
    return outer(up, proto=47) / Raw(header + payload)


def mirrored(inner: Packet, up: bool, header: Packet | None, proto: int = 0x88BE) -> Packet:
    """ERSPAN: type I without a header, and without a sequence number."""
    if header is None:
        return outer(up) / GRE(proto=proto) / bridged(inner, up)
    return outer(up) / GRE(proto=proto, seqnum_present=1, sequence_number=3) / header / bridged(inner, up)


def mirrored_ip(inner: Packet, up: bool) -> Packet:
    """ERSPAN type III whose frame type (draft-foschiano-erspan-03 §4.3) says that an IP packet follows."""
    return outer(up) / GRE(proto=0x22EB, seqnum_present=1, sequence_number=3) / ERSPAN_III(session_id=9, ft=2) / inner


def geneve(inner: Packet, up: bool) -> Packet:
    option = GeneveOptions(classid=0x0102, type=1, data=b"\0\0\0\7")
    return udp(up, 6081) / GENEVE(vni=42, proto=0x6558, options=[option]) / bridged(inner, up)


def gtp(inner: Packet, up: bool, six: bool = False, **fields: object) -> Packet:
    """GTP-U; the receiver chooses the TEID."""
    return udp(up, 2152, six, to_port_only=False) / GTP_U_Header(teid=1000 + up, gtp_type=255, **fields) / inner


def gtp_session(inner: Packet, up: bool) -> Packet:
    """GTP-U with the extension header of 5G, a PDU Session Container (3GPP TS 38.415 §5.5.2)."""
    header = GTP_U_Header(teid=1000 + up, gtp_type=255, E=1, next_ex=0x85)
    return udp(up, 2152, to_port_only=False) / header / GTPPDUSessionContainer(type=int(up), QFI=9, ExtHdrLen=1) / inner


def teredo(inner: Packet, up: bool, head: bytes = b"") -> Packet:
    return udp(up, 3544) / Raw(head + bytes(inner))


AUTHENTICATION = struct.pack(">BBBB", 0, 1, 3, 5) + b"abc" + b"12345" + bytes(8) + b"\0"
"""RFC 4380 §5.1.1: identifier of 3 bytes, value of 5, nonce, confirmation."""
ORIGIN = struct.pack(">BBH", 0, 0, 0xFFFF - 4096) + bytes(255 - octet for octet in ip_address("203.0.113.7").packed)
"""RFC 4380 §5.1.1: port and address with all bits inverted."""


def l2tp(inner: Packet, up: bool, flags: int, fields: bytes = b"", ppp: bytes = b"\xff\x03\x00\x21") -> Packet:
    """RFC 2661 §3.1, data: ``flags``, [length], tunnel, session, ``fields`` for sequence numbers and offset."""
    payload = ppp + bytes(inner)
    size = struct.pack(">H", 8 + len(fields) + len(payload)) if flags & 0x4000 else b""
    header = struct.pack(">H", flags | 2) + size + struct.pack(">HH", 10 + up, 20 + up) + fields
    return udp(up, 1701, to_port_only=False) / Raw(header + payload)


def hep3(inner: Packet, up: bool) -> Packet:
    """HEP3 (draft of the SIPCAPTURE project, revision 36, §3): the report of a capture agent about a datagram."""
    six = isinstance(inner, IPv6)

    def chunk(kind: int, data: bytes) -> bytes:
        return struct.pack(">HHH", 0, kind, 6 + len(data)) + data

    source, destination = (ip_address(str(a)).packed for a in (inner.src, inner.dst))
    chunks = (chunk(1, bytes([10 if six else 2])) + chunk(2, b"\x11") + chunk(5 if six else 3, source)
              + chunk(6 if six else 4, destination) + chunk(7, struct.pack(">H", inner[UDP].sport))
              + chunk(8, struct.pack(">H", inner[UDP].dport)) + chunk(9, struct.pack(">I", START_NS // 10**9))
              + chunk(10, struct.pack(">I", 250_000 + (not up) * 5000)) + chunk(11, b"\x01")
              + chunk(12, struct.pack(">I", 2001)) + chunk(15, bytes(inner[UDP].payload)))
    # Whatever direction the reported message went: the agent sends to the collector.
    return outer(True) / UDP(sport=50000, dport=9060) / Raw(b"HEP3" + struct.pack(">H", 6 + len(chunks)) + chunks)


def tag(inner: Packet, up: bool, type: int, fields: bytes, behind: bytes = b"") -> Packet:
    """EtherType, the bytes of a tag, the next EtherType, what is carried, ``behind``."""
    return ether(up, type) / Raw(fields + struct.pack(">H", network(inner)) + bytes(inner) + behind)


def hsr(inner: Packet, up: bool) -> Packet:
    """IEC 62439-3 §5.7: path, size of what follows with the tag's own six bytes, sequence number."""
    return tag(inner, up, 0x892F, struct.pack(">HH", (up << 12) | (6 + len(inner)), 7))


def macsec(inner: Packet, up: bool, control: int, channel: bytes = b"") -> Packet:
    """IEEE 802.1AE §9: control, short length, packet number, channel; the check value is 16 bytes."""
    short = 2 + len(inner)
    return tag(inner, up, 0x88E5, struct.pack(">BBI", control, short if short < 48 else 0, 9) + channel, b"\xa5" * 16)


def backbone(inner: Packet, up: bool) -> Packet:
    """IEEE 802.1ah §9.7: a B-tag, then the I-tag with the service instance, then the customer's frame."""
    return ether(up) / Dot1AD(vlan=300, type=0x88E7) / Raw(struct.pack(">I", 0x60000000 | 4242)) / bridged(inner, up)


def nsh(inner: bytes, next: int, kind: int = 1) -> Packet:
    """RFC 8300 §2: base header, service path 66 and index 255, context of fixed (1) or no (2) length."""
    context = bytes(16) if kind == 1 else b""
    head = struct.pack(">HBBI", 0x0FC0 | (2 + len(context) // 4), kind, next, 66 << 8 | 255)
    return Raw(head + context + inner)


def gpe(inner: bytes, up: bool, next: int) -> Packet:
    """draft-ietf-nvo3-vxlan-gpe §3: bits I and P, next protocol, VNI."""
    return udp(up, 4790) / Raw(struct.pack(">BHBI", 0x0C, 0, next, 42 << 8) + inner)


def gue(inner: Packet, up: bool, extra: bytes = b"", flags: int = 0) -> Packet:
    """draft-ietf-intarea-gue §3: variant 0, length of ``extra`` in words, protocol."""
    proto = 41 if isinstance(inner, IPv6) else 4
    return udp(up, 6080) / Raw(struct.pack(">BBH", len(extra) // 4, proto, flags) + extra + bytes(inner))


def l2tp3(inner: Packet, up: bool, extra: bytes = b"", over_udp: bool = False) -> Packet:
    """RFC 3931 §4.1: over UDP version 3 and two reserved bytes; session, then ``extra``, cookie and sublayer."""
    body = Raw(struct.pack(">I", 30 + up) + extra + bytes(bridged(inner, up)))
    if over_udp:
        return udp(up, 1701, to_port_only=False) / Raw(struct.pack(">HH", 3, 0)) / body
    return outer(up, proto=115) / body


def wccp(inner: Packet, up: bool, redirect: bytes = b"") -> Packet:
    """GRE as routers redirect packets to a cache; version 2 of WCCP puts a header of four bytes in front."""
    return outer(up, proto=47) / Raw(struct.pack(">HH", 0, 0x883E) + redirect + bytes(inner))


def authenticated(inner: Packet, up: bool, value: int = 12) -> Packet:
    """RFC 4302 §2 in transport mode: the header stands between IP and what it carries; ``value`` bytes are its ICV."""
    head = struct.pack(">BBHII", inner.proto, (12 + value) // 4 - 2, 0, 0x100 + up, 5) + b"\xa5" * value
    ip = inner.copy()
    ip.remove_payload()
    ip.proto = 51
    return ether(up) / ip / Raw(head + bytes(inner.payload))


def authenticated_tunnel(inner: Packet, up: bool) -> Packet:
    """RFC 4302 §3.1.2, tunnel mode: the header carries a whole packet."""
    proto = 41 if isinstance(inner, IPv6) else 4
    return outer(up, proto=51) / Raw(struct.pack(">BBHII", proto, 4, 0, 0x100 + up, 5) + b"\xa5" * 12 + bytes(inner))


ENDS4, ENDS6 = "–".join(OUTSIDE4), "–".join(OUTSIDE6)

SAMPLES: dict[str, Sample] = {
    "vlan": Sample(lambda p, up: ether(up) / Dot1Q(vlan=100) / p, "VLAN 100"),
    "vlan_priority": Sample(lambda p, up: ether(up) / Dot1Q(vlan=0, prio=5) / p, ""),
    "qinq": Sample(lambda p, up: ether(up) / Dot1AD(vlan=200) / Dot1Q(vlan=100) / p, "VLAN 200 / VLAN 100"),
    "qinq_9100": Sample(lambda p, up: ether(up, 0x9100) / Dot1Q(vlan=200) / Dot1Q(vlan=100) / p, "VLAN 200 / VLAN 100"),
    "mpls": Sample(lambda p, up: ether(up, 0x8847) / labelled(p, 1, up), "MPLS"),
    "mpls_two_labels": Sample(lambda p, up: ether(up, 0x8847) / labelled(p, 2, up), "MPLS"),
    "mpls_three_labels": Sample(lambda p, up: ether(up, 0x8847) / labelled(p, 3, up), "MPLS", INSIDE6),
    "pppoe": Sample(lambda p, up: ether(up) / PPPoE(sessionid=5) / PPP(proto=0x21) / p, "PPPoE 5"),
    "pppoe_ipv6": Sample(lambda p, up: ether(up) / PPPoE(sessionid=5) / PPP(proto=0x57) / p, "PPPoE 5", INSIDE6),
    "gre": Sample(gre, f"GRE 0 {ENDS4}"),
    "gre_key": Sample(lambda p, up: gre(p, up, key_present=1, key=7), f"GRE 7 {ENDS4}"),
    "gre_sequence": Sample(lambda p, up: gre(p, up, seqnum_present=1, sequence_number=9), f"GRE 0 {ENDS4}"),
    "gre_checksum": Sample(lambda p, up: gre(p, up, chksum_present=1, key_present=1, key=7, seqnum_present=1),
                           f"GRE 7 {ENDS4}"),
    "gre_ethernet": Sample(lambda p, up: gre(bridged(p, up), up, 0x6558), f"GRE 0 {ENDS4}"),
    "gre_mpls": Sample(lambda p, up: gre(labelled(p, 2, up), up, 0x8847), f"GRE 0 {ENDS4} / MPLS"),
    "gre_over_ipv6": Sample(lambda p, up: gre(p, up, six=True), f"GRE 0 {ENDS6}"),
    "pptp": Sample(pptp, f"PPTP {ENDS4}"),
    "erspan_1": Sample(lambda p, up: mirrored(p, up, None), f"ERSPAN 0 {ENDS4}"),
    "erspan_2": Sample(lambda p, up: mirrored(p, up, ERSPAN_II(session_id=9, vlan=30)), f"ERSPAN 9 {ENDS4}"),
    "erspan_3": Sample(lambda p, up: mirrored(p, up, ERSPAN_III(session_id=9), 0x22EB), f"ERSPAN 9 {ENDS4}"),
    "erspan_3_subheader": Sample(
        lambda p, up: mirrored(p, up, ERSPAN_III(session_id=9, o=1) / ERSPAN_PlatformSpecific(), 0x22EB),
        f"ERSPAN 9 {ENDS4}"),
    "erspan_3_ip": Sample(mirrored_ip, f"ERSPAN 9 {ENDS4}"),
    "ip_in_ip": Sample(lambda p, up: outer(up, proto=4) / p, f"IP-in-IP {ENDS4}"),
    "4in6": Sample(lambda p, up: outer(up, True, nh=4) / p, f"IP-in-IP {ENDS6}"),
    "6in4": Sample(lambda p, up: outer(up, proto=41) / p, f"IPv6-in-IP {ENDS4}", INSIDE6),
    "6in6": Sample(lambda p, up: outer(up, True, nh=41) / p, f"IPv6-in-IP {ENDS6}", INSIDE6),
    "etherip": Sample(lambda p, up: outer(up, proto=97) / EtherIP() / bridged(p, up), f"EtherIP {ENDS4}"),
    "mpls_in_ip": Sample(lambda p, up: outer(up, proto=137) / labelled(p, 1, up), f"MPLS {ENDS4} / MPLS"),
    "vxlan": Sample(lambda p, up: udp(up, 4789) / VXLAN(vni=42, flags=8) / bridged(p, up), f"VXLAN 42 {ENDS4}"),
    "vxlan_8472": Sample(lambda p, up: udp(up, 8472) / VXLAN(vni=42, flags=8) / bridged(p, up), f"VXLAN 42 {ENDS4}"),
    "vxlan_vlan": Sample(lambda p, up: udp(up, 4789) / VXLAN(vni=42, flags=8) / ether(up) / Dot1Q(vlan=7) / p,
                         f"VXLAN 42 {ENDS4} / VLAN 7", INSIDE6),
    "geneve_options": Sample(geneve, f"Geneve 42 {ENDS4}"),
    "geneve_ip": Sample(lambda p, up: udp(up, 6081, True) / GENEVE(vni=42, proto=0x86DD) / p, f"Geneve 42 {ENDS6}",
                        INSIDE6),
    "gtp_u": Sample(gtp, f"GTP-U {ENDS4}"),
    "gtp_u_sequence": Sample(lambda p, up: gtp(p, up, S=1, seq=77), f"GTP-U {ENDS4}"),
    "gtp_u_session": Sample(gtp_session, f"GTP-U {ENDS4}"),
    "gtp_u_over_ipv6": Sample(lambda p, up: gtp(p, up, six=True), f"GTP-U {ENDS6}", INSIDE6),
    "teredo": Sample(teredo, f"Teredo {ENDS4}", INSIDE6),
    "teredo_authentication": Sample(lambda p, up: teredo(p, up, AUTHENTICATION), f"Teredo {ENDS4}", INSIDE6),
    "teredo_origin": Sample(lambda p, up: teredo(p, up, ORIGIN), f"Teredo {ENDS4}", INSIDE6),
    "teredo_both": Sample(lambda p, up: teredo(p, up, AUTHENTICATION + ORIGIN), f"Teredo {ENDS4}", INSIDE6),
    "l2tp": Sample(lambda p, up: l2tp(p, up, 0), f"L2TP {ENDS4}"),
    "l2tp_length": Sample(lambda p, up: l2tp(p, up, 0x4000), f"L2TP {ENDS4}"),
    "l2tp_sequence": Sample(lambda p, up: l2tp(p, up, 0x4900, bytes(4)), f"L2TP {ENDS4}"),
    "l2tp_offset": Sample(lambda p, up: l2tp(p, up, 0x0200, b"\0\4padd"), f"L2TP {ENDS4}"),
    "l2tp_compressed": Sample(lambda p, up: l2tp(p, up, 0x4000, ppp=b"\x57"), f"L2TP {ENDS4}", INSIDE6),
    "hep3": Sample(hep3, "HEP3 2001", datagrams_only=True),
    "hep3_ipv6": Sample(hep3, "HEP3 2001", INSIDE6, datagrams_only=True),
    "meta": Sample(lambda p, up: tag(p, up, 0x8909, struct.pack(">HHH", 0x0101, 1, 16 + up)), ""),
    "meta_vlan": Sample(lambda p, up: ether(up) / Dot1Q(vlan=7, type=0x8909) / tag(
        p, up, 0x8909, struct.pack(">HHH", 0x0101, 1, 16 + up)).payload, "VLAN 7", INSIDE6),
    "hsr": Sample(hsr, ""),
    "e_tag": Sample(lambda p, up: tag(p, up, 0x893F, struct.pack(">HHBB", 0, 100 + up, 0, 0)), ""),
    "vn_tag": Sample(lambda p, up: tag(p, up, 0x8926, struct.pack(">HH", up << 15 | 5, 6)), ""),
    "macsec": Sample(lambda p, up: macsec(p, up, 0x00), ""),
    "macsec_channel": Sample(lambda p, up: macsec(p, up, 0x20, bytes.fromhex("0200000000010001")), "", INSIDE6),
    "pbb": Sample(backbone, "VLAN 300 / PBB 4242"),
    "nsh": Sample(lambda p, up: ether(up, 0x894F) / nsh(bytes(p), 1), "NSH"),
    "nsh_ethernet": Sample(lambda p, up: ether(up, 0x894F) / nsh(bytes(bridged(p, up)), 3, 2), "NSH", INSIDE6),
    "nsh_gre": Sample(lambda p, up: outer(up) / GRE(proto=0x894F) / nsh(bytes(p), 1), f"GRE 0 {ENDS4} / NSH"),
    "gpe": Sample(lambda p, up: gpe(bytes(p), up, 1), f"VXLAN-GPE 42 {ENDS4}"),
    "gpe_ethernet": Sample(lambda p, up: gpe(bytes(bridged(p, up)), up, 3), f"VXLAN-GPE 42 {ENDS4}", INSIDE6),
    "gpe_nsh": Sample(lambda p, up: gpe(bytes(nsh(bytes(p), 2)), up, 4), f"VXLAN-GPE 42 {ENDS4} / NSH", INSIDE6),
    "gue": Sample(gue, f"GUE {ENDS4}"),
    "gue_private": Sample(lambda p, up: gue(p, up, struct.pack(">BBBB", 0, 0, 1, 0) + bytes([10, 0, 0, 9])),
                          f"GUE {ENDS4}"),
    "gue_ipv6": Sample(lambda p, up: gue(p, up, bytes(4), 1), f"GUE {ENDS4}", INSIDE6),
    "gue_bare": Sample(lambda p, up: udp(up, 6080) / Raw(bytes(p)), f"GUE {ENDS4}"),
    "gue_bare_ipv6": Sample(lambda p, up: udp(up, 6080, True) / Raw(bytes(p)), f"GUE {ENDS6}", INSIDE6),
    "mpls_in_udp": Sample(lambda p, up: udp(up, 6635) / labelled(p, 2, up), f"MPLS {ENDS4} / MPLS"),
    "mpls_in_udp_ethernet": Sample(
        lambda p, up: udp(up, 6635) / labelled(Raw(bytes(4) + bytes(bridged(p, up))), 1, up), f"MPLS {ENDS4} / MPLS",
        INSIDE6),
    "l2tpv3": Sample(l2tp3, f"L2TPv3 {ENDS4}"),
    "l2tpv3_cookie": Sample(lambda p, up: l2tp3(p, up, b"\xc0\x0c\x1e" + bytes([up])), f"L2TPv3 {ENDS4}"),
    "l2tpv3_long_cookie": Sample(lambda p, up: l2tp3(p, up, b"\xc0\x0c\x1e" * 2 + bytes([7, up])), f"L2TPv3 {ENDS4}",
                                 INSIDE6),
    "l2tpv3_all": Sample(lambda p, up: l2tp3(p, up, b"\xc0\x0c\x1e" * 2 + bytes([7, up]) + b"\x40\0\0\1"),
                         f"L2TPv3 {ENDS4}"),
    "l2tpv3_udp": Sample(lambda p, up: l2tp3(p, up, bytes(4), True), f"L2TPv3 {ENDS4}"),
    "wccp": Sample(wccp, f"GRE 0 {ENDS4}"),
    "wccp_2": Sample(lambda p, up: wccp(p, up, b"\0\0\0\x22"), f"GRE 0 {ENDS4}"),
    "ah": Sample(authenticated, ""),
    "ah_long": Sample(lambda p, up: authenticated(p, up, 32), ""),
    "ah_tunnel": Sample(authenticated_tunnel, f"IPv6-in-IP {ENDS4}", INSIDE6),
    "qinq_mpls_gre": Sample(
        lambda p, up: ether(up) / Dot1AD(vlan=200) / Dot1Q(vlan=100, type=0x8847)
        / labelled(gre(p, up).payload, 2, up), f"VLAN 200 / VLAN 100 / MPLS / GRE 0 {ENDS4}"),
    "vxlan_in_vxlan": Sample(
        lambda p, up: udp(up, 4789) / VXLAN(vni=1, flags=8) / udp(up, 4789) / VXLAN(vni=2, flags=8) / bridged(p, up),
        f"VXLAN 1 {ENDS4} / VXLAN 2 {ENDS4}"),
    "gtp_u_in_vxlan": Sample(lambda p, up: udp(up, 4789) / VXLAN(vni=1, flags=8) / gtp(p, up),
                             f"VXLAN 1 {ENDS4} / GTP-U {ENDS4}"),
    "gre_in_gre": Sample(lambda p, up: gre(gre(p, up, key_present=1, key=7).payload, up),
                         f"GRE 0 {ENDS4} / GRE 7 {ENDS4}"),
}


def frames(name: str) -> list[tuple[int, bytes]]:
    """(time in ns since the epoch, frame) of a sample."""
    sample = SAMPLES[name]
    packets = talk(*sample.inside)
    if sample.datagrams_only:
        packets = packets[:2]
    return [(START_NS + i * 10_000_000, bytes(sample.wrap(packet, up))) for i, (up, packet) in enumerate(packets)]


def encode(packets: list[tuple[int, bytes]]) -> bytes:
    """A nanosecond pcap (LINKTYPE_ETHERNET)."""
    out = io.BytesIO()
    out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
    for ns, data in packets:
        out.write(struct.pack("<IIII", ns // 10**9, ns % 10**9, len(data), len(data)) + data)
    return out.getvalue()


def main() -> None:
    folder = Path(__file__).with_name("made")
    folder.mkdir(exist_ok=True)
    for name in SAMPLES:
        (folder / f"{name}.pcap").write_bytes(encode(frames(name)))


if __name__ == "__main__":
    main()
