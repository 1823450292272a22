"""Is one model with a residual structure a special case of another, inside its parameter space?"""

from __future__ import annotations

import numpy as np

from lme4py.covariance import CovarianceStructure, make_structure
from lme4py.covariance.kinds.given import GivenCovariance
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.fits.residual.fit import ResidualFit
from lme4py.linalg.spans import spans
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["check_residuals"]

_COMPARE = "Compare AIC or BIC."


def check_residuals(small: Fit | None, large: Fit) -> None:
    """Refuse a likelihood-ratio test that is not known to be chi-squared.

    The random effects must be the same, and the residuals of the small model a special case of those of the large one
    that is no edge of its parameter space.

    Parameters
    ----------
    small, large : Fit

    Raises
    ------
    OptionError
    """
    if small is None:
        raise OptionError(
            "a model with a residual structure has no model 'without random effects' to be compared with by itself; "
            "fit "
            "the smaller model and give it."
        )
    terms = [[(term.label, term.structure) for term in fit.design.terms] for fit in (small, large)]
    if terms[0] != terms[1]:
        raise OptionError(
            "of models with residual structures only those with the same random effects are tested against each other: "
            f"a variance at its boundary is not taken into account here. {_COMPARE}"
        )
    if not isinstance(large, ResidualFit):
        raise OptionError(
            "the models are not nested: the restricted one has a residual structure and the full one has none. "
            + _COMPARE
        )
    _check_scales(small, large)
    if not _same_known(small, large):
        _check_structures(small, large)


def _same_known(small: Fit, large: ResidualFit) -> bool:
    """Whether both have the same residual covariance that is given; refuse others beside one that is."""
    given = [
        structure
        for fit in (small, large)
        if isinstance(fit, ResidualFit)
        for structure in fit.residual.part.structures
        if isinstance(structure, GivenCovariance)
    ]
    if not given:
        return False
    if len(given) < 2 or given[0] != given[1]:
        _refuse("their known residual variances (sigma=, residual=V) are not the same")
    return True


def _check_scales(small: Fit, large: ResidualFit) -> None:
    """The variance function of the small model among those of the large one; strata can be a variance function too."""
    if not isinstance(small, ResidualFit):
        return
    for fit in (small, large):
        if fit.residual.fitted_column is not None:
            raise OptionError(
                "power(fitted) has no likelihood that is maximised, so that there is no test. " + _COMPARE
            )
    own = small.residual.part.log_scale
    reach = [large.residual.part.log_scale, _indicators(large.residual.part.stratum)]
    if large.residual.part.on_grid and not large.residual.part.structures[0].shares_variance:
        reach.append(_indicators(large.residual.part.points[:, 0]))
    if own.shape[1] and not spans(np.concatenate(reach, axis=1), own):
        raise OptionError("the models are not nested: their residual standard deviations differ in form. " + _COMPARE)


def _indicators(codes: FloatArray | IntArray) -> FloatArray:
    found: FloatArray = (codes[:, None] == np.unique(codes)).astype(float)
    return found


def _check_structures(small: Fit, large: ResidualFit) -> None:
    side = large.residual
    if not isinstance(small, ResidualFit) or not small.residual.text:
        outer = side.part.structures[0]
        inner: CovarianceStructure = make_structure("homdiag", outer.size)
        if not inner.nested_in(outer):
            _refuse(f"independent residuals are no special case (but perhaps a limit) of {side.text or outer.name}")
        return
    a, b = small.residual.part, side.part
    same_rows = np.array_equal(a.points, b.points) and _finer(a.subject, b.subject) and _finer(b.subject, a.subject)
    if not same_rows or not _finer(b.stratum, a.stratum):
        _refuse(f"the subjects or positions of {small.residual.text} and {side.text} differ")
    if not a.structures[0].nested_in(b.structures[0]):
        _refuse(f"{small.residual.text} is no special case of {side.text}")


def _finer(inner: IntArray, outer: IntArray) -> bool:
    """Does each level of `inner` lie in one level of `outer`?"""
    order = np.lexsort((outer, inner))
    within = inner[order][1:] == inner[order][:-1]
    return bool((outer[order][1:] == outer[order][:-1])[within].all())


def _refuse(why: str) -> None:
    raise OptionError(f"the models are not nested: {why}. {_COMPARE}")
