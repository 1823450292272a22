"""Principal components of random effects: R's rePCA, and what they mean."""

from __future__ import annotations

import numpy as np
import pytest
from influence_models import MODELS, having, made_up, reference_result
from numpy.testing import assert_allclose
from reference_data import load_reference

import lme4py


@pytest.mark.parametrize("name", having("rePCA"))
def test_as_lme4(name: str) -> None:
    found = reference_result(name).re_pca()
    for group, sdev in MODELS[name]["rePCA"].items():
        # Relative standard deviations of two optimisers.
        assert_allclose(found[group].sdev, sdev, rtol=1e-4, atol=1e-6)


def test_components_give_the_covariance() -> None:
    result = reference_result("lmm_oxboys")
    part = result.re_pca()["Subject"]
    rebuilt = (part.rotation * part.sd**2) @ part.rotation.T
    assert_allclose(rebuilt, result.fit.covariances[0], rtol=1e-10)
    assert part.proportion.sum() == pytest.approx(1.0)
    assert_allclose(part.sd, part.sdev * result.sigma, rtol=1e-12)


def test_terms_of_one_factor_together() -> None:
    result = lme4py.lmer("y ~ x + (1 | g) + (0 + x | g) + (1 | c)", made_up())
    found = result.re_pca()
    assert list(found) == list(result.n_groups)
    sds = sorted(
        np.sqrt([result.fit.covariances[t][0, 0] for t, q in enumerate(result.fit.design.terms) if q.group == "g"])
    )
    assert_allclose(found["g"].sd, sds[::-1], rtol=1e-12)
    frame = found.to_frame()
    assert frame.groupby("group", sort=False)["cumulative"].last().tolist() == pytest.approx([1.0, 1.0])
    assert "g: 2 of 2 components carry variance" in str(found)


def test_singular_and_generalised() -> None:
    part = lme4py.lmer("Yield ~ 1 + (1 | Batch)", load_reference("Dyestuff2")).re_pca()["Batch"]
    assert (part.rank, part.sd[0]) == (0, 0.0)
    result = lme4py.glmer("count ~ x + (1 | g)", made_up(), "poisson")
    assert result.re_pca()["g"].sd[0] == pytest.approx(float(np.sqrt(result.fit.covariances[0][0, 0])))
