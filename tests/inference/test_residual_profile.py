"""Profiles of models with a residual structure: those of lmer() where the structure says nothing, else brute force."""

from __future__ import annotations

import numpy as np
import pytest
from reference_data import load_reference
from scipy import optimize

import lme4py
from lme4py.errors import OptionError
from lme4py.fits.kinds import model_of


def test_a_dispersion_without_effect_leaves_the_profile_as_it_is():
    data = lme4py.load_dataset("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    a = lme4py.lmer(formula, data, dispformula="~ 1").profile()
    b = lme4py.lmer(formula, data).profile()
    # Roots that are found to 1e-7 of the signed root, of two optimisers.
    assert a.conf_int().to_numpy() == pytest.approx(b.conf_int().to_numpy(), rel=1e-6)
    assert a.estimates == pytest.approx(b.estimates, rel=1e-5)


def test_a_coefficient_beside_correlated_residuals_is_that_of_brute_force():
    """The likelihood of gls with AR(1) residuals, written out and minimised by a general optimiser."""
    data = lme4py.load_dataset("Orthodont")
    fit = lme4py.lmer("distance ~ age * Sex", data, residual="ar1(1 | Subject)", reml=False)
    low, high = fit.conf_int(method="profile", parm=["age"]).loc["age"]
    X, y = fit.fit.design.X, fit.fit.design.y
    j = list(fit.params.index).index("age")
    blocks = y.reshape(-1, 4)
    lags = np.abs(np.subtract.outer(range(4), range(4)))

    def deviance(value: float) -> float:
        rest, left = np.delete(X, j, axis=1).reshape(-1, 4, X.shape[1] - 1), blocks - value * X[:, j].reshape(-1, 4)

        def at(par):
            V = np.exp(2.0 * par[0]) * np.tanh(par[1]) ** lags
            Vi = np.linalg.inv(V)
            A = np.einsum("gia,ij,gjb->ab", rest, Vi, rest)
            b = np.einsum("gia,ij,gj->a", rest, Vi, left)
            e = left - rest @ np.linalg.solve(A, b)
            return (
                len(blocks) * np.linalg.slogdet(V)[1] + np.einsum("gi,ij,gj->", e, Vi, e) + y.size * np.log(2 * np.pi)
            )

        return optimize.minimize(at, [0.8, 0.7], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-10}).fun

    # The deviance rises by the quantile at a limit; the simplex is good to 1e-9 or so.
    for value in (low, high):
        assert deviance(value) - fit.criterion == pytest.approx(3.841458820694124, abs=1e-6)


def test_a_standard_deviation_beside_correlated_residuals_is_that_of_brute_force():
    data = load_reference("irreg")
    fit = lme4py.lmer("y ~ x + time + (1 | id)", data, residual="car1(time | id)", reml=False)
    low, high = fit.conf_int(method="profile", parm=["sd(Intercept | id)"]).iloc[0]
    X, y = fit.fit.design.X, fit.fit.design.y
    id_, t = data["id"].to_numpy(), data["time"].to_numpy()
    rows = [np.flatnonzero(id_ == level) for level in np.unique(id_)]

    def deviance(sd: float) -> float:
        def at(par):
            A, b, c, det = np.zeros((3, 3)), np.zeros(3), 0.0, 0.0
            for r in rows:
                R = np.exp(2.0 * par[0]) * np.exp(-np.exp(par[1]) * np.abs(np.subtract.outer(t[r], t[r])))
                V = R + sd**2
                Vi = np.linalg.inv(V)
                A += X[r].T @ Vi @ X[r]
                b += X[r].T @ Vi @ y[r]
                c += y[r] @ Vi @ y[r]
                det += np.linalg.slogdet(V)[1]
            return det + c - b @ np.linalg.solve(A, b) + y.size * np.log(2 * np.pi)

        start = [np.log(fit.sigma), 0.0]
        return optimize.minimize(at, start, method="BFGS", options={"gtol": 1e-7}).fun

    for value in (low, high):
        if value > 0.0:
            assert deviance(value) - fit.criterion == pytest.approx(3.841458820694124, abs=1e-5)


def test_other_structures_and_what_has_no_likelihood():
    data = load_reference("mmrm200")
    fit = lme4py.mmrm("y ~ base * visit + arm * visit + us(visit | id)", data)
    table = fit.conf_int(method="profile", parm=["base", "arm[T.active]"])
    ml = lme4py.mmrm("y ~ base * visit + arm * visit + us(visit | id)", data, reml=False, method="Satterthwaite")
    # Profile and Wald limits agree to second order in 200 subjects.
    wald = ml.conf_int().loc[table.index]
    assert table.to_numpy() == pytest.approx(wald.to_numpy(), rel=0.02)
    power = lme4py.lmer("distance ~ age + (1 | Subject)", lme4py.load_dataset("Orthodont"), variance="power(fitted)")
    with pytest.raises(OptionError, match="no likelihood"):
        power.profile()


def held_deviance(fit, name: str, value: float) -> float:
    """The least deviance at a value of a parameter of the residuals, by a general optimiser under a constraint."""
    own = next(p for p in residual_parameters_of(fit) if p.name == name)
    criterion, part = fit.fit.problem.criterion, fit.fit.problem.residual_slice(max(own.first, 0))
    structure, unit = criterion.model.residual.structures[max(own.first, 0)], criterion.scaling.y_scale

    def held(par):
        if own.natural_parameter is None:
            return par[criterion.model.slices[-1].start + own.second] - value
        size = unit if own.natural_parameter.kind == "sd" else 1.0
        return size * structure.natural(par[part])[own.second] - value

    def both(par):
        point = criterion.evaluate(par)
        return (1e10, 0.0 * par) if point is None else (point.value, criterion.derivatives(point)[0])

    # The constraint is reached by steps that SLSQP makes itself.
    best = optimize.minimize(
        both, fit.fit.par, jac=True, method="SLSQP", constraints={"type": "eq", "fun": held}, options={"ftol": 1e-12}
    )
    return criterion.value_outside(best.fun)


def residual_parameters_of(fit):
    return model_of(fit.fit).residual_parameters()


RESIDUALS = {
    "us": {"residual": "us(visit | id)"},
    "cs": {"residual": "cs(visit | id)"},
    "toep": {"residual": "toep(visit | id)"},
    "hetar1": {"residual": "hetar1(visit | id)"},
    "by arm": {"residual": "homcs(visit | arm / id)"},
    "ar1 ident": {"residual": "ar1(visit | id)", "variance": "ident(arm)"},
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_limits_of_residual_parameters_are_where_the_deviance_is_the_quantile(name):
    data = load_reference("mmrm200")
    few = data[data["id"].isin(data["id"].cat.categories[:40])]
    fit = lme4py.lmer("y ~ base + arm", few, reml=False, **RESIDUALS[name])
    known = [own.name for own in residual_parameters_of(fit)]
    table = fit.conf_int(method="profile", parm="residual")
    assert table.index.tolist() == known
    # First and last: each costs some hundred evaluations of another optimiser.
    for row in (known[0], known[-1]):
        for value in table.loc[row]:
            # SLSQP ends some 1e-6 above the minimum at most.
            assert held_deviance(fit, row, value) - fit.criterion == pytest.approx(3.841458820694124, abs=1e-4)


def test_limits_of_a_correlation_are_those_of_nlme_like_likelihoods():
    """AR(1) by hand: beta and the variance are closed forms at each correlation."""
    data = lme4py.load_dataset("Orthodont")
    fit = lme4py.lmer("distance ~ age * Sex", data, residual="ar1(1 | Subject)", reml=False)
    X, y = fit.fit.design.X.reshape(-1, 4, 4), fit.fit.design.y.reshape(-1, 4)
    lags = np.abs(np.subtract.outer(range(4), range(4)))

    def deviance(rho: float) -> float:
        R = np.linalg.inv(rho**lags)
        A, b = np.einsum("gia,ij,gjb->ab", X, R, X), np.einsum("gia,ij,gj->a", X, R, y)
        left = np.einsum("gi,ij,gj->", y, R, y) - b @ np.linalg.solve(A, b)
        return y.size * (np.log(2.0 * np.pi * left / y.size) + 1.0) - len(y) * np.linalg.slogdet(R)[1]

    low, high = fit.conf_int(method="profile", parm="residual").loc["residual cor"]
    for rho in (low, high):
        # Roots are found to 1e-7 of the signed root.
        assert deviance(rho) - fit.criterion == pytest.approx(3.841458820694124, abs=1e-5)


def test_bootstrap_has_the_parameters_of_the_residuals():
    data = lme4py.load_dataset("Orthodont")
    fit = lme4py.lmer("distance ~ age", data, residual="ar1(1 | Subject)", variance="ident(Sex)")
    replicates = fit.bootstrap(n=3, seed=1).replicates
    again = [fit.refit(fit.simulate(3, seed=1).iloc[:, j]).residual_table().estimate.to_numpy() for j in range(3)]
    # The same responses and starts; the names leave out "residual" in the table.
    assert replicates.iloc[:, 2:].to_numpy() == pytest.approx(np.array(again), rel=1e-9)
    limits = fit.conf_int(method="boot", parm="residual", n_boot=3, seed=1)
    # Of three replicates the quantile at (3 + 1) times .025 is the lowest one.
    assert limits.lower.tolist() == pytest.approx(np.min(again, axis=0).tolist(), rel=1e-9)


def test_sigma_of_a_toeplitz_matrix_has_a_profile():
    """The deviance at the limits, by brute force over the correlations at both lags."""
    data = lme4py.load_dataset("Orthodont").query("age < 14")
    fit = lme4py.lmer("distance ~ age", data, residual="homtoep(1 | Subject)", reml=False)
    y = data.distance.to_numpy().reshape(-1, 3)
    X = np.stack([np.ones(y.shape), data.age.to_numpy().reshape(-1, 3)], axis=2)

    def deviance(lags: np.ndarray, sigma: float) -> float:
        V = sigma**2 * np.array([[1.0, *lags], [lags[0], 1.0, lags[0]], [lags[1], lags[0], 1.0]])
        if np.linalg.eigvalsh(V)[0] <= 0.0:
            return 1e9
        W = np.linalg.inv(V)
        A, b = np.einsum("gia,ij,gjb->ab", X, W, X), np.einsum("gia,ij,gj->a", X, W, y)
        left = np.einsum("gi,ij,gj->", y, W, y) - b @ np.linalg.solve(A, b)
        return left + len(y) * np.linalg.slogdet(V)[1] + y.size * np.log(2.0 * np.pi)

    for sigma in fit.conf_int(method="profile", parm="sigma").loc["sigma"]:
        found = optimize.minimize(deviance, [0.5, 0.5], (sigma,), "Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9})
        # Roots are found to 1e-7 of the signed root, and the simplex ends within 1e-9 of the minimum.
        assert found.fun - fit.criterion == pytest.approx(3.841458820694124, abs=1e-5)


def test_wald_limits_are_those_of_the_table_of_residuals():
    data = lme4py.load_dataset("Orthodont")
    fit = lme4py.lmer("distance ~ age * Sex + (1 | Subject)", data, variance="ident(Sex)")
    table = fit.residual_table().set_index("parameter")
    own = fit.conf_int(parm="residual")
    assert own.index.tolist() == ["residual sd", "residual ident(Sex)[Female]"]
    # The same numbers; the table of residuals is the other way to them.
    assert own.to_numpy() == pytest.approx(table[["lower", "upper"]].to_numpy(), rel=1e-12)
    assert fit.conf_int(parm=["sigma"]).to_numpy() == pytest.approx(own.to_numpy()[:1], rel=1e-12)
    assert "residual sd" in fit.conf_int(parm="all").index
    assert "residual sd" in fit.profile(alpha=0.2).conf_int(0.2).index
    tidy = fit.tidy(conf_int=True).set_index("term").loc["ident(Sex)[Female]"]
    assert [tidy.conf_low, tidy.conf_high] == own.loc["residual ident(Sex)[Female]"].tolist()
    assert fit.to_dict()["residual_parameters"][1]["estimate"] == tidy.estimate
    with pytest.raises(OptionError, match="residual"):
        lme4py.lmer("distance ~ age + (1 | Subject)", data).conf_int(parm="residual")


def test_a_nugget_of_zero_is_the_end_of_its_range():
    data = load_reference("irreg")
    fit = lme4py.lmer("y ~ x + time", data, residual="exp(time | id, nugget=TRUE)", reml=False)
    table = fit.conf_int(method="profile", parm="residual")
    low, high = table.loc["residual nugget"]
    assert 0.0 <= low < fit.fit.residual_values[2] + 1e-9 < high < 1.0
