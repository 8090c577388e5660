"""SIPp scenarios written step by step, and the RTP that they play.

A scenario is a list of steps, strings of SIPp's XML. `CALLER` and `CALLED` say how either end of a dialog writes
From and To; a called end learns them with `invited`. Keys a scenario needs: ``user``, and for a caller ``number``
and ``domain``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class End:
    """One end of a dialog: From and To of its requests."""

    sender: str
    receiver: str


CALLER = End("<sip:[user]@[domain]>;tag=[pid]a[call_number]", "<sip:[number]@[domain]>[peer_tag_param]")
CALLED = End("[$local];tag=[pid]b[call_number]", "[$remote]")


@dataclass(frozen=True, slots=True)
class Packet:
    """One RTP packet of a recording: when it is sent (s), payload type, time stamp, payload, marker bit."""

    at_s: float
    payload_type: int
    timestamp: int
    payload: bytes
    marker: bool = False


def scenario(*steps: str) -> str:
    """The XML of a scenario; line breaks inside a step are kept."""
    return '<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="lab">\n' + "".join(steps) + "</scenario>\n"


def request(end: End, method: str, cseq: int, *headers: str, sdp: str = "", initial: bool = False) -> str:
    """Send a request, repeated until it is answered unless it is an ACK; ``initial`` opens the dialog."""
    lines = [f"{method} {'sip:[number]@[domain]' if initial else '[next_url]'} SIP/2.0",
             "Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]", "Max-Forwards: 70",
             *([] if initial else ["[routes]"]), f"From: {end.sender}", f"To: {end.receiver}", "Call-ID: [call_id]",
             f"CSeq: {cseq} {method}", "Contact: <sip:[user]@[local_ip]:[local_port]>", *headers]
    return _send(lines, sdp, repeated=method != "ACK")


def response(status: str, *headers: str, sdp: str = "", tag: bool = False) -> str:
    """Answer the request that came last, such as ``200 OK``; ``tag`` for the answers to an initial request."""
    lines = [f"SIP/2.0 {status}", "[last_Via:]", "[last_From:]",
             "[last_To:];tag=[pid]b[call_number]" if tag else "[last_To:]", "[last_Call-ID:]", "[last_CSeq:]",
             "[last_Record-Route:]", "Contact: <sip:[user]@[local_ip]:[local_port]>", *headers]
    return _send(lines, sdp, repeated=bool(sdp))


def _send(lines: list[str], sdp: str, repeated: bool) -> str:
    body = ["Content-Type: application/sdp", "Content-Length: [len]", "", sdp.strip()] if sdp else [
        "Content-Length: 0", ""]
    repeat = ' retrans="500"' if repeated else ""
    return f"<send{repeat}><![CDATA[\n" + "\n".join([*lines, *body]) + "\n\n]]></send>\n"


def expect(what: str | int, optional: bool = False, **attributes: str | int) -> str:
    """Wait for a request (its method) or a response (its status)."""
    kind = "response" if isinstance(what, int) else "request"
    more = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f'<recv {kind}="{what}"{" optional=" + chr(34) + "true" + chr(34) if optional else ""}{more}/>\n'


def invited() -> str:
    """Wait for the INVITE that opens a dialog, and keep its From, To and routes for later requests."""
    keep = "".join(
        f'<ereg regexp="{regexp}" search_in="hdr" header="{header}:" assign_to="{name}"/>'
        for header, name, regexp in (("From", "remote", ".*"), ("To", "local", ".*"))
    )
    return (f'<recv request="INVITE" rrs="true"><action>{keep}</action></recv>\n'
            '<Reference variables="remote,local"/>\n')


def pause(seconds: float) -> str:
    """Wait."""
    return f'<pause milliseconds="{round(1000 * seconds)}"/>\n'


def label(name: int) -> str:
    """A place to which ``next`` or ``ontimeout`` leads."""
    return f'<label id="{name}"/>\n'


def play(path: Path) -> str:
    """Begin to play a recording made by `write_rtp`; the scenario goes on at once."""
    return f'<nop><action><exec play_pcap_audio="{path}"/></action></nop>\n'


def write_rtp(path: Path, packets: Iterable[Packet], ssrc: int, sequence: int = 1000) -> Path:
    """Write a capture of one RTP stream for `play`; SIPp fills in addresses and ports. Returns ``path``."""
    records = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for number, packet in enumerate(packets):
        kind = packet.payload_type | (0x80 if packet.marker else 0)
        rtp = struct.pack("!BBHII", 0x80, kind, sequence + number & 0xFFFF, packet.timestamp, ssrc) + packet.payload
        udp = struct.pack("!HHHH", 16000, 16000, 8 + len(rtp), 0) + rtp
        ip = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, 0, 0) + udp
        frame = bytes(12) + b"\x08\x00" + ip
        seconds, microseconds = divmod(round(packet.at_s * 1_000_000), 1_000_000)
        records.append(struct.pack("<IIII", seconds, microseconds, len(frame), len(frame)) + frame)
    path.write_bytes(b"".join(records))
    return path
