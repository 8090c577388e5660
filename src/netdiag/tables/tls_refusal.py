"""Refusals in TLS 1.3 that are encrypted, told by the lengths and places of records (RFC 8446 §5.2)."""

from __future__ import annotations

from typing import Any

from netdiag.tables.tls_handshake import TAG, Facts, client_finished, finished_size

JUDGED_NS = 2_000_000_000
"""From the client's Finished to the server's refusal (practice: a round trip and the look at a certificate; a lone
close_notify that comes later ends an idle connection)."""


def hidden_alert(facts: Facts, close_packet: int | None) -> None:
    """Finds the alert with which a TLS 1.3 handshake ended among the encrypted records, by lengths and places.

    A client that refuses sends a record too short for a Finished, and nothing else. A server judges the client's
    certificate when that client has finished and may have sent data already (RFC 8446 §4.4.2.4, §4.4.4): its alert is
    all that it sends behind the Finished, not even a ticket, and the connection closes. With the key log the alert is
    known, and only its place is looked at.
    """
    v, client, server = facts.values, facts.client, facts.server
    if (v["version"] or 0) < 0x0304 or client is None or server is None or close_packet is None or facts.cut:
        return
    if v["client_hello_packet"] is None or client.stream.truncated or server.stream.truncated:
        return
    lengths, alone = client.lengths(), 3 + TAG.get(v["cipher"], 16)
    done = client_finished(lengths, v["cipher"])
    if done is None:
        if len(lengths) == 1 and v["alert_by"] is None and not v["early_data"]:
            _sealed(v, client.packet(client.side.records[client.side.application_data[0]].end), "client")
        return
    finished, *later = [client.side.records[i].end for i in client.side.application_data[done:]]
    answer = [r for r in server.side.records if server.packet(r.end) > client.packet(finished)]
    if len(answer) != 1 or not v["completed"]:
        return
    if lengths[0] == finished_size(v["cipher"]):
        return  # the client was not asked for a certificate: it sends none, not even an empty list, before its Finished
    packet = server.packet(answer[0].end)
    bye = any(n == alone and client.packet(end) < packet for n, end in zip(lengths[done + 1:], later, strict=True))
    if bye or close_packet < packet or server.time(answer[0].end) - client.time(finished) > JUDGED_NS:
        return
    if v["alert"] is not None:
        v["completed"] = v["alert_by"] != "server" or v["alert_packet"] != packet
    elif server.opened is None and v["alert_by"] is None and answer[0].length == alone:
        v["completed"] = False
        _sealed(v, packet, "server")


def _sealed(v: dict[str, Any], packet: int, by: str) -> None:
    v |= {"alert_packet": packet, "alert_by": by, "alert_encrypted": True}
