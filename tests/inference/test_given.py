"""Groups known by other rows, without a refit: equal to the conditional distribution by dense algebra."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from lme4py import clmm, glmer, glmer_nb, lmer, load_dataset
from lme4py.errors import DataError, OptionError


@pytest.fixture(scope="module")
def sleep():
    return lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))


def days(n: int, subject: str, start: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(n)
    return pd.DataFrame({"Days": np.arange(start, start + n), "Subject": subject, "Reaction": rng.normal(300, 40, n)})


@pytest.mark.parametrize(
    ("fit", "data"),
    [
        (lambda d: lmer("Reaction ~ Days + (Days | Subject)", d), "sleepstudy"),
        (lambda d: lmer("strength ~ 1 + (1 | batch/cask)", d), "Pastes"),
        (lambda d: lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", d), "Penicillin"),
        (lambda d: glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", d), "cbpp"),
        (lambda d: glmer_nb("count ~ mined + (1 | site)", d), "Salamanders"),
        (lambda d: clmm("rating ~ temp + contact + (1 | judge)", d), "wine"),
    ],
)
def test_the_rows_of_the_fit_give_its_own_modes(fit, data):
    frame = load_dataset(data)
    result = fit(frame)
    pairs = zip(result.ranef(data=frame, conditional_se=True), result.ranef(conditional_se=True), strict=True)
    for again, own in pairs:
        frames = own if isinstance(own, dict) else {"": own}
        for name, table in frames.items():
            # The modes of the fit are those of its last step.
            found = again[name] if name else again
            np.testing.assert_allclose(found.to_numpy(), table.to_numpy(), atol=1e-6 * np.abs(table.to_numpy()).max())


def test_new_groups_by_dense_algebra(sleep):
    given, later = days(4, "new"), days(3, "new", 6)
    sigma2, S = sleep.sigma**2, sleep.fit.covariances[0]
    Z = np.column_stack([np.ones(4), given.Days])
    V = Z @ S @ Z.T + sigma2 * np.eye(4)
    gain = S @ Z.T @ np.linalg.inv(V)
    b = gain @ (given.Reaction - Z @ sleep.params)
    C = S - gain @ Z @ S
    modes, sds = sleep.ranef(data=given, conditional_se=True)
    # Sums in another order.
    np.testing.assert_allclose(modes.loc["new"], b, rtol=1e-10)
    np.testing.assert_allclose(sds.loc["new"], np.sqrt(C.diagonal()), rtol=1e-10)
    X = np.column_stack([np.ones(3), later.Days])
    left = X - X @ gain @ Z
    variance = np.einsum("na,ab,nb->n", X, C, X) + np.einsum("na,ab,nb->n", left, sleep.cov_params().to_numpy(), left)
    found = sleep.predict(later, given=given, se=True, interval="prediction")
    np.testing.assert_allclose(found["predicted"], X @ (sleep.params.to_numpy() + b), rtol=1e-10)
    np.testing.assert_allclose(found["std_error"], np.sqrt(variance), rtol=1e-10)
    half = 1.959963984540054 * np.sqrt(variance + sigma2)
    np.testing.assert_allclose(found["upper"] - found["predicted"], half, rtol=1e-10)
    # Nothing is known of a group that has no rows.
    other = sleep.predict(days(1, "other"), given=given, se=True)
    wanted = sleep.predict(days(1, "other"), se=True, ddf="normal", include_random=False)
    assert other["predicted"].item() == pytest.approx(wanted["predicted"].item())
    assert other["std_error"].item() == pytest.approx(np.sqrt(wanted["std_error"].item() ** 2 + S[0, 0]))


def test_known_groups_are_updated(sleep):
    data = load_dataset("sleepstudy")
    more = days(5, "308", 10)
    rows = pd.concat([data[data["Subject"] == "308"][["Days", "Reaction"]], more[["Days", "Reaction"]]])
    Z = np.column_stack([np.ones(len(rows)), rows.Days])
    V = Z @ sleep.fit.covariances[0] @ Z.T + sleep.sigma**2 * np.eye(len(rows))
    b = sleep.fit.covariances[0] @ Z.T @ np.linalg.solve(V, rows.Reaction - Z @ sleep.params)
    found = sleep.predict(pd.DataFrame({"Days": [0.0, 20.0], "Subject": "308"}), given=more)
    np.testing.assert_allclose(found, [[1, 0], [1, 20]] @ (sleep.params.to_numpy() + b), rtol=1e-10)
    # Other subjects are what they were.
    same = sleep.predict(data[data["Subject"] == "309"], given=more)
    np.testing.assert_allclose(same, sleep.predict(data[data["Subject"] == "309"]), rtol=1e-10)


def test_generalised_models_by_the_conditional_mode():
    data = load_dataset("cbpp")
    fit = glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", data)
    given = pd.DataFrame({"period": ["1", "2"], "herd": "new", "incidence": [6, 3], "size": [10, 12]})
    eta = fit.predict(given, include_random=False, type="linear").to_numpy()
    sd = fit.fit.covariances[0][0, 0] ** 0.5

    def objective(b: float) -> float:
        p = 1 / (1 + np.exp(-(eta + b)))
        return -np.sum(given.incidence * np.log(p) + (given["size"] - given.incidence) * np.log1p(-p)) + b * b / (
            2 * sd**2
        )

    best = optimize.minimize_scalar(objective, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x
    modes, sds = fit.ranef(data=given, conditional_se=True)
    assert modes.loc["new"].item() == pytest.approx(best, abs=1e-7)  # a search without derivatives
    p = 1 / (1 + np.exp(-(eta + best)))
    assert sds.loc["new"].item() == pytest.approx((np.sum(given["size"] * p * (1 - p)) + sd**-2) ** -0.5, rel=1e-6)
    found = fit.predict(given, given=given, interval="confidence")
    np.testing.assert_allclose(found["predicted"], p, atol=1e-7)
    assert ((found["lower"] < p) & (p < found["upper"])).all()


def test_standard_errors_of_predictions(sleep):
    rows = load_dataset("sleepstudy").head(4)
    limits = sleep.predict(rows, interval="confidence", ddf="normal", se=True)
    np.testing.assert_allclose(limits["upper"] - limits["predicted"], 1.959963984540054 * limits["std_error"])
    fixed = sleep.predict(rows, include_random=False, se=True)["std_error"]
    X = np.column_stack([np.ones(4), rows.Days])
    np.testing.assert_allclose(fixed, np.sqrt(np.einsum("na,ab,nb->n", X, sleep.cov_params().to_numpy(), X)))
    fit = glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp"))
    linear, mean = (fit.predict(load_dataset("cbpp"), type=kind, se=True) for kind in ("linear", "response"))
    p = mean["predicted"]
    np.testing.assert_allclose(mean["std_error"], linear["std_error"] * p * (1 - p))


def test_covariances_of_modes(sleep):
    C = sleep.ranef_cov()["Subject"]
    assert C.shape == (18, 2, 2)
    sds = sleep.ranef(conditional_se=True)[1].to_numpy()
    np.testing.assert_allclose(np.sqrt(np.einsum("jaa->ja", C)), sds)
    assert (np.abs(C[:, 0, 1]) > 0).all()
    two = lmer("Reaction ~ Days + (Days || Subject)", load_dataset("sleepstudy")).ranef_cov()["Subject"]
    assert np.isnan(two[:, 0, 1]).all()


def test_bad_input(sleep):
    with pytest.raises(OptionError, match="needs data="):
        sleep.predict(given=days(3, "new"))
    with pytest.raises(OptionError, match="does not go with given="):
        sleep.predict(days(3, "new"), given=days(3, "new"), ddf="normal")
    with pytest.raises(DataError, match="'Reaction'"):
        sleep.ranef(data=days(3, "new").drop(columns="Reaction"))
    with pytest.raises(DataError, match="no response"):
        sleep.ranef(data=days(3, "new").assign(Reaction=[1.0, np.nan, 2.0]))
    with pytest.raises(OptionError, match="leave the other arguments out"):
        sleep.ranef(data=days(3, "new"), reliability=True)
