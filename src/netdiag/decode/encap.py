"""What a packet is wrapped in: tags and tunnels, outermost first, numbered as paths.

A path is the same for both directions of a conversation: of a tunnel it keeps the two outer addresses without their
order, and leaves out what each direction chooses for itself (MPLS labels, TEIDs of GTP-U, session ids of L2TP, service
paths of NSH).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]

MAX_PATHS = 1 << 15
"""Paths kept apart (practice: forged input could make each packet one); the rest share the last number."""

(ERSPAN, ETHERIP, GENEVE, GRE, GTP, GUE, HEP, IPIP, L2TP, L2TPV3, MPLS, NSH, PBB, PPPOE, PPTP, SIX, TEREDO, VLAN,
 VXLAN, GPE, MORE) = range(21)
NAMES = ("ERSPAN", "EtherIP", "Geneve", "GRE", "GTP-U", "GUE", "HEP3", "IP-in-IP", "L2TP", "L2TPv3", "MPLS", "NSH",
         "PBB", "PPPoE", "PPTP", "IPv6-in-IP", "Teredo", "VLAN", "VXLAN", "VXLAN-GPE",
         "more tunnels than are kept apart")

NUMBERED = (ERSPAN, GENEVE, GRE, HEP, PBB, PPPOE, VLAN, VXLAN, GPE)
"""Kinds with an ``ident``."""


class Level(NamedTuple):
    """One tag or tunnel header."""

    kind: int
    ident: int = 0
    """VLAN id, VNI, I-SID, GRE key, ERSPAN or PPPoE session, HEP3 capture agent; 0 where the kind has none."""
    version: int = 0
    """IP version of the outer header, 0 for what lies on the link layer."""
    low: int = 0
    """Outer addresses as numbers (IPv6: indices), the smaller one first."""
    high: int = 0


@dataclass(slots=True)
class Paths:
    """All paths met, each with a number; 0 is the empty one."""

    values: list[tuple[Level, ...]] = field(default_factory=lambda: [()])
    _index: dict[tuple[int, Level], int] = field(default_factory=dict)

    def extend(self, path: U16, kind: int, ident: U32 | None = None, six: npt.NDArray[np.bool_] | None = None,
               source: U32 | None = None, destination: U32 | None = None) -> U16:
        """Numbers of ``path`` with one more level; without addresses (and ``six``) the level is of the link layer."""
        n = len(path)
        if not n:
            return path
        zero = np.zeros(n, np.uint32)
        columns = [path.astype(np.uint32), ident.astype(np.uint32) if ident is not None else zero, zero, zero, zero]
        if six is not None and source is not None and destination is not None:
            columns[2:] = [np.where(six, 6, 4).astype(np.uint32), np.minimum(source, destination),
                           np.maximum(source, destination)]
        first, back = _distinct(columns)
        numbers = np.zeros(len(first), np.uint16)
        for place in np.argsort(first).tolist():  # numbered as met, the same in each run
            i = first[place]
            numbers[place] = self._number(int(columns[0][i]), Level(kind, *(int(c[i]) for c in columns[1:])))
        return numbers[back]

    def _number(self, path: int, level: Level) -> int:
        key = (path, level)
        number = self._index.get(key)
        if number is None:
            if len(self.values) >= MAX_PATHS:
                if len(self.values) == MAX_PATHS:
                    self.values.append((Level(MORE),))
                return MAX_PATHS
            number = self._index[key] = len(self.values)
            self.values.append((*self.values[path], level))
        return number


def _distinct(columns: list[U32]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Index of the first of each distinct row, and for each row the place of its kind there."""
    n = len(columns[0])
    if all((c == c[0]).all() for c in columns):
        return np.zeros(1, np.intp), np.zeros(n, np.intp)
    mixed = np.zeros(n, np.uint64)
    for column in columns:
        mixed = (mixed ^ column) * np.uint64(secrets.randbits(64) | 1)
        mixed ^= mixed >> np.uint64(31)
    _, first, back = np.unique(mixed, return_index=True, return_inverse=True)
    if all((c == c[first][back]).all() for c in columns):
        return first, back
    _, first, back = np.unique(np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True)
    return first, back.reshape(-1)
