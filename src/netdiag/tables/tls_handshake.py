"""Puts one TLS handshake together from the two byte streams of its connection."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from netdiag.decode import tls_alerts, tls_hello
from netdiag.decode import tls_records as rec
from netdiag.decode.keylog import KeyLog
from netdiag.tables.certs import CertificateStore
from netdiag.tables.streams import Stream

if TYPE_CHECKING:
    from netdiag.decode import tls13

RECORDS_KEPT = 16
FINISHED_MIN = 45
"""Smallest TLS 1.3 record with a Finished: header 4, SHA-256 hash 32, type 1, CCM_8 tag 8 (RFC 8446 §4.4.4, §5.2)."""
TAG = {0x1305: 8}
"""Tag bytes by cipher suite where they are not 16 (TLS_AES_128_CCM_8_SHA256, RFC 6655 §4)."""
_SHA384 = 0x1302

_ALERT = re.compile(rb"\x15\x03[\x00-\x04]\x00\x02[\x01\x02].", re.DOTALL)
_SSL2_HELLO = re.compile(rb"[\x80-\xff].\x01\x03[\x00-\x03]", re.DOTALL)  # RFC 5246 App. E.2


class ReadAlert(NamedTuple):
    """An alert in clear, or one that the key log opened."""

    packet: int
    ts: int
    by: str
    level: int
    description: int


@dataclass(slots=True)
class Half:
    """One direction: the stream, where its TLS starts, and what was read from there."""

    stream: Stream
    start: int
    side: rec.Side
    opened: tls13.Opened | None = None
    """What the key log opened; its messages and alerts are in ``side`` too."""

    def packet(self, end: int) -> int:
        """Packet row with the last byte before position ``end``."""
        return self.stream.packet_at(end - 1)

    def time(self, end: int) -> int:
        return self.stream.time_at(end - 1)

    def first(self, kind: int) -> rec.Message | None:
        for message in self.side.messages:
            if message.type == kind:
                return message
        return None

    def all(self, kind: int) -> list[rec.Message]:
        return [m for m in self.side.messages if m.type == kind]

    def lengths(self, most: int | None = None) -> list[int]:
        """Lengths of the application data records, of the first ``most``."""
        records = self.side.records
        return [records[i].length for i in self.side.application_data[:most]]


@dataclass(slots=True)
class Facts:
    """What the streams say; ``values`` are columns of ``Handshake``."""

    values: dict[str, Any]
    alerts: list[ReadAlert]
    client: Half | None
    server: Half | None
    finished: bool
    """Nothing that is read further on could change the handshake: it was completed, or failed in clear."""
    cut: bool
    problems: list[tuple[str, int]] = field(default_factory=list)
    """(reason, packet row)"""


def _half(stream: Stream, start: int) -> Half:
    return Half(stream, start, rec.read(stream.data, start, stream.holes))


def _looks_like_record(data: bytes) -> bool:
    return (len(data) >= 3 and rec.CHANGE_CIPHER_SPEC <= data[0] <= rec.HEARTBEAT and data[1] == 3 and data[2] <= 4)


def find_client(stream: Stream) -> Half | None:
    """The side that sends a ClientHello, read from its first TLS record; None without one."""
    at = rec.find_hello(stream.data, rec.CLIENT_HELLO)
    if at < 0:
        return None
    start = at
    if at and _looks_like_record(stream.data):
        start = 0
    half = _half(stream, start)
    if half.first(rec.CLIENT_HELLO) is None and start != at:
        half = _half(stream, at)
    return half


def find_server(stream: Stream, after_ns: int | None) -> Half | None:
    """The side that answers: from its ServerHello, or from an alert sent after the ClientHello (``after_ns``)."""
    data = stream.data
    at = rec.find_hello(data, rec.SERVER_HELLO)
    if _looks_like_record(data) and (at >= 0 or after_ns is not None):
        half = _half(stream, 0)
        if at <= 0 or half.first(rec.SERVER_HELLO) is not None:
            return half
    if at >= 0:
        # A warning may stand before the ServerHello, behind the text of STARTTLS.
        return _half(stream, at - 7 if at >= 7 and _ALERT.fullmatch(data, at - 7, at) else at)
    if after_ns is not None:
        for match in _ALERT.finditer(data):
            if stream.time_at(match.start()) >= after_ns:
                return _half(stream, match.start())
    return None


def preface(client: bytes, server: bytes) -> str:
    """The protocol that both sides spoke before TLS, from the bytes before their hellos; "" without any."""
    if not client and not server:
        return ""
    asked = client.upper()
    if client.startswith(b"\x00\x00\x00\x08\x04\xd2\x16\x2f"):  # SSLRequest, PostgreSQL protocol §55.7
        return "postgres"
    if client.startswith((b"PROXY ", b"\r\n\r\n\x00\r\nQUIT\n")):  # HAProxy PROXY protocol, versions 1 and 2
        return "proxy"
    if asked.startswith(b"CONNECT "):
        return "http"
    if b"1.3.6.1.4.1.1466.20037" in client:  # RFC 4511 §4.14.1
        return "ldap"
    if b"AUTH TLS" in asked or b"AUTH SSL" in asked:  # RFC 4217 §4
        return "ftp"
    if b"STLS" in asked and server.startswith(b"+OK"):  # RFC 2595 §4
        return "pop3"
    if b"urn:ietf:params:xml:ns:xmpp-tls" in client or b"urn:ietf:params:xml:ns:xmpp-tls" in server:
        return "xmpp"
    if b"STARTTLS" in asked or server.startswith((b"220 ", b"220-", b"* OK")):
        return "imap" if server.lstrip(b"\r\n").startswith(b"*") or not re.match(rb"[2-5]\d\d[ -]", server) else "smtp"
    return "plain"


def assemble(first: Stream, second: Stream, store: CertificateStore, keys: KeyLog | None = None) -> Facts | None:
    """Facts of the handshake between two streams, ``first`` of them the TCP client's; None when there is no hello.

    With ``keys``, TLS 1.3 is opened as far as they go.

    ``values["swapped"]`` is set when the TCP server is the TLS client.
    """
    client = find_client(first)
    swapped = False
    if client is None and rec.find_hello(first.data, rec.SERVER_HELLO) >= 0:
        client, swapped = find_client(second), True
    elif client is None:
        other = find_client(second)
        if other is not None:
            client, swapped = other, True
    if swapped:
        first, second = second, first
    hello = client.first(rec.CLIENT_HELLO) if client is not None else None
    server = find_server(second, client.time(hello.end) if client is not None and hello is not None else None)
    if server is not None and hello is None and server.first(rec.SERVER_HELLO) is None:
        server = None
    if client is None and server is not None and _looks_like_record(first.data):
        client = _half(first, 0)  # the ClientHello was not captured, what follows it was
    if hello is None and (server is None or server.first(rec.SERVER_HELLO) is None):
        return None
    facts = Facts({"swapped": swapped}, [], client, server, False, False)
    if hello is None and _SSL2_HELLO.match(first.data):
        facts.problems.append(("SSLv2-compatible ClientHello is not read", first.packet_at(0)))
    _client_hello(facts, hello)
    _server_hello(facts)
    if keys is not None and keys.secrets:
        _open(facts, keys)
    _messages(facts, store)
    _alerts(facts)
    _end(facts)
    facts.values["starttls"] = preface(first.data[: client.start if client else 0],
                                       second.data[: server.start if server else 0])
    for half in (client, server):
        if half is not None:
            facts.problems += [(p, half.packet(half.side.records[-1].end if half.side.records else half.start + 1))
                               for p in half.side.problems]
    return facts


def _client_hello(facts: Facts, message: rec.Message | None) -> None:
    v = facts.values
    hello = tls_hello.client_hello(message.body) if message is not None else None
    half = facts.client
    v["client_hellos"] = min(len(half.all(rec.CLIENT_HELLO)), 255) if half is not None else 0
    v["client_hello_packet"] = half.packet(message.end) if half is not None and message is not None else None
    v["client_hello_size"] = len(message.body) + 4 if message is not None else 0
    if hello is None:
        if message is not None and half is not None:
            facts.problems.append(("ClientHello that cannot be read", half.packet(message.end)))
        v |= {"sni": None, "alpn_offered": (), "client_max_version": None, "client_versions": (),
              "fallback_scsv": False, "ciphers_offered": (), "ja4": "", "groups_offered": (), "key_shares": (),
              "signature_algorithms": (), "client_random": "", "client_session_id": "", "resumption_offered": False,
              "early_data": False}
        return
    if hello.problem and half is not None and message is not None:
        facts.problems.append((f"ClientHello: {hello.problem}", half.packet(message.end)))
    v |= {
        "sni": hello.sni, "alpn_offered": hello.alpn, "client_max_version": hello.max_version,
        "client_versions": hello.versions, "fallback_scsv": tls_hello.FALLBACK_SCSV in hello.ciphers,
        "ciphers_offered": hello.ciphers, "ja4": tls_hello.ja4(hello), "groups_offered": hello.groups,
        "key_shares": hello.key_shares, "signature_algorithms": hello.signature_algorithms,
        "client_random": hello.random.hex(), "client_session_id": hello.session_id.hex(),
        "resumption_offered": hello.psk or hello.ticket or (not hello.versions and hello.session_id != b""),
        "early_data": hello.early_data,
    }


def _server_hello(facts: Facts) -> None:
    v, half = facts.values, facts.server
    messages = half.all(rec.SERVER_HELLO) if half is not None else []
    v |= {"server_hellos": min(len(messages), 255), "server_hello_packet": None, "version": None, "cipher": None,
          "alpn_chosen": None, "downgrade_sentinel": None, "group": None, "server_session_id": "", "psk": False,
          "decrypted": False}
    for message in messages:
        assert half is not None
        hello = tls_hello.server_hello(message.body)
        if hello is None:
            facts.problems.append(("ServerHello that cannot be read", half.packet(message.end)))
            continue
        if v["server_hello_packet"] is None:
            v["server_hello_packet"] = half.packet(message.end)
        if hello.problem:
            facts.problems.append((f"ServerHello: {hello.problem}", half.packet(message.end)))
        v |= {"version": hello.version, "cipher": hello.cipher, "alpn_chosen": hello.alpn, "psk": hello.psk,
              "downgrade_sentinel": hello.sentinel, "group": hello.group or v["group"],
              "server_session_id": hello.session_id.hex()}
        if not hello.retry:
            break


def _open(facts: Facts, keys: KeyLog) -> None:
    """Adds what the key log opens to both sides."""
    from netdiag.decode import tls13  # ciphers, which nobody needs without a key log
    v = facts.values
    cipher, random = v["cipher"], bytes.fromhex(v["client_random"])
    if (v["version"] or 0) < 0x0304 or not tls13.supported(cipher):
        return
    for half, who in ((facts.client, "CLIENT"), (facts.server, "SERVER")):
        secret = keys.get(f"{who}_HANDSHAKE_TRAFFIC_SECRET", random)
        if half is None or secret is None:
            continue
        found = tls13.read(half.stream.data, half.side, cipher, secret, keys.get(f"{who}_TRAFFIC_SECRET_0", random))
        if not found.messages and not found.alerts:
            if half.side.application_data:
                facts.problems.append(("key log entry that does not open the handshake",
                                       half.packet(half.side.records[half.side.application_data[0]].end)))
            continue
        half.opened = found
        half.side.messages += found.messages
        half.side.alerts += found.alerts
        v["decrypted"] = True
        extensions = half.first(rec.ENCRYPTED_EXTENSIONS)
        if extensions is not None:
            v["alpn_chosen"] = tls_hello.chosen_protocol(extensions.body)
        if half.first(rec.COMPRESSED_CERTIFICATE) is not None:
            facts.problems.append(("compressed certificate (RFC 8879) is not read",
                                   half.packet(half.side.records[-1].end)))


def _messages(facts: Facts, store: CertificateStore) -> None:
    v = facts.values
    version = v["version"] or 0
    for half, column, packet_column in ((facts.server, "certificates", "certificate_packet"),
                                        (facts.client, "client_certificates", "client_certificate_packet")):
        message = half.first(rec.CERTIFICATE) if half is not None else None
        v[column], v[packet_column] = (), None
        if message is not None and half is not None:
            packet = half.packet(message.end)
            ders, problem = tls_hello.certificates(message.body, version)
            if problem:
                facts.problems.append((f"Certificate message: {problem}", packet))
            rows = (store.add(der, packet) for der in ders)
            v[column], v[packet_column] = tuple(r for r in rows if r is not None), packet
    request = facts.server.first(rec.CERTIFICATE_REQUEST) if facts.server is not None else None
    v |= {"certificate_requested": request is not None, "certificate_request_packet": None,
          "certificate_authorities": (), "certificate_authorities_size": 0}
    if request is not None and facts.server is not None:
        packet = facts.server.packet(request.end)
        asked = tls_hello.certificate_request(request.body, version)
        if asked.problem:
            facts.problems.append((f"CertificateRequest: {asked.problem}", packet))
        v |= {"certificate_request_packet": packet, "certificate_authorities": asked.authorities,
              "certificate_authorities_size": asked.size}


def _alerts(facts: Facts) -> None:
    v = facts.values
    encrypted: list[tuple[int, str]] = []
    for half, by in ((facts.client, "client"), (facts.server, "server")):
        if half is not None:
            facts.alerts += [ReadAlert(half.packet(a.end), half.time(a.end), by, a.level, a.description)
                             for a in half.side.alerts]
            encrypted += [(half.packet(end), by) for end in half.side.encrypted_alerts]
    facts.alerts.sort(key=lambda a: a.packet)
    choose_alert(v, facts.alerts, encrypted)


def choose_alert(v: dict[str, Any], alerts: list[ReadAlert], encrypted: list[tuple[int, str]]) -> None:
    """Fills the alert columns: the first fatal alert that can be read, else the first encrypted one."""
    v |= {"alert_packet": None, "alert_level": None, "alert": None, "alert_by": None, "alert_encrypted": False}
    known = next((a for a in alerts if tls_alerts.fatal(a.level, a.description, v["version"])), None)
    if known is not None:
        v |= {"alert_packet": known.packet, "alert_level": known.level, "alert": known.description,
              "alert_by": known.by}
    elif encrypted:
        packet, by = min(encrypted)
        v |= {"alert_packet": packet, "alert_by": by, "alert_encrypted": True}


def _end(facts: Facts) -> None:
    """completed, resumed, application_data, start and end."""
    v, client, server = facts.values, facts.client, facts.server
    c = client.side if client is not None else rec.Side()
    s = server.side if server is not None else rec.Side()
    ended: list[int] = []
    for half in (client, server):
        if half is not None:
            side = half.side
            ends = [m.end for m in side.messages] + side.encrypted_handshake + [a.end for a in side.alerts]
            ends += side.encrypted_alerts
            ended += [half.time(max(ends))] if ends else []
    if (v["version"] or 0) >= 0x0304:
        lengths = client.lengths() if client is not None else []
        done = client_finished(lengths, v["cipher"])
        v["completed"] = bool(s.application_data) and done is not None
        v["application_data"] = done is not None and any(n != 3 + TAG.get(v["cipher"], 16) for n in lengths[done + 1:])
        v["resumed"] = v["psk"]
        if client is not None and client.opened is not None and server is not None and server.opened is not None:
            v["completed"] = client.opened.finished and server.opened.finished
            v["application_data"] = client.opened.application_data or server.opened.application_data
        if done is not None and client is not None:
            ended.append(client.time(c.records[c.application_data[done]].end))
    else:
        v["completed"] = bool(c.encrypted_handshake and s.encrypted_handshake)
        v["application_data"] = bool(c.application_data or s.application_data)
        types = {m.type for m in s.messages}
        v["resumed"] = (rec.SERVER_HELLO in types and s.change_cipher_spec is not None
                        and not types & {rec.CERTIFICATE, rec.SERVER_HELLO_DONE, rec.COMPRESSED_CERTIFICATE})
        if len(c.encrypted_handshake) > 1 and c.application_data and client is not None:
            facts.problems.append(("TLS renegotiation: only the first handshake is read",
                                   client.packet(c.encrypted_handshake[1])))
    starts = [half.time(m.end) for half, kind in ((client, rec.CLIENT_HELLO), (server, rec.SERVER_HELLO))
              if half is not None and (m := half.first(kind)) is not None]
    v["start_ns"] = min(starts)
    v["end_ns"] = max([*ended, v["start_ns"]])
    v["client_records"] = tuple(client.lengths(RECORDS_KEPT)) if client is not None else ()
    v["server_records"] = tuple(server.lengths(RECORDS_KEPT)) if server is not None else ()
    facts.cut = c.cut or s.cut
    facts.finished = v["completed"] or (v["alert"] is not None)


def finished_size(cipher: int | None) -> int:
    """Length of a TLS 1.3 record that holds a Finished and nothing else."""
    return 4 + (48 if cipher == _SHA384 else 32) + 1 + TAG.get(cipher or 0, 16)


def client_finished(lengths: list[int], cipher: int | None) -> int | None:
    """Index of the client record that holds the Finished of TLS 1.3, by length; None when none can."""
    exact = finished_size(cipher)
    for i, n in enumerate(lengths):
        if n == exact:
            return i
    return next((i for i, n in enumerate(lengths) if n >= FINISHED_MIN), None)
