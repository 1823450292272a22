"""Ordered and unordered categories: the front doors `clmm` and its kin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from lme4py.api import chosen_rows
from lme4py.data.frame import read_frame
from lme4py.design.beside.priors import read_priors, refuse_fixed, with_priors
from lme4py.design.build import NaAction, lformula, read_formula
from lme4py.design.call import check_call, check_mappings
from lme4py.design.parts import ordinal_formulas
from lme4py.design.shared import refuse_shared, without_shared
from lme4py.engine.optimise import Control
from lme4py.errors import OptionError
from lme4py.families.ordered.ordinal import make_ordinal
from lme4py.families.ordered.ordinal_parts import NOMINAL, SCALE, make_ordinal_parts
from lme4py.fits.generalised.categories.thresholds import refuse_absent, warn_crossing, with_expanded
from lme4py.fits.generalised.criterion import check_options
from lme4py.fits.generalised.steps import named_fit
from lme4py.fits.held import hold, read_fix
from lme4py.fits.rows.compressed import compressed, of_all_rows
from lme4py.fits.survey.door import fit_of_call
from lme4py.fits.survey.weights import SurveyRequest
from lme4py.results import MEGLMResult
from lme4py.results.call import records_call

__all__ = ["clmm"]


@records_call
def clmm(
    formula: str,
    data: Any,
    *,
    link: str = "logit",
    threshold: str = "flexible",
    structure: str = "cumulative",
    nominal: str | None = None,
    scale: str | None = None,
    fixed_only: bool = False,
    nAGQ: int = 1,
    hessian: str = "observed",
    weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | None = None,
    contrasts: Mapping[str, Any] | None = None,
    start: ArrayLike | None = None,
    control: Control | Mapping[str, Any] | None = None,
    progress: bool | None = None,
    na_action: NaAction = "omit",
    subset: str | ArrayLike | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    levels: Iterable[Any] | None = None,
    compress: bool | None = None,
    relmat: Mapping[str, Any] | None = None,
    fix: Mapping[str, Any] | None = None,
    cov_prior: Any = None,
    fixef_prior: Any = None,
    level_weights: Mapping[str, Any] | None = None,
    pwscale: str | None = None,
    survey: Mapping[str, Any] | None = None,
) -> MEGLMResult:
    """Fit a cumulative link mixed model to ordered categories by maximum likelihood.

    P(Y <= k) = F(alpha_k - eta), k = 1 .. K - 1, with increasing thresholds alpha_k in the place of the intercept.

    Parameters
    ----------
    formula : str
        A formula as in lme4, such as ``"rating ~ temp + contact + (1 | judge)"``. The response is an ordered
        categorical, or numbers (in ascending order), or anything whose order `levels` gives. The intercept belongs
        to the thresholds and cannot be removed; factors are coded as beside an intercept.
    data : data frame
        pandas, polars (eager or lazy), pyarrow, a dict of arrays, or anything else that narwhals reads.
    link : {"logit", "probit", "cloglog", "loglog", "cauchit"}
        P(Y > k) = G(eta - alpha_k) with the same inverse link G as in `glmer`: F is logistic, normal or Cauchy,
        exp(-exp(-x)) for cloglog and 1 - exp(-exp(x)) for loglog. R's clmm has the last two so with one random
        intercept, and the other way round with several random effects (as its clm).
    threshold : {"flexible", "symmetric", "symmetric2", "equidistant"}
        Free thresholds; symmetric about their middle; symmetric about zero; or equally spaced.
    structure : {"cumulative", "adjacent", "sequential"}
        P(Y <= k) = F(alpha_k - eta); P(Y = k given k or k + 1) = F(alpha_k - eta), with the logit link; or P(Y = k
        given k or more) = F(alpha_k - eta), the continuation ratio. Thresholds increase in the first only.
    nominal : str, optional
        ``"~ x"``: effects on each threshold, alpha_k + w'nu_k, in the place of one on all (partial proportional odds).
        A term that is in the formula too is taken out of it.
    scale : str, optional
        ``"~ z"``: effects on the logarithm of the scale, F((alpha_k - eta) / exp(z'zeta)); random effects are
        divided by it too.
    fixed_only : bool
        Let the formula have no random effects; implied by `nominal` and `scale`.
    nAGQ : int
        1 is the Laplace approximation; more are that many points of adaptive Gauss-Hermite quadrature for each
        random effect (one grouping factor or two nested ones, up to four random effects together); with a minus sign
        quadrature that is not adaptive (one grouping factor).
    hessian : {"observed", "expected"}
        Information in the Laplace approximation: "observed" as R's clmm and Stata. With the cauchit link the observed
        one of a small group can vanish, and there is no optimum; "expected" always has one.
    weights : str or array of shape (n,), optional
        Multiply the log-likelihood of a row, as frequencies do.
    offset : str or array of shape (n,), optional
        Known part of the linear predictor, added to the ``offset()`` terms of the formula.
    contrasts : dict, optional
        Variable name -> name of a contrast, or a matrix with one row per level.
    start : array of shape (n_theta,) or dict, optional
        Starting values of theta, the covariance parameters; or a dict with theta, beta, mu (means of the rows used),
        dispersion or shape. They change where the search begins, not what is certified.
    control : Control or dict, optional
        Settings of the optimiser, such as ``{"max_evaluations": 500}``; ``{"optimizer": "Nelder-Mead"}`` begins with
        another method; ``{"check": {"singular": "stop", "rank": "ignore"}}`` turns warnings off or into errors.
    progress : bool, optional
        Show a bar of evaluations; None shows one in a terminal or a notebook after a second.
    na_action : {"omit", "exclude", "raise"}
        What to do with rows that have a missing value in a variable of the model.
    subset : str or array of bool of shape (n,), optional
        Only the rows of the data in which this is true: an expression in the language of formulas, such as
        ``"Days > 1"``. Values of `weights` and `offset` are cut to the same rows. Of
        streamed rows an expression, which is evaluated where they are.
    functions : dict, optional
        Functions of your own that the formula may call.
    levels : iterable, optional
        The categories of the response from the lowest to the highest; needed for text.
    compress : bool, optional
        Rows that are equal in all columns of the formula become one with their number as weight, which is exact where
        weights multiply the log-likelihood. None does so for data that are lazy, in files or on other machines, where
        it is worth it; such a result has no rows.
    relmat : dict, optional
        Grouping factor -> the known covariance of its levels; see `lmer`.
    fix : dict, optional
        Parameters that are held at given values: coefficients and those of covariance structures; see `lmer`.
    cov_prior, fixef_prior
        As in `glmer`, without "jeffreys".
    level_weights, pwscale, survey
        Sampling weights, as in `lmer`.

    Returns
    -------
    MEGLMResult

    Raises
    ------
    Lme4Error
        Or one of its children, before any fitting: fewer than three categories in use, text without `levels`, or any
        other fault of the formula, the data or an option.

    Examples
    --------
    >>> from lme4py import clmm, load_dataset
    >>> result = clmm("rating ~ temp + contact + (1 | judge)", load_dataset("wine"))
    >>> result.params.round(3).to_dict()
    {'temp[T.warm]': 3.063, 'contact[T.yes]': 1.835}
    >>> result.thresholds.round(3).to_dict()
    {'1|2': -1.624, '2|3': 1.513, '3|4': 4.229, '4|5': 6.089}
    """
    data, weights, offset = chosen_rows(data, subset, weights, offset)
    _check_parts(nominal, scale, fixed_only)
    priors, _ = read_priors(cov_prior, fixef_prior)
    request = SurveyRequest.read(level_weights, weights, pwscale, survey)
    if request is not None:
        options: dict[str, Any] = {"offset": offset, "contrasts": contrasts, "na_action": na_action}
        options |= {"functions": functions, "family": "ordinal", "levels": levels}
        way = {"nAGQ": nAGQ, "hessian": hessian, "start": start, "control": control}
        others = {"relmat": relmat, "fix": fix, "cov_prior": cov_prior, "fixef_prior": fixef_prior}
        others |= {"nominal": nominal, "scale": scale, "fixed_only": fixed_only or None}
        others |= {"structure": None if structure == "cumulative" else structure}
        family = make_ordinal(link, threshold)
        return MEGLMResult(fit_of_call(formula, data, family, request, options, others, **way))
    beside = {"offset": offset, "functions": functions, "na_action": None if na_action == "omit" else na_action}
    beside |= {"nominal": nominal, "scale": scale, "structure": None if structure == "cumulative" else structure}
    beside |= {"fixed_only": fixed_only or None}
    more: dict[str, Any] = {"relmat": relmat, "fix": fix, "cov_prior": cov_prior, "fixef_prior": fixef_prior}
    family = make_ordinal(link, threshold)
    made = compressed(data, control, formula, family, weights, beside, compress, more | {"start": start})
    check_call(formula, made.data, progress, na_action)
    check_mappings(contrasts, functions)
    check_options(nAGQ, hessian, fixed_points=True)
    if made.in_parts:
        from lme4py.fits.rows.partitioned import partitioned_fit

        given = {"weights": weights, "offset": offset, "contrasts": contrasts, "na_action": na_action}
        fit = partitioned_fit(formula, made, family, given, levels=levels, nAGQ=nAGQ, hessian=hessian)
        return MEGLMResult(fit)
    make_ordinal_parts(link, threshold, 3, structure)
    location, notes = _location(formula, made.data, nominal)
    design = lformula(
        location,
        made.data,
        weights=made.weights,
        offset=offset,
        contrasts=contrasts,
        na_action=na_action,
        functions=functions,
        require_random=not (fixed_only or nominal or scale),
        family="ordinal",
        levels=levels,
        parts=ordinal_formulas(location, nominal, scale),
        relmat=relmat,
    )
    refuse_shared(design)
    refuse_fixed(priors, fix or (), design.x_names)
    design = hold(design, read_fix(fix), residual=False).design
    columns = {predictor.name: predictor.names for predictor in design.predictors[1:]}
    n_categories = len(() if design.response is None else design.response.categories or ())
    own = columns.get(NOMINAL, ()), columns.get(SCALE, ())
    family = make_ordinal_parts(link, threshold, n_categories, structure, *own)
    design = replace(with_expanded(with_priors(design, priors), family), notes=(*design.notes, *notes))
    fit = named_fit(design, family, nAGQ, hessian, start, made.control)
    refuse_absent(fit)
    warn_crossing(fit)
    return MEGLMResult(of_all_rows(fit, made))


def _check_parts(nominal: object, scale: object, fixed_only: object) -> None:
    for name, value in (("nominal", nominal), ("scale", scale)):
        if value is not None and not isinstance(value, str):
            raise OptionError(f"{name}={value!r} is no formula without a response; write it as in {name}='~ x'.")


def _location(formula: str, data: Any, nominal: str | None) -> tuple[str, tuple[str, ...]]:
    """The formula of the location without terms that are nominal, and what is to be said of that."""
    if nominal is None:
        return formula, ()
    names = read_frame(data).names
    text = ordinal_formulas(formula, nominal, None)[NOMINAL]
    return without_shared(read_formula(formula, names), read_formula(text, names))
