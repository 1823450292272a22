"""Correlations of effects, drawn against distance or as a heat map."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

import lme4py
from lme4py.errors import OptionError

mpl.use("Agg")
SLEEP = lme4py.load_dataset("sleepstudy")


def test_correlations_against_the_lag() -> None:
    fit = lme4py.lmer("Reaction ~ Days + ar1(0 + Days | Subject)", SLEEP)
    table = fit.plot_data("correlation")
    rho = fit.variance_components["corr(ar1)"]
    # The definition of the structure.
    np.testing.assert_allclose(table["correlation"], rho ** table["distance"], rtol=1e-10)
    assert len(table) == 55
    axes = fit.plot("correlation", "Subject")
    assert axes.get_xlabel() == "distance"


def test_a_heat_map_without_places() -> None:
    fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP)
    table = fit.plot_data("correlation")
    assert "distance" not in table
    assert table["correlation"].iloc[1] == pytest.approx(fit.variance_components["corr(_cons,Days)"], abs=1e-12)
    assert len(fit.plot("correlation").images) == 1


def test_what_is_refused() -> None:
    with pytest.raises(OptionError, match="no term has several"):
        lme4py.lmer("Reaction ~ Days + (1 | Subject)", SLEEP).plot("correlation")
    with pytest.raises(OptionError, match="no term with several"):
        lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP).plot("correlation", "item")
