"""What tests need of fits that are made one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from lme4py.fits.answers.many import Inferences, Made, Many, nothing, one_by_one, stacked
from lme4py.fits.base import Fit
from lme4py.linalg.types import FloatArray

__all__ = ["estimates_of", "inferences_of", "no_inferences"]


def estimates_of(fit: Fit) -> Many:
    """The estimates of one fit, infinities and NaN as they are reported.

    Parameters
    ----------
    fit : Fit
    """
    own = not fit.normal_errors
    return Many(
        fit.beta_estimates[None],
        [cov[None] for cov in fit.covariances],
        np.array([fit.sigma]),
        np.array([fit.dispersion]) if own else None,
        None if fit.threshold_estimates is None else fit.threshold_estimates[None],
        fit.family.other_values(fit.others)[None] if own and fit.others else None,
    )


def no_inferences(fit: Fit, rows: int, size: int = 0) -> Inferences:
    """NaN for some responses of a model.

    Parameters
    ----------
    fit : Fit
    rows : int
    size : int
        Variance parameters of the degrees of freedom; 0 for none.
    """
    p = fit.beta.size
    cuts = None if fit.thresholds is None else fit.thresholds.size
    sizes = [cov.shape[0] for cov in fit.covariances]
    no = np.zeros(rows, dtype=bool)
    return Inferences(
        nothing(rows, p, sizes, cuts, not fit.normal_errors, len(fit.others)),
        np.full((rows, p, p), np.nan),
        np.full(rows, np.nan),
        no,
        no.copy(),
        np.full((rows, size, p, p), np.nan) if size else None,
        np.full((rows, size, size), np.nan) if size else None,
    )


def inferences_of(
    fit: Fit, makers: Iterator[Callable[[], Fit]], derivatives: Callable[[Fit], tuple[FloatArray, FloatArray]] | None
) -> Inferences:
    """What tests need of fits, one after the other; what goes wrong in one is recorded.

    Parameters
    ----------
    fit : Fit
        Of the same model.
    makers : iterator of callable
    derivatives : callable or None
        Jacobian (s, p, p) and covariance (s, s) of the variance parameters of a fit.
    """
    made = one_by_one(makers)
    estimates: Made[Many] = Made(
        [None if one is None else estimates_of(one) for one in made.values], made.failures, made.n_not_converged
    )
    many = stacked(estimates, no_inferences(fit, 1).many)
    size = fit.theta.size + 1 if derivatives is not None else 0
    out = no_inferences(fit, len(made.values), size)
    for b, one in enumerate(made.values):
        if one is None:
            continue
        out.vcov[b], out.criterion[b] = one.vcov, one.criterion
        out.singular[b], out.converged[b] = one.certificate.is_singular, one.certificate.converged
        if derivatives is not None and out.jacobian is not None and out.precision is not None:
            jacobian, precision = derivatives(one)
            # Parameters on the boundary are taken as known.
            s = jacobian.shape[0]
            out.jacobian[b], out.precision[b] = 0.0, 0.0
            out.jacobian[b, :s], out.precision[b, :s, :s] = jacobian, precision
    return Inferences(many, out.vcov, out.criterion, out.singular, out.converged, out.jacobian, out.precision)
