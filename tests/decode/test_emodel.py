"""The E-model against the worked default example of ITU-T G.107 and its published neighbours."""

from __future__ import annotations

import math

import pytest

from netdiag.decode import emodel
from netdiag.decode.emodel import CODECS


def test_default_parameters_give_the_rating_of_the_recommendation() -> None:
    rating = emodel.rate(CODECS["PCMU"], 0.0, 0.0)
    assert round(rating.r, 1) == 93.2
    assert round(emodel.mos(rating.r), 2) == 4.41


@pytest.mark.parametrize(("r", "mos"), [(90, 4.34), (80, 4.03), (70, 3.60), (60, 3.10), (50, 2.58)])
def test_mos_of_the_category_bounds(r: float, mos: float) -> None:
    # G.107 Annex B, table B.1: lower bounds of the categories of user satisfaction.
    assert emodel.mos(r) == pytest.approx(mos, abs=0.01)  # the table says 4.03 for 4.024


def test_mos_ends_at_its_bounds() -> None:
    assert emodel.mos(-3) == emodel.mos(0) == 1.0
    assert emodel.mos(3) == 1.0  # the cubic dips below 1 for R under 6.5
    assert emodel.mos(100) == emodel.mos(120) == 4.5
    assert all(emodel.mos(r) <= emodel.mos(r + 1) for r in range(100))


@pytest.mark.parametrize("ms", [0, 25, 50, 100, 150, 200, 250, 300, 350, 400])
def test_delay_agrees_with_the_usual_simplification(ms: int) -> None:
    # Cole and Rosenbluth 2001: Id = 0.024 d + 0.11 (d - 177.3) above 177.3 ms; a fit, good to a few units of R.
    simple = 0.024 * ms + 0.11 * max(ms - 177.3, 0)
    assert emodel.delay_impairment(ms) == pytest.approx(simple, abs=3.1)
    assert emodel.delay_impairment(ms + 25) > emodel.delay_impairment(ms)


@pytest.mark.parametrize(("codec", "loss", "burst", "expected"), [
    ("PCMU", 1.0, 1.0, 95 / 26.1), ("PCMU", 0.0, 1.0, 0.0), ("G729", 2.0, 1.0, 11 + 84 * 2 / 21),
    ("G729", 2.0, 2.0, 11 + 84 * 2 / 20), ("G723", 5.0, 1.0, 15 + 80 * 5 / 21.1),
])
def test_effective_impairment_by_hand(codec: str, loss: float, burst: float, expected: float) -> None:
    assert emodel.effective_impairment(CODECS[codec], loss, burst) == pytest.approx(expected)


@pytest.mark.parametrize("codec", list(CODECS))
def test_worst_loss_is_where_the_rating_is_met(codec: str) -> None:
    loss = emodel.worst_loss(CODECS[codec], 130.0, 70.0)
    assert emodel.rate(CODECS[codec], 130.0, loss).r == pytest.approx(70.0)


def test_worst_loss_at_the_ends() -> None:
    assert emodel.worst_loss(CODECS["G723"], 600.0, 70.0) == 0.0
    assert emodel.worst_loss(CODECS["PCMU"], 0.0, -5.0) == math.inf
