"""Linear mixed models from column names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lme4py.errors import OptionError
from lme4py.families.registry import make_family
from lme4py.fits.linear.steps import lmm_fit
from lme4py.fits.parameters import check_names
from lme4py.fits.survey.steps import survey_fit
from lme4py.inference.uncertainty.robust import with_vce
from lme4py.keyword.model import KeywordModel
from lme4py.keyword.options import control
from lme4py.results import MixedResult
from lme4py.results.call import records_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

__all__ = ["mixed"]

_METHODS = {"reml": True, "ml": False, "mle": False}


@records_call
def mixed(
    data: Any,
    y: str,
    x_fixed: str | Sequence[str] | None,
    group: str | Sequence[Any],
    x_random: str | Sequence[str] | Mapping[str, Any] | None = None,
    cov_type: str = "unstructured",
    method: str = "reml",
    maxiter: int = 1000,
    tol: float = 1e-9,
    alpha: float = 0.05,
    *,
    crossed: bool = False,
    weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | None = None,
    vce: str | None = None,
    ddf: str | None = None,
    pweights: Mapping[str | None, Any] | None = None,
    pwscale: str | None = None,
    survey: Mapping[str, Any] | None = None,
) -> MixedResult:
    """Fit a linear mixed model from column names, as Stata's ``mixed``.

    Parameters
    ----------
    data : data frame
        pandas, polars, pyarrow, a dict of arrays, or anything else that narwhals reads.
    y : str
        The response: a column, or an expression such as ``"log(y)"``.
    x_fixed : str, list of str, or None
        Fixed effects: columns (text and categorical ones become factors), interactions ``"a:b"`` and ``"a*b"``, or
        expressions such as ``"I(x^2)"``. A text is one column. ``"0"`` among them leaves out the constant.
    group : str or list of str
        The grouping factor, or nested ones from the outer to the inner; inner labels may repeat in other outer groups.
    x_random : str, list of str, dict, or None
        Columns with random slopes at every level, beside the random constant; a dict gives those of each level:
        ``{"school": ["x"]}``. Under a covariance that is not unstructured, a categorical column has one random effect
        for each of its levels, in place of the constant.
    cov_type : {"unstructured", "diagonal", "identity", "exchangeable"}
        Covariance of the random effects of a level: free; zero covariances ("independent" in Stata); zero covariances
        and one variance; one variance and one covariance.
    method : {"reml", "ml"}
    maxiter : int
        Largest number of evaluations of the criterion.
    tol : float
        The optimiser stops when the criterion is predicted to fall by less; it is never less careful than in `lmer`.
    alpha : float
        One minus the confidence level of the results.
    crossed : bool
        The factors in `group` are crossed, not nested; each entry may then be a list of nested ones.
    weights : str or array of shape (n,), optional
        The residual variance of row i is ``sigma**2 / weights[i]``.
    offset : str or array of shape (n,), optional
        Known part of the mean.
    vce : str, optional
        "robust" for standard errors that allow any dependence within the groups of the outermost level (CR1), or the
        column whose levels are the clusters. They are those of the coefficients, in every table, interval and
        prediction; given the coefficients, random effects vary as the model says, and standard errors and limits of
        variances are the model's.
    ddf : {None, "normal", "satterthwaite", "kenward-roger", "residual"}
        Degrees of freedom of tests and intervals; None is "normal", as in Stata.
    pweights : dict, optional
        Sampling weights, ``{"school": "w2", None: "w1"}``: of the levels of the group, and of rows under the key None.
        Needs ``method="ml"``.
    pwscale, survey
        As in `lmer`: how weights of rows are scaled within groups; strata, units and replicate weights.

    Returns
    -------
    MixedResult
        Its intercept is called ``_cons``; `formula` shows the model as lme4 writes it.

    Raises
    ------
    Lme4Error
        Or one of its children, before any fitting.

    Examples
    --------
    >>> from lme4py import load_dataset, mixed
    >>> result = mixed(load_dataset("sleepstudy"), "Reaction", ["Days"], "Subject", ["Days"])
    >>> result.formula
    'Reaction ~ Days + (1 + Days | Subject)'
    >>> result.params.round(3).to_dict()
    {'_cons': 251.405, 'Days': 10.467}
    >>> round(result.variance_components["cov(_cons,Days)"], 2)
    9.6
    """
    reml = _METHODS.get(method.strip().lower()) if isinstance(method, str) else None
    if reml is None:
        raise OptionError(f"method={method!r} is not known; use 'reml' or 'ml'.")
    settings = control(maxiter, tol)
    model = KeywordModel(
        data,
        y,
        x_fixed,
        group,
        x_random,
        cov_type,
        crossed,
        offset=offset,
        weights=weights,
        alpha=alpha,
        ddf=ddf,
        vce=vce,
        pweights=pweights,
        pwscale=pwscale,
        survey=survey,
    )
    request = model.request
    if request is not None:
        if reml:
            raise OptionError("pweights= needs maximum likelihood: REML has no weighted form. Give method='ml'.")
        family = make_family("gaussian", None)
        design, chosen = model.design(family)
        check_names(design, stata=True)
        return MixedResult(survey_fit(design, family, request, control=settings).speaking(chosen))
    design, chosen = model.design(None)
    check_names(design, stata=True)
    return MixedResult(with_vce(lmm_fit(design, reml, control=settings).speaking(chosen)))
