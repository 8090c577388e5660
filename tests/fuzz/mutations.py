"""Changes to inputs: of bytes, of pieces, and of captures, whose packets are changed rather than their frame of bytes.

All randomness comes from the given ``random.Random``: the same seed gives the same inputs.
"""

from __future__ import annotations

import random
import struct

from targets import CAPTURES, CHUNKED, chunks, joined

LIMIT = 1 << 16
"""Bytes of an input: what the time limit of the runner is for."""
EDGES = [0, 1, 2, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
NASTY = [b"\x1b]0;x\x07", b"\xff\xfe\x80", b"\xe2\x80\xae", b"\0", b"\r", b"\n", b"\r\n\r\n", b" ", b"\t",
         b"\\\"", b"\"", b"<", b">", b",", b";", b":", b"=", b"9" * 23, b"-1", b"\xd9\xa3", b"\xed\xa0\x80"]
WORDS: dict[str, list[bytes]] = {
    "sip": [b"SIP/2.0 ", b"INVITE sip:a@b SIP/2.0\r\n", b"ACK ", b"Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n", b";tag=",
            b"From: \"\\\"\" <sip:a>;tag=1\r\n", b"To:", b"CSeq: 1 INVITE\r\n", b"Call-ID: 1\r\n", b"Contact: *\r\n",
            b";expires=", b";+sip.instance=\"<", b"Content-Length: ", b"l:", b"i:", b"\r\n\r\n", b"\r\n ",
            b"Content-Type: multipart/mixed;boundary=x\r\n", b"Content-Type: application/sdp\r\n", b"v=0\r\n"],
    "sdp": [b"v=0\r\n", b"o=- 1 1 IN IP4 192.0.2.1\r\n", b"c=IN IP4 192.0.2.1\r\n", b"m=audio 4000 RTP/AVP 0 8\r\n",
            b"a=rtpmap:0 PCMU/8000\r\n", b"a=candidate:1 1 udp 1 192.0.2.1 9\r\n", b"a=rtcp:", b"a=rtcp-mux\r\n",
            b"a=sendonly\r\n", b"a=ptime:20\r\n", b"a=ice-ufrag:x\r\n"],
    "dns": [b"\xc0\x0c", b"\x01a\0", b"\0\x01\0\x01", b"\0\x1c\0\x01", b"\0\0\x29\x10\0\0\0\0\0\0\0",
            b"\0\x0f\0\x02\0\0", b"\x3f", b"\xff\xff", b"\x81\x80", b"\0\x21\0\x01"],
    "tls": [b"\x16\x03\x01", b"\x16\x03\x03\0\x04\x0e\0\0\0", b"\x15\x03\x03\0\x02\x02\x28", b"\x14\x03\x03\0\x01\x01",
            b"\x17\x03\x03", b"\x01\0\0", b"\x02\0\0", b"\x0b\0\0", b"\0\x2b\0\x03\x02\x03\x04",
            b"\0\0\0\x05\0\x03\0\0\0",
            b"DOWNGRD\x01", b"\xff\xff\xff"],
    "x509": [b"\x30\x82", b"\x30\x80", b"\x02\x01", b"\x06\x03\x55\x1d", b"\x06\x03\x55\x04\x03", b"\x04\x82",
             b"\x17\x0d", b"\xa3\x82", b"\x05\0"],
    "rtp": [b"\x80\xc8", b"\x81\xc9", b"\x80\0", b"\x90\x08", b"\x80\xcb\0\x01", b"\x81\xca"],
    "xr": [b"\1\0\0\3", b"\2\0\0\3", b"\3\0\0\2", b"\4\0\0\2", b"\5\0\0\3", b"\6\xf8\0\x09", b"\7\0\0\x08",
           b"\x7f\xff", b"\xff\xff", b"\0\0", b"\x40\1"],
    "srtp": [b"1 AES_CM_128_HMAC_SHA1_80 ", b"AEAD_AES_128_GCM ", b"inline:", b"A" * 40, b"|2^20", b"|1:4", b";",
             b" KDR=1", b" UNAUTHENTICATED_SRTP", b"\x80\0\xff\xff", b"\x80\0\0\0", b"\x9f\0"],
    "keylog": [b"CLIENT_RANDOM ", b"SERVER_HANDSHAKE_TRAFFIC_SECRET ", b"#", b"\n", b"00", b"\x85"],
    "web": [b"\x81", b"\x01", b"\x80", b"\xc1", b"\x88\0", b"\x89\0", b"\xfe", b"\xff", b"\x7e\0\x80", b"\0\0\0\0",
            b"GET / HTTP/1.1\r\n", b"Upgrade: websocket\r\n", b"Sec-WebSocket-Key: eA==\r\n", b"HTTP/1.1 101 \r\n",
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n", b"OPTIONS sip:a SIP/2.0\r\n", b"\r\n"],
    "stun": [b"\0\1", b"\1\1", b"\1\x11", b"\0\3", b"\1\3", b"\0\x16", b"\0\x17", b"\0\x08", b"\1\x08", b"\0\x09",
             b"\1\x09", b"\x21\x12\xa4\x42", b"\0\6\0\x09aaaa:bbbb", b"\0\x24\0\4\0\0\0\1", b"\0\x25\0\0",
             b"\0\x12\0\x08\0\1", b"\0\x13\0\x14", b"\0\x0c\0\4\x40\0\0\0", b"\0\x20\0\x08\0\1",
             b"\0\x09\0\4\0\0\4\1", b"\x80\x28\0\4", b"\0\x08\0\x14", b"\0\x0d\0\4\0\0\0\0", b"\x40\0\0\x08"],
    "dtls": [b"\x16\xfe\xfd\0\0\0\0\0\0\0\0", b"\x14\xfe\xfd", b"\x15\xfe\xfd", b"\x17\xfe\xfd", b"\x2f", b"\0\0",
             b"\1\0\0\x30\0\0\0\0\0\0\0\x30", b"\x0b\0\1\0\0\2\0\0\0\0\0\x10", b"\2\0\0\x26", b"\3\0\0\3",
             b"\xfe\xfd" + bytes(33), b"\2\x28", b"\2\x2a"],
    "ip": [b"\x45", b"\x60", b"\x08\0", b"\x86\xdd", b"\x81\0", b"\x88\xa8", b"\x88\x47", b"\x11", b"\x06", b"\x2f",
           b"\x04", b"\x29", b"\x12\xb5", b"\x08\x68", b"\x0d\xd3", b"HEP3", b"\x08\0\0\0"],
}
_TOPICS = {"sip-text": "sip", "sip-stream": "sip", "sip-messages": "sip", "sip-tcp": "sip", "sdp": "sdp", "dns": "dns",
           "lookups": "dns", "tls-records": "tls", "tls-hello": "tls", "tls-handshake": "tls", "tls13": "tls",
           "tls-protected": "tls", "tls-secure": "web", "websocket": "web",
           "x509": "x509", "rtp": "rtp", "media": "rtp", "rtcp-xr": "xr", "srtp": "srtp",
           "stun": "stun", "stun-table": "stun", "dtls": "dtls", "keylog": "keylog", "frames": "ip",
           "icmp": "ip", "icmp-table": "ip", "engine": "ip", "captures": "ip", "two-points": "ip"}
LINKS = [0, 1, 6, 9, 12, 50, 51, 101, 105, 107, 108, 113, 127, 149, 192, 228, 229, 239, 253, 276]


def words(target: str) -> list[bytes]:
    """Pieces that mean something to this target."""
    topic = _TOPICS.get(target, "")
    return WORDS.get(topic, []) + (WORDS["sdp"] if topic == "sip" else [])


def raw(r: random.Random, data: bytes, known: list[bytes], other: bytes) -> bytes:
    """One to a few changes at byte level."""
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 4))):
        at = r.randrange(len(out) + 1)
        kind = r.randrange(11)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << r.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = r.randrange(256)
        elif kind == 2:
            size = r.choice((1, 2, 3, 4))
            out[at : at + size] = (r.choice(EDGES) & (1 << 8 * size) - 1).to_bytes(size, r.choice(("big", "little")))
        elif kind == 3:
            del out[at : at + r.choice((1, 2, 4, 16, 256))]
        elif kind == 4:
            out[at:at] = r.choice(known or NASTY)
        elif kind == 5:
            word = r.choice(known or NASTY)
            out[at : at + len(word)] = word
        elif kind == 6:
            out[at:at] = r.choice(NASTY) * r.choice((1, 1, 1, 40, 4000))
        elif kind == 7:
            begin = r.randrange(len(out) + 1)
            out[at:at] = out[begin : begin + r.choice((1, 4, 16, 64, 512))] * r.choice((1, 1, 2, 30))
        elif kind == 8 and other:
            begin = r.randrange(len(other))
            out[at : at + r.choice((0, 16, len(out)))] = other[begin : begin + r.choice((8, 64, 1024, len(other)))]
        elif kind == 9:
            out[at : at + 16] = r.randbytes(r.choice((1, 8, 16)))
        else:
            del out[at:]
        if len(out) > LIMIT:
            del out[LIMIT:]
    return bytes(out)


def listed(r: random.Random, pieces: list[bytes], known: list[bytes], others: list[bytes]) -> list[bytes]:
    """Pieces dropped, repeated, moved, taken from elsewhere or changed inside."""
    out = list(pieces)
    for _ in range(r.choice((1, 1, 2, 4))):
        kind, at = r.randrange(8), r.randrange(len(out) + 1)
        if not out or kind == 0:
            out.insert(at, r.choice(others) if others else r.randbytes(20))
        elif kind == 1:
            del out[min(at, len(out) - 1)]
        elif kind == 2:
            out[at:at] = [r.choice(out)] * r.choice((1, 1, 3, 50))
        elif kind == 3:
            out.insert(at, out.pop(r.randrange(len(out))))
        elif kind == 4 and r.random() < 0.2:
            r.shuffle(out)
        else:
            at = min(at, len(out) - 1)
            out[at] = raw(r, out[at], known, r.choice(others) if others else b"")
    return out


def lengths(frame: bytes) -> bytes:
    """IPv4 and UDP lengths made true again, so that the change reaches what lies above."""
    if len(frame) < 42 or frame[12:15] != b"\x08\x00\x45":
        return frame
    out = bytearray(frame[: 14 + 65535])
    struct.pack_into(">H", out, 16, len(out) - 14)
    if out[23] == 17:
        struct.pack_into(">H", out, 38, len(out) - 34)
    return bytes(out)


def records(data: bytes) -> tuple[str, list[bytes]] | None:
    """Byte order and records (with their headers) of a whole pcap file; None for any other."""
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\x4d\x3c\xb2\xa1": "<"}.get(data[:4])
    if order is None:
        return None
    at, out = 24, []
    while at + 16 <= len(data):
        size = struct.unpack_from(order + "I", data, at + 8)[0]
        if at + 16 + size > len(data):
            break
        out.append(data[at : at + 16 + size])
        at += 16 + size
    return order, out


def capture(r: random.Random, data: bytes, known: list[bytes], other: bytes) -> bytes:
    """A capture whose packets are changed; one that is no pcap, and each tenth, is changed as bytes."""
    found, foreign = records(data), records(other)
    if found is None or not found[1] or r.random() < 0.1:
        return raw(r, data, known, other)
    order, of = found
    head = bytearray(data[:24])
    if r.random() < 0.05:
        struct.pack_into(order + "I", head, 20, r.choice(LINKS))
    out = list(of)
    for _ in range(r.choice((1, 2, 4, 16))):
        kind, at = r.randrange(10), r.randrange(len(out))
        seconds, fraction, _, wire = struct.unpack_from(order + "IIII", out[at])
        frame = out[at][16:]
        if kind < 5:
            start = min(r.choice((0, 14, 34, 42, 54)), len(frame))
            frame = frame[:start] + raw(r, frame[start:], known, r.choice(of)[58:])
            frame = lengths(frame) if r.random() < 0.7 else frame
        elif kind == 5:
            out.insert(r.randrange(len(out) + 1), out[at])
        elif kind == 6 and len(out) > 1:
            out.insert(r.randrange(len(out)), out.pop(at))
            continue
        elif kind == 7 and len(out) > 1:
            del out[at]
            continue
        elif kind == 8 and foreign is not None and foreign[0] == order and foreign[1]:
            out.insert(at, r.choice(foreign[1]))
            continue
        else:
            seconds = r.choice((0, 0xFFFFFFFF, seconds + r.randrange(99) & 0xFFFFFFFF, seconds, seconds))
            wire = r.choice((wire, wire, len(frame), *EDGES))
        frame = frame[:LIMIT]
        out[at] = struct.pack(order + "IIII", seconds, fraction, len(frame), wire) + frame
    whole = bytes(head) + b"".join(out)
    return whole[: r.randrange(len(whole))] if r.random() < 0.05 else whole[: 4 * LIMIT]


def mutate(r: random.Random, target: str, data: bytes, other: bytes) -> bytes:
    """A changed input for this target; ``other`` is one to take pieces from."""
    known = words(target)
    if target in CAPTURES:
        return capture(r, data, known, other)
    if target not in CHUNKED or r.random() < 0.1:
        return raw(r, data, known, other)
    skip = 2 if target == "frames" else 0
    head = data[:skip]
    if skip and r.random() < 0.1:
        head = r.choice(LINKS).to_bytes(2, "big")
    pieces = listed(r, list(chunks(data[skip:])), known, list(chunks(other[skip:])))
    if skip:
        pieces = [lengths(p) if r.random() < 0.5 else p for p in pieces]
    return (head + joined(pieces))[:LIMIT]
