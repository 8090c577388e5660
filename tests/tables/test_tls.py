from __future__ import annotations

import csv
import ssl
from pathlib import Path

import pytest
import tls_wire
from cryptography.x509.oid import ExtendedKeyUsageOID
from tcp_wire import ACK, FIN, PSH, RST, Talk, read, write
from tls_wire import contexts, converse, signed

from netdiag.tables import Options, Tables
from netdiag.tables.certs import Certificate
from netdiag.tables.reader import open_captures
from netdiag.tables.schema import rows, schema
from netdiag.tables.tls import Alert, Handshake

CA = signed("ca.example", ca=True)
LEAF = signed("sip.example", CA)
MSS = 1400


def talk(flights: tls_wire.Flights, closes: int = FIN, size: int = MSS, before: tls_wire.Flights = (),  # type: ignore[assignment]
         start: bool = True) -> Talk:
    """A connection that carries ``before`` and ``flights`` in segments of ``size`` bytes; the client closes."""
    out = Talk()
    if start:
        out.handshake()
    sent = {True: 1, False: 1}
    ms = 20.0
    for from_client, data in [*before, *flights]:
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            ms += 1
            send = out.c if from_client else out.s
            send(ms, ACK | PSH, sent[from_client], sent[not from_client], piece)
            sent[from_client] += len(piece)
    if closes:
        out.c(ms + 5, closes | ACK, sent[True], sent[False])
    return out


def one(tables: Tables) -> Handshake:
    assert dict(tables.handshakes.schema) == schema(Handshake)
    assert dict(tables.alerts.schema) == schema(Alert)
    assert dict(tables.certs.schema) == schema(Certificate)
    (row,) = rows(tables.handshakes, Handshake)
    return row


@pytest.mark.parametrize("size", [MSS, 100, 1])
def test_tls12(tmp_path: Path, size: int) -> None:
    flights, _ = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_2, LEAF, CA), "sip.example")
    tables = read(tmp_path / "a.pcap", talk(flights, size=size).frames)
    if size == 1:
        assert len(tables.handshakes) in (0, 1)  # no segment starts with a whole record header
        return
    row = one(tables)
    assert (row.version, row.sni, row.alpn_offered, row.alpn_chosen) == (0x0303, "sip.example", ("h2",), "h2")
    assert row.cipher in row.ciphers_offered
    assert (row.completed, row.resumed, row.truncated, row.application_data) == (True, False, False, True)
    assert (row.alert, row.alert_encrypted, row.alert_by) == (None, True, "client")
    assert (row.closed_by, row.closed_how, row.close_after_certificate_s) == ("client", "fin", None)
    chain = [tables.certs.row(i, named=True)["subject"] for i in row.certificates]
    assert chain == ["CN=sip.example", "CN=ca.example"]
    assert row.ja4.startswith("t12d")
    assert (row.client, row.client_port, row.server_port) == ("192.0.2.10", 40000, 443)
    assert row.client_hello_size > 100
    assert tables.anomalies() == ()


def test_tls13_without_keys(tmp_path: Path) -> None:
    flights, _ = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_3, LEAF), "sip.example")
    row = one(read(tmp_path / "a.pcap", talk(flights).frames))
    assert (row.version, row.completed, row.application_data) == (0x0304, True, True)
    assert (row.certificates, row.certificate_packet, row.alert_packet) == ((), None, None)
    assert row.client_versions == (0x0304,)
    assert not row.truncated
    assert row.server_records


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_refuses_the_certificate(tmp_path: Path, version: ssl.TLSVersion) -> None:
    flights, _ = converse(*contexts(tmp_path, version, LEAF, trust=signed("other.example", ca=True)), "sip.example")
    tables = read(tmp_path / "a.pcap", talk(flights).frames)
    row = one(tables)
    assert (row.alert, row.alert_level, row.alert_by, row.alert_encrypted) == (48, 2, "client", False)
    assert (row.completed, row.truncated) == (False, False)
    (alert,) = rows(tables.alerts, Alert)
    assert (alert.name, alert.handshake, alert.packet) == ("unknown_ca", 0, row.alert_packet)
    if version == ssl.TLSVersion.TLSv1_2:
        assert row.close_after_certificate_s == pytest.approx(0.006, abs=0.002)


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
@pytest.mark.parametrize("refuse", [False, True])
def test_tls13_with_keys(tmp_path: Path, suite: str, refuse: bool) -> None:
    ends = contexts(tmp_path, ssl.TLSVersion.TLSv1_3, LEAF, CA, ask=CA if refuse else None)
    flights, keys = converse(*ends, "sip.example", keylog=True)
    log = tmp_path / "keys"
    log.write_bytes(keys + b"nonsense\n")
    path = write(tmp_path / "a.pcap", talk(flights).frames)
    tables = open_captures([str(path)], options=Options(keylog=str(log)))
    row = one(tables)
    assert row.decrypted
    assert [tables.certs["common_name"][i] for i in row.certificates] == ["sip.example", "ca.example"]
    assert row.alpn_chosen == "h2"
    assert row.certificate_requested == refuse
    assert row.completed != refuse  # the server judges the client's certificate behind both Finished
    if refuse:
        assert (row.alert, row.alert_by, row.client_certificates, row.application_data) == (116, "server", (), False)
        assert row.client_certificate_packet is not None
    else:
        assert (row.alert, row.application_data) == (None, True)
        assert [a.name for a in rows(tables.alerts, Alert)] == ["close_notify", "close_notify"]
    assert [(a.reason, a.count) for a in tables.anomalies()] == [("key log line that is no secret", 1)]


def test_wrong_keys_are_said(tmp_path: Path) -> None:
    flights, keys = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_3, LEAF), "sip.example", keylog=True)
    lines = [line.split() for line in keys.splitlines() if not line.startswith(b"#")]
    path = tmp_path / "keys"
    wrong = (b" ".join([label, random, b"00" * (len(secret) // 2)]) for label, random, secret in lines)
    path.write_bytes(b"\n".join(wrong))
    tables = open_captures([str(write(tmp_path / "a.pcap", talk(flights).frames))], options=Options(keylog=str(path)))
    row = one(tables)
    assert (row.decrypted, row.certificates, row.completed) == (False, (), True)
    assert "key log entry that does not open the handshake" in {a.reason for a in tables.anomalies()}


def test_client_certificate_asked_and_not_sent(tmp_path: Path) -> None:
    flights, _ = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_2, LEAF, ask=CA), "sip.example")
    row = one(read(tmp_path / "a.pcap", talk(flights).frames))
    assert row.certificate_requested
    assert row.client_certificate_packet is not None
    assert row.client_certificates == ()
    assert (row.alert, row.alert_by) == (40, "server")
    assert row.certificate_authorities == ()  # the ssl module names none


def test_client_certificate_sent(tmp_path: Path) -> None:
    phone = signed("phone.example", CA, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    flights, _ = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_2, LEAF, ask=CA, show=phone), "sip.example")
    tables = read(tmp_path / "a.pcap", talk(flights).frames)
    row = one(tables)
    assert [tables.certs["common_name"][i] for i in row.client_certificates] == ["phone.example"]


@pytest.mark.parametrize("keys", [False, True])
def test_server_refuses_the_client_after_its_finished(tmp_path: Path, keys: bool) -> None:
    """In TLS 1.3 the client has finished, and may have sent data, before the server judges its certificate."""
    flights, log = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_3, LEAF, ask=CA), "sip.example", keylog=True)
    key_file = tmp_path / "keys"
    key_file.write_bytes(log)
    path = write(tmp_path / "a.pcap", talk(flights).frames)
    row = one(open_captures([str(path)], options=Options(keylog=str(key_file) if keys else None)))
    assert (row.version, row.completed, row.alert_by) == (0x0304, False, "server")
    assert (row.alert, row.alert_encrypted) == ((116, False) if keys else (None, True))
    end = one(read(tmp_path / "b.pcap", talk(flights, closes=0).frames))
    assert (end.completed, end.alert_by) == (True, None)  # whether the connection goes on is not seen


def test_a_lone_goodbye_of_the_server_is_no_refusal(tmp_path: Path) -> None:
    """The client says close_notify, the server (without tickets) answers with its own."""
    client, server = contexts(tmp_path, ssl.TLSVersion.TLSv1_3, LEAF)
    server.num_tickets = 0
    flights, _ = converse(client, server, "sip.example", said=[])
    row = one(read(tmp_path / "a.pcap", talk(flights).frames))
    assert (row.completed, row.alert_by) == (True, None)


def test_a_server_that_hangs_up_at_once_has_refused_no_certificate(tmp_path: Path) -> None:
    """The client's first encrypted record is its Finished: it was asked for no certificate."""
    client, server = contexts(tmp_path, ssl.TLSVersion.TLSv1_3, LEAF)
    server.num_tickets = 0
    flights, _ = converse(client, server, "sip.example", said=[])
    *shaken, bye, _ = flights
    assert [by_client for by_client, _ in flights] == [True, False, True, True, False]
    row = one(read(tmp_path / "a.pcap", talk([*shaken, (False, bye[1])]).frames))
    assert (row.completed, row.alert_by) == (True, None)


def test_client_refuses_with_an_encrypted_alert(tmp_path: Path) -> None:
    """As Java does: a padded alert is all that the client encrypts. OpenSSL sends it in clear, so it is replaced."""
    flights, _ = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_3, LEAF, trust=CA), "sip.example", say=False)
    hello, answer = flights[0], flights[1]
    alert = b"\x14\x03\x03\x00\x01\x01" + b"\x17\x03\x03\x00\x23" + bytes(35)
    row = one(read(tmp_path / "a.pcap", talk([hello, answer, (True, alert)]).frames))
    assert (row.completed, row.alert, row.alert_by, row.alert_encrypted) == (False, None, "client", True)


def test_resumed_session(tmp_path: Path) -> None:
    hello = tls_wire.message(1, b"\x03\x03" + bytes(32) + b"\x20" + b"s" * 32 + b"\0\2\xc0\x2f\1\0")
    server = tls_wire.message(2, b"\x03\x03" + bytes(32) + b"\x20" + b"s" * 32 + b"\xc0\x2f\0")
    done = tls_wire.record(20, b"\1") + tls_wire.record(22, b"e" * 40)
    flights = [(True, tls_wire.record(22, hello)), (False, tls_wire.record(22, server) + done), (True, done)]
    row = one(read(tmp_path / "a.pcap", talk(flights).frames))
    assert (row.resumed, row.completed, row.resumption_offered) == (True, True, True)
    assert row.client_session_id == row.server_session_id == "73" * 32


def test_starttls(tmp_path: Path) -> None:
    flights, _ = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_2, LEAF), "sip.example")
    text = [(False, b"220 mail.example ESMTP\r\n"), (True, b"STARTTLS\r\n"), (False, b"220 go ahead\r\n")]
    row = one(read(tmp_path / "a.pcap", talk(flights, before=text).frames))
    assert (row.starttls, row.completed, len(row.certificates)) == ("smtp", True, 1)
    plain = one(read(tmp_path / "b.pcap", talk(flights, before=[(True, b"HELO")]).frames))
    assert plain.starttls == "plain"


def test_lost_segment_is_truncated(tmp_path: Path) -> None:
    flights, _ = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_2, LEAF, CA), "sip.example")
    frames = talk(flights, size=300).frames
    lost = [f for i, f in enumerate(frames) if i != 6]
    row = one(read(tmp_path / "a.pcap", lost))
    assert row.truncated
    assert row.certificate_packet is None


def test_snap_length_is_truncated(tmp_path: Path) -> None:
    flights, _ = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_2, LEAF, CA), "sip.example")
    row = one(read(tmp_path / "a.pcap", talk(flights).frames, snaplen=200))
    assert row.truncated
    assert row.certificates == ()


def test_one_direction_is_truncated(tmp_path: Path) -> None:
    flights, _ = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_2, LEAF), "sip.example")
    frames = [f for f in talk(flights).frames if f[1][26:30] == bytes([192, 0, 2, 10])]
    row = one(read(tmp_path / "a.pcap", frames))
    assert (row.server_hello_packet, row.truncated) == (None, True)
    server = one(read(tmp_path / "b.pcap", talk([f for f in flights if not f[0]], start=False, closes=0).frames))
    assert (server.client_hello_packet, server.version, server.truncated) == (None, 0x0303, True)


def test_reset_after_hello(tmp_path: Path) -> None:
    flights, _ = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_2, LEAF), "sip.example")
    frames = talk(flights[:1], closes=0).s(40, RST | ACK, 1, 1 + len(flights[0][1])).frames
    row = one(read(tmp_path / "a.pcap", frames))
    assert (row.closed_by, row.closed_how, row.version, row.truncated) == ("server", "rst", None, False)


def test_alert_without_handshake_and_retransmitted(tmp_path: Path) -> None:
    alert = tls_wire.record(21, b"\x02\x46")
    frames = talk([(True, b"INVITE sip:a@b.example SIP/2.0\r\n"), (False, alert)], closes=0).frames
    tables = read(tmp_path / "a.pcap", [*frames, (frames[-1][0] + 300_000_000, frames[-1][1])])
    assert len(tables.handshakes) == 0
    (row,) = rows(tables.alerts, Alert)
    assert (row.by, row.name, row.handshake) == ("server", "protocol_version", None)


def test_early_warning_is_no_failure(real: Path) -> None:
    row = one(open_captures([str(real / "tls-alert__zeek__tls-early-alert.pcap")]))
    assert (row.alert, row.completed, len(row.certificates)) == (None, True, 4)


def test_names_in_a_certificate_request(real: Path) -> None:
    row = one(open_captures([str(real / "tls-alert__zeek__certificate-request-failed.pcap")]))
    assert len(row.certificate_authorities) == 1
    assert row.certificate_authorities_size == len(row.certificate_authorities[0]) + 2
    assert (row.client_certificates, row.alert, row.truncated) == ((), 40, False)


def test_hello_retry(real: Path) -> None:
    row = one(open_captures([str(real / "tls13-hrr__zeek__hrr.pcap")]))
    assert (row.client_hellos, row.server_hellos, row.version, row.completed) == (2, 2, 0x0304, True)


def test_handshake_messages_over_many_records(real: Path) -> None:
    tables = open_captures([str(real / "tls-fragmented__zeek__tls-fragmented-handshake.pcap.gz")])
    row = one(tables)
    assert tables.packets.locate([row.certificate_packet])[1].tolist() == [410]
    assert tables.certs["common_name"].to_list() == ["Bro"]
    # The value of Zeek's baseline (cert_chain_fps).
    assert tables.certs["sha256"][0] == "af4a46e989dc24078ee2a205490856e059e7f2f9d2114cec4d4c44974add9d34"


REASONS = {
    ("pcapng-dsb__gopacket__test301.pcapng", "alerts"): "tshark decrypts TLS 1.2 records with the embedded secrets",
    ("tls-fragmented__zeek__tls-fragmented-handshake.pcap.gz", "certificates"):
        "tshark does not put a message of 370 kB together; Zeek reads it as we do",
}


def test_real_captures_agree_with_tshark(real: Path) -> None:
    with (real / "TRUTH.tsv").open() as file:
        truth = list(csv.DictReader(file, delimiter="\t"))
    compared = 0
    for line in truth:
        if not any(int(line[k]) for k in ("n_client_hello", "n_server_hello", "n_cert_msgs", "n_tls_alert")):
            continue
        compared += 1
        tables = open_captures([str(real / line["name"])])
        h = tables.handshakes
        got = {"client hellos": int(h["client_hellos"].sum()), "server hellos": int(h["server_hellos"].sum()),
               "names": sorted(set(h["sni"].drop_nulls())),
               "certificates": h["certificate_packet"].count() + h["client_certificate_packet"].count(),
               "alerts": len(tables.alerts)}
        wanted = {"client hellos": int(line["n_client_hello"]), "server hellos": int(line["n_server_hello"]),
                  "names": [n for n in line["sni_set"].split(";") if n], "certificates": int(line["n_cert_msgs"]),
                  "alerts": int(line["n_tls_alert"])}
        for what, value in wanted.items():
            if (line["name"], what) not in REASONS:
                assert got[what] == value, (line["name"], what)
    assert compared > 15


def zeek(path: Path) -> list[dict[str, str]]:
    lines = path.read_text().splitlines()
    fields = next(line for line in lines if line.startswith("#fields")).split("\t")[1:]
    return [dict(zip(fields, line.split("\t"), strict=True)) for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(("test", "capture"), [
    ("imap.starttls", "starttls__zeek__imap-starttls.pcap"), ("smtp.starttls", "starttls__zeek__smtp-starttls.pcap"),
    ("ssl.ecdhe", "tls12__zeek__ecdhe.pcap"), ("ssl.tls1_1", "tls11__zeek__tls1_1.pcap"),
    ("ssl.fragment", "tls-fragmented__zeek__tls-fragmented-handshake.pcap.gz"),
    ("ssl.certificate-request-info", "tls-alert__zeek__certificate-request-failed.pcap"),
    ("ssl.validate-certs-no-cache", "tls-incomplete-chain__zeek__missing-intermediate.pcap"),
])
def test_real_captures_agree_with_zeek(real: Path, test: str, capture: str) -> None:
    (log,) = (real / "zeek_baseline").glob(f"*.{test}/ssl.log")
    tables = open_captures([str(real / capture)])
    found = list(rows(tables.handshakes, Handshake))
    lines = zeek(log)
    assert len(found) == len(lines)
    versions = {0x0301: "TLSv10", 0x0302: "TLSv11", 0x0303: "TLSv12"}
    for row, line in zip(found, lines, strict=True):
        assert str(row.client_port) == line["id.orig_p"]
        assert versions[row.version or 0] == line["version"]
        assert (row.sni or "-") == line["server_name"]
        assert row.completed == (line["established"] == "T")
        assert row.resumed == (line["resumed"] == "T")
        digests = ",".join(tables.certs["sha256"][i] for i in row.certificates)
        assert digests == line["cert_chain_fps"]


def test_missing_keylog_is_one_error(tmp_path: Path) -> None:
    from netdiag.errors import CaptureError
    flights, _ = converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_3, LEAF), "sip.example")
    path = write(tmp_path / "a.pcap", talk(flights).frames)
    tables = open_captures([str(path)], options=Options(keylog=str(tmp_path / "none")))
    with pytest.raises(CaptureError):
        _ = tables.handshakes
