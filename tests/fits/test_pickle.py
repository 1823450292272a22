"""Results that travel: pickled, loaded in a new process, and without their rows."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.errors import Lme4Error
from lme4py.fits.rows.slim import DroppedRows
from lme4py.inference.overview.slim import is_slim, slim_fit

ROOT = Path(__file__).parents[2]

# Loads each result in a process that never fitted anything, and predicts.
_SCRIPT = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    results, data = pickle.load(file)
found = {}
for name, result in results.items():
    found[name] = (result.predict(data[name]).to_numpy(), result.summary(), result.params.to_numpy())
with open(sys.argv[2], "wb") as file:
    pickle.dump(found, file)
"""


def _fits() -> tuple[dict[str, object], dict[str, pd.DataFrame]]:
    sleepstudy, cbpp = lme4py.load_dataset("sleepstudy"), lme4py.load_dataset("cbpp")
    oats, wine, bacteria = (lme4py.load_dataset(name) for name in ("Oats", "wine", "bacteria"))
    results = {
        "poly": lme4py.lmer("Reaction ~ poly(Days, 2) + (Days | Subject)", sleepstudy, reml=False),
        "nested": lme4py.lmer("yield ~ scale(nitro) + (1 | Block / Variety)", oats),
        "binomial": lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp, "binomial"),
        "quadrature": lme4py.glmer("y ~ trt + I(week > 2) + (1 | ID)", bacteria, "binomial", nAGQ=5),
        "ordinal": lme4py.clmm("rating ~ temp + contact + (1 | judge)", wine),
        "keyword": lme4py.mixed(sleepstudy, "Reaction", ["Days"], "Subject", ["Days"]),
    }
    data = {
        "poly": sleepstudy.iloc[::7],
        "nested": oats.iloc[::5],
        "binomial": cbpp.iloc[::4],
        "quadrature": bacteria.iloc[::9],
        "ordinal": wine.iloc[::5],
        "keyword": sleepstudy.iloc[::11],
    }
    return results, data


@pytest.fixture(scope="module")
def fits():
    return _fits()


def test_a_new_process_predicts_the_same(fits, tmp_path):
    results, data = fits
    slim = {f"{name}, slim": result.slim() for name, result in results.items()}
    data = {**data, **{f"{name}, slim": table for name, table in data.items()}}
    source, target = tmp_path / "results.pickle", tmp_path / "found.pickle"
    source.write_bytes(pickle.dumps(({**results, **slim}, data)))
    # Where the package lies, not where the tests were started.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-W", "error", "-c", _SCRIPT, source, target], check=True, env=environment)
    found = pickle.loads(target.read_bytes())
    for name, (predicted, summary, params) in found.items():
        result = results[name.removesuffix(", slim")]
        np.testing.assert_array_equal(predicted, result.predict(data[name]))
        np.testing.assert_array_equal(params, result.params)
        assert summary == result.summary(), name


def test_a_slim_sleepstudy_fit_is_small(sleep):
    assert len(pickle.dumps(sleep.slim())) < 20_000


def test_a_slim_result_does_not_grow_with_the_rows():
    rng = np.random.default_rng(1)
    sizes = []
    for rows in (10, 1000):
        n = 6 * rows
        data = pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n), "g": np.repeat(np.arange(6), rows)})
        data["y"] += np.repeat(rng.normal(size=6), rows)
        weights = rng.uniform(0.5, 1.5, size=n)
        result = lme4py.lmer("y ~ x + (1 | g)", data, weights=weights, offset=0.1 * data["x"].to_numpy())
        sizes.append(len(pickle.dumps(result.slim())))
    # The log of the optimiser may differ by some steps.
    assert abs(sizes[1] - sizes[0]) < 1500


@pytest.mark.parametrize("name", ["poly", "nested", "binomial", "quadrature", "ordinal", "keyword"])
def test_a_slim_result_answers_what_needs_no_rows(fits, name):
    full = fits[0][name]
    slim = pickle.loads(pickle.dumps(full.slim()))
    assert is_slim(slim.fit)
    assert slim.summary() == full.summary()
    assert slim._repr_html_() == full._repr_html_()
    assert repr(slim) == repr(full)
    assert type(slim) is type(full)
    for read in (
        lambda result: result.coef_table(),
        lambda result: result.conf_int(),
        lambda result: result.conf_int(parm="all"),
        lambda result: result.cov_params(),
        lambda result: result.var_corr(),
        lambda result: result.tidy(effects=("fixed", "ran_pars", "ran_vals"), conf_int=True),
        lambda result: result.glance(),
        lambda result: result.opt_log,
    ):
        pd.testing.assert_frame_equal(read(slim), read(full))
    assert slim.variance_components == full.variance_components
    assert slim.to_json(random_effects=True) == full.to_json(random_effects=True)
    assert slim.n_groups == full.n_groups
    assert str(slim.ranef(conditional_se=True)) == str(full.ranef(conditional_se=True))
    data = fits[1][name]
    for options in ({"include_random": False}, {"interval": "confidence", "include_random": False}):
        if name != "ordinal" or "interval" not in options:
            assert slim.predict(data, **options).equals(full.predict(data, **options))


@pytest.mark.parametrize("name", ["poly", "binomial", "ordinal"])
@pytest.mark.parametrize(
    "use",
    [
        lambda result: result.predict(),
        lambda result: result.fittedvalues,
        lambda result: result.model_matrix,
        lambda result: result.Zt,
        lambda result: result.refit(np.ones(3)),
        lambda result: result.augment(),
        lambda result: result.profile(),
    ],
    ids=["predict", "fittedvalues", "model_matrix", "Zt", "refit", "augment", "profile"],
)
def test_what_needs_rows_says_that_the_result_is_slim(fits, name, use):
    slim = fits[0][name].slim()
    with pytest.raises(Lme4Error, match="this result is slim"):
        use(slim)


def test_residuals_of_a_slim_result(sleep):
    for use in (sleep.slim().residuals, sleep.slim().simulate, lambda: sleep.slim().bootstrap(2)):
        with pytest.raises(Lme4Error, match="this result is slim"):
            use()


def test_slim_leaves_the_result_as_it_was(sleep):
    before = sleep.summary()
    slim = sleep.slim()
    assert sleep.summary() == before
    assert not is_slim(sleep.fit)
    assert slim_fit(slim.fit) is slim.fit
    assert slim.slim().summary() == before


def test_an_array_that_was_dropped_keeps_its_shape_only():
    gone = DroppedRows("response", (5, 2))
    assert (gone.shape, gone.size, gone.ndim, len(gone)) == ((5, 2), 10, 2, 5)
    assert repr(gone) == "<response, shape (5, 2): dropped by slim()>"
    assert pickle.loads(pickle.dumps(gone)).shape == (5, 2)
    for use in (lambda: gone + 1, lambda: 1 - gone, lambda: np.asarray(gone), lambda: gone[0], lambda: gone == gone):
        with pytest.raises(Lme4Error, match=r"slim.*\(response\)"):
            use()


@pytest.mark.parametrize("make", ["profile", "bootstrap", "icc", "lrtest", "certificate", "compare"])
def test_other_results_pickle(sleep, sleepstudy, make):
    other = lme4py.lmer("Reaction ~ Days + (1 | Subject)", sleepstudy)
    found = {
        "profile": lambda: sleep.profile("Days"),
        "bootstrap": lambda: sleep.bootstrap(3, seed=1),
        "icc": lambda: lme4py.icc(other),
        "lrtest": lambda: lme4py.lrtest(other, sleep),
        "certificate": lambda: sleep.certificate,
        "compare": lambda: lme4py.compare(other, sleep),
    }[make]()
    copy = pickle.loads(pickle.dumps(found))
    assert repr(copy) == repr(found)
    if hasattr(found, "to_frame"):
        pd.testing.assert_frame_equal(copy.to_frame(), found.to_frame())
