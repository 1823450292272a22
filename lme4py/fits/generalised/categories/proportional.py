"""The model in which a term has an effect on each threshold, beside one in which it has one on all.

A score test (Rao 1948, Proc. Camb. Phil. Soc. 44:50) asks of the larger model its gradient and information at the
estimates of the smaller one; a likelihood-ratio test fits it.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from lme4py.design.design import Design, Predictor
from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Error, Lme4Warning, OptionError
from lme4py.families.ordered.ordinal import Ordinal
from lme4py.families.ordered.ordinal_parts import NOMINAL, OrdinalParts
from lme4py.families.response import PartRows, ResponseData
from lme4py.fits.generalised.categories.thresholds import refuse_absent
from lme4py.fits.generalised.criterion import GlmmCriterion, glmm_criterion
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.steps import fit_at
from lme4py.fits.steps import read_control
from lme4py.linalg.types import FloatArray

__all__ = ["ThresholdTest", "threshold_test"]

# Relative steps of central differences of the gradient.
_STEP = 1e-4
# A criterion that could fall by less than this is near its limit.
_LIMIT = 1e-3
ThresholdTest = tuple[float, int, str]


def threshold_test(fit: GeneralisedFit, term: int, score: bool) -> ThresholdTest:
    """Whether a term of the location has the same effect on all thresholds.

    Parameters
    ----------
    fit : GeneralisedFit
        Of ordered categories.
    term : int
        Number of the term, from 1.
    score : bool
        By the score, without a fit of the larger model.

    Returns
    -------
    tuple of (float, int, str)
        Chi-squared, degrees of freedom, and why there is none, or "".
    """
    family = fit.family
    if not isinstance(family, Ordinal) or family.constant is None:
        raise family.lacks("common effects on thresholds that could be told from effects on each")
    design, larger, data = _larger(fit, family, term)
    df = larger.n_coefficients - family.n_coefficients - (fit.beta.size - design.X.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        try:
            criterion = glmm_criterion(design, larger, data, nAGQ=fit.nAGQ, hessian=fit.hessian)
            if score:
                return _score(fit, criterion, design, larger, term), df, ""
            value, note = _ratio(fit, criterion, design)
            return value, df, note
        except Lme4Error as error:
            return float("nan"), df, str(error)


def _larger(fit: GeneralisedFit, family: Ordinal, term: int) -> tuple[Design, OrdinalParts, ResponseData]:
    """Design, family and response of the model with effects of the term on each threshold."""
    design = fit.design
    own = np.array(design.assign) == term
    names = tuple(name for name, chosen in zip(design.x_names, own, strict=True) if chosen)
    old = {part.name: part for part in fit.data.parts}
    known = family.nominal if isinstance(family, OrdinalParts) else ()
    before = old[NOMINAL].X if NOMINAL in old else np.zeros((design.n_obs, 0))
    W = np.hstack([before, design.X[:, own]])
    scale = family.scale if isinstance(family, OrdinalParts) else ()
    structure = family.structure if isinstance(family, OrdinalParts) else "cumulative"
    larger = OrdinalParts(family.link, family.n_categories, family.threshold, structure, (*known, *names), scale)
    nominal = Predictor(np.tile(W, larger.n_cuts), larger.nominal_names, (1,) * len(larger.nominal_names), name=NOMINAL)
    others = tuple(p for p in design.predictors[1:] if p.name != NOMINAL)
    first = replace(
        design.predictors[0],
        X=np.ascontiguousarray(design.X[:, ~own]),
        names=tuple(name for name, chosen in zip(design.x_names, own, strict=True) if not chosen),
        assign=tuple(a for a in design.assign if a != term),
        dropped=(),
        alias=None,
    )
    parts = (PartRows(NOMINAL, W), *(part for name, part in old.items() if name != NOMINAL))
    data = replace(fit.data, parts=parts)
    return replace(design, predictors=(first, nominal, *others), response=data), larger, data


def _ratio(fit: GeneralisedFit, criterion: GlmmCriterion, design: Design) -> tuple[float, str]:
    """The likelihood ratio, and what is to be said of it: effects that are infinite give that of a limit."""
    optimum = criterion.optimise(None, read_control(None), thorough=False)
    found = fit_at(design, criterion, optimum)
    refuse_absent(found)
    certificate = found.certificate
    if not certificate.converged and certificate.bound > _LIMIT:
        raise OptionError(f"the model with effects on each threshold has no proved optimum: {certificate.verdict}")
    note = "" if certificate.converged else "effects on single thresholds are infinite; the ratio is that of the limit"
    return max(fit.criterion - found.criterion, 0.0), note


def _score(fit: GeneralisedFit, criterion: GlmmCriterion, design: Design, larger: OrdinalParts, term: int) -> float:
    """g'H^-1 g / 2 of the criterion at the estimates of the smaller model; variances of zero are held there."""
    at = _at_estimates(fit, design, larger, term)
    m = fit.theta.size
    free = np.arange(at.size) if not fit.certificate.is_singular else np.arange(m, at.size)
    with limited_threads(fit.design):
        gradient = criterion.gradient(at)[free]
        steps = _STEP * np.maximum(np.abs(at), 1.0)
        hessian = np.array([_difference(criterion, at, i, float(steps[i]))[free] for i in free.tolist()]).reshape(
            free.size, free.size
        )
    hessian = 0.5 * (hessian + hessian.T)
    if float(np.linalg.eigvalsh(hessian)[0]) <= 0.0:
        raise OptionError("the information at the estimates is not positive definite; use test='lr'.")
    return float(gradient @ np.linalg.solve(hessian, gradient)) / 2.0


def _difference(criterion: GlmmCriterion, at: FloatArray, i: int, h: float) -> FloatArray:
    unit = np.zeros(at.size)
    unit[i] = h
    slope: FloatArray = (criterion.gradient(at + unit) - criterion.gradient(at - unit)) / (2.0 * h)
    return slope


def _at_estimates(fit: GeneralisedFit, design: Design, larger: OrdinalParts, term: int) -> FloatArray:
    """Parameters of the larger model at which it is the smaller one: an effect b is -b on every threshold."""
    family = fit.family
    own = np.array(fit.design.assign) == term
    constant = np.asarray(family.constant)[family.n_coefficients :]
    lam = np.atleast_1d(fit.lam)
    old = lam[family.place(NOMINAL)] if NOMINAL in family.components else np.zeros(0)
    common = np.outer(constant, -fit.beta[own])
    N = np.hstack([old.reshape(larger.n_cuts, -1), common])
    scale = lam[family.place("scale")] if "scale" in family.components else np.zeros(0)
    return np.concatenate([fit.theta, fit.beta[~own], N.ravel(), scale, lam[family.n_coefficients :]])
