"""The bootstrap of generalised models, and its batches."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from glmm_models import cbpp, fit, no_variance
from joblib import parallel_config

import lme4py
from lme4py.errors import OptionError
from lme4py.fits.generalised.batch import can_batch_glmm, solve_responses, user_dispersion, user_estimates
from lme4py.fits.generalised.refit import refit_estimates
from lme4py.fits.generalised.simulate import GlmmSimulator
from lme4py.fits.parameters import fit_parameters


def test_parametric_bootstrap():
    result = cbpp()
    boot = result.bootstrap(150, seed=1)
    assert list(boot.replicates.columns) == [p.name for p in fit_parameters(result.fit)]
    assert boot.n_failed == 0
    # A standard deviation of 150 replicates has an error of 6 %.
    assert boot.summary()["std_error"].iloc[:3].tolist() == pytest.approx(result.bse.iloc[:3].tolist(), rel=0.25)
    assert result.bootstrap(5, seed=1).replicates.equals(boot.replicates.iloc[:5])
    for kind in ("percentile", "basic", "bca"):
        table = boot.conf_int(type=kind)
        assert (table["lower"] < table["upper"]).all()
    limits = result.conf_int(method="boot", parm="Intercept", n_boot=20, seed=1)
    assert limits.attrs["note"] == "20 parametric bootstrap replicates, 0 failed."
    assert limits.loc["Intercept"].tolist() == result.bootstrap(20, seed=1).conf_int().loc["Intercept"].tolist()


def test_bootstrap_is_the_same_for_every_number_of_processes():
    def first(result):
        return {"first": result.params.iloc[0]}

    one = cbpp().bootstrap(25, first, seed=3)
    # None leaves the workers to joblib; tests/inference/test_bootstrap.py has processes.
    with parallel_config(backend="threading", n_jobs=2):
        two = cbpp().bootstrap(25, first, seed=3, n_jobs=None)
    assert one.replicates.equals(two.replicates)
    fast = cbpp().bootstrap(25, seed=3).replicates["Intercept"]
    # The fast path stops where the criterion can fall by 1e-9, without a last Newton step.
    np.testing.assert_allclose(fast, one.replicates["first"], atol=1e-4)
    assert pickle.loads(pickle.dumps(one)).replicates.equals(one.replicates)


def test_bootstrap_of_cases_and_other_families():
    boot = cbpp().bootstrap(10, seed=1, type="cases")
    assert boot.replicates.notna().all(axis=None)
    single = fit("glmm_bin_rs").bootstrap(3, seed=1)
    assert single.replicates.notna().all(axis=None)
    dispersion = fit("nb_salam").bootstrap(3, seed=1).replicates["dispersion"]
    assert (dispersion > 0).all()
    with pytest.raises(OptionError, match="semiparametric"):
        cbpp().bootstrap(3, type="semiparametric")


def test_separated_replicates_are_counted():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 6).astype(str), "x": np.tile([0, 0, 0, 0, 0, 1], 10)})
    data["y"] = np.where(data["x"] == 1, np.arange(60) // 6 != 3, rng.integers(0, 2, 60)).astype(int)
    boot = lme4py.glmer("y ~ x + (1 | g)", data).bootstrap(40, seed=1)
    # Nine of ten rows with x are successes; with probability 0.35 all ten of a replicate, and its estimate runs away.
    assert 0 < boot.n_not_converged == (boot.replicates["x"] > 10).sum()


@pytest.mark.parametrize(
    "name", ["glmm_cbpp_sum", "glmm_bin_cll", "glmm_epil", "glmm_bin_w_off", "glmm_pois_w", "nb_salam"]
)
def test_batch_finds_the_optima_of_the_engine(name):
    result = fit(name).fit
    assert can_batch_glmm(result)
    Y = GlmmSimulator(result).draw(np.random.SeedSequence(2).spawn(12))
    found = solve_responses(result, Y)
    assert found.converged.mean() > 0.7
    beta, sd = user_estimates(result.problem, found.phi)
    for b in np.flatnonzero(found.converged):
        alone = refit_estimates(result, Y[:, b])
        # Both stop where the criterion can fall by 1e-9, near 4e-5 standard errors.
        assert found.value[b] == pytest.approx(alone.criterion, abs=1e-7)
        assert sd[b] == pytest.approx(alone.theta[0], abs=1e-4)
        assert beta[b] == pytest.approx(alone.beta, abs=2e-4)
        if alone.log_dispersion is not None:
            assert user_dispersion(result.problem, found.phi, found.held)[b] == pytest.approx(
                alone.log_dispersion, abs=2e-4
            )


def test_batch_knows_zeros():
    result = no_variance().fit
    Y = np.random.default_rng(4).binomial(1, 0.5, (72, 60)).astype(float)
    found = solve_responses(result, Y)
    zero = found.phi[:, 0] == 0.0
    # Without any variance about half of the estimates are zero.
    assert 15 < zero.sum() < 50
    for b in np.flatnonzero(found.converged)[:20]:
        alone = refit_estimates(result, Y[:, b])
        assert found.value[b] == pytest.approx(alone.criterion, abs=1e-7)
        assert abs(found.phi[b, 0]) == pytest.approx(alone.theta[0], abs=1e-4)


def test_batch_is_for_one_scalar_effect():
    assert not can_batch_glmm(fit("glmm_bin_rs").fit)
    assert not can_batch_glmm(fit("glmm_3level_b").fit)
    assert not can_batch_glmm(cbpp(nAGQ=9).fit)
