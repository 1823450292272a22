"""Multinomial logits with random effects from column names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lme4py.families.registry import make_family
from lme4py.fits.generalised.categories.joined import joined_categories, refuse_separated, with_baseline
from lme4py.fits.generalised.criterion import check_options
from lme4py.fits.generalised.steps import glmm_fit
from lme4py.fits.parameters import check_names
from lme4py.inference.uncertainty.robust import with_vce
from lme4py.keyword.model import KeywordModel
from lme4py.keyword.options import check_robust, control
from lme4py.results import MEGLMResult
from lme4py.results.call import records_call

if TYPE_CHECKING:
    from lme4py.keyword.generalised import Columns, Group, Slopes, Values

__all__ = ["memlogit"]


@records_call
def memlogit(
    data: Any,
    y: str | Sequence[str],
    x_fixed: Columns,
    group: Group,
    x_random: Slopes = None,
    cov_type: str = "unstructured",
    nAGQ: int = 1,
    maxiter: int = 300,
    tol: float = 1e-6,
    alpha: float = 0.05,
    *,
    baseline: Any = None,
    offset: Values | Mapping[str, Any] = None,
    crossed: bool = False,
    weights: Values = None,
    vce: str | None = None,
    ddf: str | None = None,
) -> MEGLMResult:
    """Fit a multinomial logit with random effects from column names: Stata's ``mlogit`` with groups.

    Parameters
    ----------
    data : data frame
        pandas, polars, pyarrow, a dict of arrays, or anything else that narwhals reads.
    y : str, or list of str
        The column of categories, whose order does not matter; or columns that count the trials of each category.
    x_fixed, group, x_random, nAGQ, maxiter, tol, alpha, crossed, weights, vce, ddf
        As in `meglm`. Every category beside the baseline has all coefficients and random effects.
    offset : str, array of shape (n,) or dict, optional
        Of the linear predictor of every category beside the baseline; a dict has one for each category that it names.
    cov_type : str
        Covariance of the random effects of all categories together: "unstructured"; "diagonal" ("independent"), a
        variance each; "identity", one variance; "exchangeable", one variance and one correlation.
    baseline : object, optional
        The category that the others are compared with, Stata's ``baseoutcome()``; when not given the first one
        (Stata takes the most frequent).

    Returns
    -------
    MEGLMResult
        Coefficients are named by their category, ``"B: x"`` and ``"B: _cons"``; `relative_risk_ratios` gives their
        exponentials.

    Raises
    ------
    Lme4Error
        Or one of its children, before any fitting; columns that separate categories are named.

    Examples
    --------
    >>> from lme4py import load_dataset, memlogit
    >>> result = memlogit(load_dataset("Contraception"), "livch", ["age"], "district", cov_type="identity")
    >>> list(result.relative_risk_ratios().columns)
    ['rrr', 'lower', 'upper']
    """
    family = with_baseline(make_family("multinomial", None), baseline)
    check_options(nAGQ, "observed")
    settings = control(maxiter, tol)
    model = KeywordModel(
        data, y, x_fixed, group, x_random, cov_type, crossed, offset, weights, alpha=alpha, ddf=ddf, vce=vce
    )
    design, chosen = model.design(family)
    check_robust(chosen.vce, nAGQ)
    design, family = joined_categories(design, family)
    check_names(design, family, stata=True)
    fit = glmm_fit(design, family, nAGQ=nAGQ, control=settings)
    refuse_separated(fit)
    return MEGLMResult(with_vce(fit.speaking(chosen)))
