"""The E-model: from delay, loss and codec to a rating R and an estimated MOS (ITU-T G.107, narrow band).

Everything but delay, equipment impairment and advantage is at the defaults of G.107 table 1. Codec figures are those
of G.113 Appendix I; codecs that it does not list, and wide-band codecs (G.107.1), have no rating here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

# Defaults of G.107 table 1: loudness ratings, sidetone, echo, noise (dB, dBm0p, dB(A)), quantizing units.
SLR, RLR, STMR, LSTR, DS, TELR, WEPL = 8.0, 2.0, 15.0, 18.0, 3.0, 65.0, 110.0
QDU, NC, NFOR, PS, PR = 1.0, -70.0, -64.0, 35.0, 35.0


class Codec(NamedTuple):
    """Equipment impairment factor Ie and packet-loss robustness factor Bpl (G.113 Appendix I)."""

    ie: float
    bpl: float
    frame_ms: float
    """Look-ahead that the coder adds to the packet's own length (G.114 table A.1)."""


G711_PLAIN_BPL = 4.3
"""G.711 without packet-loss concealment (G.113 Appendix I)."""
CODECS: dict[str, Codec] = {
    "PCMU": Codec(0.0, 25.1, 0.0), "PCMA": Codec(0.0, 25.1, 0.0),  # with the concealment of G.711 Appendix I
    "G729": Codec(11.0, 19.0, 5.0), "G723": Codec(15.0, 16.1, 7.5), "GSM-EFR": Codec(5.0, 10.0, 0.0),
}
"""By encoding name of RFC 3551; G729 as G.729A with silence suppression, G723 at 6.3 kbit/s likewise."""


class Rating(NamedTuple):
    """R and what it is made of: R = basic - delay - codec - loss + advantage."""

    r: float
    delay: float
    """Id."""
    codec: float
    """Ie."""
    loss: float
    """Ie,eff - Ie."""


def _power_sum(*levels: float) -> float:
    return 10 * math.log10(sum(10.0 ** (level / 10) for level in levels))


def _noise() -> float:
    """No: all noise sources at the 0 dBr point, dBm0p (G.107 §7.2)."""
    room_send = PS - SLR - DS - 100 + 0.004 * (PS - SLR - RLR - DS - 14) ** 2
    effective = PR + 10 * math.log10(1 + 10.0 ** ((10 - LSTR) / 10))
    room_receive = RLR - 121 + effective + 0.008 * (effective - 35) ** 2
    return _power_sum(NC, room_send, room_receive, NFOR + RLR)


_NO = _noise()
_RO = 15 - 1.5 * (SLR + _NO)


def _simultaneous() -> float:
    """Is: what comes together with speech (G.107 §7.3)."""
    x = SLR + RLR + 0.2 * (64 + _NO - RLR)
    loudness: float = 20 * ((1 + (x / 8) ** 8) ** (1 / 8) - x / 8)
    own = -10 * math.log10(10.0 ** (-STMR / 10) + 10.0 ** (-TELR / 10))
    sidetone: float = (12 * (1 + ((own - 13) / 6) ** 8) ** (1 / 8) - 28 * (1 + ((own + 1) / 19.4) ** 35) ** (1 / 35)
                - 13 * (1 + ((own - 3) / 33) ** 13) ** (1 / 13) + 29)
    q = 37 - 15 * math.log10(QDU)
    g = 1.07 + 0.258 * q + 0.0602 * q * q
    y, z = (_RO - 100) / 15 + 46 / 8.4 - g / 9, 46 / 30 - g / 40
    return loudness + sidetone + 15 * math.log10(1 + 10**y + 10**z)


BASIC = _RO - _simultaneous()
"""Ro - Is: 93.2 less the small Id of G.107's defaults at no delay."""


def delay_impairment(one_way_ms: float) -> float:
    """Id of G.107 §7.4 for a mouth-to-ear delay in ms, echo at the defaults: T = Ta = delay, Tr = twice that."""
    t = max(one_way_ms, 0.0)
    echo_level = TELR - 40 * math.log10((1 + t / 10) / (1 + t / 150)) + 6 * math.exp(-0.3 * t * t)
    gap = (-1.5 * (_NO - RLR) - (80 + 2.5 * (echo_level - 14))) / 2
    talker = (gap + math.sqrt(gap * gap + 100) - 1) * (1 - math.exp(-t))
    half: float = (_RO - 10.5 * (WEPL + 7) * (2 * t + 1) ** -0.25) / 2
    listener = half + math.sqrt(half * half + 169)
    if t <= 100:
        return talker + listener
    x = math.log10(t / 100) / math.log10(2)
    absolute: float = 25 * ((1 + x**6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2)
    return talker + listener + absolute


def effective_impairment(codec: Codec, loss_percent: float, burst_ratio: float = 1.0) -> float:
    """Ie,eff of G.107 §7.5: Ie + (95 - Ie) · Ppl / (Ppl/BurstR + Bpl)."""
    return codec.ie + (95 - codec.ie) * loss_percent / (loss_percent / burst_ratio + codec.bpl)


def rate(codec: Codec, one_way_ms: float, loss_percent: float, burst_ratio: float = 1.0,
         advantage: float = 0.0) -> Rating:
    """R of one stretch of a stream; ``burst_ratio`` is 1 for random loss, above it for bursts."""
    delay = delay_impairment(one_way_ms)
    equipment = effective_impairment(codec, loss_percent, burst_ratio)
    return Rating(BASIC - delay - equipment + advantage, delay, codec.ie, equipment - codec.ie)


def mos(r: float) -> float:
    """Estimated mean opinion score of R (G.107 Annex B)."""
    if r <= 0:
        return 1.0
    if r >= 100:
        return 4.5
    return max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)


def worst_loss(codec: Codec, one_way_ms: float, r: float) -> float:
    """Percent of random loss at which R falls to ``r``; 0 where it is lower without any loss."""
    room = BASIC - delay_impairment(one_way_ms) - r - codec.ie
    if room <= 0:
        return 0.0
    share = room / (95 - codec.ie)
    return math.inf if share >= 1 else share * codec.bpl / (1 - share)
