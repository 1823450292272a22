"""Prior and working weights of rows: those of R's ``weights``."""

from __future__ import annotations

import numpy as np
import pytest

from lme4py import glmer, lmer, load_dataset
from lme4py.errors import OptionError


def test_of_a_linear_model():
    data = load_dataset("sleepstudy").assign(w=np.linspace(0.5, 2.0, 180))
    fit = lmer("Reaction ~ Days + (1 | Subject)", data, weights="w")
    for kind in ("prior", "working"):
        np.testing.assert_array_equal(fit.weights(kind), data["w"])
    assert (lmer("Reaction ~ Days + (1 | Subject)", data).weights() == 1.0).all()
    with pytest.raises(OptionError, match="Did you mean 'prior'"):
        fit.weights("prio")


def test_of_trials():
    data = load_dataset("cbpp")
    fit = glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", data)
    np.testing.assert_array_equal(fit.weights(), data["size"])
    p = fit.fittedvalues
    np.testing.assert_allclose(fit.weights("working"), data["size"] * p * (1 - p), rtol=1e-10)  # the same product
    # weights(fit, type = "working") of lme4 1.1-31: those of its last iteration but one.
    np.testing.assert_allclose(
        fit.weights("working")[:6], [2.98486, 1.46015, 0.99107, 0.38498, 2.87858, 1.07213], rtol=1e-3
    )


def test_of_a_link_that_is_not_canonical():
    data = load_dataset("Salamanders")
    fit = glmer("count ~ mined + (1 | site)", data, family="nbinomial")
    mu = fit.fittedvalues
    np.testing.assert_allclose(fit.weights("working"), mu**2 / (mu + mu**2 / fit.dispersion), rtol=1e-10)
