"""Is one model with a residual structure a special case of another, inside its parameter space?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lme4py.covariance import CovarianceStructure, make_structure
from lme4py.covariance.kinds.given import GivenCovariance
from lme4py.design.design import RandomTerm
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.fits.residual.fit import ResidualFit
from lme4py.inference.lrt.mixture import UnknownDistribution
from lme4py.linalg.spans import spans
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["check_residuals"]

_COMPARE = "Compare AIC or BIC."


def check_residuals(small: Fit, large: Fit) -> bool:
    """Refuse a likelihood-ratio test whose distribution is not known.

    The residuals of the small model must be a special case of those of the large one that is no edge of its parameter
    space, and its random effects the same ones, or without one of them.

    Parameters
    ----------
    small, large : Fit

    Returns
    -------
    bool
        Whether a variance of the large model is at the end of its range in the small one.

    Raises
    ------
    OptionError
    """
    if not isinstance(large, ResidualFit):
        raise OptionError(
            "the models are not nested: the restricted one has a residual structure and the full one has none. "
            + _COMPARE
        )
    _check_scales(small, large)
    if not _same_known(small, large):
        _check_structures(small, large)
    at_boundary = _leaves_one_out(small.design.terms, large.design.terms)
    if at_boundary and small.certificate.is_singular:
        raise UnknownDistribution(
            f"the restricted model has a variance of zero of its own ({', '.join(small.certificate.singular)}), so "
            "that two are at the end of their range; use boundary=False for the plain chi-squared distribution, or "
            "leave the other one out."
        )
    return at_boundary


def _leaves_one_out(small: Sequence[RandomTerm], large: Sequence[RandomTerm]) -> bool:
    """Whether the small model lacks one random effect, with its covariances, of those of the large one."""
    kept = {(term.label, term.structure) for term in small} & {(term.label, term.structure) for term in large}
    less, more = ([term for term in own if (term.label, term.structure) not in kept] for own in (small, large))
    if not less and not more:
        return False
    if len(more) == 1 and more[0].relation is None:
        whole = more[0]
        if not less and whole.n_theta == 1:
            return True
        if len(less) == 1 and _is_one_less(less[0], whole):
            return True
        if len(less) == 1 and _is_case(less[0], whole):
            return False
    raise UnknownDistribution(
        "of models with residual structures those are tested against each other that have the same random effects, or "
        f"differ in one effect with its covariances: the distribution is not known otherwise. {_COMPARE}"
    )


def _is_case(less: RandomTerm, whole: RandomTerm) -> bool:
    """Whether a term has the same effects with a covariance that is a special case, inside of the other's range."""
    same = less.group == whole.group and less.columns == whole.columns and less.relation is None
    return same and less.structure.nested_in(whole.structure)


def _is_one_less(less: RandomTerm, whole: RandomTerm) -> bool:
    """Whether a term is another one without one of its columns, all of them with variances of their own."""
    covariances = {"us": whole.n_columns, "diag": 1}.get(whole.structure.name)
    return (
        less.group == whole.group
        and set(less.columns) < set(whole.columns)
        and less.n_columns == whole.n_columns - 1
        and covariances is not None
        and whole.n_theta - less.n_theta == covariances
        and (less.n_columns == 1 or less.structure.name == whole.structure.name)
    )


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
