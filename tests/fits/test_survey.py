"""Sampling weights of rows and groups: pseudo-likelihood, sandwich and replicates."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from reference_data import REFERENCE

import lme4py
from lme4py.errors import DataError, Lme4Error, Lme4Warning, OptionError

EXPECTED = json.loads((REFERENCE / "survey.json").read_text(encoding="utf-8"))
DATA = pd.read_csv(REFERENCE / "data" / "svy2l.csv.gz")
DATA["n"] = np.maximum(0.0, np.floor(np.exp(DATA.y / 3.0)))
DATA["o"] = np.searchsorted([1.0, 2.5], DATA.y, side="right") + 1
ORDER = {name: i for i, name in enumerate(dict.fromkeys(DATA.psu))}
DATA["stratum"] = [ORDER[name] % 3 for name in DATA.psu]
DATA["tenth"] = 0.1


def fit(kind: str, data: pd.DataFrame = DATA, **options: Any) -> Any:
    if kind == "gaussian":
        return lme4py.lmer("y ~ x + z + (1 | psu)", data, reml=False, **options)
    options.setdefault("nAGQ", 30)
    if kind == "ordinal":
        return lme4py.clmm("o ~ x + z + (1 | psu)", data, **options)
    response = {"binomial": "yb", "poisson": "n"}[kind]
    return lme4py.glmer(f"{response} ~ x + z + (1 | psu)", data, kind, **options)


def in_reference_parameters(kind: str, result: Any, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(beta, log sd, log sigma or (cut 1, log of the difference of the cuts)) and their covariance."""
    sd = float(np.sqrt(result.fit.covariances[0][0, 0]))
    estimates, p = [*result.params, np.log(sd)], result.params.size
    place = [*range(1, p + 1), 0]
    slopes = [np.eye(p + 1)[j] for j in range(p)] + [np.eye(p + 1)[p] / sd]
    J = np.array(slopes)
    if kind == "gaussian":
        estimates.append(np.log(result.sigma))
        J = np.block([[J, np.zeros((p + 1, 1))], [np.zeros((1, p + 1)), np.array([[0.5]])]])
    if kind == "ordinal":
        low, high = result.thresholds
        estimates += [low, np.log(high - low)]
        own = np.array([[1.0, 0.0], [-1.0 / (high - low), 1.0 / (high - low)]])
        J = np.block([[J, np.zeros((p + 1, 2))], [np.zeros((2, p + 1)), own]])
    place += range(p + 1, covariance.shape[0])
    return np.array(estimates), J @ covariance[np.ix_(place, place)] @ J.T


@pytest.mark.filterwarnings("ignore:the weights of rows are taken as they are")
@pytest.mark.parametrize("case", list(EXPECTED))
def test_pseudo_likelihood_and_sandwich(case: str) -> None:
    kind, scale = case.split("_")
    expected = EXPECTED[case]
    options: dict[str, Any] = {"weights": "w1", "level_weights": {"psu": "w2"}}
    options["pwscale"] = None if scale == "none" else scale
    ours = fit(kind, **options)
    # 30 points of the adaptive rule leave 1e-9; the reference's integral is exact to 1e-12.
    assert_allclose(ours.log_likelihood, expected["log_likelihood"], rtol=1e-9)
    par, vcov = in_reference_parameters(kind, ours, ours.fit.parameter_vcov)
    errors = np.sqrt(np.diag(expected["vcov"]))
    assert_allclose((par - expected["par"]) / errors, 0.0, atol=2e-5)
    # Hessians on both sides are differences of gradients.
    assert_allclose(vcov / np.outer(errors, errors), expected["vcov"] / np.outer(errors, errors), atol=1e-4)
    model = in_reference_parameters(kind, ours, ours.fit.model_vcov)[1]
    assert_allclose(model / np.outer(errors, errors), expected["model_vcov"] / np.outer(errors, errors), atol=1e-4)
    assert_allclose(ours.fit.design.weights.sum(), expected["w_sum"], rtol=1e-12)
    strata = fit(kind, **options, survey={"strata": "stratum", "fpc": "tenth"})
    own = in_reference_parameters(kind, strata, strata.fit.parameter_vcov)[1]
    assert_allclose(own / np.outer(errors, errors), expected["stratified_vcov"] / np.outer(errors, errors), atol=1e-4)
    assert "in 3 strata" in str(strata.summary())


@pytest.mark.parametrize("kind", ["gaussian", "binomial", "poisson", "ordinal"])
@pytest.mark.parametrize("nAGQ", [1, 7])
def test_equal_weights_and_duplicates(kind: str, nAGQ: int) -> None:
    """Weights of one change nothing; a group of weight 2 stands for two, and a row of weight 2 too."""
    options = {} if kind == "gaussian" else {"nAGQ": nAGQ}
    first = DATA.psu.isin(list(ORDER)[:12])
    data = DATA.assign(one=1.0, two=np.where(first, 2.0, 1.0), rows=np.where(DATA.x > 0.0, 2.0, 1.0))
    twice = pd.concat([data, data[first].assign(psu=lambda d: d.psu + "again")])
    repeated = data.loc[data.index.repeat(data.rows.astype(int))].reset_index(drop=True)
    pairs = [
        (fit(kind, data, level_weights={"psu": "one"}, weights="one", **options), fit(kind, data, **options)),
        (fit(kind, data, level_weights={"psu": "two"}, **options), fit(kind, twice, **options)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        one = fit(kind, data, level_weights={"psu": "one"}, weights="rows", **options)
    pairs.append((one, fit(kind, repeated, **options)))
    for ours, theirs in pairs:
        # Both optima are within 1e-7 of their criterion.
        assert_allclose(ours.log_likelihood, theirs.log_likelihood, rtol=1e-9)
        assert_allclose(ours.params, theirs.params, atol=1e-6)
        assert_allclose(ours.fit.covariances[0], theirs.fit.covariances[0], rtol=1e-5)
        if kind != "gaussian":
            # Hessians are differences of gradients.
            assert_allclose(ours.fit.model_vcov, theirs.fit.parameter_vcov, rtol=1e-3, atol=1e-6)


def test_the_sandwich_of_equal_weights_is_the_robust_one() -> None:
    one = fit("binomial", DATA.assign(one=1.0), level_weights={"psu": "one"}, nAGQ=1)
    plain = fit("binomial", nAGQ=1)
    # Hessians are differences of gradients.
    assert_allclose(one.cov_params(), plain.cov_params("CR1"), rtol=1e-4)
    assert_allclose(one.cov_params(), one.cov_params("CR1"), rtol=1e-10)


def test_units_coarser_than_the_groups() -> None:
    data = DATA.assign(unit=[ORDER[name] // 2 for name in DATA.psu])
    options: dict[str, Any] = {"weights": "w1", "level_weights": {"psu": "w2"}, "pwscale": "size", "nAGQ": 1}
    ours = fit("binomial", data, **options, survey={"psu": "unit"})
    plain = fit("binomial", data, **options)
    assert_allclose(ours.params, plain.params, rtol=1e-12)
    # Scores at the optimum sum to zero, so that centring them changes nothing.
    assert_allclose(ours.cov_params(), plain.cov_params("CR1", cluster="unit"), rtol=1e-6)


def test_replicate_weights() -> None:
    """Deleting one group at a time: the jackknife of the pseudo-maximum likelihood estimates."""
    data = DATA[DATA.psu.isin(list(ORDER)[:8])].copy()
    names = []
    for number, group in enumerate(dict.fromkeys(data.psu)):
        names.append(f"rep{number}")
        data[names[-1]] = np.where(data.psu == group, 0.0, data.w2 * 8.0 / 7.0)
    options: dict[str, Any] = {"weights": "w1", "level_weights": {"psu": "w2"}, "pwscale": "size", "nAGQ": 1}
    ours = fit("poisson", data, **options, survey={"replicates": names, "method": "jackknife"})
    deleted = [fit("poisson", data[data.psu != group], **options).params for group in dict.fromkeys(data.psu)]
    moves = np.array(deleted) - ours.params.to_numpy()
    # Optima are certified to 1e-7 of the criterion.
    assert_allclose(ours.cov_params(), 7.0 / 8.0 * moves.T @ moves, rtol=1e-4)
    brr = fit("poisson", data, **options, survey={"replicates": names, "method": "brr"})
    assert_allclose(brr.cov_params(), ours.cov_params() / 7.0, rtol=1e-6)
    assert "8 replicates" in str(brr.summary())


def test_keyword_doors() -> None:
    weights: dict[Any, Any] = {"psu": "w2", None: "w1"}
    linear = fit("gaussian", weights="w1", level_weights={"psu": "w2"}, pwscale="size")
    ours = lme4py.mixed(DATA, "y", ["x", "z"], "psu", method="ml", pweights=weights, pwscale="size")
    assert_allclose(ours.params, linear.params, rtol=1e-8)
    assert_allclose(ours.bse, linear.bse, rtol=1e-6)
    assert "Log pseudolikelihood" in str(ours.summary())
    logit = fit("binomial", weights="w1", level_weights={"psu": "w2"}, pwscale="gk", nAGQ=7)
    theirs = lme4py.melogit(DATA, "yb", ["x", "z"], "psu", nAGQ=7, pweights=weights, pwscale="gk")
    assert_allclose(theirs.params, logit.params, rtol=1e-8)
    ordinal = fit("ordinal", weights="w1", level_weights={"psu": "w2"}, pwscale="size", nAGQ=7)
    stata = lme4py.meologit(DATA, "o", ["x", "z"], "psu", nAGQ=7, pweights=weights, pwscale="size")
    assert_allclose(stata.thresholds, ordinal.thresholds, rtol=1e-8)
    with pytest.raises(OptionError, match="method='ml'"):
        lme4py.mixed(DATA, "y", ["x", "z"], "psu", pweights=weights)
    with pytest.raises(OptionError, match="rows only"):
        lme4py.meglm(DATA, "yb", ["x"], "psu", "binomial", pweights={None: "w1"})
    with pytest.raises(OptionError, match=r"survey=\{'psu'"):
        lme4py.meglm(DATA, "yb", ["x"], "psu", "binomial", pweights=weights, vce="robust")


def test_raw_weights_of_rows_warn_in_linear_models() -> None:
    with pytest.warns(Lme4Warning, match="pwscale='size'"):
        fit("gaussian", weights="w1", level_weights={"psu": "w2"})


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"reml": True}, OptionError, "reml=False"),
        ({"level_weights": {"sku": "w2"}}, OptionError, "did you mean|Did you mean"),
        ({"level_weights": {"psu": "w1"}}, DataError, "vary within its level"),
        ({"level_weights": {"psu": "nothing"}}, DataError, "nothing"),
        ({"level_weights": "w2"}, OptionError, "give a dict"),
        ({"level_weights": None, "pwscale": "size"}, OptionError, "level_weights="),
        ({"pwscale": "sizes"}, OptionError, "Did you mean"),
        ({"weights": None, "pwscale": "size"}, OptionError, "none are given"),
        ({"weights": "x"}, DataError, "negative"),
        ({"survey": {"stratum": "stratum"}}, OptionError, "Did you mean 'strata'"),
        ({"survey": {"strata": "psu"}}, DataError, "one primary sampling unit only"),
        ({"survey": {"psu": "yb"}}, DataError, "psu splits"),
        ({"survey": {"replicates": ["w2", "w2"]}}, OptionError, "'brr' or 'jackknife'"),
        ({"survey": {"fpc": "few"}}, DataError, "fewer units"),
        ({"sigma": 1.0}, OptionError, "sigma= is not there beside"),
        ({"formula": "y ~ x + (1 | psu) + (1 | yb)"}, OptionError, "one grouping factor"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Lme4Error], words: str) -> None:
    arguments: dict[str, Any] = {"formula": "y ~ x + (1 | psu)", "data": DATA.assign(few=2.0), "reml": False}
    arguments |= {"weights": "w1", "level_weights": {"psu": "w2"}}
    with pytest.raises(error, match=words):
        lme4py.lmer(**(arguments | change))


def test_rows_with_missing_weights_are_left_out() -> None:
    data = DATA.copy()
    data.loc[3, "w1"] = np.nan
    ours = fit("gaussian", data, weights="w1", level_weights={"psu": "w2"}, pwscale="size")
    theirs = fit("gaussian", DATA.drop(index=3), weights="w1", level_weights={"psu": "w2"}, pwscale="size")
    assert_allclose(ours.params, theirs.params, rtol=1e-10)
    assert ours.n_obs == len(DATA) - 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: lme4py.lrtest(None, fit),
        lambda fit: lme4py.anova(fit, fit),
        lambda fit: fit.profile(),
        lambda fit: fit.bootstrap(10, seed=1),
        lambda fit: fit.refit(DATA.yb),
        lambda fit: fit.influence(),
        lambda fit: fit.all_fit(),
        lambda fit: fit.predict(DATA.head(2), interval="confidence"),
        lambda fit: fit.cov_params("CR2"),
    ],
)
def test_what_a_pseudo_likelihood_does_not_have(ask: Any) -> None:
    ours = fit("binomial", weights="w1", level_weights={"psu": "w2"}, pwscale="size", nAGQ=1)
    assert np.isnan(ours.aic)
    assert np.isnan(ours.bic)
    with pytest.raises(OptionError, match="pseudo-likelihood"):
        ask(ours)


def test_what_it_has() -> None:
    ours = fit("gaussian", weights="w1", level_weights={"psu": "w2"}, pwscale="size")
    assert "weighted pseudo-maximum likelihood" in str(ours.summary())
    assert str(ours.slim().summary()) == str(ours.summary())
    assert ours.augment().shape[0] == len(DATA)
    assert ours.predict(DATA.head(3), include_random=False, interval="confidence").shape == (3, 3)
    slope = lme4py.Margins.linear_scale(ours).dydx(["x"]).to_frame()
    assert_allclose(slope["std_error"], ours.bse["x"], rtol=1e-10)
