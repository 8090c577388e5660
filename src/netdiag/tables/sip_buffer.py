"""Many SIP messages side by side in one buffer, for searching them together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import GUARD, Space
from netdiag.decode.sip_headers import PAD

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

_SLOT = 64
"""Messages take whole slots: all of one number of slots are copied at once."""
_FEED = 10


def gather(space: Space, offset: I64, length: I64) -> tuple[U8, I64]:
    """(buffer, start of each message in it): a line feed, then zeros behind each message, PAD zeros behind the last."""
    size = (length // _SLOT + 1) * _SLOT
    begin = np.cumsum(size) - size
    total = int(size.sum())
    data = np.empty(total + PAD, np.uint8)
    data[total:] = 0
    order = np.argsort(size, kind="stable")
    widths, first = np.unique(size[order], return_index=True)
    for width, rows in zip(widths.tolist(), np.split(order, first[1:]), strict=True):
        if width <= GUARD:
            _windows(data, width)[begin[rows]] = _windows(space.array, width)[offset[rows]]
        else:
            for row in rows.tolist():
                data[begin[row] : begin[row] + length[row]] = space.array[offset[row] : offset[row] + length[row]]
    end = begin + length
    last = begin + size - _SLOT
    tails = _windows(data, _SLOT)
    block = tails[last].view(np.uint8).reshape(-1, _SLOT)
    block *= np.arange(_SLOT) < (end - last)[:, None]
    tails[last] = block.view(f"V{_SLOT}")[:, 0]
    data[end] = _FEED
    return data, begin


def _windows(data: U8, width: int) -> npt.NDArray[np.void]:
    return np.ndarray((len(data) - width + 1,), f"V{width}", data, 0, (1,))
