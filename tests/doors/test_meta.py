"""Meta-analysis from column names, beside metafor."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from reference_data import REFERENCE, load_reference

import lme4py
from lme4py.errors import DataError, Lme4Error, OptionError

METAFOR = json.loads((REFERENCE / "meta_door.json").read_text(encoding="utf-8"))
BCG, KONST, BERKEY = (load_reference(f"dat_{name}") for name in ("bcg", "konst", "berkey"))
TWO: dict[str, Any] = {"cluster": "trial", "mods": "outcome", "intercept": False, "random": "~ outcome | trial"}
BLOCKS = [part[["v1i", "v2i"]].to_numpy() for _, part in BERKEY.groupby("trial", observed=True)]


def check(result: Any, name: str, rtol: float = 2e-5) -> None:
    """rma stops when tau^2 moves by 1e-12, rma.mv when the criterion does, where estimates are good to 1e-5 or so."""
    expected = METAFOR[name]
    np.testing.assert_allclose(result.params, np.atleast_1d(expected["beta"]), rtol=rtol)
    np.testing.assert_allclose(result.coef_table()["std_error"], np.atleast_1d(expected["se"]), rtol=rtol)
    np.testing.assert_allclose(result.conf_int()["lower"], np.atleast_1d(expected["lower"]), rtol=10 * rtol)
    found = result.heterogeneity()
    assert pytest.approx(expected["Q"], rel=1e-9) == found.Q
    assert found.log_likelihood_metafor == pytest.approx(expected["logLik"], abs=1e-8)


def test_random_effects_by_knapp_and_hartung() -> None:
    result = lme4py.meta(BCG, "yi", "vi", test="knha", slab="trial")
    check(result, "knha", 1e-6)
    found = result.heterogeneity()
    assert found.tau2 == pytest.approx(METAFOR["knha"]["tau2"], rel=1e-6)
    np.testing.assert_allclose([found.lower, found.upper], METAFOR["knha"]["prediction"], rtol=1e-6)
    assert result.formula.endswith("(1 | trial)")
    assert "heterogeneity: tau^2 = 0.3132" in str(result.summary())
    assert result.params.index.tolist() == ["_cons"]


def test_standard_errors_in_the_place_of_variances() -> None:
    a = lme4py.meta(BCG, "yi", "vi")
    b = lme4py.meta(BCG.assign(se=np.sqrt(BCG["vi"])), "yi", sei="se")
    assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-9)


def test_a_common_effect() -> None:
    check(lme4py.meta(BCG, "yi", "vi", method="EE"), "common", 1e-9)


@pytest.mark.parametrize(
    ("name", "struct", "method"), [("un_reml", "UN", "REML"), ("hcs_ml", "HCS", "ML"), ("cs_reml", "CS", "REML")]
)
def test_several_outcomes(name: str, struct: str, method: str) -> None:
    result = lme4py.meta(BERKEY, "yi", V=["v1i", "v2i"], struct=struct, method=method, **TWO)
    check(result, name)
    tau2 = np.atleast_1d(METAFOR[name]["tau2"])
    # metafor's variances are good to 1e-5, see `check`.
    np.testing.assert_allclose(np.diag(result.fit.covariances[0]), np.broadcast_to(tau2, 2), rtol=1e-4)


def test_blocks_and_the_whole_matrix_are_the_same() -> None:
    V = np.kron(np.eye(5), np.ones((2, 2)))
    V[V > 0] = np.concatenate([block.ravel() for block in BLOCKS])
    fits = [lme4py.meta(BERKEY, "yi", V=own, struct="UN", **TWO) for own in (["v1i", "v2i"], BLOCKS, V)]
    for fit in fits[1:]:
        assert fit.log_likelihood == pytest.approx(fits[0].log_likelihood, abs=1e-10)


def test_one_sampling_correlation() -> None:
    result = lme4py.meta(KONST, "yi", "vi", random="~ 1 | district/school", rho=0.6, cluster="district")
    check(result, "rho")


def test_several_random_effects_and_rows_that_are_missing() -> None:
    data = KONST.assign(vi=KONST["vi"].where(KONST.index != 3))
    result = lme4py.meta(data, "yi", "vi", mods="~ I(year - 1990)", random=["~ 1 | district", "~ 1 | study"])
    same = lme4py.meta(KONST.drop(index=3), "yi", "vi", mods=["I(year - 1990)"], random="~ 1 | district/study")
    assert result.n_obs == 55
    assert result.log_likelihood == pytest.approx(same.log_likelihood, abs=1e-9)


def test_a_heterogeneity_that_is_held() -> None:
    result = lme4py.meta(BCG, "yi", "vi", fix={"sd(_cons)": 0.5})
    w = 1.0 / (BCG["vi"] + 0.25)
    # Inverse-variance weights.
    assert result.params["_cons"] == pytest.approx(float((w * BCG["yi"]).sum() / w.sum()), rel=1e-10)
    assert result.bse["_cons"] == pytest.approx(float(w.sum() ** -0.5), rel=1e-10)
    assert result.n_params == 1


def test_what_follows() -> None:
    made = lme4py.meta(BCG, "yi", "vi", mods="ablat")
    assert made.update(method="ML").log_likelihood > -10.0
    result = pickle.loads(pickle.dumps(made))
    drawn = result.bootstrap(5, seed=1)
    assert np.isfinite(np.asarray(drawn.replicates)).all()
    assert result.conf_int(method="profile", parm="all").shape == (3, 2)
    axes = lme4py.meta(BCG, "yi", "vi").plot("forest")
    assert len(axes.get_yticks()) == 14


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({}, OptionError, "none of vi, sei and V was given"),
        ({"vi": "vi", "sei": "vi"}, OptionError, "vi and sei were given"),
        ({"vi": "vy"}, DataError, "no column of the data"),
        ({"vi": "yi"}, DataError, "positive numbers"),
        ({"vi": "author"}, DataError, "no column of numbers"),
        ({"vi": "vi", "method": "DL"}, OptionError, "by moments"),
        ({"vi": "vi", "method": "EE", "random": "~ 1 | trial"}, OptionError, "common effect"),
        ({"vi": "vi", "test": "f"}, OptionError, "test='f' is not known"),
        ({"vi": "vi", "random": "1 + trial"}, OptionError, "'~ 1 | study'"),
        ({"vi": "vi", "random": "~ year | trial", "struct": "XX"}, OptionError, "struct='XX'"),
        ({"vi": "vi", "rho": 2, "cluster": "alloc"}, OptionError, "between -1 and 1"),
        ({"vi": "vi", "rho": 0.5}, OptionError, "need cluster="),
        ({"vi": "vi", "cluster": "alloc"}, OptionError, "needs rho="),
        ({"V": [np.eye(2)]}, DataError, "2 rows in all and the data 13"),
        ({"V": "vi"}, OptionError, "a list of blocks"),
        ({"V": ["vi"], "cluster": "alloc"}, DataError, "name one for each row"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], error: type[Lme4Error], match: str) -> None:
    with pytest.raises(error, match=match):
        lme4py.meta(BCG, "yi", **arguments)
