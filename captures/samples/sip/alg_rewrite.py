"""Samples of SIP-ALG-REWRITE: a phone at 192.168.1.20 behind a router with 203.0.113.66."""

from _craft.network import Wire
from _craft.offer import body, media

PHONE, ROUTER, SERVER = "192.168.1.20", "203.0.113.66", "198.51.100.10"

HIT_FRAMES = {"hit": [1], "hit_length": [1], "hit_two_ports": [1], "hit_contact": [1], "hit_register": [1],
              "hit_tag": [1], "hit_two_points": {"inside": [1], "outside": [1]},
              "hit_call_id": {"inside": [1], "outside": [1]}, "hit_both_sides": [1, 2, 3, 4]}


def _request(wire: Wire, at: float = 0.0, *, source: str = ROUTER, port: int = 5060, method: str = "INVITE",
             via: str = "", more_via: str = "", contact: str = "", call_id: str = f"abc@{PHONE}", tag: str = "t1",
             sdp: str = ROUTER, off: int = 0, number: int = 1, branch: str = "", video: bool = False) -> None:
    """One request; what is not given is the router's public address."""
    content = body(sdp, media(16000)) if method == "INVITE" else ""
    content += "m=video 16002 RTP/AVP 31\r\n" if video else ""
    kind = "Content-Type: application/sdp\r\n" if content else ""
    text = (f"{method} sip:bob@b.example SIP/2.0\r\nVia: SIP/2.0/UDP {via or ROUTER + ':5060'};rport;"
            f"branch=z9hG4bK{branch or f'a{number}'}\r\n{more_via}Max-Forwards: 70\r\n"
            f"From: <sip:alice@a.example>;tag={tag}\r\nTo: <sip:bob@b.example>\r\nCall-ID: {call_id}\r\n"
            f"CSeq: {number} {method}\r\n"
            f"Contact: <sip:alice@{contact or ROUTER + ':5060'}>\r\n{kind}Content-Length: {len(content) + off}\r\n\r\n")
    wire.udp(at, source, port, SERVER, 5060, text.encode() + content.encode())


def _inside(wire: Wire, **more) -> None:
    """The request as the phone sends it."""
    _request(wire, **{"source": PHONE, "via": f"{PHONE}:5060", "contact": f"{PHONE}:5060", "sdp": PHONE, **more})


def hit():
    """Via, Contact and SDP are public, the Call-ID is not."""
    wire = Wire()
    _request(wire)
    return wire.sorted()


def hit_tag():
    """The From tag keeps the private address."""
    wire = Wire()
    _request(wire, call_id="abc@a.example", tag=f"t@{PHONE}")
    return wire.sorted()


def hit_register():
    """A REGISTER; there is no SDP to compare."""
    wire = Wire()
    _request(wire, method="REGISTER")
    return wire.sorted()


def hit_length():
    """SDP has the longer public address twice, and Content-Length does not count that."""
    wire = Wire()
    _request(wire, call_id="abc@10.0.0.5", via="10.0.0.5:5060", off=-(len(ROUTER) - len("10.0.0.5")) * 2)
    return wire.sorted()


def hit_two_ports():
    """The port is appended to a port."""
    wire = Wire()
    _request(wire, call_id="abc", contact=f"{ROUTER}:5060:1024", sdp=ROUTER)
    return wire.sorted()


def hit_contact():
    """Via and SDP are public, Contact and Call-ID are not."""
    wire = Wire()
    _request(wire, contact=f"{PHONE}:5060")
    return wire.sorted()


def hit_both_sides():
    """One capture of both sides; in the second request a media line is cut off."""
    wire = Wire()
    _inside(wire)
    _request(wire, 0.001)
    _inside(wire, at=1.0, number=2, video=True)
    _request(wire, 1.001, number=2)
    return wire.sorted()


def near_miss_both_sides():
    """Condition: other text. A NAT that leaves it alone, seen from both sides."""
    wire = Wire()
    _inside(wire)
    _inside(wire, at=0.001, source=ROUTER)
    return wire.sorted()


def hit_two_points():
    """Inside and outside of the router."""
    inside, outside = Wire(), Wire()
    _inside(inside)
    _request(outside, 0.001)
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def hit_call_id():
    """The router edits the Call-ID and nothing else."""
    inside, outside = Wire(), Wire()
    _inside(inside, call_id=f"abc@{PHONE}")
    _request(outside, 0.001, via=f"{PHONE}:5060", contact=f"{PHONE}:5060", sdp=PHONE, call_id=f"abc@{ROUTER}")
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def near_miss_knows_its_address():
    """Condition: Call-ID or tag names a private address. The phone writes its public address everywhere."""
    wire = Wire()
    _request(wire, call_id=f"abc@{ROUTER}", tag=f"t@{ROUTER}")
    return wire.sorted()


def near_miss_learned():
    """Condition: more than a public Contact over a private SDP. The phone learned it from received and rport."""
    wire = Wire()
    _request(wire, call_id="abc", sdp=PHONE)
    return wire.sorted()


def near_miss_private_contact():
    """Condition: more than a private Contact over a public SDP. The phone learned the address of its media by STUN."""
    wire = Wire()
    _request(wire, call_id="abc", via=f"{PHONE}:5060", contact=f"{PHONE}:5060")
    return wire.sorted()


def near_miss_plain_nat():
    """Condition: Via names the public address. NAT without ALG: all fields are the phone's own."""
    wire = Wire()
    _request(wire, via=f"{PHONE}:5060", contact=f"{PHONE}:5060", sdp=PHONE)
    return wire.sorted()


def near_miss_proxied():
    """Condition: one Via. A proxy passed the request on."""
    wire = Wire()
    _request(wire, more_via=f"Via: SIP/2.0/UDP {PHONE}:5060;branch=z9hG4bKp1\r\n", contact=f"{PHONE}:5060")
    return wire.sorted()


def near_miss_proxied_one_line():
    """Condition: one Via. Both stand in one header."""
    wire = Wire()
    _request(wire, via=f"{ROUTER}:5060;branch=z9hG4bKp1, SIP/2.0/UDP {PHONE}:5060")
    return wire.sorted()


def near_miss_inside():
    """Condition: the source is public. This is the phone's own side."""
    wire = Wire()
    _inside(wire, sdp=ROUTER)
    return wire.sorted()


def near_miss_wrong_length():
    """Condition: the length is off by the difference of the addresses. It is off by 5; SDP is the phone's own."""
    wire = Wire()
    _request(wire, call_id="abc@10.0.0.5", via="10.0.0.5:5060", sdp="10.0.0.5", off=5)
    return wire.sorted()


def near_miss_right_length():
    """Condition: the length is off. It is right, and both addresses are as long."""
    wire = Wire()
    _request(wire, call_id="abc@10.200.30.40", via="10.200.30.40:5060", sdp="10.200.30.40")
    return wire.sorted()


def near_miss_both_public():
    """Condition: one of Contact and SDP is private. A gateway has signalling and media on two public addresses."""
    wire = Wire()
    _request(wire, call_id="abc", contact=f"{SERVER}:5060")
    return wire.sorted()


def near_miss_other_requests():
    """Condition: INVITE or REGISTER. An OPTIONS of a monitoring probe names what it likes."""
    wire = Wire()
    _request(wire, method="OPTIONS")
    _request(wire, 1.0, call_id="abc", number=2)
    return wire.sorted()


def near_miss_same_text():
    """Condition: the text differs. Only the packet's addresses change between the points."""
    inside, outside = Wire(), Wire()
    _inside(inside)
    _request(outside, 0.001, via=f"{PHONE}:5060", contact=f"{PHONE}:5060", sdp=PHONE)
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def near_miss_new_branch():
    """Condition: the same branch. A border controller sends a request of its own, and keeps the tag."""
    inside, outside = Wire(), Wire()
    _inside(inside)
    _request(outside, 0.001, call_id="def", branch="b1")
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def near_miss_other_tag():
    """Condition: the same tag. A border controller keeps the branch, and starts a dialog of its own."""
    inside, outside = Wire(), Wire()
    _inside(inside)
    _request(outside, 0.001, call_id="def", tag="t2")
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def near_miss_via_added():
    """Condition: no Via more. A proxy between the points keeps the branch of the first, against the rules."""
    inside, outside = Wire(), Wire()
    _inside(inside)
    _request(outside, 0.001, more_via=f"Via: SIP/2.0/UDP {PHONE}:5060;branch=z9hG4bKa1\r\n")
    return {"inside": inside.sorted(), "outside": outside.sorted()}


def near_miss_old_branch():
    """Condition: branches are unique. Without the RFC 3261 cookie two requests may have the same by chance."""
    inside, outside = Wire(), Wire()
    for wire, address in ((inside, "10.0.0.7"), (outside, PHONE)):
        _request(wire, source=address, via=f"{address}:5060", contact=f"{address}:5060", sdp=address)
        load = wire.frames[0].getlayer("Raw")
        load.load = load.load.replace(b"branch=z9hG4bKa1", b"branch=1")
    return {"inside": inside.sorted(), "outside": outside.sorted()}
