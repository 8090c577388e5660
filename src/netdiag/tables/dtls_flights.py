"""One DTLS handshake between two ports as it builds up: flights, repeats, certificates, alerts (RFC 6347 §4.2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from netdiag.decode import dtls, tls_hello


def hello_random(raw: bytes) -> bytes:
    """ClientHello.random of a datagram that begins with one; b"" for any other."""
    start = dtls.RECORD.size + dtls.MESSAGE.size
    if len(raw) < start + 34 or raw[0] != dtls.HANDSHAKE or raw[13] != dtls.CLIENT_HELLO or any(raw[19:22]):
        return b""
    return raw[start + 2 : start + 34]


@dataclass(slots=True)
class Side:
    """What one side of a path sent in one handshake."""

    hellos: list[tuple[int, int]] = field(default_factory=list)
    """Packet and time of each sending of a ClientHello's first piece."""
    sends: dict[tuple[int, int, int], list[tuple[int, int]]] = field(default_factory=dict)
    """message_seq, type and offset of each fragment to its sendings."""
    assembly: dtls.Assembly = field(default_factory=dtls.Assembly)
    certificate: list[tuple[int, int]] = field(default_factory=list)
    """Packet and length of each piece, at its first sending."""
    der: bytes = b""
    random: bytes = b""
    srtp: bool = False
    server_hello: tuple[int, tls_hello.ServerHello | None] | None = None
    verify: bool = False
    encrypted: bool = False

    def most_repeated(self) -> tuple[str, list[tuple[int, int]]]:
        if not self.sends:
            return "", []
        key = max(self.sends, key=lambda k: (len(self.sends[k]), -k[0], -k[2]))
        return dtls.NAMES.get(key[1], f"handshake message {key[1]}"), self.sends[key]


@dataclass(slots=True)
class Handshake:
    index: int
    """Place of its first datagram."""
    path: int
    packet: int
    sides: dict[bool, Side] = field(default_factory=lambda: {True: Side(), False: Side()})
    alerts: list[tuple[int, int, bool, int | None, int | None]] = field(default_factory=list)
    """Packet, time, forward, level, description; the last two None when encrypted."""
    packets: list[int] = field(default_factory=list)
    """Those with handshake messages in clear."""
    start_ns: int = 0
    end_ns: int = 0
    largest: int = 0
    cut: bool = False

    @property
    def real(self) -> bool:
        """Some handshake message was read, not alerts of an old association alone."""
        return any(side.sends for side in self.sides.values())

    def ends_with(self, random: bytes, forward: bool) -> bool:
        """Does another ClientHello of the same side begin a new handshake?"""
        known = self.sides[forward].random
        return bool(known) and known != random

    def add(self, raw: bytes, forward: bool, packet: int, ns: int, wire: int, cut: bool) -> None:
        side = self.sides[forward]
        found, odd = dtls.records(raw)
        self.cut |= cut or odd
        for record in found:
            if record.epoch or record.type == dtls.UNIFIED:
                side.encrypted = True
                if record.type == dtls.ALERT:
                    self.alerts.append((packet, ns, forward, None, None))
            elif record.type == dtls.ALERT and record.end - record.start == 2:
                self.alerts.append((packet, ns, forward, raw[record.start], raw[record.start + 1]))
            elif record.type == dtls.HANDSHAKE:
                pieces, bad = dtls.fragments(raw, record)
                self.cut |= bad
                self.largest = max(self.largest, wire)
                if not self.packets or self.packets[-1] != packet:
                    self.packets.append(packet)
                for piece in pieces:
                    self._message(side, piece, packet, ns)
            else:
                continue
            self.start_ns = self.start_ns or ns
            self.end_ns = ns

    def _message(self, side: Side, piece: dtls.Fragment, packet: int, ns: int) -> None:
        sent = side.sends.setdefault((piece.message_seq, piece.type, piece.offset), [])
        sent.append((packet, ns))
        if piece.type == dtls.CLIENT_HELLO and piece.offset == 0:
            side.hellos.append((packet, ns))
            side.random = side.random or piece.body[2:34]
        if piece.type == dtls.CERTIFICATE and len(sent) == 1:
            side.certificate.append((packet, len(piece.body)))
        side.verify |= piece.type == dtls.HELLO_VERIFY_REQUEST
        if piece.type not in (dtls.CLIENT_HELLO, dtls.SERVER_HELLO, dtls.CERTIFICATE):
            return
        body = side.assembly.add(piece)
        if body is None:
            return
        if piece.type == dtls.CLIENT_HELLO:
            hello, _ = dtls.client_hello(body)
            side.srtp |= hello is not None and dtls.USE_SRTP in hello.extensions
        elif piece.type == dtls.SERVER_HELLO:
            answer = dtls.server_hello(body)
            if answer is not None and answer.retry:
                side.verify = True
            else:
                side.server_hello = side.server_hello or (packet, answer)
        else:
            found, _ = tls_hello.certificates(body, 0x0303)
            side.der = side.der or (found[0] if found else b"")

    @property
    def client_ahead(self) -> bool:
        """Is the client side a of the path?"""
        ahead, back = self.sides[True], self.sides[False]
        if ahead.hellos or back.hellos:
            return not back.hellos or (bool(ahead.hellos) and ahead.hellos[0] <= back.hellos[0])
        return back.server_hello is not None or (ahead.server_hello is None and bool(back.sends))
