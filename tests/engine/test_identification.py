"""Which variances the data tell apart, and what is made of those that they do not."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.engine.generalised.identification import identify_glmm
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.identification.record import Identification
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.problem import make_problem
from lme4py.engine.linear.scaling import scale_columns
from lme4py.families.registry import make_family


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 150
    table = pd.DataFrame(
        {
            "x": 5.0 + rng.normal(size=n),
            "z": rng.normal(size=n),
            "g": rng.integers(0, 12, n),
            "h": rng.integers(0, 7, n),
            "f": rng.choice(list("abc"), n),
            "w": 0.1 + rng.random(n),
        }
    )
    effects = rng.normal(size=(12, 2))
    return table.assign(
        y=1.0 + table["x"] + effects[table["g"], 0] + effects[table["g"], 1] * table["z"] + rng.normal(size=n)
    )


# The Gram matrix of the directions ----------------------------------------------------------------------------


def dense_gram(design: lme4py.Design, criterion: Criterion) -> tuple[np.ndarray, np.ndarray]:
    """tr(D_i D_j) and tr(M D_i M D_j) from n x n matrices."""
    _, columns = scale_columns(design)
    root = np.ones(design.n_obs) if columns.weights is None else np.sqrt(columns.weights)
    X = columns.XY[:, :-1] * root[:, None]
    M = np.eye(design.n_obs) - X @ np.linalg.pinv(X)
    parts = []
    for direction in criterion.problem.variance_gram.directions:
        factor = criterion.problem.factors[direction.factor]
        Z = np.hstack([columns.Z[t] for t in factor.terms]) * root[:, None]
        codes = design.terms[factor.terms[0]].codes
        parts.append((codes[:, None] == codes) * (Z @ direction.E @ Z.T))
    parts.append(np.eye(design.n_obs))
    both = [[np.vdot(a, b) for b in D] for D in (parts, [M @ part @ M for part in parts]) for a in D]
    plain, projected = np.split(np.array(both), 2)
    return plain, projected


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + (x | g)",
        "y ~ x * z + (x | g) + (1 | h)",
        "y ~ x + (x + z | g) + (0 + z | g) + (1 | g:h) + (1 | h)",
        "y ~ f + homcs(0 + f | g) + diag(x | h)",
        "y ~ 0 + (1 | g)",
    ],
)
def test_gram_of_the_directions(formula: str, data: pd.DataFrame) -> None:
    design = lme4py.lformula(formula, data, weights="w")
    criterion = Criterion(make_problem(design), reml=True)
    plain, projected = dense_gram(design, criterion)
    gram = criterion.problem.variance_gram
    # Sums of 150 x 150 products: rounding only.
    np.testing.assert_allclose(gram.plain, plain, rtol=0, atol=1e-13 * np.abs(plain).max())
    np.testing.assert_allclose(gram.projected, projected, rtol=0, atol=1e-13 * np.abs(plain).max())


# Models that are refused --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def groups(data: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    g = data["g"]
    return data.assign(
        copy=[f"level {i}" for i in g],
        one="k",
        outer=g % 3,
        inner=[f"{i % 3}.{i}" for i in g],
        label=g // 3,
        flat=3.0,
        zero=0.0,
        row=np.arange(len(g)),
        side=np.where(g % 2 == 0, "u", "v"),
        bit=(rng.random(len(g)) < 0.5).astype(int),
        count=rng.poisson(2.0, len(g)),
        size=rng.gamma(2.0, size=len(g)),
        grade=rng.integers(1, 5, len(g)),
        trials=1 + rng.integers(0, 3, len(g)),
    )


SAME = "are the same random effects"
REFUSED = [
    ("y ~ x + (1 | g) + (1 | copy)", rf"^\(1 \| g\) and \(1 \| copy\) {SAME} \('g' and 'copy' divide the rows into"),
    ("y ~ x + (1 | g / one)", rf"^\(1 \| one:g\) and \(1 \| g\) {SAME}"),
    ("y ~ x + (1 | inner) + (1 | outer:inner)", rf"^\(1 \| inner\) and \(1 \| outer:inner\) {SAME}"),
    ("y ~ x + (1 | outer / label) + (1 | inner)", SAME),
    ("y ~ x + (z | g) + (z | copy)", rf"^\(z \| g\) and \(z \| copy\) {SAME}"),
    ("y ~ x + (1 | g) + (0 + flat | g)", rf"{SAME} \(their columns differ by a factor only\)"),
    ("y ~ x + (z + I(2 * z) || g)", SAME),
    ("y ~ x + (z + I(2 * z) | g)", r"^the columns z and I\(2 \* z\) of \(z \+ I\(2 \* z\) \| g\) are linear comb"),
    ("y ~ x + diag(z + I(2 * z) | g)", r"^the columns z and I\(2 \* z\)"),
    ("y ~ x + (flat | g)", r"^the columns Intercept and flat of \(flat \| g\) are linear combinations"),
    ("y ~ x + (1 + zero | g)", r"^the column zero of \(1 \+ zero \| g\) is zero in every row"),
    ("y ~ factor(g) + x + (1 | g)", r"^the fixed effects take up all differences between the groups of 'g'"),
    ("y ~ factor(g) + x + (x | g)", r"that Intercept in \(x \| g\) describes"),
    ("y ~ factor(g) * x + (x || g)", r"that \(1 \| g\) and \(0 \+ x \|\| g\) describe:"),
    ("y ~ factor(outer) + x + (1 | outer)", "^the fixed effects take up"),
]


@pytest.mark.parametrize(("formula", "message"), REFUSED)
@pytest.mark.parametrize("reml", [True, False])
def test_refused_before_fitting(formula: str, message: str, reml: bool, groups: pd.DataFrame) -> None:
    with pytest.raises(lme4py.DesignError, match=message):
        lme4py.lmer(formula, groups, reml=reml)


@pytest.mark.parametrize(("formula", "message"), REFUSED)
def test_refused_for_generalised_models(formula: str, message: str, groups: pd.DataFrame) -> None:
    count, grade = (formula.replace("y ~", f"{name} ~") for name in ("count", "grade"))
    with pytest.raises(lme4py.DesignError, match=message):
        lme4py.glmer(count, groups, "poisson")
    with pytest.raises(lme4py.DesignError, match=message):
        lme4py.clmm(grade, groups)


def test_an_effect_of_every_row(groups: pd.DataFrame) -> None:
    """Where a row has a noise of its own of the same form; not where it shows several trials, or a count."""
    refused = [
        (lambda: lme4py.lmer("y ~ x + (1 | row)", groups), "the residual variance"),
        (lambda: lme4py.lmer("y ~ x + (z | row)", groups), "the residual variance"),
        (lambda: lme4py.glmer("y ~ x + (1 | row)", groups, "gaussian"), "the residual variance"),
        (lambda: lme4py.glmer("bit ~ x + (1 | row)", groups), "a single 0/1 response"),
        (lambda: lme4py.glmer("bit ~ x + (1 | g) + (1 | row)", groups, link="probit"), "a single 0/1 response"),
        (lambda: lme4py.clmm("grade ~ x + (1 | row)", groups), "a single ordered response"),
        (lambda: lme4py.melogit(groups, "bit", ["x"], "row"), "a single 0/1 response"),
    ]
    for fit, words in refused:
        with pytest.raises(lme4py.DesignError, match=words):
            fit()
    several, counts = "cbind(bit, trials - bit) ~ x + (1 | row)", "count ~ x + (1 | row)"
    for formula, family in ((several, "binomial"), (counts, "poisson")):
        design = lme4py.lformula(formula, groups, family=family)
        problem = make_glmm(design, make_family(family), design.response)
        assert identify_glmm(problem, design) == Identification()
    with pytest.warns(lme4py.IdentificationWarning, match=r"^\(1 \| row\) and the dispersion of the gamma"):
        gamma = lme4py.glmer("size ~ x + (1 | row)", groups, "gamma")
    assert gamma.certificate.identified
    assert not gamma.check()["identification"].ok
    with pytest.warns(lme4py.IdentificationWarning, match="the dispersion of the counts"):
        lme4py.glmer_nb("count ~ x + (1 | row)", groups)
    with pytest.warns(lme4py.IdentificationWarning, match=r"\(1 \| row\) and the residual variance"):
        lme4py.glmer("size ~ x + (1 | row)", groups, "gaussian", link="log")
    # Variances of the rows are known to differ, or the effect differs between rows by a covariate.
    weighted = lme4py.lmm_criterion(lme4py.lformula("y ~ x + (1 | row)", groups, weights="w"))
    slopes = lme4py.lmm_criterion(lme4py.lformula("y ~ x + (0 + z | row)", groups))
    assert weighted.identification.complete
    assert slopes.identification.complete


def test_many_fixed_effects() -> None:
    """The projection is made for any number of columns: 60 groups, each with its own."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(60), 3)
    table = pd.DataFrame({"y": rng.normal(size=180), "x": rng.normal(size=180), "g": g.astype(str), "h": g // 2})
    with pytest.raises(lme4py.DesignError, match="take up all differences"):
        lme4py.lmer("y ~ g + x + (1 | g)", table)
    with pytest.raises(lme4py.DesignError, match=r"'h' that \(1 \| h\)"):
        lme4py.lmer("y ~ g + x + (1 | h) + (0 + x | g)", table)
    assert lme4py.lmm_criterion(lme4py.lformula("y ~ g + x + (0 + x | g)", table)).identification.complete


# Models that are fitted with a warning ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def split() -> pd.DataFrame:
    """24 groups with 3 correlated effects of a factor, and a covariate that is constant within groups."""
    rng = np.random.default_rng(5)
    g, f = np.repeat(np.arange(24), 9), np.tile(np.repeat([0, 1, 2], 3), 24)
    effects = rng.multivariate_normal(np.zeros(3), [[1.5, 0.9, 0.8], [0.9, 1.3, 0.7], [0.8, 0.7, 1.2]], 24)
    x = rng.normal(size=g.size)
    eta = 0.5 * x + effects[g, f]
    return pd.DataFrame(
        {
            "y": 1.0 + eta + rng.normal(size=g.size),
            "x": x,
            "g": g,
            "f": np.array(list("abc"))[f],
            "side": np.where(g % 2 == 0, "u", "v"),
            "count": rng.poisson(np.exp(0.5 * eta)),
            "grade": 1 + (eta + rng.logistic(size=g.size) > -0.5) + (eta + rng.logistic(size=g.size) > 1.0),
        }
    )


def shared_fit(fit: Callable[[], Any]) -> Any:
    with pytest.warns(lme4py.IdentificationWarning, match="Not every variance is identified"):
        return fit()


@pytest.fixture(scope="module")
def pairs(split: pd.DataFrame) -> dict[str, tuple[Any, Any]]:
    """By kind: a model whose variances are not all determined, and the same model without the term too many."""
    few, many = "(0 + f | g)", "(f || g)"
    return {
        "REML": (
            shared_fit(lambda: lme4py.lmer(f"y ~ x + f + {many}", split)),
            lme4py.lmer(f"y ~ x + f + {few}", split),
        ),
        "ML": (
            shared_fit(lambda: lme4py.lmer(f"y ~ x + f + (1 | g) + {few}", split, reml=False)),
            lme4py.lmer(f"y ~ x + f + {few}", split, reml=False),
        ),
        "ordinal": (
            shared_fit(lambda: lme4py.clmm(f"grade ~ x + f + {many}", split)),
            lme4py.clmm(f"grade ~ x + f + {few}", split),
        ),
    }


KINDS = ["REML", "ML", "ordinal"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_determined_is_that_of_the_smaller_model(kind: str, pairs: dict[str, tuple[Any, Any]]) -> None:
    shared, plain = pairs[kind]
    # Both optima are good to 1e-9 of the criterion, and half its square root in the parameters' own scale.
    assert shared.criterion == pytest.approx(plain.criterion, abs=1e-8)
    np.testing.assert_allclose(shared.params, plain.params, atol=1e-6)
    np.testing.assert_allclose(shared.bse, plain.bse, rtol=1e-5)
    assert shared.icc("all").estimate == pytest.approx(plain.icc("all").estimate, rel=1e-5)
    assert shared.icc("all").se == pytest.approx(plain.icc("all").se, rel=1e-4)  # from differences of gradients
    # With an indicator set the sum of both variances is there, which the data determine.
    own, expected = (m.icc(at={"f[b]": 1}) for m in (shared, plain))
    assert own.ci_upper == pytest.approx(expected.ci_upper, rel=1e-4)
    assert shared.r_squared()["conditional"] == pytest.approx(plain.r_squared()["conditional"], rel=1e-5)
    known = shared.conf_int(method="profile", parm=["x"])
    np.testing.assert_allclose(known, plain.conf_int(method="profile", parm=["x"]), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_else_is_given(kind: str, pairs: dict[str, tuple[Any, Any]]) -> None:
    shared, plain = pairs[kind]
    assert shared.converged
    assert not shared.certificate.identified
    assert shared.certificate.unidentified[0] in shared.certificate.verdict
    assert "(1 | g) and (0 + f |" in shared.certificate.verdict
    names = ["sd(Intercept | g)", "sd(f[a] | g)", "cor(f[a], f[b] | g)"]
    for method in ("wald", "profile"):
        assert shared.conf_int(method=method, parm=names).isna().all(axis=None)
    boot = shared.conf_int(method="boot", parm="all", n_boot=20 if kind != "ordinal" else 4, seed=1)
    assert boot.loc[names].isna().all(axis=None)
    assert boot.loc["x"].notna().all()
    components = shared.variance_components
    assert all(np.isnan(value) for key, value in components.items() if key != "var(Residual)")
    assert shared.var_corr()["vcov"].isna().sum() == 7  # one variance, and six elements of a 3 x 3 matrix
    table = shared.variance_table()
    assert table.drop(index="var(Residual)", errors="ignore").isna().all(axis=None)
    ran = shared.tidy(effects="ran_pars", conf_int=True).set_index("term")
    assert ran.drop(index="sd__Observation", errors="ignore")[["estimate", "conf_low"]].isna().all(axis=None)
    assert shared.ranef().isna().all(axis=None)
    assert np.isnan(shared.icc().estimate)
    assert np.isnan(shared.icc().ci_upper)
    assert np.isnan(shared.re_pca()["g"].sd).all()
    assert not shared.check()["identification"].ok
    assert plain.check()["identification"].ok
    assert "n/a" in shared.summary()
    assert "only var(f[a]) of (0 + f |" in " ".join(shared.summary().split())


@pytest.mark.parametrize("kind", KINDS)
def test_tests_count_what_is_determined(kind: str, pairs: dict[str, tuple[Any, Any]]) -> None:
    shared, plain = pairs[kind]
    with pytest.raises(lme4py.OptionError, match="nothing to test"):
        lme4py.lrtest(plain, shared)
    assert shared.lrtest_no_random().df == plain.lrtest_no_random().df == 6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lme4py.IdentificationWarning)
        table = shared.ranova()
    first = table.loc["(1 | g)"]
    assert first["df"] == 0
    assert np.isnan(first["p_value"])
    assert np.isnan(first["p_chi2"])


def test_degrees_of_freedom_do_not_notice(pairs: dict[str, tuple[Any, Any]]) -> None:
    shared, plain = pairs["REML"]
    for ddf in ("satterthwaite", "kenward-roger"):
        # Differences of gradients (1e-6) and exact sums (rounding) of the same quantities.
        pd.testing.assert_frame_equal(shared.coef_table(ddf=ddf), plain.coef_table(ddf=ddf), rtol=1e-5, atol=1e-7)
        pd.testing.assert_frame_equal(shared.anova(ddf=ddf), plain.anova(ddf=ddf), rtol=1e-5, atol=1e-7)
    new = shared.predict(interval="prediction", include_random=True).head()
    pd.testing.assert_frame_equal(new, plain.predict(interval="prediction", include_random=True).head(), rtol=1e-5)


def test_it_stays_with_the_fit(pairs: dict[str, tuple[Any, Any]]) -> None:
    shared, _ = pairs["REML"]
    for other in (pickle.loads(pickle.dumps(shared)), shared.slim()):
        assert np.isnan(other.variance_components["var(_cons)"])
        assert other.conf_int(parm=["sd(Intercept | g)"]).isna().all(axis=None)
    # The warning belongs to the design; it is not given again.
    again = shared.refit(shared.fit.design.y + shared.fit.design.X[:, 1])
    assert np.isnan(again.variance_components["var(f[a])"])


def test_a_factor_that_is_constant_within_groups(split: pd.DataFrame) -> None:
    """(side | g): the variance of one side, and that of the other as a sum."""
    result = shared_fit(lambda: lme4py.lmer("y ~ x + side + (side | g)", split))
    own = lme4py.lmer("y ~ x + side + diag(0 + side | g)", split)
    assert "only var(side[T.v]) + 2 cov(Intercept,side[T.v]) is determined" in result.certificate.verdict
    assert result.variance_components["var(_cons)"] == pytest.approx(own.variance_components["var(side[u])"], rel=1e-5)
    assert np.isnan(result.variance_components["var(side[T.v])"])
    limits, expected = result.conf_int(parm=["sd(Intercept | g)"]), own.conf_int(parm=["sd(side[u] | g)"])
    np.testing.assert_allclose(limits, expected, rtol=1e-4)  # differences of gradients
    generalised = shared_fit(lambda: lme4py.glmer("count ~ x + (side | g)", split, "poisson"))
    assert np.isnan(generalised.variance_components["var(side[T.v])"])
    assert np.isfinite(generalised.variance_components["var(_cons)"])


def test_an_estimate_that_the_boundary_holds_is_given_without_interval() -> None:
    """Effects of a factor with correlation 1: nothing of it can move to the intercept, so the estimate is unique."""
    rng = np.random.default_rng(2)
    g, f = np.repeat(np.arange(15), 8), np.tile([0, 1], 60)
    common = rng.normal(size=15)
    table = pd.DataFrame(
        {"y": common[g] * (1.0 + 2.0 * f) + rng.normal(size=120), "g": g, "f": np.array(list("ab"))[f]}
    )
    result = shared_fit(lambda: lme4py.lmer("y ~ f + (f || g)", table))
    plain = lme4py.lmer("y ~ f + (0 + f | g)", table)
    # The quotient of a covariance and two standard deviations, to rounding.
    assert plain.variance_components["corr(f[a],f[b])"] == pytest.approx(1.0, abs=1e-14)
    assert result.variance_components["var(_cons)"] == 0.0
    assert result.variance_components["var(f[b])"] == pytest.approx(plain.variance_components["var(f[b])"], rel=1e-5)
    assert result.conf_int(parm="random").drop(index="sigma").isna().all(axis=None)
    assert "the variance of (1 | g) is zero" in result.certificate.singular


def test_units_and_origin_play_no_role(split: pd.DataFrame) -> None:
    """What is determined of (year | g) + (1 | copy) with years about 2000."""
    rng = np.random.default_rng(8)
    table = split.assign(year=2000.0 + rng.integers(0, 20, len(split)), copy=[f"g{i}" for i in split["g"]])
    result = shared_fit(lambda: lme4py.lmer("y ~ x + (year | g) + (1 | copy)", table))
    assert result.fit.identification.determined(0).tolist() == [[False, True], [True, True]]
    assert result.fit.identification.determined(1).tolist() == [[False]]
    for formula in ("y ~ x + (year | g)", "y ~ x + (year || g)", "y ~ year + I(year^2) + (year + I(year^2) | g)"):
        assert lme4py.lmm_criterion(lme4py.lformula(formula, table)).identification.complete


def test_predictions_need_all_terms_that_share_a_variance(split: pd.DataFrame) -> None:
    table = split.assign(copy=[f"g{i}" for i in split["g"]])
    result = shared_fit(lambda: lme4py.lmer("y ~ x + (x | g) + (1 | copy)", table))
    plain = lme4py.lmer("y ~ x + (x | g)", table)
    np.testing.assert_allclose(result.predict(table), plain.predict(table), atol=1e-6)  # two optima
    np.testing.assert_allclose(result.predict(table, include_random=["copy", "g"]), plain.predict(table), atol=1e-6)
    with pytest.raises(lme4py.OptionError, match="what belongs to which is not known"):
        result.predict(table, include_random="g")
    new = table.head(2).assign(copy=["g0", "never seen"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = result.predict(new)
    assert any("1 of 2 predictions are NaN" in str(w.message) for w in caught)
    assert found.isna().tolist() == [False, True]
