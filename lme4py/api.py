"""The front door: fit a model from a formula and data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from lme4py.data.frame import read_frame
from lme4py.data.sources import find_source
from lme4py.design.beside.priors import read_priors, refuse_fixed, with_priors
from lme4py.design.beside.related import refuse_related
from lme4py.design.beside.subset import subset_rows
from lme4py.design.build import NaAction, lformula, read_formula
from lme4py.design.call import check_call, check_mappings
from lme4py.design.design import Design
from lme4py.design.parts import part_formulas
from lme4py.design.residual.none import is_none, residual_of_term
from lme4py.design.residual.side import residual_design
from lme4py.design.residual.text import ResidualSides, known_sigma, read_sides
from lme4py.design.responses.build import has_several
from lme4py.design.smooths import refuse_smooth_design
from lme4py.engine.optimise import Control
from lme4py.errors import OptionError
from lme4py.families.registry import Family, family_with_parts, family_with_zeros, make_family
from lme4py.fits.base import Fit
from lme4py.fits.generalised.categories.joined import (
    joined_categories,
    joint_name,
    refuse_beside_joint,
    refuse_separated,
    with_baseline,
)
from lme4py.fits.generalised.criterion import check_options
from lme4py.fits.generalised.steps import named_fit
from lme4py.fits.held import hold, hold_dispersion, read_fix, sigma_of
from lme4py.fits.linear.steps import lmm_fit
from lme4py.fits.parameters import check_names
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.steps import residual_fit
from lme4py.fits.responses.generalised import mixed_fit
from lme4py.fits.responses.linear import refuse_beside_several, several_fit
from lme4py.fits.rows.compressed import compressed, linear_source, of_all_rows
from lme4py.fits.rows.settings import memory_setting, refuse_functions, rows_setting
from lme4py.fits.steps import read_control
from lme4py.fits.survey.door import fit_of_call, linear_fit_of_call
from lme4py.fits.survey.weights import SurveyRequest
from lme4py.results import MEGLMResult, MixedResult
from lme4py.results.call import records_call

__all__ = ["chosen_rows", "glmer", "glmer_nb", "lmer"]


class _DefaultFamily(str):
    """The name of the family of `glmer` where none is given, which is told from the same name that a user gives."""

    __slots__ = ()


DEFAULT_FAMILY = _DefaultFamily("binomial")
_NO_SMOOTHS = "lmer() with residual=, variance=, dispformula= (glmer() has it) or fixed standard deviations"


@records_call
def lmer(
    formula: str,
    data: Any,
    *,
    reml: bool = True,
    weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | None = None,
    contrasts: Mapping[str, Any] | None = None,
    start: ArrayLike | None = None,
    control: Control | Mapping[str, Any] | None = None,
    progress: bool | None = None,
    na_action: NaAction = "omit",
    subset: str | ArrayLike | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    residual: str | ArrayLike | None = None,
    variance: str | None = None,
    dispformula: str | None = None,
    fixed_only: bool = False,
    relmat: Mapping[str, Any] | None = None,
    sigma: float | None = None,
    fix: Mapping[str, Any] | None = None,
    cov_prior: Any = None,
    fixef_prior: Any = None,
    resid_prior: Any = None,
    level_weights: Mapping[str, Any] | None = None,
    pwscale: str | None = None,
    survey: Mapping[str, Any] | None = None,
    occasion: str | None = None,
    compress: bool | None = None,
) -> MixedResult:
    """Fit a linear mixed model.

    Parameters
    ----------
    formula : str
        A formula as in lme4, such as ``"y ~ x + (x | g)"``; of several responses ``"mvbind(y1, y2) ~ x + (1 | g)"``.
    data : data frame
        pandas, polars (eager or lazy), pyarrow, a dict of arrays, or anything else that narwhals reads.
    reml : bool
        True for restricted maximum likelihood, False for maximum likelihood.
    weights : str or array of shape (n,), optional
        Prior weights: the residual variance of row i is ``sigma**2 / weights[i]``. A column name or values.
    offset : str or array of shape (n,), optional
        Known part of the linear predictor, added to the ``offset()`` terms of the formula.
    contrasts : dict, optional
        Variable name -> ``"contr.treatment"``, ``"contr.sum"``, ``"contr.helmert"``, ``"contr.poly"``,
        ``"contr.SAS"`` or a matrix with one row per level.
    start : array of shape (n_theta,), optional
        Starting values of theta, the relative covariance parameters.
    control : Control or dict, optional
        Settings of the optimiser, such as ``{"max_evaluations": 500}``; ``{"optimizer": "Nelder-Mead"}`` begins with
        another method; ``{"check": {"singular": "stop", "rank": "ignore"}}`` turns warnings off or into errors.
    progress : bool, optional
        Show a bar of evaluations, or of blocks of rows; None shows one in a terminal or a notebook after a second.
    na_action : {"omit", "exclude", "raise"}
        What to do with rows that have a missing value in a variable of the model: leave them out; leave
        them out but give them NaN in residuals and fitted values; or refuse.
    subset : str or array of bool of shape (n,), optional
        Only the rows of the data in which this is true: an expression in the language of formulas, such as
        ``"Days > 1"``. Values of `weights` and `offset` are cut to the same rows. Of
        streamed rows an expression, which is evaluated where they are.
    functions : dict, optional
        Functions of your own that the formula may call: name -> callable from arrays to an array.
    residual : str, optional
        Correlated residuals, ``"structure(index | subject)"``: ``"ar1(visit | id)"``, ``"us(visit | arm / id)"`` (a
        matrix for each arm), ``"exp(x + y | field, nugget=TRUE)"``; 1 for the index is the order of the rows.
        Structures: us, cs, homcs, ar1, hetar1, car1, arma11, toep, homtoep, ad, ou, exp, gau, sph, mat. With prior
        weights the residual covariance is W^-1/2 R W^-1/2. Or a covariance matrix of the rows that is known up to a
        factor sigma^2 (a data frame is aligned on the labels of the rows); with ``sigma=1`` it is known altogether.
    variance : str, optional
        Unequal residual standard deviations: ``"ident(f)"`` (one for each level), ``"power(x)"``, ``"power(fitted)"``,
        ``"exp(x)"``, and products such as ``"ident(f) * power(x)"``.
    dispformula : str, optional
        ``"~ z"``: the logarithm of the residual standard deviation is linear in these terms. ``"~ 0"``: no residual;
        the term of the formula with an effect for each row, as ``ar1(0 + visit | id)``, is the residual covariance.
    fixed_only : bool
        A formula without random effects is accepted; implied by `residual`, `variance` and `dispformula`.
    relmat : dict, optional
        Grouping factor -> the known covariance K of its levels, whose effects have the covariance K times that of the
        term: a DataFrame with the levels as index and columns, (matrix, labels), `Precision` (its inverse) or
        `Pedigree`. K may be singular, and is taken as it is: an inbred animal has more than 1 on the diagonal. Levels
        without rows have conditional modes too.
    sigma : float, optional
        The residual standard deviation of a row with weight 1, where it is known: with sampling variances in a column
        vi, ``weights="1/vi", sigma=1`` is a meta-analysis. It is no parameter then.
    fix : dict, optional
        Parameters that are held at given values and not estimated, by the names that `conf_int` and `params` give them:
        ``{"sigma": 1, "x": 0.5, "period[T.2]": 0}`` the residual standard deviation and coefficients, whose columns
        become a known part of the predictor; ``{"sd(Intercept | g)": 2, "cor(Intercept, x | g)": 0}`` and ranges,
        loadings and the like of covariance structures; ``{"theta": [1, None, 0.5]}`` relative covariance parameters,
        None where one is free. What is held costs no degree of freedom. Standard deviations beside an estimated sigma
        are fitted with the covariance matrices of whole independent blocks of rows, as models with `residual` are.
    cov_prior : str, dict or list, optional
        Penalise the covariances of random effects, relative to the residual variance, in blme's words: "wishart",
        "invwishart", "gamma", "invgamma", and "lkj", as ``"wishart(df = 5)"``; for all terms, or
        ``{"Subject": "wishart"}``. See `lme4py.priors.covariance` for their arguments and for priors of your own. With
        priors, estimates are posterior modes.
    fixef_prior : str, optional
        Penalise the fixed effects: ``"normal(sd = c(10, 2.5))"`` in units of the residual standard deviation (the first
        number is the intercept's, the last one is repeated), ``"t(df = 3)"`` (with ``reml=False``).
    resid_prior : str, optional
        Penalise the residual variance: "gamma", "invgamma"; ``"point(1)"`` is ``sigma=1``.
    level_weights : dict, optional
        Sampling weights of the levels of the grouping factor, ``{"school": "w2"}``, or of two nested ones,
        ``{"school": "w3", "class": "w2"}``, for weighted pseudo-maximum likelihood (``reml=False``); `weights` are
        those of the rows within levels then, and count them.
    pwscale : {None, "size", "effective", "gk"}
        How weights of rows, and of inner groups, are scaled within the unit above.
    survey : dict, optional
        ``strata``, ``psu``, ``fpc``: columns; or ``replicates``: columns, with ``method``, "brr" or "jackknife".
    occasion : str, optional
        Of several responses: units whose residuals are correlated, such as ``"id:visit"``; the rows when not given.
    compress : bool, optional
        Rows that agree in all columns but the response are one cell, with their number, its mean and its sum of
        squares: the same estimates to rounding. None does it where a query of the source finds ten rows a cell or more.

    Returns
    -------
    MixedResult

    Raises
    ------
    Lme4Error
        Or one of its children, before any fitting, when the formula, the data or an option is at fault.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> result = lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))
    >>> result.coef_table()[["estimate", "std_error"]].round(3)
               estimate  std_error
    term
    Intercept   251.405      6.825
    Days         10.467      1.546
    >>> round(result.variance_components["var(Days)"], 2)
    35.07
    >>> result.converged
    True
    """
    data, weights, offset = chosen_rows(data, subset, weights, offset, residual)
    limit = memory_setting(control)
    where, control = rows_setting(control)
    data, source = find_source(data, "stream" if compress else where)
    check_call(formula, data, progress, na_action)
    check_mappings(contrasts, functions)
    others = {"residual": residual, "variance": variance, "dispformula": dispformula, "sigma": sigma, "relmat": relmat}
    others |= {"cov_prior": cov_prior, "fixef_prior": fixef_prior, "resid_prior": resid_prior}
    options: dict[str, Any] = {"contrasts": contrasts, "na_action": na_action, "functions": functions}
    if has_several(formula):
        others |= {"offset": offset, "level_weights": level_weights, "pwscale": pwscale, "survey": survey}
        refuse_beside_several(others, source)
        options["weights"] = weights
        return MixedResult(several_fit(formula, data, reml, occasion, options, fix, start, control))
    if occasion is not None:
        raise OptionError(f"occasion={occasion!r} is for several responses, mvbind(y1, y2) ~ ...; leave it out.")
    request = SurveyRequest.read(level_weights, weights, pwscale, survey)
    if request is not None:
        others |= {"fix": fix, "fixed_only": fixed_only or None}
        options["offset"] = offset
        way: dict[str, Any] = {"start": start, "control": control}
        return MixedResult(linear_fit_of_call(formula, data, reml, request, options, others, **way))
    given = read_fix(fix)
    if sigma is None:
        sigma = sigma_of(given)
    priors, point = read_priors(cov_prior, fixef_prior, resid_prior)
    sigma = sigma if point is None else point
    structured = residual is not None or variance is not None or dispformula is not None
    note = None
    if is_none(dispformula):
        _refuse_two_residuals(residual, variance)
        formula, residual, label = residual_of_term(
            read_formula(formula, () if data is None else read_frame(data).names)
        )
        dispformula, note = None, f"dispformula='~ 0': the term {label} is the covariance of the residuals"
    # Independent residuals beside random effects are the linear engine's; all others those of the marginal one.
    read = read_sides(residual, variance, dispformula, sigma if structured or fixed_only else None)
    known = known_sigma(sigma)
    if known is not None and source is not None:
        raise OptionError("sigma= needs its rows in memory; use control={'rows': 'memory'}.")
    if priors is not None and (structured or fixed_only or source is not None):
        raise OptionError(
            f"{priors.text} is for models with random effects, independent residuals and rows in memory; leave it out, "
            "or the options that it does not go with."
        )
    if structured:
        refuse_related(relmat, "models with residual=, variance= or dispformula=")
    if source is not None:
        refuse_related(relmat, "models of rows that are streamed")
        if given:
            raise OptionError("fix= needs its rows in memory; use control={'rows': 'memory'}.")
        if structured or fixed_only:
            raise OptionError(
                "correlated or unequal residuals, and models without random effects, need their rows in memory; use "
                "control={'rows': 'memory'}."
            )
        options |= {"weights": weights, "offset": offset, "limit": limit}
        return MixedResult(_fit(_streamed_design(formula, source, compress, options, control), reml, start, control))
    design = lformula(
        formula,
        data,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        na_action=na_action,
        functions=functions,
        require_random=not (structured or fixed_only),
        beside=read.nodes,
        relmat=relmat,
    )
    refuse_fixed(priors, given, design.x_names)
    held = hold(design, given, known if not structured else None)
    design = held.design
    if known is not None and design.terms and not structured:
        design = replace(design, sigma=known, notes=(*design.notes, f"sigma is known: {known:g}"))
    if note is not None:
        design = replace(design, notes=(*design.notes, note))
    design = with_priors(design, priors)
    if structured or held.absolute or not design.terms:
        return MixedResult(_fit_structured(design, read, reml, start, control))
    return MixedResult(_fit(design, reml, start, control))


@records_call
def glmer(
    formula: str,
    data: Any,
    family: str | Family = DEFAULT_FAMILY,
    *,
    reml: bool = False,
    link: str | None = None,
    nAGQ: int = 1,
    hessian: str = "observed",
    weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | Mapping[str, Any] | None = None,
    contrasts: Mapping[str, Any] | None = None,
    start: ArrayLike | None = None,
    control: Control | Mapping[str, Any] | None = None,
    progress: bool | None = None,
    na_action: NaAction = "omit",
    subset: str | ArrayLike | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    compress: bool | None = None,
    ziformula: str | None = None,
    dispformula: str | None = None,
    relmat: Mapping[str, Any] | None = None,
    fix: Mapping[str, Any] | None = None,
    cov_prior: Any = None,
    fixef_prior: Any = None,
    level_weights: Mapping[str, Any] | None = None,
    pwscale: str | None = None,
    survey: Mapping[str, Any] | None = None,
    fixed_only: bool = False,
    baseline: Any = None,
) -> MEGLMResult:
    """Fit a generalised linear mixed model by maximum likelihood.

    Parameters
    ----------
    formula : str
        A formula as in lme4, such as ``"cbind(successes, failures) ~ x + (1 | g)"``. Binomial responses: 0/1,
        boolean, a factor with two levels (the second is success), ``cbind(successes, failures)``, or a proportion
        with `weights` the numbers of trials.
    data : data frame
        pandas, polars (eager or lazy), pyarrow, a dict of arrays, or anything else that narwhals reads.
    family : str, or one for each of several responses in a list or a dict
        "binomial", "poisson", "nbinomial" (NB-2), "nbinomial1", "gamma", "inverse_gaussian", "gaussian", or
        "multinomial" for unordered categories; where it is not given, "binomial", which the notes of the summary say.
    link : str, optional
        The default is logit for binomial, identity for gaussian and log for all others.
    reml : bool
        Integrate the likelihood over the fixed effects too, by Laplace's approximation (mgcv's ``method = "REML"``,
        glmmTMB's ``REML = TRUE``): variances, and how smooth a smooth is, are less biased with many fixed effects.
    nAGQ : int
        1 is the Laplace approximation; more are that many points of adaptive Gauss-Hermite quadrature for each
        random effect (one grouping factor or two nested ones, up to four random effects together); 0 is fast and
        approximate.
    hessian : {"observed", "expected"}
        Information in the Laplace approximation: "observed" as glmmTMB and Stata, "expected" as lme4. The same for
        canonical links.
    weights : str or array of shape (n,), optional
        Prior weights, or the numbers of trials of proportions. They multiply the log-likelihood of a row
        (binomial, poisson, negative binomial) or divide its dispersion (all others).
    offset : str, array of shape (n,) or dict, optional
        Known part of the linear predictor, added to the ``offset()`` terms of the formula. Of ``family="multinomial"``
        it is a part of the predictor of every category beside the baseline; a dict, or a data frame, has one for each
        category that it names: ``{"car": "log_seats_car", "bus": z}``.
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
    compress : bool, optional
        Rows that are equal in all columns of the formula become one with their number as weight, which is exact where
        weights multiply the log-likelihood. None does so for data that are lazy, in files or on other machines, where
        it is worth it; such a result has no rows.
    ziformula : str, optional
        A zero part, as in ``"~ x + (1 | g)"`` (logit link): zero inflation of counts and trials; of families
        without zeros (gamma, beta, lognormal, truncated counts) a hurdle model. ``"~ ."`` is the conditional formula.
    dispformula : str, optional
        A dispersion part, as in ``"~ z"`` (log link): the logarithm of the standard deviation of gaussian responses, of
        the scale of t ones, of the shape of gamma and nbinomial ones, of phi of all others.
    relmat : dict, optional
        Grouping factor -> the known covariance of its levels; see `lmer`.
    fix : dict, optional
        Parameters that are held at given values: coefficients, ``"dispersion"`` (phi, or the shape of negative binomial
        counts) and those of covariance structures; see `lmer`.
    cov_prior : str, dict or list, optional
        Penalise the covariances of random effects: "wishart", "gamma(shape = 2.5, rate = 0)", ...; see `lmer`.
    fixef_prior : str, optional
        Penalise the fixed effects: ``"normal(sd = c(10, 2.5))"``, ``"t(df = 3)"``; "jeffreys" or "firth" (binomial,
        poisson) keeps estimates finite where responses are separated.
    level_weights, pwscale, survey
        Sampling weights, as in `lmer`.
    fixed_only : bool
        Let the formula have no random effects; implied by a `ziformula` or `dispformula` that has some.
    baseline : object, optional
        Of ``family="multinomial"``: the category that the others are compared with; the first one when not given.

    Returns
    -------
    MEGLMResult

    Raises
    ------
    Lme4Error
        Or one of its children, before any fitting, when the formula, the data or an option is at fault.

    Examples
    --------
    >>> from lme4py import glmer, load_dataset
    >>> result = glmer("use ~ age + urban + (1 | district)", load_dataset("Contraception"))
    >>> result.coef_table()[["estimate", "std_error"]].round(3)
               estimate  std_error
    term
    Intercept    -0.703      0.085
    age           0.009      0.005
    urban[T.Y]    0.653      0.116
    """
    if has_several(formula):
        others = {"offset": offset, "ziformula": ziformula, "dispformula": dispformula, "relmat": relmat}
        others |= {"cov_prior": cov_prior, "fixef_prior": fixef_prior, "level_weights": level_weights}
        others["reml"] = reml or None
        refuse_beside_several(
            others | {"pwscale": pwscale, "survey": survey, "compress": compress, "baseline": baseline}
        )
        data, weights, _ = chosen_rows(data, subset, weights, None)
        check_call(formula, data, progress, na_action)
        check_mappings(contrasts, functions)
        beside = {"weights": weights, "contrasts": contrasts, "na_action": na_action, "functions": functions}
        way = {"nAGQ": nAGQ, "hessian": hessian, "start": start, "control": control}
        named = None if family is DEFAULT_FAMILY else family
        return MEGLMResult(mixed_fit(formula, data, named, link, beside, fix, fixed_only, **way))
    response_family = with_baseline(make_family(family, link), baseline)
    if response_family.is_joint:
        given_too = {"level_weights": level_weights, "survey": survey, "fix": fix, "cov_prior": cov_prior}
        refuse_beside_joint(response_family, {**given_too, "fixef_prior": fixef_prior, "relmat": relmat})
    data, weights, offset = chosen_rows(data, subset, weights, offset)
    priors, _ = read_priors(cov_prior, fixef_prior)
    request = SurveyRequest.read(level_weights, weights, pwscale, survey)
    if request is not None:
        others = {"ziformula": ziformula, "dispformula": dispformula, "relmat": relmat, "fix": fix}
        others |= {"cov_prior": cov_prior, "fixef_prior": fixef_prior, "reml": reml or None}
        options = {"offset": offset, "contrasts": contrasts, "na_action": na_action, "functions": functions}
        way = {"nAGQ": nAGQ, "hessian": hessian, "start": start, "control": control}
        return MEGLMResult(fit_of_call(formula, data, response_family, request, options, others, **way))
    beside = {"offset": offset, "functions": functions, "na_action": None if na_action == "omit" else na_action}
    beside |= {"ziformula": ziformula, "dispformula": dispformula, "family": joint_name(response_family)}
    more: dict[str, Any] = {"relmat": relmat, "fix": fix, "cov_prior": cov_prior, "fixef_prior": fixef_prior}
    made = compressed(data, control, formula, response_family, weights, beside, compress, more | {"start": start})
    check_call(formula, made.data, progress, na_action)
    check_mappings(contrasts, functions)
    check_options(nAGQ, hessian)
    if made.in_parts:
        from lme4py.fits.rows.partitioned import partitioned_fit

        if reml:
            raise OptionError("reml=True is not there for rows in parts; control={'rows': 'memory'} reads them all.")
        given = {"weights": weights, "offset": offset, "contrasts": contrasts, "na_action": na_action}
        return MEGLMResult(partitioned_fit(formula, made, response_family, given, nAGQ=nAGQ, hessian=hessian))
    parts = part_formulas(formula, ziformula, dispformula)
    elsewhere = any("|" in text for text in parts.values())
    reader = family_with_zeros(response_family) if "zero_inflation" in parts else response_family
    design = lformula(
        formula,
        made.data,
        weights=made.weights,
        offset=offset,
        contrasts=contrasts,
        na_action=na_action,
        functions=functions,
        require_random=not (fixed_only or elsewhere or response_family.is_joint),
        family=reader,
        parts=parts,
        relmat=relmat,
    )
    design, response_family = joined_categories(design, response_family)
    if parts:
        names = [(predictor.name, predictor.names) for predictor in design.predictors[1:]]
        stacked = [part for part in parts if any(part in term.parts for term in design.terms)]
        response_family = family_with_parts(response_family, names, stacked)
    if family is DEFAULT_FAMILY:
        announced = f"the family was not given: {response_family.name} with the {response_family.link.name} link"
        design = replace(design, notes=(*design.notes, announced))
    given = read_fix(fix)
    refuse_fixed(priors, given, design.x_names)
    design = hold(hold_dispersion(design, given, response_family), given, residual=False).design
    design = with_priors(design, priors)
    fit = named_fit(design, response_family, nAGQ, hessian, start, made.control, reml)
    refuse_separated(fit)
    return MEGLMResult(of_all_rows(fit, made))


@records_call
def glmer_nb(
    formula: str,
    data: Any,
    *,
    reml: bool = False,
    link: str | None = None,
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
    fixed_only: bool = False,
    relmat: Mapping[str, Any] | None = None,
    fix: Mapping[str, Any] | None = None,
    cov_prior: Any = None,
    fixef_prior: Any = None,
) -> MEGLMResult:
    """Fit a negative binomial mixed model (NB-2): `glmer` with ``family="nbinomial"``.

    The dispersion theta, Var(y) = mu + mu^2 / theta, is estimated together with all other parameters. For the
    arguments see `glmer`.

    Parameters
    ----------
    formula, data, reml, link, nAGQ, hessian, weights, offset, contrasts, start, control, progress, na_action, functions
        As in `glmer`.
    fixed_only, relmat, fix, cov_prior, fixef_prior, subset
        As in `glmer`.

    Returns
    -------
    MEGLMResult
        With theta as `dispersion`.

    Examples
    --------
    >>> from lme4py import glmer_nb, load_dataset
    >>> result = glmer_nb("count ~ mined + (1 | site)", load_dataset("Salamanders"))
    >>> round(result.dispersion, 2)
    0.64
    """
    return glmer(
        formula,
        data,
        "nbinomial",
        reml=reml,
        link=link,
        nAGQ=nAGQ,
        hessian=hessian,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        start=start,
        control=control,
        progress=progress,
        na_action=na_action,
        subset=subset,
        functions=functions,
        fixed_only=fixed_only,
        relmat=relmat,
        fix=fix,
        cov_prior=cov_prior,
        fixef_prior=fixef_prior,
    )


def _refuse_two_residuals(residual: object, variance: object) -> None:
    for name, given in (("residual", residual), ("variance", variance)):
        if given is not None:
            raise OptionError(f"dispformula='~ 0' leaves no residual, and {name}={given!r} describes it; give one.")


def chosen_rows(data: Any, subset: Any, weights: Any, offset: Any, residual: Any = None) -> tuple[Any, Any, Any]:
    """The data, weights and offset of the rows that `subset` chooses."""
    if subset is not None and residual is not None and not isinstance(residual, str):
        raise OptionError("subset= does not cut a covariance matrix of the rows; cut the data and the matrix yourself.")
    data, beside = subset_rows(data, subset, {"weights": weights, "offset": offset})
    return data, beside["weights"], beside["offset"]


def _fit_structured(design: Design, read: ResidualSides, reml: bool, start: Any, control: Any) -> ResidualFit:
    """`residual_fit` of a design with names of its own."""
    refuse_smooth_design(design, _NO_SMOOTHS)
    check_names(design)
    return residual_fit(design, residual_design(design, read), reml, start, control)


def _streamed_design(formula: str, source: Any, compress: bool | None, options: dict[str, Any], control: Any) -> Design:
    """A design whose rows go by, of modules that a fit in memory does without."""
    from lme4py.fits.linear.streamed import streamed_design

    refuse_functions(options.pop("functions"))
    source = linear_source(source, compress, formula, options["weights"])
    return streamed_design(formula, source, block=read_control(control).block, **options)


def _fit(design: Design, reml: bool, start: Any, control: Any) -> Fit:
    """The modular steps after the first one."""
    check_names(design)
    return lmm_fit(design, reml, start, control)
