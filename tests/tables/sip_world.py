"""Packet tables made from datagrams in memory, for the tests of the SIP tables."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from netdiag.capture.space import Space
from netdiag.model import CaptureSummary
from netdiag.tables import Tables
from netdiag.tables.packets import CUT, IPV4, IPV6, KIND_NONE, KIND_SIP, UDP, FileMap, Packets, TcpColumns

SECOND = 1_000_000_000
METHODS = (b"INVI", b"ACK ", b"BYE ", b"CANC", b"REGI", b"OPTI", b"INFO", b"PRAC", b"UPDA",
           b"SIP/", b"MESS", b"NOTI", b"SUBS")


class Datagram(NamedTuple):
    """One UDP packet; ``wire`` defaults to the payload's length."""

    time_s: float
    source: str
    source_port: int
    destination: str
    destination_port: int
    payload: bytes
    wire: int | None = None
    flags: int = 0
    ip_id: int = 0
    proto: int = UDP
    point: int = 0


def world(datagrams: Iterable[Datagram], points: tuple[str, ...] = ("capture",)) -> Tables:
    """Tables over these datagrams, in the order given (points in ascending order)."""
    rows = list(datagrams)
    blob = b"\0" * 42 + b"".join(d.payload for d in rows)
    with tempfile.TemporaryFile() as file:
        file.write(blob)
        file.flush()
        space = Space([(file.fileno(), os.fstat(file.fileno()).st_size)])
    length = np.array([len(d.payload) for d in rows], np.int64)
    v6: list[bytes] = []

    def number(text: str) -> tuple[int, int]:
        ip = ipaddress.ip_address(text)
        if ip.version == 4:
            return int(ip), IPV4
        if ip.packed not in v6:
            v6.append(ip.packed)
        return v6.index(ip.packed), IPV6

    src, dst = [number(d.source) for d in rows], [number(d.destination) for d in rows]
    ends = [frozenset([(d.source, d.source_port), (d.destination, d.destination_port)]) for d in rows]
    codes = {e: i for i, e in enumerate(dict.fromkeys(zip(ends, (d.point for d in rows), strict=True)))}
    flow = np.array([codes[(e, d.point)] for e, d in zip(ends, rows, strict=True)], np.uint32)
    wire = np.array([len(d.payload) if d.wire is None else d.wire for d in rows], np.uint32)
    size = np.bincount(flow, minlength=len(codes)).astype(np.int64)
    point = np.array([d.point for d in rows], np.int64)
    empty = np.empty(0, np.uint32)
    packets = Packets(
        space=space,
        ts=np.array([int(d.time_s * SECOND) for d in rows], np.int64),
        src=np.array([s[0] for s in src], np.uint32), dst=np.array([d[0] for d in dst], np.uint32),
        sport=np.array([d.source_port for d in rows], np.uint16),
        dport=np.array([d.destination_port for d in rows], np.uint16),
        proto=np.array([d.proto for d in rows], np.uint8), ttl=np.full(len(rows), 64, np.uint8),
        ip_id=np.array([d.ip_id for d in rows], np.uint16),
        flags=np.array([s[1] | d.flags | (CUT if w > n else 0)
                        for s, d, w, n in zip(src, rows, wire, length, strict=True)], np.uint8),
        kind=np.array([KIND_SIP if d.payload[:4] in METHODS else KIND_NONE for d in rows], np.uint8),
        offset=42 + np.cumsum(length) - length, length=length.astype(np.uint32), wire=wire, flow=flow,
        order=np.argsort(flow, kind="stable").astype(np.uint32), flow_start=np.cumsum(size) - size, flow_size=size,
        tcp=TcpColumns(empty, empty, empty, empty.astype(np.uint16), empty.astype(np.uint8), empty.astype(np.uint8)),
        v6=v6,
        files=FileMap(np.arange(len(points), dtype=np.uint16), np.arange(len(points), dtype=np.uint8),
                      np.searchsorted(point, np.arange(len(points))).astype(np.int64), len(rows)),
    )
    captures = tuple(summary(name) for name in points)
    return Tables(packets, captures, points)


def summary(point: str) -> CaptureSummary:
    values: dict[str, object] = {}
    for name, hint in CaptureSummary.__annotations__.items():
        values[name] = {"str": "", "int": 0, "bool": True}.get(str(hint), {} if "dict" in str(hint) else None)
    return CaptureSummary(**{**values, "point": point, "path": f"{point}.pcap"})  # type: ignore[arg-type]


def message(*lines: str, body: str = "") -> bytes:
    """Start line and headers, then Content-Length and the body."""
    return ("\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n" + body).encode()
