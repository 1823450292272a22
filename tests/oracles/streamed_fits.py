"""What a fit of streamed rows has to share with one in memory."""

from __future__ import annotations

from typing import Any

from numpy.testing import assert_allclose


def same(ours: Any, theirs: Any, passes: int = 2) -> None:
    """Compare a generalised fit of streamed rows with the same in memory."""
    # Both are certified to 1e-11 of the criterion; estimates then agree to about 1e-6 of a standard error.
    assert_allclose(ours.criterion, theirs.criterion, rtol=1e-10)
    assert_allclose((ours.params - theirs.params) / theirs.bse, 0.0, atol=1e-5)
    # Hessians are differences of gradients.
    assert_allclose(ours.bse, theirs.bse, rtol=1e-4)
    for a, b in zip(ours.fit.covariances, theirs.fit.covariances, strict=True):
        assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for name in ("modes", "conditional_covariances"):
        for a, b in zip(getattr(ours.fit, name), getattr(theirs.fit, name), strict=True):
            # Modes follow the covariances.
            assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert (ours.n_obs, ours.n_groups) == (theirs.n_obs, theirs.n_groups)
    assert ours.certificate.converged
    assert ours.rows.passes == passes
