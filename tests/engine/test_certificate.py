"""What the certificate says at optima, at singular fits and at points that are neither."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from dense_models import DESIGNS, make_design, make_term, random_theta
from reference_data import load_reference

import lme4py
from lme4py.design.design import Design
from lme4py.engine.certificate import Rival, verdict
from lme4py.engine.linear.certificate import difference_hessian
from lme4py.engine.linear.hessian import exact_hessian


def stay(design: Design, theta, reml: bool = True) -> lme4py.Fit:
    """The fit at `theta`, whatever its certificate says: one evaluation leaves no room to move."""
    criterion = lme4py.lmm_criterion(design, reml)
    optimum = lme4py.optimize_criterion(criterion, theta, {"max_evaluations": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lme4py.ConvergenceWarning)
        return lme4py.make_fit(design, criterion, optimum)


def quietly(design: Design, reml: bool = True) -> lme4py.Fit:
    """The fit, with no warning allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return lme4py.lmm_fit(design, reml)


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_every_fit_is_certified_without_a_warning(name, reml):
    certificate = quietly(DESIGNS[name], reml).certificate
    assert certificate.converged
    # Quadratic convergence: far below the 1e-6 that counts as converged.
    assert certificate.bound < 1e-9
    assert certificate.gradient_norm == pytest.approx(np.sqrt(2 * certificate.bound))
    assert certificate.verdict.startswith("Converged")
    assert certificate.is_singular == bool(certificate.singular)
    assert (certificate.boundary_derivative is None) or certificate.is_singular


def test_regular_optimum(sleep):
    certificate = sleep.certificate
    assert not certificate.is_singular
    assert certificate.boundary_derivative is None
    assert certificate.min_eigenvalue > 0
    assert "REML criterion" in certificate.verdict
    assert certificate.verdict.endswith(".")
    assert ". " not in certificate.verdict  # one sentence
    assert sleep.converged is certificate.converged is True


def test_bound_is_what_the_criterion_can_still_fall(sleep):
    """Near the optimum the bound equals the true gap."""
    best = sleep.criterion
    for size in (1e-3, 1e-2):
        theta = sleep.theta + size * np.array([1.0, -0.5, 0.7])
        fit = stay(sleep.fit.design, theta)
        gap = fit.criterion - best
        # Third derivatives: the error is of the order of the step.
        assert fit.certificate.bound == pytest.approx(gap, rel=20 * size)
        assert fit.certificate.converged == (gap < 1e-6)


def test_away_from_the_optimum(sleep):
    design = sleep.fit.design
    criterion = lme4py.lmm_criterion(design)
    optimum = lme4py.optimize_criterion(criterion, 1.1 * sleep.theta, {"max_evaluations": 1})
    with pytest.warns(lme4py.ConvergenceWarning, match=r"Not converged.*could still fall") as caught:
        fit = lme4py.make_fit(design, criterion, optimum)
    assert len(caught) == 1
    assert not fit.certificate.converged
    assert str(caught[0].message) == fit.certificate.verdict
    assert "control=" in fit.certificate.verdict
    assert "start=" in fit.certificate.verdict


def test_zero_variance_that_should_be_positive(sleep):
    """All gradients in theta vanish at zero; the one-sided derivative in the variance shows the descent."""
    fit = stay(sleep.fit.design, [0.0, 0.0, 0.0])
    assert fit.certificate.is_singular
    assert fit.certificate.boundary_derivative < 0
    assert not fit.certificate.converged
    assert "falls in some direction" in fit.certificate.verdict


def test_boundary_derivative_is_the_derivative_in_the_variance():
    design = DESIGNS["intercept"]
    fit = stay(design, [0.0])
    criterion = lme4py.lmm_criterion(design)
    step = 1e-6
    # One-sided difference in the variance theta^2; its second-order term is 1e-6 times the curvature.
    numeric = (criterion([np.sqrt(step)]) - criterion([0.0])) / step
    assert fit.certificate.boundary_derivative == pytest.approx(numeric, rel=1e-3)


@pytest.mark.parametrize("reml", [True, False])
def test_zero_variance(reml):
    result = lme4py.lmer("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff2"), reml=reml)
    certificate = result.certificate
    assert result.theta.tolist() == [0.0]
    assert certificate.converged
    assert certificate.is_singular
    assert certificate.boundary_derivative > 0
    assert certificate.singular == ("the variance of (1 | Batch) is zero",)
    assert "singular" in certificate.verdict
    assert ("REML criterion" in certificate.verdict) == reml


def slope_design(
    structure: str, sd_intercept: float, sd_slope: float, sign: float | None = None, mean: float = 0.0
) -> Design:
    """Balanced data whose residuals and effects are exactly orthogonal to what they should be."""
    rng = np.random.default_rng(11)
    codes = np.repeat(np.arange(12), 10)
    x = np.tile(np.linspace(-1, 1, 10), 12) + mean
    effects = rng.normal(size=(12, 2))
    effects -= effects.mean(axis=0)
    if sign is not None:
        effects[:, 1] = sign * effects[:, 0]
    noise = rng.normal(size=(12, 10))
    # No group differs from another by chance: what is zero below is zero in the data.
    own = np.column_stack([np.ones(10), np.linspace(-1, 1, 10)])
    noise -= noise @ own @ np.linalg.solve(own.T @ own, own.T)
    b0, b1 = sd_intercept * effects[:, 0], sd_slope * effects[:, 1]
    y = 1 + b0[codes] + b1[codes] * x + noise.ravel()
    one = np.ones(120)
    term = make_term("g", codes, np.column_stack([one, x]), structure)
    return make_design(y, np.column_stack([one, x]), [term])


@pytest.mark.parametrize(
    ("design", "words"),
    [
        (slope_design("unstructured", 0.0, 0.0), "all variances of (c0 + c1 | g) are zero"),
        (slope_design("diagonal", 0.0, 0.0), "all variances of (c0 + c1 | g) are zero"),
        (slope_design("identity", 0.0, 0.0), "all variances of (c0 + c1 | g) are zero"),
        (slope_design("unstructured", 1.0, 0.0), "the variance of c1 in (c0 + c1 | g) is zero"),
        (slope_design("unstructured", 0.0, 1.0), "the variance of c0 in (c0 + c1 | g) is zero"),
        (slope_design("unstructured", 1.0, 0.0, mean=3.0), "the variance of c1 in (c0 + c1 | g) is zero"),
        (slope_design("unstructured", 0.0, 1.0, mean=3.0), "the variance of c0 in (c0 + c1 | g) is zero"),
        (slope_design("diagonal", 1.0, 0.0), "the variance of c1 in (c0 + c1 | g) is zero"),
        (slope_design("unstructured", 1.0, 1.0, 1.0), "the correlation of c0 and c1 in (c0 + c1 | g) is +1"),
        (slope_design("unstructured", 1.0, 0.5, -1.0), "the correlation of c0 and c1 in (c0 + c1 | g) is -1"),
    ],
)
@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_singular_fits_are_exact_and_described(design, words, reml):
    fit = quietly(design, reml)
    assert fit.certificate.converged
    assert fit.certificate.singular == (words,)
    assert fit.certificate.boundary_derivative >= 0
    assert words in fit.certificate.verdict
    covariance = fit.covariances[0]
    if "zero" in words:
        zero = [0, 1] if "all" in words else [int(words[len("the variance of c")])]
        # Exact where the zero is an element of theta. One zero variance of an unstructured term is a
        # direction that the optimiser finds like any other, to 1e-12 of the residual SD or so.
        exact = "all" in words or fit.design.terms[0].structure.name == "diag"
        size = 0.0 if exact else 1e-10 * fit.sigma
        assert (np.sqrt(covariance[zero, zero]) <= size).all()
        assert (np.abs(fit.modes[0][:, zero]) <= 10 * size).all()
    else:
        correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        # A matrix of rank one, made from one vector: rounding only.
        assert correlation == pytest.approx(float(words[-2:]), abs=1e-12)


def test_rank_of_a_larger_matrix():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(30), 8)
    values = np.column_stack([np.ones(240), rng.normal(size=(240, 2))])
    effects = rng.normal(size=(30, 1)) * np.array([1.0, 0.7, -0.5])
    y = np.einsum("nk,nk->n", values, effects[codes]) + rng.normal(size=240)
    fit = quietly(make_design(y, values, [make_term("g", codes, values)]))
    assert fit.certificate.converged
    assert fit.certificate.singular[0] in (
        "the covariance matrix of (c0 + c1 + c2 | g) has rank 1, not 3",
        "the covariance matrix of (c0 + c1 + c2 | g) has rank 2, not 3",
    )
    rank = int(fit.certificate.singular[0].split("rank ")[1][0])
    # Exactly singular, not nearly: rounding only.
    values = np.linalg.eigvalsh(fit.covariances[0])
    assert (np.abs(values[: 3 - rank]) < 1e-14 * values[-1]).all()


def test_singular_fit_is_the_best_of_its_neighbourhood():
    """No point around a singular optimum is lower."""
    design = slope_design("unstructured", 1.0, 0.5, -1.0)
    fit = quietly(design)
    criterion = lme4py.lmm_criterion(design)
    rng = np.random.default_rng(4)
    for size in (1e-4, 1e-2, 0.3):
        for _ in range(10):
            # The value rounds at 1e-13 times a few hundred.
            assert criterion(fit.theta + size * rng.normal(size=3)) > fit.criterion - 1e-9


def test_not_identified_direction_does_not_stop_the_certificate():
    """(f || g) with a factor f: nothing changes in one direction, the Hessian has an eigenvalue of zero."""
    with pytest.warns(lme4py.IdentificationWarning):
        result = lme4py.lmer("score ~ Machine + (Machine || Worker)", load_reference("Machines"))
    assert result.converged
    # Zero but for rounding of the differences, against curvatures of order 1 to 100.
    assert abs(result.certificate.min_eigenvalue) < 1e-3


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", list(DESIGNS))
def test_exact_hessian(name, zero, reml):
    """Against differences of analytic gradients, at a point that is no optimum; also where a variance is zero."""
    inside = lme4py.lmm_criterion(DESIGNS[name], reml).inside
    theta = random_theta(DESIGNS[name])
    if zero:
        theta[-1] = 0.0
    point = inside.evaluate(theta)
    found = exact_hessian(inside, point, inside.sigma_gradient(point), inside.average_information(point))
    expected = np.array(
        [(inside.gradient(theta + e) - inside.gradient(theta - e)) / 2e-5 for e in 1e-5 * np.eye(theta.size)]
    )
    # Central differences: truncation 1e-10 times the fourth derivative, rounding 1e-13 / 1e-5 of the gradient.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["intercept", "slope", "crossed, slopes", "nested chain and crossed", "weights"])
def test_difference_hessian(name):
    """Differences of analytic gradients against second differences of the value."""
    inside = lme4py.lmm_criterion(DESIGNS[name]).inside
    theta = lme4py.lmm_fit(DESIGNS[name]).theta_inside
    m = theta.size
    found = difference_hessian(inside, theta, inside.gradient(theta))
    np.testing.assert_array_equal(found, found.T)
    h = 1e-3
    E = h * np.eye(m)
    numeric = np.array(
        [
            [
                inside(theta + E[i] + E[j])
                - inside(theta + E[i] - E[j])
                - inside(theta - E[i] + E[j])
                + inside(theta - E[i] - E[j])
                for j in range(m)
            ]
            for i in range(m)
        ]
    ) / (4 * h * h)
    # Second differences: truncation 1e-6 times the fourth derivative, rounding 1e-13 / 1e-6.
    np.testing.assert_allclose(found, numeric, rtol=0, atol=1e-3 * np.abs(numeric).max())


def test_large_models_are_certified_too():
    """More than 2000 random effects: the certificate must still tell an optimum from another point."""
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(1500), 4)
    x = np.tile([-1.5, -0.5, 0.5, 1.5], 1500)
    y = 0.8 * rng.normal(size=1500)[codes] + 0.4 * rng.normal(size=1500)[codes] * x + rng.normal(size=6000)
    values = np.column_stack([np.ones(6000), x])
    design = make_design(y, values, [make_term("g", codes, values)])
    fit = quietly(design)
    assert fit.certificate.converged
    assert not fit.certificate.is_singular
    criterion = lme4py.lmm_criterion(design)
    # The gradient really is zero: 1e-4 of a criterion of 2e4 whose curvatures are about 1e3.
    assert np.abs(criterion.gradient(fit.theta)).max() < 1e-4
    assert not stay(design, [1.0, 0.0, 0.6]).certificate.converged
    assert not stay(design, [0.0, 0.0, 0.0]).certificate.converged


def test_one_sentence_in_print_and_in_a_notebook():
    certificate = lme4py.lmer("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff2")).certificate
    assert str(certificate).startswith(certificate.verdict)
    assert f"smallest eigenvalue of the Hessian {certificate.min_eigenvalue:.3g}" in str(certificate)
    assert certificate._repr_html_().startswith("<p>Converged to a singular fit (the variance of ")
    assert "<" not in certificate._repr_html_()[3:-4]
    assert repr(certificate).startswith("<Certificate: Converged to a singular fit")


STARTS = (Rival("moments", 12.0, 11.0), Rival("within groups", 13.0))


@pytest.mark.parametrize(
    ("compared", "words"),
    [
        ((), "no other start was compared."),
        (STARTS[:1], "compared with 1 other start, none lower."),
        (STARTS, "compared with 1 other start and 1 other point, none lower."),
        ((Rival("scan", 12.0, None, 9),), "compared with 9 other points, none lower."),
        (
            (*STARTS, STARTS[0], Rival("scan", 12.0, None, 9)),
            "compared with 2 other starts and 10 other points, none lower.",
        ),
    ],
)
def test_the_verdict_claims_what_was_compared_and_no_more(compared, words):
    proved = "a local minimum of the deviance is proved (it could fall by less than 1e-12); "
    assert verdict("the deviance", True, 0.0, False, (), compared) == "Converged: " + proved + words
    singular = verdict("the deviance", True, 0.0, False, ("the variance of (1 | g) is zero",), compared)
    assert proved + words in singular
    # Without a comparison, another minimum may be lower than the fit without the variance.
    assert ("fits as well" in singular) == bool(compared)


def test_what_was_compared_is_listed(sleep):
    certificate = replace(sleep.certificate, compared=(*STARTS, Rival("scan", 14.0, None, 9)))
    assert str(certificate).endswith(
        " Compared: moments 12.000000, from there down to 11.000000; within groups 13.000000; scan (9 points) "
        "14.000000."
    )
