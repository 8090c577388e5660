"""Samples of CAP-FILTER: what a filter on ports keeps out of a capture, and what is missing for other reasons."""

from _craft.network import START, Connection, Wire
from _craft.sip import Dialog, rtp, sdp
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

PHONE, PROXY, OTHER = "10.20.0.15", "198.51.100.20", "198.51.100.30"
SILENT = ("203.0.113.10", "203.0.113.20", "203.0.113.30")

HIT_FRAMES = {
    "hit": [1, 2, 3, 4], "hit_one_host": [1, 2], "hit_two_points": {"filtered": [1, 2], "whole": [2, 4]},
    "hit_behind_a_device": {"after": [1, 2]}, "hit_icmp_passes": [1, 2],
    "hit_answered": [1],
    "hit_no_icmp": [1, 5, 9], "hit_no_icmp_three_protocols": [1, 5, 7], "hit_one_port": [1, 4],
}

ALSO = ("FW-SYN-DROP",)
"""Hosts that never answer are a fault of their own, and what makes the missing ICMP odd."""


def _datagram(wire, at, src, dst, number, later, ttl=64):
    """A SIP message of 2960 bytes in two fragments (RFC 791 §3.2), the second one only if ``later``."""
    text = b"INVITE sip:bob@b.example SIP/2.0\r\n".ljust(2952, b"x")
    ports = b"\x13\xc4\x13\xc4\x0b\x90\x00\x00"
    whole = ports + text
    for start, end in ((0, 1480), (1480, 2960)) if later else ((0, 1480),):
        header = IP(src=src, dst=dst, id=number, ttl=ttl, proto=17, flags="MF" if end < 2960 else 0, frag=start // 8)
        wire.add(at + start / 1e7, header / Raw(whole[start:end]))


def _who_has(wire, at):
    """An ARP request."""
    frame = Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / ARP(
        hwsrc="02:00:00:00:00:01", psrc=PHONE, pdst="10.20.0.1")
    frame.time = START + at
    wire.frames.append(frame)


def hit():
    """Two hosts send datagrams in fragments, and ``udp port 5060`` passes the first ones only."""
    wire = Wire()
    for i in range(2):
        _datagram(wire, i * 0.5, PHONE, PROXY, 100 + i, False)
        _datagram(wire, i * 0.5 + 0.1, PROXY, PHONE, 200 + i, False)
    return wire.sorted()


def hit_one_host():
    """One host alone: a device on the way could have dropped them as well."""
    wire = Wire()
    for i in range(2):
        _datagram(wire, i * 0.5, PHONE, PROXY, 100 + i, False)
    return wire.sorted()


def hit_two_points():
    """The later fragments are at a second point, one hop behind this one."""
    filtered, whole = Wire(), Wire()
    for i in range(2):
        _datagram(filtered, i * 0.5, PHONE, PROXY, 100 + i, False)
        _datagram(whole, i * 0.5 + 0.001, PHONE, PROXY, 100 + i, True, ttl=63)
    return {"filtered": filtered.sorted(), "whole": whole.sorted()}


def hit_behind_a_device():
    """The later fragments are at a second point, one hop before this one: the device between may have dropped them."""
    before, after = Wire(), Wire()
    for i in range(2):
        _datagram(before, i * 0.5, PHONE, PROXY, 100 + i, True)
        _datagram(after, i * 0.5 + 0.001, PHONE, PROXY, 100 + i, False, ttl=63)
    return {"before": before.sorted(), "after": after.sorted()}


def near_miss_some_later():
    """Condition: not one later fragment. Those of one host are there; those of the other are lost on the way."""
    wire = Wire()
    for i in range(2):
        _datagram(wire, i * 0.5, PHONE, PROXY, 100 + i, True)
        _datagram(wire, i * 0.5 + 0.1, PROXY, PHONE, 200 + i, False)
    return wire.sorted()


def near_miss_vrrp():
    """Condition: nothing but protocols with ports and ICMP. VRRP is there: the fragments were lost before."""
    wire = Wire()
    for i in range(2):
        _datagram(wire, i * 0.5, PHONE, PROXY, 100 + i, False)
    wire.add(1.0, IP(src="10.20.0.2", dst="224.0.0.18", ttl=255, proto=112, id=9)
             / Raw(b"\x21\x01\x64\x01" + b"\0" * 8))
    return wire.sorted()


def hit_icmp_passes():
    """``udp port 5060 or icmp``: an ICMP message is there, and the later fragments of one host are not."""
    wire = Wire()
    for i in range(2):
        _datagram(wire, i * 0.5, PHONE, PROXY, 100 + i, False)
    wire.add(1.0, IP(src=PHONE, dst=PROXY) / ICMP(type=8) / Raw(b"ping"))
    return wire.sorted()


def _large_invite(wire):
    """An INVITE of 2 kB of which the capture holds the first fragment (RFC 791 §3.2)."""
    dialog = Dialog(wire, PHONE, PROXY)
    whole = wire.frames[dialog.request(0.0, "INVITE", extra=f"X-Note: {'n' * 2000}\r\n")]
    wire.frames.clear()
    wire.add(0.0, IP(src=PHONE, dst=PROXY, proto=17, flags="MF", id=100) / Raw(bytes(whole[IP].payload)[:1480]))
    return dialog


def hit_answered():
    """One first fragment alone, and its INVITE is answered: the receiver had the other one, which the file lacks."""
    wire = Wire()
    dialog = _large_invite(wire)
    dialog.response(0.1, 180, "Ringing")
    dialog.response(0.5, 486, "Busy Here")
    dialog.request(0.51, "ACK", to_tag=True, new_branch=False)
    return wire.sorted()


def near_miss_another_answered():
    """Condition: the response is to what began so. The small message that followed is answered, the INVITE is not."""
    wire = Wire()
    dialog = _large_invite(wire)
    dialog.request(0.5, "OPTIONS", cseq=2)
    dialog.response(0.6, 200, "OK", "OPTIONS", cseq=2)
    return wire.sorted()


def near_miss_answered_with_arp():
    """Condition: nothing but what has ports. With ARP in the file, no filter on ports kept the fragment out."""
    wire = Wire()
    _large_invite(wire).response(0.1, 180, "Ringing")
    _who_has(wire, 1.0)
    return wire.sorted()


def near_miss_one_first_fragment():
    """Condition: two first fragments. The capture may have ended before the rest of this one."""
    wire = Wire()
    wire.udp(0.0, PHONE, 5060, PROXY, 5060, b"\r\n\r\n")
    _datagram(wire, 0.5, PHONE, PROXY, 100, False)
    return wire.sorted()


def _silence(hosts=SILENT, syns=4, until=400.0):
    """SYNs to ``hosts`` that nothing answers, and a connection that works until the end."""
    wire = Wire()
    for n, host in enumerate(hosts):
        conn = Connection(wire, PHONE, 40000 + n, host, 443)
        for again, at in enumerate((0.0, 1.0, 3.0, 7.0)[:syns]):
            conn.syn(n * 10 + at, again=again > 0)
    good = Connection(wire, PHONE, 50000, PROXY, 443)
    good.open(60.0)
    good.data(until, True, b"request")
    return wire


def hit_no_icmp():
    """Six minutes of ``tcp port 443``: three hosts never answer, and no router says why."""
    return _silence().sorted()


def hit_no_icmp_three_protocols():
    """The same with a SYN, DNS queries and SIP requests that are repeated in vain."""
    wire = _silence(SILENT[:1])
    for n in range(2):
        wire.udp(20.0 + n * 5, PHONE, 41000 + n, SILENT[1], 53,
                 bytes((0, 7 + n)) + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x01\x00\x01")
    dialog = Dialog(wire, PHONE, SILENT[2])
    for again, at in enumerate((0.0, 0.5, 1.5)):
        dialog.request(30.0 + at, "OPTIONS", new_branch=not again)
    return wire.sorted()


def near_miss_two_silent_hosts():
    """Condition: three hosts. Two may be down."""
    return _silence(SILENT[:2]).sorted()


def near_miss_not_repeated():
    """Condition: requests sent again. Single SYNs are not yet errors."""
    return _silence(syns=1).sorted()


def near_miss_short():
    """Condition: five minutes. In two, no router need have spoken."""
    return _silence(until=120.0).sorted()


def near_miss_icmp():
    """Condition: no ICMP at all. A ping is there, so ICMP was not kept out."""
    wire = _silence()
    wire.add(100.0, IP(src=PHONE, dst=PROXY) / ICMP(type=8) / Raw(b"ping"))
    return wire.sorted()


def near_miss_arp():
    """Condition: nothing but TCP and UDP. ARP would not have passed a filter on ports either."""
    wire = _silence()
    _who_has(wire, 50.0)
    return wire.sorted()


def near_miss_another_protocol():
    """Condition: nothing but TCP and UDP. VRRP (protocol 112) is there."""
    wire = _silence()
    header = IP(src="10.20.0.2", dst="224.0.0.18", ttl=255, proto=112, id=9)
    wire.add(50.0, header / Raw(b"\x21\x01\x64\x01" + b"\0" * 8))
    return wire.sorted()


def _call(wire=None, seconds=30.0, ack=True, port=4000, direction="sendrecv", body=True):
    wire = wire or Wire()
    dialog = Dialog(wire, PHONE, PROXY)
    answered = dialog.answered(0.0, sdp(PHONE, port, direction) if body else "", sdp(PROXY, port, direction), ack=ack)
    if seconds:
        dialog.bye(answered + seconds)
    return wire


def hit_one_port():
    """``port 5060``: an answered call of 30 s, whose media is on port 4000."""
    return _call().sorted()


def near_miss_media_is_there():
    """Condition: one port in all packets. RTP is captured too, one way."""
    wire = _call()
    rtp(wire, 0.2, PHONE, 4000, PROXY, 4000, 1.0)
    return wire.sorted()


def near_miss_other_traffic():
    """Condition: one port in all packets. DNS is captured too: the media does not pass this tap."""
    wire = _call()
    wire.udp(0.01, PHONE, 41000, OTHER, 53,
             b"\0\7\x01\0\0\1\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01")
    return wire.sorted()


def near_miss_media_with_arp():
    """Condition: nothing but what has ports. ARP is captured too: no filter on ports, media goes another way."""
    wire = _call()
    _who_has(wire, 0.3)
    return wire.sorted()


def near_miss_short_call():
    """Condition: five seconds. A call that ends after two may have no media to show."""
    return _call(seconds=2.0).sorted()


def near_miss_not_acknowledged():
    """Condition: the call is set up. Its ACK never came, so neither side need send."""
    return _call(ack=False).sorted()


def near_miss_inactive():
    """Condition: media is announced. Here it is on hold from the start."""
    return _call(direction="inactive").sorted()


def near_miss_same_port():
    """Condition: media on other ports. A test tool that announces its SIP port."""
    return _call(port=5060).sorted()


def near_miss_one_side_announces():
    """Condition: both sides announce media. The answer to an INVITE without offer never got its answer."""
    return _call(body=False).sorted()
