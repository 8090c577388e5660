"""TCP options of many SYN segments at once (RFC 9293 §3.1, RFC 7323, RFC 2018)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

WIDTH = 40
"""Room for options: a data offset of 15 words less the fixed header of 20 bytes (RFC 9293 §3.1)."""

END, NOP, MSS, WINDOW_SCALE, SACK_PERMITTED, TIMESTAMPS = 0, 1, 2, 3, 4, 8


class SynOptions(NamedTuple):
    """Columns of equal length; -1 where the option is absent or malformed."""

    mss: npt.NDArray[np.int32]
    window_scale: npt.NDArray[np.int16]
    sack: npt.NDArray[np.bool_]
    timestamps: npt.NDArray[np.bool_]
    malformed: npt.NDArray[np.bool_]
    """An option's length is impossible; what came before it is kept."""


def parse(options: npt.NDArray[np.uint8], size: npt.NDArray[np.integer]) -> SynOptions:
    """Options of n segments: ``options`` has shape (n, WIDTH), ``size`` says how many bytes of each are options."""
    n = len(options)
    out = SynOptions(np.full(n, -1, np.int32), np.full(n, -1, np.int16),
                     np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.bool_))
    limit = np.clip(size, 0, WIDTH).astype(np.int64)
    padded = np.zeros((n, WIDTH + 4), np.uint8)  # an option at the end may be read past its end, never past the row
    padded[:, :WIDTH] = options
    at = np.zeros(n, np.int64)
    live = np.flatnonzero(limit > 0)
    # All segments step from option to option together; each step moves by at least one byte, so WIDTH steps are enough.
    while len(live):
        where = at[live]
        kind = padded[live, where]
        claimed = padded[live, where + 1].astype(np.int64)
        step = np.where(kind <= NOP, 1, claimed)
        bad = (kind > NOP) & ((claimed < 2) | (where + claimed > limit[live]))
        out.malformed[live[bad]] = True
        ok = ~bad
        i = live[ok & (kind == MSS) & (claimed == 4)]
        out.mss[i] = padded[i, at[i] + 2].astype(np.int32) << 8 | padded[i, at[i] + 3]
        i = live[ok & (kind == WINDOW_SCALE) & (claimed == 3)]
        out.window_scale[i] = padded[i, at[i] + 2]
        out.sack[live[ok & (kind == SACK_PERMITTED) & (claimed == 2)]] = True
        out.timestamps[live[ok & (kind == TIMESTAMPS) & (claimed == 10)]] = True
        at[live] += step
        live = live[ok & (kind != END) & (at[live] < limit[live])]
    return out
