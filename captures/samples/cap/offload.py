"""Samples of CAP-OFFLOAD: packets as the sending or receiving host sees them, not as the wire carries them."""

from _craft.network import Connection, Wire, ip
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

CLIENT, SERVER = "10.20.0.15", "198.51.100.20"
JUMBO = (("MSS", 8960), ("SAckOK", b""))

HIT_FRAMES = {"hit": [5], "hit_received": [5], "hit_length_zero": [5], "hit_checksums": [1, 3, 4],
              "hit_checksums_ipv6": [1, 3, 5], "hit_zero_checksums": [1, 3, 4], "hit_giant_datagram": [1]}


def _transfer(size: int, by_client: bool = True, options: tuple[tuple[str, object], ...] = (("MSS", 1460),),
              client: str = CLIENT, server: str = SERVER) -> Wire:
    """A short request and a segment of ``size`` bytes, acknowledged."""
    wire = Wire()
    conn = Connection(wire, client, 40000, server, 443, options=options)
    conn.open(0.0)
    conn.segment(0.1, by_client, "PA", b"request")
    conn.segment(0.101, by_client, "PA", b"x" * size)
    conn.segment(0.12, not by_client, "A")
    return wire


def hit():
    """The client hands its card 5000 bytes in one segment; the server takes 1460."""
    return _transfer(5000).sorted()


def hit_received():
    """The client's card joined what the server sent."""
    return _transfer(2920, by_client=False).sorted()


def near_miss_full_segment():
    """Condition: more than the receiver's MSS. A segment that fills it is as it should be."""
    return _transfer(1460).sorted()


def near_miss_jumbo():
    """Condition: more than the receiver's MSS. Both hosts offer 8960."""
    return _transfer(8960, options=JUMBO).sorted()


def near_miss_own_mss_is_lower():
    """Condition: the MSS of the receiver. The sender's own offer does not bind it."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 443, options=(("MSS", 1200),))
    conn.syn(0.0)
    conn.options = (("MSS", 1460),)
    conn.segment(0.02, False, "SA", options=conn.options)
    conn.segment(0.03, True, "A")
    conn.segment(0.1, True, "PA", b"x" * 1400)
    conn.segment(0.12, False, "A")
    return wire.sorted()


def near_miss_no_option():
    """Condition: an MSS option. Without one the limit of 536 is often not the sender's (options are stripped)."""
    return _transfer(1460, options=()).sorted()


def near_miss_tiny_mss():
    """Condition: an MSS of 536 or more. Some senders ignore a lower one."""
    return _transfer(536, options=(("MSS", 200),)).sorted()


def hit_giant_datagram():
    """One UDP datagram of 20 000 bytes that was never fragmented (UDP segmentation offload)."""
    wire = Wire()
    wire.udp(0.0, CLIENT, 4433, SERVER, 443, b"q" * 20_000)
    wire.udp(0.1, SERVER, 443, CLIENT, 4433, b"answer")
    return wire.sorted()


def near_miss_jumbo_datagram():
    """Condition: more than switches carry. A datagram of 8900 bytes fits into a jumbo frame."""
    wire = Wire()
    wire.udp(0.0, CLIENT, 4433, SERVER, 443, b"q" * 8_900)
    return wire.sorted()


def near_miss_false_length():
    """Condition: the frame holds it. These IP headers name 20 000 bytes, and the frames end after 28 and 45."""
    wire = _transfer(5)
    wire.udp(0.2, CLIENT, 4433, SERVER, 443, b"")
    wire.frames[4][IP].len = wire.frames[6][IP].len = 20_000
    wire.frames[6][UDP].len = 19_980
    return wire.sorted()


def near_miss_fragmented_datagram():
    """Condition: one packet. A datagram of 12 000 bytes comes in fragments."""
    wire = Wire()
    datagram = ip(CLIENT, SERVER) / UDP(sport=4433, dport=443) / Raw(b"q" * 12_000)
    datagram.flags = 0
    datagram.id = 77
    for i, piece in enumerate(IP(bytes(datagram)).fragment(1480)):
        wire.add(i * 0.001, piece)
    return wire.sorted()


def near_miss_one_host():
    """Condition: two hosts. A host that talks to its own address has no link."""
    wire = Wire()
    wire.udp(0.0, CLIENT, 4433, CLIENT, 443, b"q" * 20_000)
    wire.udp(0.1, "127.0.0.1", 4433, "127.0.0.2", 443, b"q" * 20_000)
    return wire.sorted()


def near_miss_loopback_mss():
    """Condition: no MSS option that allows it. Here both offer that of a loopback interface."""
    return _transfer(12_000, options=(("MSS", 65495),)).sorted()


def hit_length_zero():
    """A segment whose IPv4 total length is left to the card."""
    wire = _transfer(1000)
    wire.frames[4][IP].len = 0
    return wire.sorted()


def _pseudo_sum(packet) -> int:
    """Sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1) of a TCP or UDP packet without extension headers."""
    raw = bytes(packet.payload)
    six = raw[0] >> 4 == 6
    addresses = raw[8:40] if six else raw[12:20]
    body = raw[40:] if six else raw[20:]
    total = (raw[6] if six else raw[9]) + len(body)
    total += sum(int.from_bytes(addresses[i : i + 2], "big") for i in range(0, len(addresses), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _left_to_the_card(wire: Wire, source: str, value: int | None = None) -> Wire:
    """All packets of ``source`` as they are before the card completes them."""
    for frame in wire.frames:
        if frame.payload.src == source:
            layer = frame[TCP] if TCP in frame else frame[UDP]
            layer.chksum = _pseudo_sum(frame) if value is None else value
    return wire


def _exchange(client: str = CLIENT, server: str = SERVER) -> Wire:
    """A handshake, two requests and their answers, all small."""
    wire = Wire()
    conn = Connection(wire, client, 40000, server, 443)
    conn.open(0.0)
    conn.segment(0.1, True, "PA", b"request")
    conn.segment(0.12, False, "PA", b"answer")
    conn.segment(0.2, True, "PA", b"another")
    conn.segment(0.22, False, "PA", b"answer")
    return wire


def hit_checksums():
    """The checksums of what the client sends are those of the pseudo-header; the server's are right."""
    return _left_to_the_card(_exchange(), CLIENT).sorted()


def hit_checksums_ipv6():
    """The same over IPv6, of UDP."""
    wire = Wire()
    for i in range(3):
        wire.udp(i * 0.1, "2001:db8::15", 4433, "2001:db8:1::20", 443, b"request %d" % i)
        wire.udp(i * 0.1 + 0.02, "2001:db8:1::20", 443, "2001:db8::15", 4433, b"answer %d" % i)
    return _left_to_the_card(wire, "2001:db8::15").sorted()


def hit_zero_checksums():
    """The checksums of what the client sends are 0."""
    return _left_to_the_card(_exchange(), CLIENT, 0).sorted()


def near_miss_two_packets():
    """Condition: three packets or more. One in 65536 has such a checksum by chance."""
    wire = _left_to_the_card(_exchange(), CLIENT)
    for i in (0, 3):
        wire.frames[i][TCP].chksum = None
    return wire.sorted()


def near_miss_few_of_many():
    """Condition: a tenth of the host's packets. Three of 31."""
    wire = Wire()
    for i in range(31):
        wire.udp(i * 0.1, CLIENT, 4433, SERVER, 443, b"request %d" % i)
    _left_to_the_card(wire, CLIENT)
    for frame in wire.frames[3:]:
        frame[UDP].chksum = None
    return wire.sorted()


def near_miss_wrong_checksums():
    """Condition: the sum of the pseudo-header, or 0. These are wrong in another way: corruption."""
    return _left_to_the_card(_exchange(), CLIENT, 0x1234).sorted()


def near_miss_no_checksums_at_all():
    """Condition: other hosts compute theirs. Where all TCP checksums are 0, a program wrote the packets so."""
    return _left_to_the_card(_left_to_the_card(_exchange(), CLIENT, 0), SERVER, 0).sorted()


def near_miss_no_udp_checksum():
    """Condition: TCP where it is 0. UDP over IPv4 does without a checksum when it is 0."""
    wire = Wire()
    for i in range(4):
        wire.udp(i * 0.1, CLIENT, 4433, SERVER, 443, b"request %d" % i)
    return _left_to_the_card(wire, CLIENT, 0).sorted()


def _right_by_chance(tail: bytes = b"") -> Wire:
    """Four equal datagrams whose right checksum is the sum of the pseudo-header."""
    wire = Wire()
    payload = bytearray(b"keep")
    probe = ip(CLIENT, SERVER) / UDP(sport=4433, dport=443) / Raw(bytes(payload) + tail)
    want = _pseudo_sum(wire.frames[wire.add(0.0, probe)])
    wire.frames.clear()
    # pseudo + header + payload must sum to ~pseudo: the second word of the payload makes up for the rest.
    body = 4433 + 443 + 12 + len(tail) + int.from_bytes(payload[:2], "big")
    rest = 0xFFFF - want - want - body
    payload[2:] = (rest % 0xFFFF).to_bytes(2, "big")
    for i in range(4):
        wire.udp(i * 0.1, CLIENT, 4433, SERVER, 443, bytes(payload) + tail)
    return wire


def near_miss_right_by_chance():
    """Condition: the checksum is wrong. That of these datagrams is right, and looks as if it were not computed."""
    return _right_by_chance().sorted()


def near_miss_cut():
    """Condition: the whole packet is there. Of these nobody can say whether the checksum is right."""
    out = []
    for frame in _right_by_chance(bytes(200)).sorted():
        data = bytes(frame)
        short = Raw(data[:60])
        short.time, short.wirelen = frame.time, len(data)
        out.append(short)
    return out
