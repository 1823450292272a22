"""The public modular steps, the frozen fit, and numbers with a closed form."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pandas as pd
import pytest
from dense_models import DESIGNS, dense, random_theta
from reference_data import load_reference

import lme4py
from lme4py.engine.optimise import Control

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.mark.parametrize("reml", [True, False])
def test_four_steps_are_public_and_equal_to_lmm_fit(sleepstudy, reml):
    design = lme4py.lformula(FORMULA, sleepstudy)
    criterion = lme4py.lmm_criterion(design, reml=reml)
    optimum = lme4py.optimize_criterion(criterion)
    fit = lme4py.make_fit(design, criterion, optimum)
    at_once = lme4py.lmm_fit(design, reml)
    front = lme4py.lmer(FORMULA, sleepstudy, reml=reml)
    for other in (at_once, front.fit):
        # The same operations in the same order: bit for bit.
        assert other.criterion == fit.criterion
        np.testing.assert_array_equal(other.theta, fit.theta)
        np.testing.assert_array_equal(other.beta, fit.beta)
        np.testing.assert_array_equal(other.modes[0], fit.modes[0])
        assert other.certificate == fit.certificate
        assert other.opt_log == fit.opt_log
    assert fit.reml is reml
    assert fit.log_likelihood == -fit.criterion / 2
    assert (fit.n_params, fit.df_resid) == (6, 174)


def test_textbook_numbers(sleep):
    """Reaction ~ Days + (Days | Subject): the REML criterion of lme4's polished optimum."""
    assert sleep.criterion == pytest.approx(1743.628271959, abs=1e-9)  # as many digits as are printed


def test_chem97():
    """The optimum that several programs miss by 1.4 (they stop at 141686.993)."""
    data = lme4py.load_dataset("Chem97")
    fit = lme4py.lmer("score ~ 1 + gcsecnt + (1 | school) + (1 | lea)", data, reml=False)
    assert fit.criterion == pytest.approx(141685.56021, abs=1e-5)  # as many digits as are published
    assert fit.converged


@pytest.mark.parametrize("order", ["as given", "reversed"])
def test_insteval_from_any_order_of_levels(order):
    """lme4 stops at 237648.573 in one order of the levels."""
    data = lme4py.load_dataset("InstEval")
    if order == "reversed":
        for name in ("service", "s", "d", "dept"):
            data[name] = data[name].cat.set_categories(data[name].cat.categories[::-1])
    fit = lme4py.lmer("y ~ service + (1 | s) + (1 | d) + (1 + service | dept)", data, reml=False)
    assert fit.criterion == pytest.approx(237647.0584, abs=1e-4)  # as many digits as are published
    assert fit.converged


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_everything_at_the_optimum_is_the_dense_answer(name, reml):
    design = DESIGNS[name]
    fit = lme4py.lmm_fit(design, reml)
    expected = dense(design, fit.theta, reml)
    assert fit.criterion == pytest.approx(expected.value, abs=1e-9)  # a few hundred, in 12 digits
    close = {"rtol": 0, "atol": 1e-9}  # numbers of order one to ten, from a 160 x 160 inverse
    np.testing.assert_allclose(fit.beta, expected.beta, **close)
    np.testing.assert_allclose(fit.vcov, expected.vcov, **close)
    assert fit.sigma == pytest.approx(expected.sigma, rel=1e-10)
    for ours, theirs in zip(fit.modes, expected.modes, strict=True):
        np.testing.assert_allclose(ours, theirs, **close)
    offset = 0.0 if design.offset is None else design.offset
    b = np.concatenate([modes.ravel() for modes in expected.modes])
    np.testing.assert_allclose(fit.fitted, offset + design.X @ expected.beta + design.Zt.T @ b, rtol=0, atol=1e-8)
    assert np.abs(expected.gradient).max() < 1e-5  # the optimum of the dense criterion too
    assert np.linalg.eigvalsh(fit.vcov).min(initial=1.0) > 0


@pytest.mark.parametrize("name", DESIGNS)
def test_covariances_are_those_of_theta(name):
    fit = lme4py.lmm_fit(DESIGNS[name])
    start = 0
    for term, covariance in zip(fit.design.terms, fit.covariances, strict=True):
        part = fit.theta[start : start + term.n_theta]
        start += term.n_theta
        if term.structure.name == "us":
            columns, rows = np.triu_indices(term.n_columns)
            T = np.zeros((term.n_columns, term.n_columns))
            T[rows, columns] = part
        else:
            T = np.diag(np.broadcast_to(part, term.n_columns))
        # Two ways from the same numbers.
        np.testing.assert_allclose(covariance, fit.sigma**2 * T @ T.T, rtol=1e-10, atol=1e-14)
    assert start == fit.theta.size


# -- theta in and out ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DESIGNS)
def test_theta_round_trip(name):
    criterion = lme4py.lmm_criterion(DESIGNS[name])
    theta = random_theta(DESIGNS[name])
    inside = criterion.to_inside(theta)
    # Two triangular factorisations.
    np.testing.assert_allclose(criterion.to_user(inside), theta, rtol=1e-11, atol=1e-12)
    assert criterion(theta) == pytest.approx(criterion.inside(inside), abs=1e-12)


def test_theta_inside_is_kept_on_the_fit(sleep):
    criterion = lme4py.lmm_criterion(sleep.fit.design)
    np.testing.assert_array_equal(criterion.to_user(sleep.fit.theta_inside), sleep.theta)
    # The factor is made again when it is asked for.
    assert sleep.fit.point.value == pytest.approx(sleep.criterion, abs=1e-10)


def test_criterion_accepts_lists_and_reports_its_method(sleep):
    for reml in (True, False):
        criterion = lme4py.lmm_criterion(sleep.fit.design, reml)
        assert criterion.reml is reml
        assert criterion.design is sleep.fit.design
        assert criterion(list(sleep.theta)) == criterion(sleep.theta)
        assert criterion.gradient(tuple(sleep.theta)).shape == (3,)


def test_start_is_on_the_users_scale(sleepstudy, sleep):
    again = lme4py.lmer(FORMULA, sleepstudy, start=sleep.theta)
    assert again.fit.opt_log[0].criterion == pytest.approx(sleep.criterion, abs=1e-9)
    assert again.criterion == pytest.approx(sleep.criterion, abs=1e-9)
    with pytest.raises(lme4py.OptionError, match="theta must hold 3"):
        lme4py.lmer(FORMULA, sleepstudy, start=[1.0])


# -- control ---------------------------------------------------------------------------------------


def test_control(sleepstudy, sleep):
    for control in ({"max_evaluations": 100, "radius": 0.5}, Control(radius=0.5), {}):
        result = lme4py.lmer(FORMULA, sleepstudy, control=control)
        assert result.criterion == pytest.approx(sleep.criterion, abs=1e-9)


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ({"max_evaluation": 10}, "no setting 'max_evaluation'.*Did you mean 'max_evaluations'"),
        ({"radius": 0}, r"control\['radius'\] must be a positive number, got 0"),
        ({"radius": -1.0}, "must be a positive number"),
        ({"tolerance": float("nan")}, "must be a positive number"),
        ({"max_evaluations": "many"}, "must be a positive number, got 'many'"),
        ({"max_evaluations": True}, "must be a positive number, got True"),
        ([("radius", 1)], "must be a dict"),
    ],
)
def test_control_is_checked(sleepstudy, control, message):
    with pytest.raises(lme4py.OptionError, match=message):
        lme4py.lmer(FORMULA, sleepstudy, control=control)


def test_too_few_evaluations_give_one_warning(sleepstudy, sleep):
    with pytest.warns(lme4py.ConvergenceWarning, match="Not converged") as caught:
        result = lme4py.lmer(FORMULA, sleepstudy, start=[5.0, 0.0, 5.0], control={"max_evaluations": 2})
    assert len(caught) == 1
    assert not result.converged
    assert result.criterion > sleep.criterion
    assert len(result.fit.opt_log) == 2
    assert str(caught[0].message) == result.certificate.verdict


# -- the frozen result -----------------------------------------------------------------------------


def test_fit_is_frozen(sleep):
    with pytest.raises(FrozenInstanceError):
        sleep.fit.sigma = 1.0


def test_pickle(sleep, sleepstudy):
    copy = pickle.loads(pickle.dumps(sleep))
    assert copy.criterion == sleep.criterion
    np.testing.assert_array_equal(copy.fit.theta, sleep.fit.theta)
    pd.testing.assert_frame_equal(copy.ranef(conditional_se=True)[1], sleep.ranef(conditional_se=True)[1])
    pd.testing.assert_series_equal(copy.predict(sleepstudy.head(5)), sleep.predict(sleepstudy.head(5)))
    assert copy.certificate == sleep.certificate


def test_pickle_does_not_hold_the_factor(sleep):
    copy = pickle.loads(pickle.dumps(sleep.fit))
    before = len(pickle.dumps(copy))
    assert copy.point is copy.point
    assert len(pickle.dumps(copy)) == before


def test_fit_does_not_change_the_data(sleepstudy):
    data = sleepstudy.copy()
    lme4py.lmer(FORMULA, data)
    pd.testing.assert_frame_equal(data, sleepstudy)


def test_fits_are_repeatable(sleepstudy, sleep):
    again = lme4py.lmer(FORMULA, sleepstudy)
    assert again.criterion == sleep.criterion
    np.testing.assert_array_equal(again.theta, sleep.theta)


# -- closed forms ----------------------------------------------------------------------------------


def test_balanced_one_way_layout():
    """REML of balanced data is the analysis of variance."""
    data = lme4py.load_dataset("Dyestuff")
    groups = data.groupby("Batch", observed=True)["Yield"]
    m = int(groups.size().iloc[0])
    within = float(groups.var().mean())
    between = m * float(groups.mean().var())
    result = lme4py.lmer("Yield ~ 1 + (1 | Batch)", data)
    # The criterion is flat to rounding within 1e-8 of theta; the optimiser's gradients do better.
    assert result.sigma**2 == pytest.approx(within, rel=1e-9)
    assert result.variance_components["var(_cons)"] == pytest.approx((between - within) / m, rel=1e-9)
    assert result.params["Intercept"] == pytest.approx(data["Yield"].mean(), rel=1e-12)
    assert result.bse["Intercept"] == pytest.approx(np.sqrt(between / len(data)), rel=1e-9)
    shrinkage = 1 - within / between
    expected = shrinkage * (groups.mean() - data["Yield"].mean())
    np.testing.assert_allclose(result.ranef()["Intercept"], expected, rtol=1e-8)


def test_balanced_split_plot():
    """Mean squares of the two strata."""
    data = load_reference("TVbo")
    y, plot, split = "Coloursaturation", "Assessor", "TVset"
    result = lme4py.lmer(f"{y} ~ {split} * Picture + (1 | {plot}) + (1 | {plot}:{split})", data)
    cells = data.groupby([plot, split], observed=True)[y].mean().unstack()
    rows, columns, grand = cells.mean(axis=1), cells.mean(axis=0), data[y].mean()
    n, k = cells.shape
    each = len(data) // (n * k)
    mean_plot = each * k * float(((rows - grand) ** 2).sum()) / (n - 1)
    interaction = cells.sub(rows, axis=0).sub(columns, axis=1) + grand
    mean_split = each * float((interaction.to_numpy() ** 2).sum()) / ((n - 1) * (k - 1))
    parts = result.variance_components
    # As above.
    assert parts[f"var(_cons|{plot})"] == pytest.approx((mean_plot - mean_split) / (each * k), rel=1e-8)
    assert parts[f"var(_cons|{plot}:{split})"] == pytest.approx((mean_split - result.sigma**2) / each, rel=1e-8)


def test_balanced_three_way_layout():
    """Two interactions with a random block: each variance is a difference of mean squares."""
    data = lme4py.load_dataset("Assay") if "Assay" in lme4py.list_datasets() else load_reference("Assay")
    y = "logDens"
    result = lme4py.lmer(f"{y} ~ sample * dilut + (1 | Block) + (1 | Block:sample) + (1 | Block:dilut)", data)
    grand = data[y].mean()
    block = data.groupby("Block", observed=True)[y].mean()

    def interaction(other: str, each: int) -> float:
        cells = data.groupby(["Block", other], observed=True)[y].mean().unstack()
        rest = cells.sub(cells.mean(axis=1), axis=0).sub(cells.mean(axis=0), axis=1) + grand
        return each * float((rest.to_numpy() ** 2).sum()) / ((cells.shape[0] - 1) * (cells.shape[1] - 1))

    of_block = 30 * float(((block - grand) ** 2).sum())
    of_sample, of_dilution, residual = interaction("sample", 5), interaction("dilut", 6), result.sigma**2
    parts = result.variance_components
    # As above.
    assert parts["var(_cons|Block:sample)"] == pytest.approx((of_sample - residual) / 5, rel=1e-7)
    assert parts["var(_cons|Block:dilut)"] == pytest.approx((of_dilution - residual) / 6, rel=1e-7)
    expected = (of_block - of_sample - of_dilution + residual) / 30
    assert parts["var(_cons|Block)"] == pytest.approx(expected, rel=1e-7)


def test_zero_variance_is_ordinary_least_squares():
    """With theta = 0 everything is the linear model's."""
    data = lme4py.load_dataset("Dyestuff2")
    result = lme4py.lmer("Yield ~ 1 + (1 | Batch)", data)
    assert result.theta.tolist() == [0.0]
    # Rounding only.
    assert result.params["Intercept"] == pytest.approx(data["Yield"].mean(), rel=1e-13)
    assert result.sigma == pytest.approx(data["Yield"].std(), rel=1e-13)
    assert (result.ranef()["Intercept"] == 0.0).all()


def test_perfectly_fitted_response_is_refused(sleepstudy):
    """No residual variance at all has no likelihood: by the fixed effects, or by the groups."""
    exact = sleepstudy.assign(Reaction=2.0 + 3.0 * sleepstudy["Days"])
    with pytest.raises(lme4py.DataError, match="fixed effects fit the response exactly"):
        lme4py.lmer("Reaction ~ Days + (1 | Subject)", exact)
    constant = sleepstudy.assign(Reaction=sleepstudy.groupby("Subject", observed=True)["Reaction"].transform("mean"))
    with pytest.raises(lme4py.DesignError, match="random effects fit the response exactly"):
        lme4py.lmer("Reaction ~ 1 + (1 | Subject)", constant)


def test_units_beyond_floating_point_are_refused(sleepstudy):
    with pytest.raises(lme4py.DataError, match="use other units"):
        lme4py.lmer("Reaction ~ 1 + (1 | Subject)", sleepstudy.assign(Reaction=sleepstudy["Reaction"] * 1e200))


# -- hard cases ------------------------------------------------------------------------------------


def test_nested_factor_with_reused_labels():
    """a/b with b = 1, 2, 3 in every a is the same as b with labels of its own."""
    data = lme4py.load_dataset("Pastes")
    reused = lme4py.lmer("strength ~ 1 + (1 | batch/cask)", data)
    own = lme4py.lmer("strength ~ 1 + (1 | batch) + (1 | sample)", data)
    assert reused.criterion == pytest.approx(own.criterion, abs=1e-10)
    assert sorted(reused.n_groups.values()) == [10, 30]


def test_one_huge_group_and_tiny_ones():
    rng = np.random.default_rng(1)
    codes = np.concatenate([np.zeros(3000, dtype=int), np.arange(1, 200), np.arange(1, 200)])
    y = rng.normal(size=200)[codes] + rng.normal(size=codes.size)
    result = lme4py.lmer("y ~ 1 + (1 | g)", {"y": y, "g": codes})
    assert result.converged
    assert result.variance_components["var(_cons)"] == pytest.approx(1.0, abs=0.4)  # three standard errors


@pytest.mark.parametrize("noise", [0.03, 0.003])
def test_near_singular_correlation(noise):
    """Slopes that are almost a multiple of the intercepts: certified, inside or on the boundary, never NaN."""
    rng = np.random.default_rng(11)
    groups = np.repeat(np.arange(200), 30)
    x = rng.normal(size=groups.size)
    intercepts = rng.normal(size=200)
    slopes = 0.7 * intercepts + noise * rng.normal(size=200)
    y = 1 + x + intercepts[groups] + slopes[groups] * x + rng.normal(size=groups.size)
    fit = lme4py.lmm_fit(lme4py.lformula("y ~ x + (x | g)", {"y": y, "x": x, "g": groups}))
    covariance = fit.covariances[0]
    correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert fit.certificate.converged
    assert 0.99 < correlation <= 1 + 1e-12  # rounding of the quotient
    assert fit.certificate.is_singular == (np.linalg.matrix_rank(covariance, tol=1e-8) < 2)


def test_many_terms():
    """Thirty random terms at once."""
    rng = np.random.default_rng(2)
    n = 600
    data = {"y": rng.normal(size=n)} | {f"g{i}": rng.integers(0, 4 + i % 3, n) for i in range(30)}
    data["y"] = data["y"] + rng.normal(size=6)[data["g2"]]
    formula = "y ~ 1" + "".join(f" + (1 | g{i})" for i in range(30))
    result = lme4py.lmer(formula, data)
    assert result.theta.size == 30
    assert result.converged
    assert result.variance_components["var(_cons|g2)"] > 0.1


def test_many_fixed_effects():
    """p = 200."""
    rng = np.random.default_rng(3)
    n, p = 800, 200
    X = rng.normal(size=(n, p)) * 10.0 ** rng.integers(-4, 5, p)
    codes = rng.integers(0, 30, n)
    y = X @ (1 / X.std(axis=0)) + rng.normal(size=30)[codes] + rng.normal(size=n)
    data = pd.DataFrame(X, columns=[f"x{j}" for j in range(p)]).assign(y=y, g=codes)
    result = lme4py.lmer("y ~ . - g + (1 | g)", data)
    assert result.params.size == p + 1
    assert result.converged
    # Four standard errors, in units of each coefficient's own.
    assert (np.abs(result.params.iloc[1:] - 1 / X.std(axis=0)) < 4.5 * result.bse.iloc[1:]).all()


def test_as_many_random_effects_as_observations():
    rng = np.random.default_rng(4)
    data = {"y": rng.normal(size=20), "g": np.arange(20)}
    with pytest.raises(lme4py.DesignError, match="20"):
        lme4py.lmer("y ~ 1 + (1 | g)", data)


def test_one_level():
    with pytest.raises(lme4py.Lme4Error, match=r"'g'|`g`"):
        lme4py.lmer("y ~ 1 + (1 | g)", {"y": np.arange(5.0), "g": ["a"] * 5})


def test_duplicated_and_collinear_columns(sleepstudy):
    data = sleepstudy.assign(again=sleepstudy["Days"], sum=2 * sleepstudy["Days"] + 1)
    with pytest.warns(lme4py.RankWarning, match="again, sum"):
        result = lme4py.lmer("Reaction ~ Days + again + sum + (Days | Subject)", data)
    plain = lme4py.lmer(FORMULA, sleepstudy)
    assert result.fit.design.dropped == ("again", "sum")
    assert result.criterion == pytest.approx(plain.criterion, abs=1e-9)


# -- the fall-back ----------------------------------------------------------------------------------


def test_fall_back_rescues_a_stuck_optimiser(sleepstudy, monkeypatch):
    """A first optimiser that stops at once away from the minimum is followed by a quasi-Newton search."""
    from lme4py.engine.linear import solve

    real = solve.minimise
    calls = []

    def gives_up_first(local, start, control):
        calls.append(start)
        limit = replace(control, max_evaluations=1) if len(calls) == 1 else control
        return real(local, start, limit)

    monkeypatch.setattr(solve, "minimise", gives_up_first)
    fit = lme4py.lmm_fit(lme4py.lformula(FORMULA, sleepstudy), start=[5.0, 0.0, 5.0])
    assert len(calls) == 2
    assert fit.certificate.converged
    assert fit.criterion == pytest.approx(1743.628271959, abs=1e-8)  # as many digits as are printed
    assert [e.number for e in fit.opt_log] == list(range(1, len(fit.opt_log) + 1))


def test_insteval_from_random_starts():
    """Random starts end at the same optimum (lme4 stops elsewhere from some orders of the levels).

    Two of the whole data, whose value is lme4's best; eight of the ratings of every fourth lecturer.
    """
    data = lme4py.load_dataset("InstEval")
    rng = np.random.default_rng(5)

    def optima(rows, n):
        design = lme4py.lformula("y ~ service + (1 | s) + (1 | d) + (1 + service | dept)", rows)
        criterion = lme4py.lmm_criterion(design, reml=False)
        starts = rng.normal(size=(n, design.n_theta)) * np.exp(rng.normal(size=(n, design.n_theta)))
        return [lme4py.optimize_criterion(criterion, start=start).value for start in starts]

    # Rounding of a sum over 73,421 rows.
    assert optima(data, 2) == pytest.approx([237647.0583796] * 2, abs=1e-6)
    part = optima(data[data["d"].cat.codes % 4 == 0], 8)
    assert part == pytest.approx([min(part)] * 8, abs=1e-6)
