"""Every model with some of the terms: lme4's log-likelihoods, marginality, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reference_data import REFERENCE

from lme4py import all_subsets, clmm, glmer, lmer, load_dataset
from lme4py.errors import OptionError

EXPECTED = json.loads((REFERENCE / "selection.json").read_text(encoding="utf-8"))["subsets"]


def sleepstudy():
    i = np.arange(1, 181)
    return load_dataset("sleepstudy").assign(z=np.sin(1.7 * i), w=np.cos(0.9 * i), f=(i % 3).astype(str))


def test_models_are_those_of_lme4():
    table = all_subsets(lmer("Reaction ~ Days + z + w + (1 | Subject)", sleepstudy()))
    assert set(table.index) == set(EXPECTED)
    for terms, (df, log_likelihood, aicc) in EXPECTED.items():
        row = table.loc[terms]
        assert row["df"] == df
        # lme4 stops 1e-7 from its optimum.
        assert (row["log_likelihood"], row["aicc"]) == pytest.approx((log_likelihood, aicc), abs=1e-6)
    assert table["aicc"].is_monotonic_increasing
    np.testing.assert_allclose(table["delta"], table["aicc"] - table["aicc"].iloc[0], rtol=1e-14)
    likelihood = np.exp(-0.5 * table["delta"])
    np.testing.assert_allclose(table["weight"], likelihood / likelihood.sum(), rtol=1e-14)
    assert table["converged"].all()


def test_terms_stay_with_those_that_contain_them():
    fit = lmer("Reaction ~ Days * f + z + (1 | Subject)", sleepstudy())
    kept = all_subsets(fit, "bic", keep=["f", "z"])
    assert set(kept.index) == {"f + z", "Days + f + z", "Days + f + z + Days:f"}
    whole = lmer("Reaction ~ f + z + (1 | Subject)", sleepstudy(), reml=False)
    assert kept.loc["f + z", "bic"] == pytest.approx(whole.bic, rel=1e-12)
    wine = all_subsets(clmm("rating ~ temp * contact + (1 | judge)", load_dataset("wine")), "aic")
    assert wine.index.tolist()[:2] == ["temp + contact", "temp + contact + temp:contact"]
    assert len(wine) == 5
    plain = glmer("count ~ mined + cover", load_dataset("Salamanders"), family="poisson", fixed_only=True)
    assert all_subsets(plain).index[0] == "mined + cover"


@pytest.mark.filterwarnings("ignore::lme4py.errors.RankWarning")
@pytest.mark.parametrize(
    ("formula", "options", "message"),
    [
        ("Reaction ~ Days + z + (1 | Subject)", {"criterion": "aic3"}, "Did you mean 'aic'"),
        ("Reaction ~ Days + z + (1 | Subject)", {"keep": "zz"}, "no term of the model"),
        ("Reaction ~ Days + z + (1 | Subject)", {"most": 3}, "more than 3 models"),
        ("Reaction ~ 0 + f + z + (1 | Subject)", {}, "stands for it"),
        ("Reaction ~ Days + I(2 * Days) + (1 | Subject)", {}, "linear combinations"),
        ("Reaction ~ s(Days, k = 4) + (1 | Subject)", {}, "smooths"),
    ],
)
def test_what_cannot_be_compared_is_refused(formula, options, message):
    with pytest.raises(OptionError, match=message):
        all_subsets(lmer(formula, sleepstudy()), **options)
