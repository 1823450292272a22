"""Smooths of several variables and of the levels of a factor: mgcv's fits, algebra, and every way they are used."""

from __future__ import annotations

import json
import pickle

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from scipy import optimize

import lme4py
from lme4py.covariance.kinds.penalties import Penalties
from lme4py.errors import Lme4Error, OptionError
from lme4py.formula.smooth.columns import penalised_columns
from lme4py.formula.smooth.tensors import learn_tensor
from lme4py.inference.estimates.smooth_system import smooth_system

mpl.use("Agg")
STORED = json.loads((REFERENCE / "smooth_products.json").read_text(encoding="utf-8"))
DATA, NEW = (
    pd.DataFrame(STORED[name]).assign(o=lambda t: pd.Categorical(t.f, ["a", "b"], ordered=True))
    for name in ("data", "new")
)
FORMULAS = {
    "te": "y ~ te(x, z)",
    "te_tp": "y ~ te(x, z, bs = 'tp', k = c(6, 5))",
    "te_mixed": "y ~ te(x, w, bs = c('ps', 'cc'), k = c(6, 6))",
    "te_three": "y ~ te(x, z, w, k = 4)",
    "te_by": "y ~ f + te(x, z, by = f, k = 4)",
    "te_ml": "y ~ te(x, z)",
    "ti": "y ~ ti(x) + ti(z) + ti(x, z)",
    "ti_tp": "y ~ s(x) + s(z) + ti(x, z, bs = 'tp', k = 6)",
    "t2": "y ~ t2(x, z)",
    "t2_tp": "y ~ t2(x, z, bs = 'tp')",
    "ordered": "y ~ o + s(w, bs = 'cr') + s(w, by = o, bs = 'cr')",
    "fs_cyclic": "y ~ s(x, bs = 'cr') + s(x, g, bs = 'fs', k = 6, xt = 'cc')",
    "plate": "y ~ s(x, z)",
    "plate_small": "y ~ s(x, z, k = 12) + s(w, k = 6)",
    "plate_by": "y ~ f + s(x, z, by = f, k = 15)",
    "plate_ml": "y ~ s(x, w, k = 20)",
    "te_least": "y ~ te(x, z, k = 3)",
    "ti_least": "y ~ ti(x, k = 3, bs = 'tp') + ti(z, k = 3, bs = 'tp') + ti(x, z, bs = 'tp', k = 3)",
    "least": "y ~ s(x, k = 3) + s(w, bs = 'cr', k = 3)",
    "random": "y ~ s(w, bs = 'cr') + s(g, bs = 're') + s(g, x, bs = 're') + s(f, g, bs = 're')",
}


@pytest.fixture(scope="module")
def fits():
    return {name: lme4py.lmer(formula, DATA, reml=not name.endswith("_ml")) for name, formula in FORMULAS.items()}


@pytest.mark.parametrize("name", FORMULAS)
def test_fits_are_those_of_mgcv(fits, name):
    result, expected = fits[name], STORED["models"][name]
    assert result.converged
    # mgcv's Newton steps end 1e-7 of a standard deviation short at most.
    assert result.fittedvalues.to_numpy() == pytest.approx(expected["fitted"], abs=2e-6)
    edf = result.smooths()["edf"].to_numpy()
    # Random effects that are written as smooths are none here.
    assert edf == pytest.approx(expected["edf"][: edf.size], abs=2e-5)
    found = result.predict(NEW, interval="confidence")
    # Outside the data too.
    assert found["predicted"].to_numpy() == pytest.approx(expected["predicted"], abs=5e-6)
    if name.startswith("plate") or name == "random":
        # Of thin plates and random effects the unpenalised columns have mgcv's sizes.
        assert -result.log_likelihood == pytest.approx(expected["criterion"], abs=1e-7)
    if name.endswith("_ml"):
        # mgcv's scale of ML fits is not the ML estimate; the criterion does not depend on the basis.
        assert -result.log_likelihood == pytest.approx(expected["criterion"], abs=1e-8)
    else:
        assert result.sigma == pytest.approx(expected["sigma"], rel=1e-6)


@pytest.mark.parametrize("name", ["te", "te_tp", "te_three", "t2", "t2_tp", "plate"])
def test_statistics_are_those_of_mgcv_s_model_matrix(fits, name):
    """What its summary prints of t2 is less than half of that, by a root that is none of X'X."""
    # The unpenalised functions of t2 are a little different.
    allowed = 2e-3 if name.startswith("t2") else 1e-5
    assert fits[name].smooths()["statistic"].iloc[0] == pytest.approx(STORED["models"][name]["wood"], rel=allowed)


def test_random_effects_may_be_written_as_smooths():
    ours = lme4py.lmer("y ~ w + s(g, bs = 're') + s(g, x, bs = 're')", DATA)
    theirs = lme4py.lmer("y ~ w + (1 | g) + (0 + x | g)", DATA)
    assert ours.log_likelihood == theirs.log_likelihood
    assert list(ours.covariances) == list(theirs.covariances)


@pytest.mark.parametrize(
    "term", ["s(x)", "s(x, bs = 'cc')", "s(x, g, bs = 'fs', k = 5)", "s(g, bs = 're')", "ti(x, z)"]
)
def test_update_keeps_every_smooth(term):
    """Those without fixed columns too."""
    changed = lme4py.lmer(f"y ~ z + {term} + (1 | f)", DATA).update("~ . + w")
    written = lme4py.lmer(f"y ~ z + w + {term} + (1 | f)", DATA)
    assert list(changed.covariances) == list(written.covariances)
    assert changed.log_likelihood == pytest.approx(written.log_likelihood, rel=1e-10)


def test_slopes_of_a_plate(fits):
    fit = fits["plate"]
    for variable in ("x", "z"):
        curve = fit.smooth_curves(n=4, derivative=variable)
        ends = [
            fit.predict(curve[["x", "z"]].assign(**{variable: curve[variable] + step})).to_numpy()
            for step in (1e-5, -1e-5)
        ]
        # Central differences with steps of 1e-5.
        assert curve["estimate"].to_numpy() == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-6)
    fit.plot("smooth")


def test_errors_of_curves_are_those_of_mgcv(fits):
    """Standard errors at known variances: mgcv's of the whole prediction, intercept included."""
    result, expected = fits["te"], STORED["models"]["te"]
    system = smooth_system(result.fit)
    one = system.smooths[0]
    at = [NEW[name].to_numpy() for name in one.variables]
    basis = np.zeros((len(NEW), system.V.shape[0]))
    basis[:, 0], basis[:, one.places] = 1.0, one.basis(at)
    error = np.sqrt(np.einsum("ij,jk,ik->i", basis, system.V, basis))
    assert error == pytest.approx(expected["se"], rel=1e-5)


# With one more variance at zero there is another minimum, .003 above: some descents end there, and it is told.
@pytest.mark.filterwarnings("ignore:Converged to a singular fit.*another minimum:lme4py.OptimaWarning")
def test_generalised_fits_are_those_of_gamm4():
    result, expected = lme4py.glmer("count ~ t2(x, z, k = 5)", DATA, "poisson"), STORED["models"]["poisson"]
    # gamm4's optimiser (bobyqa) stops short.
    assert result.log_likelihood == pytest.approx(expected["logLik"], abs=1e-4)
    assert result.fittedvalues.to_numpy() == pytest.approx(expected["fitted"], abs=2e-3)
    # pen.edf has the penalised columns only; three columns are not.
    assert result.smooths()["edf"].sum() == pytest.approx(sum(expected["edf"]) + 3.0, abs=5e-3)


def test_a_tensor_product_is_the_penalised_least_squares_fit(fits):
    """With the estimated smoothing parameters, by the penalties of the unrotated products of the bases."""
    result = fits["te"]
    fit = result.fit
    theta = fit.theta * fit.sigma
    x, z = DATA["x"].to_numpy(), DATA["z"].to_numpy()
    from lme4py.formula.smooth.bases import basis_values, learn_basis

    (bx, Sx), (bz, Sz) = learn_basis("cr", x, 5), learn_basis("cr", z, 5)
    B = np.einsum("ni,nj->nij", basis_values(x, bx), basis_values(z, bz)).reshape(len(x), -1)
    S = np.kron(Sx, np.eye(5)) / theta[0] ** 2 + np.kron(np.eye(5), Sz) / theta[1] ** 2
    y = DATA["y"].to_numpy()
    fitted = B @ np.linalg.solve(B.T @ B + fit.sigma**2 * S, B.T @ y)
    # The constant is among the products.
    assert result.fittedvalues.to_numpy() == pytest.approx(fitted, abs=1e-7)


def test_variances_of_products_follow_from_their_penalties():
    d = np.array([[1.0, 0.0, 2.0, 0.5], [0.0, 4.0, 1.0, 0.5]])
    structure = Penalties(4, values=d, names=("x", "z"))
    theta = np.array([0.7, 1.3])
    assert structure.covariance(theta).diagonal() == pytest.approx(1.0 / (d / theta[:, None] ** 2).sum(axis=0))
    assert structure.theta_of_factor(structure.factor(theta)) == pytest.approx(theta)
    assert structure.covariance(np.array([0.0, 1.3])).diagonal() == pytest.approx([0.0, 1.3**2 / 4.0, 0.0, 0.0])
    assert structure.boundary(np.array([0.0, 1.3]), "te(x,z)", ()) == ("te(x,z) has no curvature in x",)
    for theta in (np.array([0.7, 1.3]), np.array([-0.4, 0.9]), np.array([0.0, 1.3])):
        step = 1e-5

        def deviations(t):
            return structure.factor(t).diagonal()

        moves = [(deviations(theta + step * e) - deviations(theta - step * e)) / (2 * step) for e in np.eye(2)]
        # Central differences: an error of the square of the step times third derivatives of about 100.
        assert structure.tangents(theta).diagonal(axis1=1, axis2=2) == pytest.approx(np.array(moves), abs=1e-7)
        found = structure.second_tangents(theta).diagonal(axis1=2, axis2=3)
        again = [
            (structure.tangents(theta + step * e) - structure.tangents(theta - step * e)) / (2 * step)
            for e in np.eye(2)
        ]
        assert found == pytest.approx(np.array(again).diagonal(axis1=2, axis2=3), abs=1e-6)


def test_curves_of_levels_do_not_depend_on_origin_and_unit():
    one = lme4py.lmer("y ~ s(x) + s(x, g, bs = 'fs', k = 5)", DATA)
    two = lme4py.lmer("y ~ s(u) + s(u, g, bs = 'fs', k = 5)", DATA.assign(u=1000.0 - 30.0 * DATA.x))
    assert two.fittedvalues.to_numpy() == pytest.approx(one.fittedvalues.to_numpy(), abs=1e-6)
    assert one.smooths().loc["s(x,g)", "edf"] == pytest.approx(two.smooths().loc["s(u,g)", "edf"], abs=1e-5)
    assert np.isnan(one.smooths().loc["s(x,g)", "p_value"])
    assert one.n_groups == {}
    assert one.predict(NEW, include_random=False).equals(one.predict(NEW))


def test_curves_of_levels_are_random_effects_of_the_levels():
    """The same model with the columns of the basis written out as random effects."""
    made = lme4py.lmer("y ~ x + s(x, g, bs = 'fs', k = 5)", DATA)
    system = smooth_system(made.fit)
    one = system.smooths[0]
    curved = penalised_columns([DATA["x"].to_numpy()], one.learnt, "curved")
    data = DATA.assign(u=(DATA.x - DATA.x.mean()) / DATA.x.std(ddof=0), **{f"c{j}": curved[:, j] for j in range(3)})
    written = lme4py.lmer("y ~ x + (1 | g) + (0 + u | g) + homdiag(0 + c0 + c1 + c2 | g)", data)
    assert made.log_likelihood == pytest.approx(written.log_likelihood, abs=1e-8)
    assert made.fittedvalues.to_numpy() == pytest.approx(written.fittedvalues.to_numpy(), abs=1e-6)
    # Curves are orthogonal to constants and lines over the rows.
    lines = np.column_stack([np.ones(len(data)), data.u])
    assert lines.T @ curved == pytest.approx(np.zeros((2, 3)), abs=1e-8)
    unseen = NEW.assign(g="new")
    with pytest.warns(lme4py.errors.Lme4Warning, match="contribute nothing"):
        found = made.predict(unseen)
    assert found.to_numpy() == pytest.approx(made.params["Intercept"] + made.params["x"] * NEW.x.to_numpy())


def test_one_name_for_each_standard_deviation(fits):
    assert list(fits["te"].conf_int(parm="random").index) == ["sd(te(x,z), x)", "sd(te(x,z), z)", "sigma"]
    parts = [f"sd(t2(x,z):{part})" for part in ("rn", "nr", "rr")]
    assert set(fits["t2"].conf_int(parm="random").index) == {*parts, "sigma"}
    found = fits["te"].var_corr()
    assert list(found["name1"])[:2] == ["te(x,z), x", "te(x,z), z"]
    assert found["sdcor"].iloc[:2].to_numpy() == pytest.approx(fits["te"].theta * fits["te"].sigma, rel=1e-9)
    assert "te(x,z), x" in str(fits["te"].summary())


def test_surfaces_and_their_derivatives(fits):
    result = fits["te"]
    surface = result.smooth_curves("te(x,z)", n=12)
    assert len(surface) == 144
    inside = pd.DataFrame({"x": surface["x"], "z": surface["z"]})
    whole = result.predict(inside)
    gap = whole - surface["estimate"]
    # A prediction is the intercept and the surface.
    assert gap.to_numpy() == pytest.approx(np.full(144, result.params["Intercept"]), abs=1e-9)
    slope = result.smooth_curves("te(x,z)", n=12, derivative="x")
    h = 1e-5
    ahead, behind = (result.predict(inside.assign(x=inside.x + d)) for d in (h, -h))
    assert slope["estimate"].to_numpy() == pytest.approx((ahead - behind).to_numpy() / (2 * h), abs=1e-6)
    band = result.smooth_curves("te(x,z)", n=12, simultaneous=True)
    assert (band["upper"] - band["lower"] > surface["upper"] - surface["lower"]).all()
    with pytest.raises(OptionError, match="derivative='x'"):
        result.smooth_curves("te(x,z)", derivative=True)
    with pytest.raises(OptionError, match="no variable"):
        result.smooth_curves("te(x,z)", derivative="w")
    both = fits["te_by"].smooth_difference("te(x,z):fa", "te(x,z):fb", n=5)
    first, second = (fits["te_by"].smooth_curves(f"te(x,z):f{f}", n=5)["estimate"] for f in "ab")
    assert both["estimate"].to_numpy() == pytest.approx((first - second).to_numpy(), abs=1e-10)
    levels = fits["fs_cyclic"].smooth_curves("s(x,g)", n=7)
    assert list(levels.columns[:2]) == ["x", "g"]
    assert len(levels) == 7 * 8


def test_plots_of_surfaces_and_levels(fits):
    axis = fits["te"].plot("smooth")
    assert axis.get_xlabel() == "x"
    assert axis.get_ylabel() == "z"
    assert len(fits["fs_cyclic"].plot("smooth")[1].lines) == 9
    shares = fits["ti"].concurvity()
    assert list(shares.index) == ["ti(x)", "ti(z)", "ti(x,z)"]
    assert ((shares >= 0.0) & (shares <= 1.0)).all(axis=None)
    mpl.pyplot.close("all")


@pytest.mark.parametrize("name", ["te", "t2", "ti_tp", "levels", "te_by"])
def test_margins_go_through_surfaces(fits, name):
    result = lme4py.lmer("y ~ x + s(x, g, bs = 'fs', k = 5)", DATA) if name == "levels" else fits[name]
    h = 1e-5
    slope = lme4py.Margins.linear_scale(result).dydx("x").to_frame()
    ahead = result.predict(DATA.assign(x=DATA.x + h)) - result.predict(DATA.assign(x=DATA.x - h))
    # Central differences of a smooth function.
    assert slope["estimate"].iloc[0] == pytest.approx(float(ahead.mean()) / (2 * h), rel=1e-5)
    at = lme4py.Margins.linear_scale(result).predict(atexog={"x": [0.3]}).to_frame()
    assert at["estimate"].iloc[0] == pytest.approx(float(result.predict(DATA.assign(x=0.3)).mean()), rel=1e-9)


def test_everything_else_knows_them(fits):
    result = fits["te"]
    again = pickle.loads(pickle.dumps(result))
    assert again.predict(NEW).equals(result.predict(NEW))
    assert again.smooths().equals(result.smooths())
    draws = result.simulate(3, seed=1)
    assert result.refit(draws.iloc[:, 0]).converged
    assert result.check()["bases"] is not None
    assert list(result.params.index) == ["Intercept"]
    low = lme4py.lmer("y ~ te(x, z, k = 4)", {**DATA, "y": np.sin(20 * DATA.x) * np.sign(DATA.z - 1)})
    assert result.check()["bases"].ok
    assert low.converged


def test_margins_of_a_basis_are_learnt_from_all_rows():
    """A centred product sums to zero, and ti() sums to zero in each of its variables."""
    rng = np.random.default_rng(0)
    x, z = rng.uniform(size=40), rng.exponential(size=40)
    learnt = learn_tensor("te", [x, z], ["cr", "tp"], [5, 4], True)
    from lme4py.formula.smooth.tensors import fixed_products, penalised_products

    assert fixed_products([x, z], learnt).mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-12)
    assert penalised_products([x, z], learnt, "all").mean(axis=0) == pytest.approx(np.zeros(16), abs=1e-10)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ s(x, z, w)", r"te\(x, z, w\)"),
        ("y ~ s(x, f, bs = 'sz')", "by = f"),
        ("y ~ s(x, z, bs = 'fs')", "a number and a factor"),
        ("y ~ s(x, g, bs = 'fs', by = f)", "no by"),
        ("y ~ te(x, z, k = c(5, 5, 5))", "3 values for 2"),
        ("y ~ te(x, z, bs = c('cr', 'ad'))", "is not known"),
        ("y ~ te(x, x)", "twice"),
        ("y ~ te()", "needs a variable"),
        ("y ~ te(x, g)", "numbers"),
        ("y ~ te(x, z, m = 1)", "usual penalty"),
        ("y ~ te(x, z, d = 2)", "no argument 'd'"),
        ("y ~ te(x, z) + te(x, z, k = 4)", "twice"),
        ("y ~ f * te(x, z)", "by = f"),
        ("y ~ 1 + (te(x, z) | g)", "random effects"),
        ("y ~ te(x, z, k = 40)", "1600"),
        ("y ~ te(x, f, k = 4)", "numbers"),
    ],
)
def test_what_is_not_there_is_refused(formula, message):
    with pytest.raises(Lme4Error, match=message):
        lme4py.lmer(formula, DATA)


def test_profiles_of_standard_deviations_are_those_of_a_dense_likelihood():
    result = lme4py.lmer("y ~ f + te(x, z)", DATA, reml=False)
    lower = result.conf_int(method="profile", parm=["sd(te(x,z), x)"])["lower"].iloc[0]
    design = result.fit.design
    X, Z, y = design.X, design.terms[0].values, DATA["y"].to_numpy()
    structure = design.terms[0].structure

    def deviance(sd):
        V = Z @ structure.covariance(np.abs(sd[:2])) @ Z.T + sd[2] ** 2 * np.eye(len(y))
        beta = np.linalg.solve(X.T @ np.linalg.solve(V, X), X.T @ np.linalg.solve(V, y))
        rest = y - X @ beta
        return np.linalg.slogdet(V)[1] + rest @ np.linalg.solve(V, rest) + len(y) * np.log(2 * np.pi)

    best = np.array([*(result.theta * result.sigma), result.sigma])
    assert deviance(best) == pytest.approx(result.fit.criterion, abs=1e-8)
    held = optimize.minimize(lambda rest: deviance([lower, *rest]), best[1:], method="Nelder-Mead", tol=1e-6)
    # The end of the interval is found to 1e-4 of a square.
    assert held.fun - result.fit.criterion == pytest.approx(3.8415, abs=2e-3)


def test_cyclic_curves_times_numbers_have_a_constant():
    """mgcv 1.8-41: edf 4.29654, scale .9745002."""
    result = lme4py.lmer("y ~ s(x, by = v, bs = 'cc', k = 6)", DATA.assign(v=DATA.w + 3.0))
    assert result.smooths()["edf"].iloc[0] == pytest.approx(4.296538, abs=1e-5)
    assert result.sigma == pytest.approx(0.9745002, rel=1e-6)
