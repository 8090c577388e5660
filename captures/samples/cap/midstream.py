"""Samples of CAP-MIDSTREAM: flows that were under way when the capture began."""

from _craft.network import Connection, Wire
from _craft.sip import Dialog, rtp, sdp
from _craft.stun import Agents

CLIENT, SERVER = "10.20.0.15", "198.51.100.20"

HIT_FRAMES = {"hit": [1], "hit_late_but_alive": [4], "hit_sip": [1], "hit_rtp": [1]}


def _old(wire: Wire, at: float, answered: bool = True) -> Connection:
    """Data on a connection whose handshake was long ago."""
    conn = Connection(wire, CLIENT, 40000, SERVER, 443, cseq=70_000, sseq=90_000)
    conn.data(at, True, b"request", 0.02 if answered else None)
    if answered:
        conn.data(at + 0.1, False, b"answer")
    return conn


def _new(wire: Wire, at: float = 0.0) -> None:
    """A connection that begins in the capture."""
    Connection(wire, CLIENT, 40001, SERVER, 443).open(at)


def hit():
    """TCP data without a handshake."""
    wire = Wire()
    _old(wire, 0.0)
    return wire.sorted()


def hit_late_but_alive():
    """An old connection that speaks late in the capture, and is answered."""
    wire = Wire()
    _new(wire)
    _old(wire, 60.0)
    return wire.sorted()


def hit_sip():
    """The BYE of a call that was set up before."""
    wire = Wire()
    Dialog(wire, CLIENT, SERVER, cseq=2).bye(0.0)
    return wire.sorted()


def hit_rtp():
    """Audio from the first packet on, without signalling."""
    wire = Wire()
    rtp(wire, 0.0, CLIENT, 4000, SERVER, 4000, 2.0)
    return wire.sorted()


def near_miss_handshake():
    """Condition: the first packet is no SYN. This connection begins in the capture."""
    wire = Wire()
    _new(wire)
    return wire.sorted()


def near_miss_lost_state():
    """Condition: late packets of an old connection meet more than resets. Here a device has forgotten it."""
    wire = Wire()
    _new(wire)
    conn = _old(wire, 60.0, answered=False)
    conn.segment(60.01, False, "R")
    return wire.sorted()


def near_miss_lost_state_of_client():
    """Condition: the same, and the server speaks: the client has forgotten the connection."""
    wire = Wire()
    _new(wire)
    conn = Connection(wire, CLIENT, 40000, SERVER, 443, cseq=70_000, sseq=90_000)
    conn.segment(60.0, False, "PA", b"push")
    conn.segment(60.01, True, "R")
    return wire.sorted()


def near_miss_silence():
    """Condition: late packets of an old connection meet more than silence."""
    wire = Wire()
    _new(wire)
    conn = _old(wire, 60.0, answered=False)
    for at in (60.2, 60.6, 61.4):
        conn.again(at, True, b"request")
    return wire.sorted()


def near_miss_call_from_start():
    """Condition: no INVITE is seen. This call begins in the capture."""
    wire = Wire()
    dialog = Dialog(wire, CLIENT, SERVER)
    dialog.answered(0.0, sdp(CLIENT, 4000), sdp(SERVER, 4000))
    dialog.bye(5.0)
    return wire.sorted()


def near_miss_reordered():
    """Condition: no INVITE at all. Here the capture holds it, behind its ACK."""
    wire = Wire()
    dialog = Dialog(wire, CLIENT, SERVER)
    dialog.answered(0.0, sdp(CLIENT, 4000), sdp(SERVER, 4000))
    wire.frames[-1].time = wire.frames[0].time - 0.001
    return wire.sorted()


def near_miss_cancelled():
    """Condition: a request with To tag. A CANCEL has none, and its INVITE may have been lost."""
    wire = Wire()
    dialog = Dialog(wire, CLIENT, SERVER)
    dialog.request(0.0, "CANCEL")
    return wire.sorted()


def near_miss_response_first():
    """Condition: the dialog's first message is a request. Here the INVITE is missing, not the time before."""
    wire = Wire()
    dialog = Dialog(wire, CLIENT, SERVER)
    dialog.answered(0.0, sdp(CLIENT, 4000), sdp(SERVER, 4000))
    wire.frames = wire.frames[2:]
    return wire.sorted()


def near_miss_rtp_later():
    """Condition: media without SDP from the start. This stream begins inside the capture."""
    wire = Wire()
    _new(wire)
    rtp(wire, 10.0, CLIENT, 4000, SERVER, 4000, 2.0)
    return wire.sorted()


def near_miss_rtp_with_sdp():
    """Condition: no SDP names the media."""
    wire = Wire()
    Dialog(wire, CLIENT, SERVER).answered(0.0, sdp(CLIENT, 4000), sdp(SERVER, 4000))
    rtp(wire, 0.2, CLIENT, 4000, SERVER, 4000, 2.0)
    rtp(wire, 0.2, SERVER, 4000, CLIENT, 4000, 2.0, ssrc=0x5678)
    return wire.sorted()


def near_miss_rtp_behind_nomination():
    """Condition: nothing shows the beginning. ICE nominates this pair before the first media, with SDP elsewhere."""
    wire = Wire()
    Agents(wire, (CLIENT, 4000), (SERVER, 4000)).connect(0.0)
    rtp(wire, 0.3, CLIENT, 4000, SERVER, 4000, 2.0)
    return wire.sorted()
