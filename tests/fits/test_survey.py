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


# --- two nested factors ----------------------------------------------------------------------------------------------

CLASSES = DATA[DATA.psu.isin(list(ORDER)[:10])].reset_index(drop=True)
CLASSES["cl"] = CLASSES.groupby("psu").cumcount() % 3
CLASSES["class_"] = CLASSES.psu.astype(str) + CLASSES.cl.astype(str)
CLASSES["w3"] = np.where(CLASSES.psu.isin(list(ORDER)[:3]), 2.0, 1.0)
CLASSES["w2c"] = np.where(CLASSES.cl == 1, 2.0, 1.0)
CLASSES["part"] = 1.0 + 0.3 * CLASSES.cl


def nested(kind: str, data: pd.DataFrame, **options: Any) -> Any:
    right = "x + (1 | psu) + (1 | class_)"
    if kind == "gaussian":
        options.pop("nAGQ", None)
        return lme4py.lmer(f"y ~ {right}", data, reml=False, **options)
    if kind == "ordinal":
        return lme4py.clmm(f"o ~ {right}", data, **options)
    return lme4py.glmer({"binomial": "yb", "poisson": "n"}[kind] + f" ~ {right}", data, kind, **options)


@pytest.mark.filterwarnings("ignore:the weights of rows")
@pytest.mark.parametrize(("kind", "nAGQ"), [("gaussian", 1), ("binomial", 5), ("poisson", 1), ("ordinal", 1)])
def test_duplicates_at_two_levels(kind: str, nAGQ: int) -> None:
    """Classes of weight 2 stand for two classes of their school, schools of weight 2 for two schools."""
    more = CLASSES[CLASSES.cl == 1].assign(class_=lambda d: d.class_ + "b")
    twice = pd.concat([CLASSES, more])
    again = twice[twice.w3 == 2.0].assign(psu=lambda d: d.psu + "again", class_=lambda d: d.class_ + "again")
    theirs = nested(kind, pd.concat([twice, again]).reset_index(drop=True), nAGQ=nAGQ)
    ours = nested(kind, CLASSES, level_weights={"psu": "w3", "class_": "w2c"}, nAGQ=nAGQ)
    # Both optima are within 1e-7 of their criterion.
    assert_allclose(ours.log_likelihood, theirs.log_likelihood, rtol=1e-9)
    assert_allclose(ours.params, theirs.params, atol=1e-6)
    modes, errors = ours.ranef(conditional_se=True)
    others, their_errors = theirs.ranef(conditional_se=True)
    for name, own in modes.items():
        assert_allclose(own, others[name].loc[own.index], atol=1e-5)
        assert_allclose(errors[name], their_errors[name].loc[own.index], rtol=1e-4)
    if kind != "gaussian":
        classes = nested(kind, CLASSES, level_weights={"class_": "w2c"}, nAGQ=nAGQ)
        robust = nested(kind, twice.reset_index(drop=True), nAGQ=nAGQ).cov_params("CR1")
        # Hessians are differences of gradients.
        assert_allclose(classes.cov_params(), robust, rtol=1e-3)


def by_school(par: np.ndarray, data: pd.DataFrame) -> np.ndarray:
    """Log pseudo-likelihoods of the schools of a linear model by two nested quadratures that are not adaptive."""
    t, w = np.polynomial.hermite_e.hermegauss(60)
    log_w = np.log(w / np.sqrt(2.0 * np.pi))
    b0, b1, log_s, log_c, log_e = par
    out = []
    for _, school in data.groupby("psu", sort=False):
        inner = np.zeros(t.size)
        for _, own in school.groupby("class_", sort=False):
            mean = b0 + b1 * own.x.to_numpy() + np.exp(log_s) * t[:, None, None] + np.exp(log_c) * t[None, :, None]
            logf = -0.5 * ((own.y.to_numpy() - mean) / np.exp(log_e)) ** 2 - log_e - 0.5 * np.log(2.0 * np.pi)
            each = logf @ own.w.to_numpy() + log_w
            inner += own.part.iloc[0] * np.logaddexp.reduce(each, axis=1)
        out.append(np.logaddexp.reduce(inner + log_w))
    return np.array(out)


def test_fractional_weights_and_their_sandwich_by_brute_force() -> None:
    data = CLASSES[CLASSES.psu.isin(list(ORDER)[:6])].groupby(["psu", "cl"], sort=False).head(3).reset_index(drop=True)
    classes = np.unique(data.class_, return_inverse=True)[1]
    data["y"] += 1.5 * np.sin(3.0 * classes) + 1.5 * np.cos(2.0 * data.psu.map(ORDER))
    data["w"] = 0.3 + 0.2 * (np.arange(len(data)) % 3)
    data["ws"] = 1.0 + 0.25 * (data.psu.map(ORDER) % 3)
    with pytest.warns(Lme4Warning, match="inner groups"):
        ours = nested("gaussian", data, weights="w", level_weights={"psu": "ws", "class_": "part"})
    sd = {group: float(np.sqrt(ours.covariances[f"(1 | {group})"].iloc[0, 0])) for group in ("psu", "class_")}
    par = np.array([*ours.params, np.log(sd["psu"]), np.log(sd["class_"]), np.log(ours.sigma)])
    ws = data.groupby("psu", sort=False).ws.first().to_numpy()
    # Sixty fixed nodes leave 1e-6 of integrands as narrow as these.
    assert_allclose(ours.log_likelihood, ws @ by_school(par, data), atol=1e-5)
    h = 1e-3
    steps = np.eye(5) * h

    def scores(at: np.ndarray) -> np.ndarray:
        moves = [(by_school(at + s, data) - by_school(at - s, data)) / (2.0 * h) for s in steps]
        return ws[:, None] * np.array(moves).T

    S = scores(par)
    A = np.array([(scores(par + s).sum(0) - scores(par - s).sum(0)) / (2.0 * h) for s in steps])
    moves = S @ np.linalg.inv(A)
    expected = 6.0 / 5.0 * (moves.T @ moves)[:2, :2]
    # Differences of differences with steps of 1e-3.
    assert_allclose(ours.cov_params(), expected, rtol=1e-3)


def test_weights_of_two_levels_are_scaled_within_the_level_above() -> None:
    data = CLASSES.assign(w=0.5 + (CLASSES.index % 4) / 3.0)
    options: dict[str, Any] = {"weights": "w", "level_weights": {"psu": "w3", "class_": "part"}}
    sizes = data.groupby("class_").w
    first = data.groupby(["psu", "class_"], sort=False).part.first()
    by_psu = first.groupby("psu", sort=False)
    scaled = {
        "size": (data.w * sizes.transform("size") / sizes.transform("sum"), first / by_psu.transform("mean")),
        "effective": (
            data.w * sizes.transform("sum") / data.w.pow(2).groupby(data.class_).transform("sum"),
            first * by_psu.transform("sum") / first.pow(2).groupby("psu", sort=False).transform("sum"),
        ),
    }
    for pwscale, (rows, classes) in scaled.items():
        by_hand = data.assign(a=rows, b=classes.droplevel(0).reindex(data.class_).to_numpy())
        ours = nested("binomial", data, **options, pwscale=pwscale)
        theirs = nested("binomial", by_hand, weights="a", level_weights={"psu": "w3", "class_": "b"})
        assert_allclose(ours.params, theirs.params, rtol=1e-8)
        assert f"class_ 'part' scaled to the {pwscale} of groups" in " ".join(str(ours.summary()).split())
    mean = (first * sizes.mean().reindex(first.index.get_level_values(1)).to_numpy()).groupby("psu").mean()
    by_hand = data.assign(b=data.psu.map(mean) * data.w3)
    ours = nested("binomial", data, **options, pwscale="gk")
    theirs = nested("binomial", by_hand, level_weights={"psu": "b"})
    assert_allclose(ours.params, theirs.params, rtol=1e-8)
    slashed = lme4py.glmer(
        "yb ~ x + (1 | psu/cl)", data, "binomial", weights="w", level_weights={"psu": "w3", "cl": "part"}, pwscale="gk"
    )
    assert_allclose(slashed.params, ours.params, rtol=1e-8)


def test_the_sandwich_of_equal_weights_is_the_robust_one() -> None:
    one = fit("binomial", DATA.assign(one=1.0), level_weights={"psu": "one"}, nAGQ=1)
    plain = fit("binomial", nAGQ=1)
    # Hessians are differences of gradients, good to 1e-5 of the variances; one covariance is nearly zero beside them.
    scale = np.sqrt(np.outer(*[np.diag(plain.cov_params("CR1"))] * 2))
    assert_allclose(one.cov_params() / scale, plain.cov_params("CR1") / scale, atol=3e-5)
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
        ({"formula": "y ~ x + (1 | psu) + (1 | yb)"}, OptionError, "psu and yb are crossed"),
        ({"formula": "y ~ x + (1 | psu) + (1 | yb) + (1 | w1)"}, OptionError, "of two nested ones"),
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
    with pytest.raises(OptionError, match="sampling weights"):
        ours.predict(DATA.head(2), given=DATA.head(9))
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
