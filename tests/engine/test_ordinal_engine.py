"""The likelihood of ordered categories, its derivatives, and the criterion made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import load_reference

import lme4py
from lme4py.covariance import CovarianceStructures, make_structure
from lme4py.design.build import lformula
from lme4py.engine.generalised.criteria import JointCriterion
from lme4py.engine.generalised.integrals.nested_quadrature import make_quadrature
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.generalised.search import solve_glmm
from lme4py.engine.optimise import Control
from lme4py.errors import OptionError
from lme4py.families.links import PROBABILITY_LINKS
from lme4py.families.nuisance import ThresholdPart, as_columns, change, total
from lme4py.families.ordered.interval_rows import RowParts, make_intervals, row_parts
from lme4py.families.ordered.ordinal import ORDINAL_LINKS, THRESHOLDS, make_ordinal
from lme4py.families.registry import make_family
from lme4py.families.response import ResponseData

ALPHA = np.array([-2.0, -0.5, 0.3, 2.2])


def parts_of(link: str, alpha: Any, codes: Any, eta: Any, order: int = 3) -> RowParts:
    with np.errstate(all="ignore"):
        tail = PROBABILITY_LINKS[link].lower_tail
        return row_parts(link, tail, make_intervals(np.asarray(alpha)), np.asarray(codes), np.asarray(eta), order)


def F(link: str, x: Any) -> Any:
    """Distribution function of the latent variable: 1 - G(-x)."""
    with np.errstate(all="ignore"):
        return PROBABILITY_LINKS[link].complement(-np.asarray(x, dtype=float))


@pytest.fixture(params=ORDINAL_LINKS)
def link(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestRows:
    def test_the_log_probability_is_that_of_the_interval(self, link: str) -> None:
        eta = np.linspace(-2.5, 2.5, 21)
        padded = np.concatenate([[0.0], [np.nan] * 4, [1.0]])
        for code in range(5):
            value = parts_of(link, ALPHA, np.full(21, code), eta, 0).value
            above = F(link, ALPHA[code] - eta) if code < 4 else padded[5]
            below = F(link, ALPHA[code - 1] - eta) if code > 0 else padded[0]
            # The difference of two distribution functions has an error of 1e-16, and probabilities here exceed 1e-6.
            np.testing.assert_allclose(np.exp(value), above - below, atol=2e-16, rtol=1e-9)

    def test_probabilities_add_up_to_one(self, link: str) -> None:
        eta = np.linspace(-30.0, 30.0, 61)
        p = make_ordinal(link, n_categories=5).probabilities(eta, ALPHA)
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-13)  # a sum of five numbers
        assert (p >= 0.0).all()

    @pytest.mark.parametrize(
        ("value", "derivative"),
        [
            ("value", "s"),
            ("s", "ss"),
            ("ss", "sss"),
            ("up", "up_s"),
            ("low", "low_s"),
            ("up_s", "up_ss"),
            ("low_s", "low_ss"),
        ],
    )
    def test_derivatives_in_eta(self, link: str, value: str, derivative: str) -> None:
        eta, codes, h = np.tile(np.linspace(-6.0, 6.0, 25), 5), np.repeat(np.arange(5), 25), 1e-4
        up, down = (getattr(parts_of(link, ALPHA, codes, eta - step), value) for step in (h, -h))
        exact = getattr(parts_of(link, ALPHA, codes, eta), derivative)
        # A central difference with step h is good to h^2 of the derivatives, large for the Gumbel links.
        np.testing.assert_allclose((up - down) / (2.0 * h), exact, rtol=2e-6, atol=2e-7)

    def test_derivatives_in_the_thresholds(self, link: str) -> None:
        eta, codes, h = np.tile(np.linspace(-3.0, 3.0, 13), 5), np.repeat(np.arange(5), 13), 1e-5
        exact = parts_of(link, ALPHA, codes, eta)
        for k in range(4):
            move = h * np.eye(4)[k]
            up, down = (parts_of(link, ALPHA + sign * move, codes, eta) for sign in (1.0, -1.0))
            for value, derivative, row in (
                ("value", "up", codes == k),
                ("value", "low", codes == k + 1),
                ("up", "up_up", codes == k),
                ("low", "low_low", codes == k + 1),
                ("low", "up_low", (codes == k) & (k > 0)),
            ):
                difference = ((getattr(up, value) - getattr(down, value)) / (2.0 * h))[row]
                # Central differences again: h^2, and rounding of 1e-16 / h.
                np.testing.assert_allclose(difference, getattr(exact, derivative)[row], rtol=1e-7, atol=1e-8)

    @pytest.mark.parametrize("eta", [-700.0, -40.0, 40.0, 700.0])
    def test_far_tails(self, link: str, eta: float) -> None:
        parts = parts_of(link, ALPHA, np.arange(5), np.full(5, eta))
        for name in RowParts.__slots__:
            assert np.isfinite(getattr(parts, name)).all(), name
        # Moving eta towards a category makes it more probable, also where its probability is far below 1e-300.
        away = parts.value < -0.1
        assert (np.sign(parts.s[away]) == np.sign(eta)).all()
        assert away.sum() >= 4

    def test_tails_of_the_normal_distribution(self) -> None:
        # log(Phi(-39.5) - Phi(-40.5)) and its score, from the asymptotic series of Phi to 60 digits.
        parts = parts_of("probit", [-0.5, 0.5], [1], [40.0])
        assert parts.value[0] == pytest.approx(-784.720879104317577, rel=1e-15)  # two roundings
        assert -parts.s[0] == pytest.approx(-39.525284, abs=1e-5)

    def test_narrow_intervals(self, link: str) -> None:
        width, at = 1e-7, 0.4
        parts = parts_of(link, [at, at + width], [1], [0.0])
        h = 1e-4
        density = (F(link, at + h) - F(link, at - h)) / (2.0 * h)
        # The difference quotient of the density is good to h^2.
        assert np.exp(parts.value[0]) / width == pytest.approx(density, rel=1e-7)

    def test_categories_in_reverse(self) -> None:
        eta, codes = np.linspace(-3, 3, 10), np.arange(10) % 5
        for link, mirror in (("logit", "logit"), ("probit", "probit"), ("cauchit", "cauchit"), ("cloglog", "loglog")):
            ours = parts_of(link, ALPHA, codes, eta)
            other = parts_of(mirror, -ALPHA[::-1], 4 - codes, -eta)
            np.testing.assert_allclose(ours.value, other.value, rtol=1e-13)  # the same formula, mirrored
            np.testing.assert_allclose(ours.s, -other.s, rtol=1e-11, atol=1e-15)
            np.testing.assert_allclose(ours.up, -other.low, rtol=1e-11, atol=1e-15)


class TestFamily:
    @pytest.mark.parametrize("threshold", THRESHOLDS)
    @pytest.mark.parametrize("K", [3, 4, 5, 6])
    def test_structures(self, threshold: str, K: int) -> None:
        family = make_ordinal("logit", threshold, K)
        assert len(family.parameter_names) == family.n_nuisance == np.linalg.matrix_rank(family.A)
        gamma = np.arange(1.0, family.n_nuisance + 1.0)
        if threshold.startswith("symmetric"):
            gamma[: len([n for n in family.parameter_names if n.startswith("central")])] = 0.0
        alpha = family.alpha(gamma)
        np.testing.assert_allclose(family.parameters(alpha), gamma, atol=1e-13)
        if threshold.startswith("symmetric"):
            np.testing.assert_allclose(alpha, -alpha[::-1], atol=1e-15)
        if threshold == "equidistant":
            np.testing.assert_allclose(np.diff(alpha), 2.0)
        assert (family.constant is None) == (threshold == "symmetric2")

    def test_symmetric_thresholds_as_in_r(self) -> None:
        # R's clmm for the wine data: central.1, central.2, spacing.1 and the four thresholds of them.
        family = make_ordinal("logit", "symmetric", 5)
        assert family.parameter_names == ("central.1", "central.2", "spacing.1")
        np.testing.assert_allclose(family.alpha(np.array([1.31, 3.97, 2.48])), np.array([-1.17, 1.31, 3.97, 6.45]))

    def test_thresholds_out_of_order_have_likelihood_zero(self) -> None:
        family, data = make_ordinal("logit", n_categories=3), ResponseData(np.array([0.0, 1.0, 2.0]))
        assert (family.loglik(data, np.zeros(3), np.array([1.0, 1.0])) == -np.inf).all()

    def test_unknown_options(self) -> None:
        with pytest.raises(OptionError, match=r"no link 'probti'\. Did you mean 'probit'"):
            make_ordinal("probti")
        with pytest.raises(OptionError, match=r"no threshold 'free'.*'flexible'"):
            make_ordinal("logit", "free")

    def test_expected_weights(self, link: str) -> None:
        family, h = make_ordinal(link, "symmetric", 5), 1e-5
        gamma, eta = family.parameters(ALPHA - ALPHA[::-1]), np.linspace(-4.0, 4.0, 17)
        data = ResponseData(np.arange(17.0) % 5, None, np.linspace(0.5, 2.0, 17))
        rows = family.derivatives(data, eta, gamma, 3)
        # The expectation of the observed weights, and of the squared scores.
        p = family.probabilities(eta, gamma)
        each = [family.derivatives(ResponseData(np.full(17, k)), eta, gamma, 2) for k in range(5)]
        np.testing.assert_allclose(rows.w_exp, data.weight * sum(p[:, k] * each[k].w_obs for k in range(5)), rtol=1e-9)

        def w(eta: Any, gamma: Any) -> Any:
            return family.derivatives(data, eta, gamma, 2).w_exp

        # Central differences: h^2 and rounding of 1e-16 / h.
        np.testing.assert_allclose((w(eta + h, gamma) - w(eta - h, gamma)) / (2 * h), rows.dw_exp, atol=1e-8)
        moves = h * np.eye(gamma.size)
        slopes = np.array([(w(eta, gamma + e) - w(eta, gamma - e)) / (2 * h) for e in moves]).T
        np.testing.assert_allclose(slopes, as_columns(rows.w_exp_lam), atol=1e-8)

    def test_what_needs_a_mean_is_refused(self) -> None:
        family = make_ordinal()
        with pytest.raises(OptionError, match=r"no mean.*type='prob'"):
            family.mean(np.zeros(2))
        with pytest.raises(OptionError, match="no variance"):
            family.variance(np.zeros(2))

    def test_draws_have_the_probabilities_of_the_categories(self) -> None:
        family, n = make_ordinal("cloglog", n_categories=5), 200_000
        codes = family.simulate(np.full(n, 0.5), ALPHA, ResponseData(np.zeros(n)), np.random.default_rng(1))
        shares = np.bincount(codes.astype(int), minlength=5) / n
        p = family.probabilities(np.array([0.5]), ALPHA)[0]
        assert np.abs(shares - p).max() < 4.0 * np.sqrt(0.25 / n)  # four standard errors


def test_threshold_parts() -> None:
    rng = np.random.default_rng(1)
    codes, A = rng.integers(0, 4, 30), rng.normal(size=(3, 2))
    upper, lower = np.where(codes < 3, rng.normal(size=30), 0.0), np.where(codes > 0, rng.normal(size=30), 0.0)
    part = ThresholdPart(upper, lower, codes, A)
    dense = np.zeros((30, 5))
    dense[np.arange(30), codes + 1] += upper
    dense[np.arange(30), codes] += lower
    columns = dense[:, 1:4] @ A
    by, step = rng.normal(size=30), np.array([0.3, -0.2])
    np.testing.assert_allclose(as_columns(part), columns)
    np.testing.assert_allclose(total(part), columns.sum(axis=0))
    np.testing.assert_allclose(total(part, by), by @ columns)
    np.testing.assert_allclose(change(part, step), columns @ step)
    nodes = rng.normal(size=(7, 30))
    at_nodes = ThresholdPart(upper * nodes, lower * nodes, codes, A)
    np.testing.assert_allclose(total(at_nodes, nodes), (nodes**2).sum(axis=0) @ columns)


# -- the criterion -----------------------------------------------------------------------------------------------


def finder_of(formula: str, link: str, threshold: str, expected: bool = False) -> ModeFinder:
    design = lformula(formula, load_reference("sim_ord"), weights="wt", family="ordinal")
    assert design.response is not None
    family = make_ordinal(link, threshold, len(design.response.categories or ()))
    return ModeFinder(make_glmm(design, family, design.response, expected))


@pytest.mark.parametrize(
    ("formula", "nAGQ", "threshold", "expected"),
    [
        ("y ~ x + tr + offset(0.2 * x) + (1 | rater)", 1, "flexible", False),
        ("y ~ tr + (1 | rater)", 1, "symmetric2", False),
        ("y ~ x + (1 | rater) + (x | item)", 1, "equidistant", False),
        ("y ~ x + (x | rater)", 3, "symmetric", False),
        ("y ~ x + (1 | rater)", -6, "symmetric", False),
        ("y ~ tr + (x | rater)", -4, "flexible", False),
        ("y ~ x + (1 | rater / tr)", 3, "flexible", False),
        ("y ~ x + (1 | rater) + (1 | item)", 1, "flexible", True),
        ("y ~ x + (x | rater)", 3, "symmetric", True),
        ("y ~ x + (1 | rater / tr)", 3, "flexible", True),
    ],
)
def test_the_gradient(link: str, threshold: str, formula: str, nAGQ: int, expected: bool) -> None:
    finder = finder_of(formula, link, threshold, expected)
    problem = finder.problem
    refine = None if nAGQ == 1 else make_quadrature(finder, nAGQ)
    criterion = JointCriterion(finder, refine)
    # Away from the optimum, where no part of the gradient vanishes.
    start = solve_glmm(ModeFinder(problem), None, Control(max_evaluations=4)).phi
    phi = start + 0.05 * np.random.default_rng(2).normal(size=start.size)
    here = criterion.evaluate(phi)
    assert here is not None
    h = 2e-3
    numeric = []
    for step in h * np.eye(phi.size):
        values = [criterion.evaluate(phi + c * step) for c in (-2, -1, 1, 2)]
        a, b, c, d = (v[1] for v in values if v is not None)
        numeric.append((a - 8.0 * b + 8.0 * c - d) / (12.0 * h))
    # log|M| moves with the modes, which are good to 3e-8; divided by h.
    np.testing.assert_allclose(numeric, here[2], rtol=2e-6, atol=5e-5)


def test_two_categories_are_the_binomial_model(link: str) -> None:
    data = lme4py.load_dataset("Contraception").assign(age=lambda d: d["age"] / 10.0)
    formula = "use ~ age + urban + (1 | district)"
    binary = lformula(formula, data, family="binomial")
    assert binary.response is not None
    ours = binary.with_predictor(X=binary.X[:, 1:], names=binary.x_names[1:])
    response = ResponseData(binary.response.y, categories=(0, 1))
    for points, expected in ((1, False), (5, False), (1, True), (5, True)):
        fits = []
        for design, family, rows in (
            (binary, make_family("binomial", link), binary.response),
            (ours, make_ordinal(link, n_categories=2), response),
        ):
            finder = ModeFinder(make_glmm(design, family, rows, expected))
            refine = None if points == 1 else make_quadrature(finder, points)
            optimum = solve_glmm(finder, None, Control(), refine)
            theta, beta, lam = finder.problem.split(optimum.phi)
            fits.append((optimum.value, theta, finder.problem.C @ beta, finder.problem.user_nuisance(beta, lam)))
        (value, theta, beta, _), (ours_value, ours_theta, slopes, thresholds) = fits
        assert ours_value == pytest.approx(value, abs=1e-8)  # rounding of 2,000 terms
        # Both stop where the criterion can fall by 1e-12.
        np.testing.assert_allclose(ours_theta, theta, rtol=1e-5)
        np.testing.assert_allclose(slopes, beta[1:], rtol=1e-5)
        assert -float(thresholds[0]) == pytest.approx(beta[0], rel=1e-5)


class TestTheThetaMap:
    def test_the_jacobian(self) -> None:
        rng = np.random.default_rng(1)
        shapes = (("us", 3), ("diag", 2), ("homdiag", 2), ("us", 1))
        templates = CovarianceStructures(tuple(make_structure(*shape) for shape in shapes))
        S = (rng.normal(size=(3, 3)), np.diag([2.0, 0.5]), 3.0 * np.eye(2), np.array([[2.0]]))

        def user(theta: Any) -> Any:
            return templates.theta_of_factors([s @ T for s, T in zip(S, templates.factors(theta), strict=True)])

        theta = templates.theta_of_factors(templates.factors(rng.normal(size=templates.n_theta)))
        h = 1e-6
        numeric = np.array([(user(theta + e) - user(theta - e)) / (2 * h) for e in h * np.eye(theta.size)]).T
        # Central differences: h^2 and rounding / h.
        np.testing.assert_allclose(templates.to_user_jacobian(theta, S), numeric, atol=1e-8)

    def test_parameters_on_the_boundary_are_fixed(self) -> None:
        templates = CovarianceStructures((make_structure("us", 2), make_structure("diag", 2)))
        S = (np.array([[1.0, 2.0], [0.5, 3.0]]), np.eye(2))
        jacobian = templates.to_user_jacobian(np.array([1.0, 0.4, 0.0, 0.7, 0.0]), S)
        assert (jacobian[2] == 0.0).all()
        assert (jacobian[4] == 0.0).all()
        assert (jacobian[[0, 1, 3]] != 0.0).any(axis=1).all()


class TestParameterCovariance:
    def test_generalised_models(self) -> None:
        data = lme4py.load_dataset("Contraception")
        fit = lme4py.glmer("use ~ age + urban + (urban | district)", data).fit
        assert fit.parameter_vcov.shape == (6, 6)
        np.testing.assert_array_equal(fit.parameter_vcov[3:, 3:], fit.vcov)
        assert np.linalg.eigvalsh(fit.parameter_vcov)[0] > 0.0

    def test_theta_on_the_users_scale(self) -> None:
        data = lme4py.load_dataset("Contraception")
        fits = [
            lme4py.glmer(f"use ~ {age} + ({age} | district)", data.assign(decade=data["age"] / 10.0)).fit
            for age in ("age", "decade")
        ]
        unit = np.diag([1.0, 10.0, 10.0, 1.0, 10.0])
        # Differences of gradients, with other steps in the other units.
        np.testing.assert_allclose(fits[1].parameter_vcov, unit @ fits[0].parameter_vcov @ unit, rtol=1e-3, atol=1e-6)

    def test_dispersion_and_the_joint_mode(self) -> None:
        data = lme4py.load_dataset("Salamanders")
        fit = lme4py.glmer_nb("count ~ mined + (1 | site)", data).fit
        assert fit.parameter_vcov.shape == (4, 4)
        assert np.sqrt(fit.parameter_vcov[-1, -1]) == pytest.approx(fit.log_dispersion_se)
        rough = lme4py.glmer_nb("count ~ mined + (1 | site)", data, nAGQ=0).fit
        np.testing.assert_array_equal(rough.parameter_vcov[1:3, 1:3], rough.vcov)
        assert (rough.parameter_vcov[0, 1:3] == 0.0).all()
        assert rough.parameter_vcov[0, 3] != 0.0

    def test_singular_fits_hold_zeros(self) -> None:
        fit = lme4py.clmm("rating ~ temp + contact + (1 | judge) + (1 | bottle)", lme4py.load_dataset("wine")).fit
        zero = np.flatnonzero(fit.theta == 0.0)
        assert zero.size == 1
        assert (fit.parameter_vcov[zero] == 0.0).all()
        assert np.isfinite(fit.parameter_vcov).all()
        alone = lme4py.clmm("rating ~ temp + contact + (1 | judge)", lme4py.load_dataset("wine")).fit
        rest = np.setdiff1d(np.arange(fit.parameter_vcov.shape[0]), zero)
        # The same model; differences of gradients to about 1e-6.
        np.testing.assert_allclose(fit.parameter_vcov[np.ix_(rest, rest)], alone.parameter_vcov, rtol=1e-4, atol=1e-6)


def hard(seed: int, n: int, J: int, cuts: Any, link: str, sd: float = 1.0, slope: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame({"g": rng.integers(0, J, n), "x": rng.normal(size=n)})
    noise = -PROBABILITY_LINKS[link].eta(rng.random(n))
    data["y"] = np.searchsorted(cuts, slope * data["x"] + sd * rng.normal(size=J)[data["g"]] + noise)
    return data


class TestHardCases:
    def test_rare_categories(self, link: str) -> None:
        data = hard(1, 600, 40, [-1.0, 0.0, 0.0, 1.0], link)
        data.loc[data.index[data["y"] == 3][:1], "y"] = 2
        data.loc[data.index[data["y"] == 4][:2], "y"] = 5
        result = lme4py.clmm("y ~ x + (1 | g)", data, link=link)
        assert result.converged
        assert result.categories == (0, 1, 2, 3, 4, 5)

    def test_groups_of_two(self) -> None:
        result = lme4py.clmm("y ~ x + (1 | g)", hard(2, 300, 150, [-1.0, 0.5, 1.5], "logit"))
        assert result.converged

    def test_large_offsets(self, link: str) -> None:
        data = hard(3, 400, 30, [-1.0, 0.0, 1.5], link)
        data["o"] = 500.0 + 0.0 * data["x"]
        plain = lme4py.clmm("y ~ x + (1 | g)", data, link=link)
        moved = lme4py.clmm("y ~ x + (1 | g)", data, link=link, offset="o")
        # alpha - eta loses two digits beside 500.
        np.testing.assert_allclose(moved.thresholds - 500.0, plain.thresholds, atol=1e-5)
        np.testing.assert_allclose(moved.params, plain.params, rtol=1e-5)

    def test_columns_far_from_zero(self) -> None:
        data = hard(4, 300, 20, [-1.0, 0.0, 1.5], "logit").assign(year=lambda d: 2020.0 + 0.01 * d["x"])
        plain = lme4py.clmm("y ~ x + (x | g)", data)
        other = lme4py.clmm("y ~ year + (x | g)", data)
        assert other.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)
        assert other.params.iloc[0] == pytest.approx(100.0 * plain.params.iloc[0], rel=1e-6)
        shifted = other.thresholds - 2020.0 * other.params.iloc[0]
        # Thresholds near 200,000 have an error of 1e-16 of that, times the condition.
        np.testing.assert_allclose(shifted, plain.thresholds, atol=1e-4)

    def test_no_variance(self) -> None:
        result = lme4py.clmm("y ~ x + (x | g)", hard(5, 300, 10, [-1.0, 0.0, 1.5], "logit", sd=0.0))
        assert result.converged
        assert result.is_singular

    def test_separation_is_reported(self, link: str) -> None:
        data = hard(6, 200, 20, [-1.0, 0.0, 1.0], link).assign(top=lambda d: (d["y"] == 3).astype(float))
        with pytest.warns(lme4py.ConvergenceWarning, match="top separates the categories"):
            result = lme4py.clmm("y ~ top + (1 | g)", data, link=link)
        assert not result.converged
        assert np.isfinite(result.fit.parameter_vcov).all()

    def test_expected_information_always_has_an_optimum(self) -> None:
        data = hard(18, 400, 80, [-1.0, 0.0, 1.5], "cauchit", sd=2.0)
        assert lme4py.clmm("y ~ x + (1 | g)", data, link="cauchit", hessian="expected").converged
        flat = hard(15, 400, 80, [-1.0, 0.0, 1.5], "cauchit", sd=3.0)
        with pytest.raises(lme4py.DesignError, match=r"nearly vanishes.*hessian='expected'"):
            lme4py.clmm("y ~ x + (1 | g)", flat, link="cauchit")
        result = lme4py.clmm("y ~ x + (1 | g)", flat, link="cauchit", hessian="expected")
        assert result.converged
        assert "expected information" in result.summary()

    def test_many_categories(self) -> None:
        data = hard(7, 800, 25, np.linspace(-4, 4, 39), "probit")
        result = lme4py.clmm("y ~ x + (1 | g)", data, link="probit")
        assert result.converged
        assert len(result.thresholds) == len(result.categories) - 1
        equal = lme4py.clmm("y ~ x + (1 | g)", data, link="probit", threshold="equidistant")
        assert equal.n_params == 4
        assert equal.log_likelihood < result.log_likelihood
