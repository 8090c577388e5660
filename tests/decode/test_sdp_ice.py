"""ICE and DTLS attributes of session descriptions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netdiag.decode import sdp_ice

BODY = b"""v=0\r
o=- 1 1 IN IP4 192.0.2.1\r
s=-\r
a=ice-lite\r
a=ice-ufrag:sess\r
a=ice-pwd:session-password-00000\r
a=fingerprint:SHA-256 aa:bb:cc\r
a=setup:actpass\r
m=audio 4000 UDP/TLS/RTP/SAVPF 111\r
a=candidate:1 1 UDP 2130706431 192.0.2.1 4000 typ host\r
a=candidate:2 1 udp 1694498815 198.51.100.7 61000 typ srflx raddr 192.0.2.1 rport 4000\r
a=candidate:3 1 TCP 1518280447 192.0.2.1 9 typ host tcptype active\r
a=candidate:4 1 UDP 1 4a2c.local 4002 typ host\r
a=candidate:5 1 UDP 1 192.0.2.1 99999 typ host\r
m=video 4002 UDP/TLS/RTP/SAVPF 96\r
a=ice-ufrag:own\r
a=ice-pwd:own-password-000000000000\r
a=setup:passive\r
"""


def test_session_part_holds_where_the_section_is_silent() -> None:
    audio, video = sdp_ice.parse(BODY)
    assert (audio.type, audio.ufrag, audio.setup) == ("audio", "sess", "actpass")
    assert audio.password == "session-password-00000"
    assert (video.type, video.ufrag, video.setup) == ("video", "own", "passive")
    assert audio.lite
    assert video.lite
    assert audio.fingerprints == video.fingerprints == (("sha-256", "AA:BB:CC"),)


def test_candidates() -> None:
    audio, video = sdp_ice.parse(BODY)
    assert [(c.transport, c.address, c.port, c.type) for c in audio.candidates] == [
        ("udp", "192.0.2.1", 4000, "host"), ("udp", "198.51.100.7", 61000, "srflx"), ("tcp", "192.0.2.1", 9, "host"),
        ("udp", "4a2c.local", 4002, "host")]
    assert video.candidates == ()


@given(st.binary(max_size=500))
def test_any_bytes(data: bytes) -> None:
    sdp_ice.parse(data)
    sdp_ice.parse(b"v=0\nm=audio 1 RTP/AVP 0\na=candidate:" + data)
