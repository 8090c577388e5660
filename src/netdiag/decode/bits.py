"""Searches short texts, many at once: where a byte stands in each becomes the bits of one 64-bit word.

A text of at most 64 bytes is one row of a matrix; comparing the matrix with a byte and packing the answer into bits
makes "the first semicolon behind the bracket" a few operations on one word a text, without any search.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

WIDTH = 64
"""Bytes of a text that are looked at."""
NOWHERE = 64
"""Position of a bit that is not set."""
_ONE = np.uint64(1)
_TWO = np.uint64(2)


class Texts:
    """Texts ``data[begin:begin + length]``; of each the first 64 bytes count. 64 bytes must follow the last one."""

    def __init__(self, data: U8, begin: I64, length: I64) -> None:
        windows = np.ndarray((len(data) - WIDTH + 1,), f"V{WIDTH}", data, 0, (1,))
        self.bytes: U8 = windows[begin].view(np.uint8).reshape(-1, WIDTH)
        self.inside = below(np.minimum(length, WIDTH))

    def equal(self, byte: int) -> U64:
        """Where ``byte`` stands."""
        return self._packed(self.bytes == byte)

    def at_most(self, byte: int) -> U64:
        """Where a byte stands that is ``byte`` or less."""
        return self._packed(self.bytes <= byte)

    def _packed(self, mask: npt.NDArray[np.bool_]) -> U64:
        out: U64 = np.packbits(mask, axis=1, bitorder="little").view("<u8")[:, 0]
        out &= self.inside
        return out


def below(position: I64) -> U64:
    """All bits below ``position`` (0 to 64)."""
    size = np.maximum(position, 1).astype(np.uint64)
    out: U64 = (_TWO << (size - _ONE)) - _ONE
    out[position <= 0] = 0
    return out


def single(position: I64) -> U64:
    """The bit at ``position`` (0 to 63)."""
    out: U64 = _ONE << position.astype(np.uint64)
    return out


def first(bits: U64) -> I64:
    """Position of the lowest bit; NOWHERE where none is set."""
    out: I64 = np.bitwise_count((bits & (~bits + _ONE)) - _ONE).astype(np.int64)
    return out


def behind(bits: U64, position: I64) -> U64:
    """The bits at ``position`` and above."""
    return bits & ~below(np.minimum(position, WIDTH))
