"""Samples of SIP-UDP-OVERSIZE: an INVITE that credentials made larger than the path takes."""

from _craft.network import START, Wire, ip
from _craft.sip import Dialog, sdp
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet, Raw

CLIENT, SERVER = "203.0.113.66", "198.51.100.20"
TRAIN = (0.0, 0.5, 1.5, 3.5, 7.5)  # RFC 3261 §17.1.1.2, Timer A
LARGE = "P-Asserted-Identity: <sip:" + "1" * 1400 + "@a.example>\r\n"

HIT_FRAMES = {"hit": list(range(4, 14)), "hit_whole": list(range(1, 6)), "hit_icmp": list(range(4, 15)),
              "hit_receiver": list(range(4, 9)), "hit_response": [3, 4, 5, 6, 7, 8, 9, 10],
              "hit_two_points": {"receiver": list(range(4, 9)), "sender": list(range(4, 14))},
              "hit_two_points_filtered": {"sender": list(range(4, 14))}, "hit_v6": list(range(3, 10))}


def _split(wire: Wire, first: int, *, keep: tuple[bool, ...] = (True, True)) -> None:
    """Replaces the large packets from index ``first`` on by their fragments, as far as ``keep`` says."""
    large, wire.frames[first:] = wire.frames[first:], []
    for number, frame in enumerate(large):
        packet: Packet = frame[IP].copy()
        packet.flags, packet.id = 0, 0x4000 + number
        del packet[IP].len, packet[IP].chksum
        for piece, kept in zip(fragment(packet, 1480), keep, strict=False):
            if kept:
                wire.add(float(frame.time) - START, piece)


def _first_round(wire: Wire, at: float = 0.0) -> Dialog:
    """INVITE, 407, ACK: small, and all of it arrives."""
    dialog = Dialog(wire, CLIENT, SERVER)
    dialog.request(at, "INVITE", body=sdp(CLIENT, 16000))
    dialog.response(at + 0.01, 407, "Proxy Authentication Required")
    dialog.request(at + 0.02, "ACK", to_tag=True, new_branch=False)
    dialog.cseq = 2
    return dialog


def _train(wire: Wire, dialog: Dialog, times: tuple[float, ...] = TRAIN, extra: str = LARGE, method: str = "INVITE",
           at: float = 1.0) -> int:
    """A request sent again and again; returns the index of its first frame."""
    first = len(wire.frames)
    for i, later in enumerate(times):
        dialog.request(at + later, method, new_branch=i == 0, extra=extra, body=sdp(CLIENT, 16000))
    return first


def _vrrp(wire: Wire) -> None:
    """An advertisement (RFC 5798), which has no ports."""
    wire.add(20.0, IP(src="198.51.100.2", dst="224.0.0.18", ttl=255, proto=112, id=9)
             / Raw(b"\x21\x01\x64\x01" + b"\0" * 8))


def hit():
    """The second INVITE is sent five times, in two fragments each, and gets no response."""
    wire = Wire()
    _split(wire, _train(wire, _first_round(wire)))
    return wire.sorted()


def hit_whole():
    """Nothing but a large INVITE, in one packet of a path with large frames."""
    wire = Wire()
    _train(wire, Dialog(wire, CLIENT, SERVER))
    return wire.sorted()


def hit_icmp():
    """The server waited for the second fragment in vain."""
    wire = Wire()
    first = _train(wire, _first_round(wire))
    quoted = ip(CLIENT, SERVER) / UDP(sport=5060, dport=5060) / Raw(b"INVITE sip:")
    _split(wire, first)
    wire.icmp_error(31.0, SERVER, quoted, type=11, code=1)
    return wire.sorted()


def hit_receiver():
    """Next to the server only the first fragments arrive."""
    wire = Wire()
    _split(wire, _train(wire, _first_round(wire)), keep=(True, False))
    return wire.sorted()


def hit_response():
    """The 200 is large, and no ACK comes."""
    wire = Wire()
    dialog = Dialog(wire, CLIENT, SERVER)
    dialog.request(0.0, "INVITE", body=sdp(CLIENT, 16000))
    dialog.response(0.01, 100, "Trying")
    first = len(wire.frames)
    for later in TRAIN[:4]:
        dialog.response(2.0 + later, 200, "OK", body=sdp(SERVER, 17000), extra=LARGE)
    _split(wire, first)
    return wire.sorted()


def hit_two_points():
    """Both fragments leave the sender, and the first alone comes out."""
    near, far = Wire(), Wire()
    _split(near, _train(near, _first_round(near)))
    _split(far, _train(far, _first_round(far)), keep=(True, False))
    _vrrp(far)
    return {"receiver": far.sorted(), "sender": near.sorted()}


def hit_two_points_filtered():
    """The same, but nothing at the receiver says that no filter on ports kept the second one out."""
    near, far = Wire(), Wire()
    _split(near, _train(near, _first_round(near)))
    _split(far, _train(far, _first_round(far)), keep=(True, False))
    return {"receiver": far.sorted(), "sender": near.sorted()}


def hit_v6():
    """A router of an IPv6 path says how much it takes."""
    wire = Wire()
    client, server = "2001:db8:1::66", "2001:db8:2::20"
    dialog = Dialog(wire, client, server)
    dialog.request(0.0, "OPTIONS")
    dialog.response(0.01, 200, "OK", "OPTIONS")
    first = _train(wire, dialog)
    for at in (1.02, 1.52):
        wire.add(at, IPv6(src="2001:db8:9::1", dst=client) / ICMPv6PacketTooBig(mtu=1280)
                 / Raw(bytes(wire.frames[first][IPv6])[:1232]))
    return wire.sorted()


def near_miss_answered():
    """Condition: no response. The large INVITE arrives late, and is answered."""
    wire = Wire()
    dialog = _first_round(wire)
    _train(wire, dialog)
    dialog.response(9.0, 100, "Trying")
    return wire.sorted()


def near_miss_small():
    """Condition: more than 1300 bytes. A server that answers one INVITE and not the next has another fault."""
    wire = Wire()
    _train(wire, _first_round(wire), extra="")
    return wire.sorted()


def near_miss_three_sends():
    """Condition: sent four times. The client gives up early."""
    wire = Wire()
    _train(wire, _first_round(wire), TRAIN[:3])
    return wire.sorted()


def near_miss_deaf():
    """Condition: small requests do not fail. The server is gone: it answers neither this one nor an OPTIONS."""
    wire = Wire()
    _train(wire, _first_round(wire))
    _train(wire, Dialog(wire, CLIENT, SERVER, call_id="ping-1@a.example"), extra="", method="OPTIONS", at=10.0)
    return wire.sorted()


def near_miss_acknowledged():
    """Condition: no ACK. The caller's side of the tap is blind for answers, but it acknowledges one."""
    wire = Wire()
    dialog = Dialog(wire, CLIENT, SERVER)
    _train(wire, dialog)
    dialog.request(9.0, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_filtered():
    """Condition: no response to a first fragment. A filter on ports keeps the others out; the INVITE is answered."""
    wire = Wire()
    dialog = _first_round(wire)
    _split(wire, _train(wire, dialog), keep=(True, False))
    dialog.response(9.0, 100, "Trying")
    return wire.sorted()


def near_miss_receiver_three():
    """Condition: first fragments come four times."""
    wire = Wire()
    _split(wire, _train(wire, _first_round(wire), TRAIN[:3]), keep=(True, False))
    return wire.sorted()


def near_miss_small_fragments():
    """Condition: more than 1300 bytes. A small INVITE in fragments of 400 bytes, of which the second is missing."""
    wire = Wire()
    first = _train(wire, _first_round(wire), extra="X: " + "1" * 300 + "\r\n")
    large, wire.frames[first:] = wire.frames[first:], []
    for number, frame in enumerate(large):
        packet = frame[IP].copy()
        packet.flags, packet.id = 0, 0x4000 + number
        del packet[IP].len, packet[IP].chksum
        wire.add(float(frame.time) - START, fragment(packet, 400)[0])
    return wire.sorted()


def near_miss_small_response():
    """Condition: a 2xx of more than 1300 bytes. A small one is repeated."""
    wire = Wire()
    dialog = Dialog(wire, CLIENT, SERVER)
    dialog.request(0.0, "INVITE", body=sdp(CLIENT, 16000))
    for later in TRAIN:
        dialog.response(2.0 + later, 200, "OK", body=sdp(SERVER, 17000))
    return wire.sorted()


def near_miss_large_response_once():
    """Condition: the 2xx is sent four times. Two of them are lost with their ACKs, and the third arrives."""
    wire = Wire()
    dialog = Dialog(wire, CLIENT, SERVER)
    dialog.request(0.0, "INVITE", body=sdp(CLIENT, 16000))
    for later in TRAIN[:3]:
        dialog.response(2.0 + later, 200, "OK", body=sdp(SERVER, 17000), extra=LARGE)
    return wire.sorted()


def near_miss_large_response_acknowledged():
    """Condition: no ACK to the 2xx. It comes after the fourth 200."""
    wire = Wire()
    dialog = Dialog(wire, CLIENT, SERVER)
    dialog.request(0.0, "INVITE", body=sdp(CLIENT, 16000))
    for later in TRAIN[:4]:
        dialog.response(2.0 + later, 200, "OK", body=sdp(SERVER, 17000), extra=LARGE)
    dialog.request(6.0, "ACK", to_tag=True)
    return wire.sorted()


def near_miss_receiver_deaf():
    """Condition: small requests do not fail. Beside the first fragments stands an OPTIONS that is not answered."""
    wire = Wire()
    _split(wire, _train(wire, _first_round(wire)), keep=(True, False))
    _train(wire, Dialog(wire, CLIENT, SERVER, call_id="ping-1@a.example"), extra="", method="OPTIONS", at=10.0)
    return wire.sorted()


def near_miss_no_contrast_inconclusive():
    """Condition: small messages are answered. First fragments alone may be the work of a capture filter."""
    wire = Wire()
    _split(wire, _train(wire, Dialog(wire, CLIENT, SERVER)), keep=(True, False))
    return wire.sorted()
