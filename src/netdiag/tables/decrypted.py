"""What TLS connections carried, opened with the key log: the bytes that each side sent as application data.

Nothing is written anywhere, and nothing is kept here: whoever wants bytes to have an address puts them into the
capture's space (``Space.append``).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import tls_application, tls_hello
from netdiag.decode import tls_records as rec
from netdiag.tables.packets import I64, KIND_TLS
from netdiag.tables.streams import LIMIT, Stream
from netdiag.tables.tls_handshake import Half, find_client, find_server

if TYPE_CHECKING:
    from netdiag.decode.tls_cipher import Keys
    from netdiag.tables import Tables

HELLOS_WITHIN = 1 << 18
"""Bytes of a direction in which the hellos are looked for (practice)."""
NO_HELLO = "TLS connection of which the key log has a secret, but the capture not both hellos"
NO_SECRET = "TLS connection of which the key log has secrets, but none for application data"
NO_CIPHER = "TLS connection with secrets, but a cipher suite, version or compression that is not decrypted"


@dataclass(slots=True)
class Cleartext:
    """Application data of one side of a TLS connection; positions count from its first byte, as in ``Stream``."""

    data: bytes
    truncated: bool
    """The TLS stream goes on beyond the limit."""
    _end: array[int]
    """Where the content of each record ends."""
    _row: array[int]
    """Packet row that completed that record."""
    _ts: I64

    holes: tuple[tuple[int, int], ...] = ()
    """None: what was opened is in one piece, and ends before the first byte that is missing."""

    def packet_at(self, position: int) -> int:
        """Packet row that completed the record with this byte. IndexError when nothing was opened."""
        return self._row[min(bisect_right(self._end, position), len(self._end) - 1)]

    def time_at(self, position: int) -> int:
        """Time of ``packet_at(position)``, ns."""
        return int(self._ts[self.packet_at(position)])

    def packets(self, start: int, end: int) -> npt.NDArray[np.uint32]:
        """Packet rows that completed the records with the bytes from ``start`` up to ``end``, ascending."""
        if end <= start or not self._end:
            return np.zeros(0, np.uint32)
        a, b = bisect_right(self._end, start), bisect_right(self._end, end - 1)
        return np.unique(np.array(self._row[a : b + 1], np.uint32))


Pair = tuple[Cleartext, Cleartext]


class Decrypted:
    """Cleartext on demand; a second call does the work again."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._noted: set[tuple[int, str, int]] = set()

    @cached_property
    def connections(self) -> list[int]:
        """Rows of ``Tables.tcp`` with a TLS handshake that the key log knows, ascending; none without a key log.

        CaptureError when the key log that the user named cannot be read.
        """
        tables = self._tables
        if not (tables.options.keylog or tables.secrets) or not (tables.packets.kind == KIND_TLS).any():
            return []
        known = pl.Series("random", [random.hex() for _, random in tables.keylog.secrets], dtype=pl.String)
        found = tables.handshakes.filter(pl.col("client_random").is_in(known.implode()))
        return found["connection"].unique().sort().to_list()

    def both(self, connection: int, limit: int = LIMIT) -> Pair | None:
        """What the TCP client and the TCP server said, out of at most ``limit`` bytes of TLS each.

        None where the key log does not help; the reason is among the anomalies.
        """
        return self._opened(connection, *self._tables.streams.both(connection, limit))

    def each(self, connections: Sequence[int], limit: int = LIMIT) -> Iterator[Pair | None]:
        """``both`` of many connections, in their order."""
        streams = self._tables.streams.each(connections, limit)
        for connection, (first, second) in zip(connections, streams, strict=True):
            yield self._opened(connection, first, second)

    def _opened(self, connection: int, first: Stream, second: Stream) -> Pair | None:
        client, swapped = find_client(_start_of(first)), False
        if client is None:
            client, swapped = find_client(_start_of(second)), True
        server = find_server(_start_of(first if swapped else second), None)
        keys = self._keys(client, server)
        streams = (second, first) if swapped else (first, second)
        if isinstance(keys, str) or client is None or server is None:
            some = next((s for s in streams if s.data), None)
            if some is not None and isinstance(keys, str):
                self._note(connection, keys, some.packet_at(0))
            return None
        version, of_client, of_server = keys
        out = []
        for stream, half, mine in ((streams[0], client, of_client), (streams[1], server, of_server)):
            found = tls_application.read(stream.data, half.start, stream.holes, mine, version)
            if found.problem:
                self._note(connection, found.problem, stream.packet_at(found.at))
            rows = array("I", map(stream.packet_at, [end - 1 for end in found.record_end]))
            out.append(Cleartext(bytes(found.data), stream.truncated and not found.problem, found.end, rows,
                                 self._tables.packets.ts))
        return (out[1], out[0]) if swapped else (out[0], out[1])

    def _keys(self, client: Half | None, server: Half | None) -> tuple[int, list[Keys], list[Keys]] | str:
        """(version, keys of the client, of the server), or why there are none."""
        from netdiag.decode import tls_cipher  # ciphers, which nobody needs without a key log
        asked = client.first(rec.CLIENT_HELLO) if client is not None else None
        answers = server.all(rec.SERVER_HELLO) if server is not None else []
        hello = next((h for m in answers if (h := tls_hello.server_hello(m.body)) is not None and not h.retry), None)
        if asked is None or hello is None or len(asked.body) < 34:
            return NO_HELLO
        random, get = asked.body[2:34], self._tables.keylog.get
        if not tls_cipher.supported(hello.cipher, hello.version) or hello.compressed:
            return NO_CIPHER
        if hello.version < 0x0304:
            master = get("CLIENT_RANDOM", random)
            if master is None:
                return NO_SECRET
            pair = tls_cipher.connection_keys(hello.cipher, hello.version, master, random, hello.random,
                                              hello.encrypt_then_mac)
            return hello.version, [pair[0]], [pair[1]]
        out: list[list[Keys]] = []
        for who in ("CLIENT", "SERVER"):
            labels = (f"{who}_EARLY_TRAFFIC_SECRET", f"{who}_HANDSHAKE_TRAFFIC_SECRET", f"{who}_TRAFFIC_SECRET_0")
            secrets = [get(label, random) for label in labels]
            if secrets[-1] is None:
                return NO_SECRET
            try:
                out.append([tls_cipher.Keys13(hello.cipher, secret) for secret in secrets if secret is not None])
            except ValueError:
                return NO_SECRET
        return hello.version, out[0], out[1]

    def _note(self, connection: int, reason: str, packet: int) -> None:
        if (connection, reason, packet) not in self._noted:  # once, however often it is asked for
            self._noted.add((connection, reason, packet))
            self._tables.anomaly_log.add("decrypted", reason, packet)


def _start_of(stream: Stream) -> Stream:
    if len(stream.data) <= HELLOS_WITHIN:
        return stream
    return replace(stream, data=stream.data[:HELLOS_WITHIN])
