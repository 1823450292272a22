"""Intraclass correlations with standard errors and intervals.

The correlation of two rows of one group is the variance of what they share over the whole variance. With random slopes
that variance depends on the covariates: it is taken at zero (as Stata's `estat icc`), at given values, or averaged
over the rows (Johnson 2014).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.arguments import speaks
from lme4py.design.design import CONDITIONAL, Design, RandomTerm
from lme4py.design.names import INTERCEPTS
from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Error, OptionError, did_you_mean
from lme4py.fits.base import Fit, fit_of
from lme4py.fits.groups import group_codes, is_nested
from lme4py.fits.kinds import model_of
from lme4py.fits.parameters import fit_parameters
from lme4py.fits.refuse import refuse_several_responses, refuse_unequal, refuse_without_random
from lme4py.inference.bootstrap.bootstrap import bootstrap
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.inference.profile.side import BetterOptimum, make_sides
from lme4py.inference.refits.simulate import check_count
from lme4py.inference.shares.categories import category_component, category_design, labels_of, split_category
from lme4py.inference.shares.r2 import fixed_variance, observation_level, random_moments, rest_variance
from lme4py.linalg.types import FloatArray
from lme4py.tables.html import render_html
from lme4py.tables.shown import facts
from lme4py.text import Sentence

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ICCResult", "icc", "icc_table"]


# Better optima that are followed before a fit counts as not converged.
_REFITS = 5
# Below this an estimate lies on the boundary.
_ZERO = 1e-10


@dataclass(frozen=True, repr=False)
class ICCResult(Sentence):
    """An intraclass correlation.

    Attributes
    ----------
    estimate : float
    se : float
        Delta-method standard error; of the replicates when the interval is a bootstrap one.
    ci_lower, ci_upper : float
        Normal limits on the logit scale, percentiles of the bootstrap, or, for an estimate of 0, from 0 to the limit
        of the profile likelihood; NaN, as the estimate, where the design does not determine the variance.
    alpha : float
        One minus the confidence level.
    component : str
    note : str
        How the interval was made.
    at : str
        With random slopes the covariate values, such as "Days = 0", at which the variances are taken, or "mean over the
        rows"; "" without.
    """

    estimate: float
    se: float
    ci_lower: float
    ci_upper: float
    alpha: float
    component: str = "_cons"
    note: str = ""
    at: str = ""

    def __str__(self) -> str:
        interval = f"{100.0 * (1.0 - self.alpha):g}% interval {self.ci_lower:.4f} to {self.ci_upper:.4f}"
        how = f" ({self.note})" if self.note else ""
        where = f"; {self.at}" if self.at else ""
        return f"ICC ({self.component}{where}) {self.estimate:.4f}, standard error {self.se:.4f}, {interval}{how}"

    def _repr_html_(self) -> str:
        level = f"{100.0 * (1.0 - self.alpha):g}% interval"
        rows = [
            ("Component", self.component),
            *([("Taken at", self.at)] if self.at else []),
            ("Estimate", f"{self.estimate:.4f}"),
            ("Standard error", f"{self.se:.4f}"),
            (level, f"{self.ci_lower:.4f} to {self.ci_upper:.4f}"),
        ]
        return render_html([facts("Intraclass correlation", rows, [self.note] if self.note else [])])


@dataclass(frozen=True)
class _Ratio:
    """An ICC as a function of the parameters: tr(K Sigma) summed over `shared`, over that of all terms and the rest.

    Attributes
    ----------
    K : tuple of ndarray, each (k, k)
        The variance of a row from a term is tr(K Sigma).
    shared : tuple of int
        Terms that two rows of one group share.
    fixed : bool
        Whether the variance of the fixed part counts in the whole (the unadjusted ICC).
    variance : str
        That of one observation of a generalised model, see `observation_variance`.
    X : ndarray, shape (n, p), or None
        Columns of one of several categories, zero where they are those of others.
    """

    K: tuple[FloatArray, ...]
    shared: tuple[int, ...]
    fixed: bool
    variance: str
    X: FloatArray | None = None

    @property
    def shared_weights(self) -> list[FloatArray | None]:
        """K of the terms that two rows of one group share, None for the others."""
        return [K if t in self.shared else None for t, K in enumerate(self.K)]

    def parts(self, fit: Fit, covariances: Sequence[FloatArray] | None = None) -> tuple[float, float]:
        """Numerator and denominator, at other covariances when these are given."""
        covariances = fit.covariances if covariances is None else covariances
        variances = [float(np.sum(K * cov)) for K, cov in zip(self.K, covariances, strict=True)]
        total = sum(variances) + rest_variance(fit, self.variance).variance
        if self.fixed:
            total += fixed_variance(fit, self.X)
        return sum(variances[t] for t in self.shared), total

    def value(self, fit: Fit) -> float:
        """The ICC."""
        above, below = self.parts(fit)
        return above / below


@speaks
def icc(
    result: Any,
    component: str = "_cons",
    alpha: float | None = None,
    n_boot: int = 0,
    seed: int | None = None,
    *,
    at: Mapping[str, float] | str | None = None,
    adjusted: bool = True,
    variance: str = "theoretical",
    n_jobs: int | None = 1,
    k: float = 1,
) -> ICCResult:
    """Intraclass correlation.

    Parameters
    ----------
    result : result of a linear or generalised linear mixed model, or its fit
    component : str
        "_cons" with one grouping factor; with several "_cons|g", or "g", for the correlation of two rows in one level
        of g (and so in one level of every factor in which g is nested: casks in batches are "cask", "cask|batch" or
        "cask:batch"); "all" for the share of all random effects (without those that have a level for every row:
        overdispersion). Of unordered categories with the category before it, "B: _cons", "B: _cons|g", "B: all", or "B"
        alone: of the latent variable that has B in the place of the baseline, whose logistic errors have the variance
        pi^2 / 3 (Hedeker 2003, Stat. Med. 22:1433).
    alpha : float, optional
        One minus the confidence level; that of the fit (0.05) when not given.
    n_boot : int
        Number of parametric bootstrap replicates for the interval; 0 uses the delta method on the logit scale.
    seed : int, optional
    at : dict or "mean", optional
        With random slopes: covariate values, such as ``{"Days": 5}`` (others are 0), or "mean" for the mean variance
        over the rows. None is all covariates at 0, and "mean" for the component "all".
    adjusted : bool
        False counts the variance of the fixed part in the whole.
    variance : {"theoretical", "lognormal", "trigamma", "delta"}
        Of one observation of a generalised model: that of the latent variable for binomial and ordinal responses
        (logit pi^2/3, probit 1, cloglog pi^2/6), else the approximations of Nakagawa, Johnson & Schielzeth (2017); see
        `lme4py.inference.shares.observation`. Their mean mu is taken as known by the delta method; the bootstrap
        estimates it anew.
    n_jobs : int or None
        Processes of the bootstrap.
    k : float
        The reliability of a mean of k rows of a group in the place of one: k ICC / (1 + (k - 1) ICC), Spearman and
        Brown's formula (ICC(1, k) of Shrout & Fleiss 1979; with raters as a random factor beside, ICC(2, k), and with
        raters as fixed effects, ICC(3, k)).

    Returns
    -------
    ICCResult
        Of a model with correlated residuals of one variance: the correlation that the random effects make, of rows so
        far apart that their residuals have none.

    Raises
    ------
    OptionError
        No such component, or no random intercept where all covariates are 0.

    Examples
    --------
    >>> from lme4py import icc, lmer, load_dataset
    >>> found = icc(lmer("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy")))
    >>> round(found.estimate, 4), round(found.se, 4), round(found.ci_lower, 4), round(found.ci_upper, 4)
    (0.5893, 0.0934, 0.4025, 0.7535)
    """
    fit = _fit(result)
    refuse_unequal(fit, "intraclass correlations are")
    refuse_several_responses(fit, "intraclass correlations are")
    refuse_without_random(fit, "intraclass correlations are")
    level = chosen_alpha(fit, alpha)
    category, inner = split_category(fit, component)
    design = category_design(fit, category)
    _refuse_curves(fit, adjusted)
    mean = inner == "all" or any(term.smooth and not term.is_curve for term in design.terms)
    at = "mean" if at is None and (mean or _is_stationary(design, inner)) else at
    ratio = _ratio(fit, design, inner, at, adjusted, variance)
    found = _interval(fit, ratio, component, level, n_boot, seed, n_jobs)
    return _of_means(replace(found, at=_where(design, at)), k)


def _refuse_curves(fit: Fit, adjusted: bool) -> None:
    """Smooths are part of the mean; without groups nothing is shared, and their share has no standard error."""
    if fit.design.smooth_terms and not adjusted:
        raise OptionError("adjusted=False has no standard error beside smooths; leave it out, or see r_squared().")
    if all(term.is_curve for term in fit.design.terms):
        raise OptionError("intraclass correlations are about random effects, and this model has smooths only.")


def _of_means(found: ICCResult, k: float) -> ICCResult:
    """The same correlation of means of k rows; limits go with the estimate, which is monotone in that of one row."""
    if isinstance(k, bool) or not isinstance(k, int | float | np.number) or not 1 <= k < np.inf:
        raise OptionError(f"k={k!r} is not a number of rows; give 1 or more.")
    if k == 1:
        return found

    def stepped(value: float) -> float:
        return float(k * value / (1.0 + (k - 1.0) * value))

    slope = k / (1.0 + (k - 1.0) * found.estimate) ** 2
    note = f"{found.note}; means of {k:g} rows" if found.note else f"means of {k:g} rows"
    lower, upper = stepped(found.ci_lower), stepped(found.ci_upper)
    return replace(
        found, estimate=stepped(found.estimate), se=slope * found.se, ci_lower=lower, ci_upper=upper, note=note
    )


def _interval(
    fit: Fit,
    ratio: _Ratio,
    component: str,
    level: float,
    n_boot: int,
    seed: int | None,
    n_jobs: int | None,
) -> ICCResult:
    if not fit.identification.determines(ratio.shared_weights):
        nan = float("nan")
        return ICCResult(nan, nan, nan, nan, level, component, "the design does not determine this variance")
    estimate = ratio.value(fit)
    if check_count("n_boot", n_boot, 0):
        return _bootstrapped(fit, ratio, component, level, n_boot, seed, n_jobs)
    if estimate < _ZERO:
        upper = _upper_at_zero(fit, ratio, level)
        note = "profile likelihood: the estimate is on the boundary"
        return ICCResult(0.0, 0.0, 0.0, upper, level, component, note)
    se = _std_error(fit, ratio)
    half = -float(special.ndtri(level / 2.0)) * se / (estimate * (1.0 - estimate))
    logit = float(special.logit(estimate))
    lower, upper = float(special.expit(logit - half)), float(special.expit(logit + half))
    return ICCResult(estimate, se, lower, upper, level, component, "delta method, logit scale")


def icc_table(result: Any, alpha: float | None = None, **kw: Any) -> pd.DataFrame:
    """Intraclass correlations of all grouping factors.

    Parameters
    ----------
    result : result of a linear or generalised linear mixed model, or its fit
    alpha : float, optional
        One minus the confidence level; that of the fit (0.05) when not given.
    **kw
        Further arguments of `icc`: `n_boot`, `seed`, `at`, `adjusted`, `variance`, `n_jobs`.

    Returns
    -------
    DataFrame
        Columns component, estimate, se, ci_lower, ci_upper; one row for each grouping factor. With random slopes
        ``attrs["note"]`` says at which covariate values.

    Raises
    ------
    OptionError
        As `icc`.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> icc_table(lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", load_dataset("Penicillin"))).round(3)
           component  estimate     se  ci_lower  ci_upper
    0   _cons|plate     0.151  0.085     0.046     0.396
    1  _cons|sample     0.785  0.113     0.495     0.932
    """
    refuse_unequal(getattr(result, "fit", result), "intraclass correlations are")
    import pandas as pd

    columns = ["component", "estimate", "se", "ci_lower", "ci_upper"]
    fit = _fit(result)
    refuse_without_random(fit, "intraclass correlations are")
    _refuse_curves(fit, bool(kw.get("adjusted", True)))
    inner = _components(fit.design)
    found = [icc(result, category_component(name, label), alpha, **kw) for label in labels_of(fit) for name in inner]
    table = pd.DataFrame([[getattr(one, name) for name in columns] for one in found], columns=columns)
    if found[0].at:
        table.attrs["note"] = f"Variances at: {found[0].at}."
    return table


def _is_stationary(design: Design, component: str) -> bool:
    """Whether what two rows of a group share are processes, whose variance is the same at every time or place."""
    terms = [design.terms[t] for t in _shared(design, component)]
    return bool(terms) and all(t.structure.positions is not None and t.structure.shares_variance for t in terms)


def _components(design: Design) -> list[str]:
    """Names of the correlations of two rows in one group."""
    groups = _groups(design)
    return ["_cons"] if len(groups) == 1 else [f"_cons|{group}" for group in groups]


def _groups(design: Design) -> list[str]:
    """Grouping factors of the conditional part."""
    return list(
        dict.fromkeys(term.group for term in design.terms if CONDITIONAL in term.column_parts and not term.is_curve)
    )


def _slopes(design: Design) -> list[str]:
    """Columns of random slopes of the conditional part."""
    columns = [zip(term.columns, term.column_parts, strict=True) for term in design.terms if not term.smooth]
    names = (name for own in columns for name, part in own if part == CONDITIONAL and name not in INTERCEPTS)
    return list(dict.fromkeys(names))


def _fit(result: Any) -> Fit:
    fit = fit_of(result)
    if fit is not None:
        return fit
    raise OptionError(f"icc() needs a fitted mixed model, not {type(result).__name__}.")


def _ratio(
    fit: Fit, design: Design, component: str, at: Mapping[str, float] | str | None, adjusted: bool, variance: str
) -> _Ratio:
    shared = _shared(design, component)
    if component == "all":
        shared = tuple(t for t, alone in enumerate(observation_level(fit)) if not alone and t in shared)
        if not shared:
            raise OptionError("every random effect has a level for each row, so that no two rows share anything.")
    if isinstance(at, str):
        if at != "mean":
            raise OptionError(f'`at` is {at!r}; give "mean", or values such as {{"Days": 5}}.')
        K = tuple(random_moments(design))
    else:
        values = _checked_values(design, at)
        K = tuple(_at_values(term, values) for term in design.terms)
    if not any(np.any(K[t]) for t in shared):
        names = ", ".join(dict.fromkeys(name for t in shared for name in design.terms[t].columns))
        raise OptionError(
            "there is no random intercept, so that nothing is shared where all covariates are 0; give values of "
            f'{names} in `at`, or at="mean".'
        )
    return _Ratio(K, shared, not adjusted, variance, None if design is fit.design else design.X)


def _shared(design: Design, component: str) -> tuple[int, ...]:
    """Terms shared by two rows of one group."""
    if component == "all":
        return tuple(t for t, term in enumerate(design.terms) if not term.is_curve)
    known = _groups(design)
    choices = _components(design)
    head, group = _split(component, known)
    if head not in INTERCEPTS or (group and group not in known) or (not group and len(known) > 1):
        several = not group and head in INTERCEPTS
        why = (
            f"this model has several grouping factors ({', '.join(known)}); component= says whose share is meant."
            if several
            else f"component={component!r} is no level of this model.{did_you_mean(str(component), choices)}"
        )
        raise OptionError(
            f"{why} Use {' or '.join(map(repr, choices))}, or "
            "'all' for the share of all random effects; result.icc_table() has a row for each."
        )
    chosen = group or known[0]
    if any(term.group == chosen and term.relation is not None for term in design.terms):
        # Heritability: the share of the related effects alone, though rows of one level share others too.
        return tuple(t for t, term in enumerate(design.terms) if term.group == chosen)
    codes = group_codes(design, chosen)
    return tuple(t for t, term in enumerate(design.terms) if not term.is_curve and is_nested(codes, term.codes))


def _split(component: Any, known: Sequence[str]) -> tuple[str, str]:
    """The random effect and the grouping factor that a component names.

    A factor nested in others has three names: "cask:batch", Stata's "cask|batch", and "cask" as the user gave it.
    """
    if not isinstance(component, str):
        return "", ""
    others = {group.replace(":", "|"): group for group in known}
    others |= {group.partition(":")[0]: group for group in known if group.partition(":")[2] in known}
    names = {**others, **{group: group for group in known}}
    if component in names:
        return "_cons", names[component]
    head, _, group = component.partition("|")
    return head, names.get(group, group)


def _where(design: Design, at: Mapping[str, float] | str | None) -> str:
    """At which values of the columns of random slopes the variances are taken, in words."""
    slopes = _slopes(design)
    if not slopes:
        return ""
    if isinstance(at, str):
        return "mean over the rows"
    values = dict(at or {})
    return ", ".join(f"{name} = {values.get(name, 0.0):g}" for name in slopes)


def _checked_values(design: Design, at: Mapping[str, float] | None) -> dict[str, float]:
    known = _slopes(design)
    values = dict(at or {})
    for name, value in values.items():
        if name not in known:
            raise OptionError(
                f"`at` names {name!r}, which is no column of the random effects.{did_you_mean(str(name), known)} "
                f"They are {', '.join(sorted(known)) or 'the intercept alone'}."
            )
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
            raise OptionError(f"`at` gives {name} the value {value!r}; give a number.")
    return {name: float(value) for name, value in values.items()}


def _at_values(term: RandomTerm, values: dict[str, float]) -> FloatArray:
    z = np.array([1.0 if name in INTERCEPTS else values.get(name, 0.0) for name in term.columns])
    z = term.masked(z[None])[0] * (not term.is_curve)
    return np.outer(z, z)


def _std_error(fit: Fit, ratio: _Ratio) -> float:
    information = model_of(fit).variance_information()
    above, below = ratio.parts(fit)
    slopes = [np.einsum("ab,iab->i", K, d) for K, d in zip(ratio.K, information.covariances, strict=True)]
    d_above = sum((slopes[t] for t in ratio.shared), np.zeros_like(information.residual))
    rest = rest_variance(fit, ratio.variance)
    d_below = sum(slopes, rest.slope * information.residual if rest.gradient is None else rest.gradient)
    if ratio.fixed:
        X = fit.design.X if ratio.X is None else ratio.X
        X = X - X.mean(axis=0)
        d_below = d_below + information.fixed @ (2.0 * X.T @ (X @ fit.beta) / (X.shape[0] - 1))
    return information.std_error((d_above - above / below * d_below) / below)


def _bootstrapped(
    fit: Fit, ratio: _Ratio, component: str, alpha: float, n_boot: int, seed: int | None, n_jobs: int | None
) -> ICCResult:
    rest = rest_variance(fit, ratio.variance)
    # Replicates hold the elements of covariance matrices only where these are what tables show; smooths have none.
    of_elements = all(term.structure.shown_as_matrix and not term.smooth for term in fit.design.terms)
    if not of_elements or ratio.fixed or rest.kind not in ("residual", "latent") or not fit.identification.complete:
        boot = bootstrap(fit, n_boot, ratio.value, seed, n_jobs, progress=False)
        values = boot.replicates.to_numpy()[:, 0]
    else:
        boot = bootstrap(fit, n_boot, None, seed, n_jobs, progress=False)
        latent = rest.variance if rest.kind == "latent" else None
        values = _ratios(fit, ratio, boot.replicates, latent)
    values = values[np.isfinite(values)]
    lower, upper = np.quantile(values, [alpha / 2.0, 1.0 - alpha / 2.0], method="weibull")
    note = f"parametric bootstrap, {n_boot} replicates, {boot.n_failed} failed; percentiles"
    se = float(values.std(ddof=1)) if values.size > 1 else float("nan")
    return ICCResult(ratio.value(fit), se, float(lower), float(upper), alpha, component, note)


def _ratios(fit: Fit, ratio: _Ratio, replicates: Any, latent: float | None) -> FloatArray:
    """The ICC of every replicate from its standard deviations and correlations."""
    known = fit_parameters(fit)
    sds = {(p.term, p.first): replicates[p.name].to_numpy() for p in known if p.kind == "sd"}
    parts: list[FloatArray] = []
    for t, K in enumerate(ratio.K):
        total = sum(K[i, i] * sds[t, i] ** 2 for i in range(K.shape[0]))
        for p in known:
            if p.kind == "corr" and p.term == t:
                # A correlation with an effect without variance is NaN, and its covariance zero.
                corr = np.nan_to_num(replicates[p.name].to_numpy())
                total = total + 2.0 * K[p.first, p.second] * corr * sds[t, p.first] * sds[t, p.second]
        parts.append(np.asarray(total))
    residual = next((p.name for p in known if p.kind == "sigma"), None)
    rest: Any = latent if residual is None or latent is not None else replicates[residual].to_numpy() ** 2
    out: FloatArray = sum((parts[t] for t in ratio.shared), np.zeros_like(parts[0])) / (sum(parts) + rest)
    return out


def _upper_at_zero(fit: Fit, ratio: _Ratio, alpha: float) -> float:
    """The ICC at the upper profile limit of its first standard deviation (over sigma for linear models; for one
    variance: its own limit)."""
    t = ratio.shared[0]
    column = int(np.argmax(np.diag(ratio.K[t])))
    covariances, change = _at_limit(fit, t, column, alpha)
    if covariances is None:
        return 1.0
    above, below = ratio.parts(fit, covariances)
    return above / (below + change)


def _at_limit(fit: Fit, term: int, column: int, alpha: float) -> tuple[list[FloatArray] | None, float]:
    """Covariances of all terms where a standard deviation is at its upper profile limit; None where it has none.

    With them the residual variance there less that of the fit.
    """
    best = model_of(fit).with_likelihood()
    for _ in range(_REFITS):
        model = model_of(best)
        try:
            with limited_threads(fit.design):
                holding = model.holding(model.boundary_parameter(term, column), own=True)
                _, side = make_sides(holding, 0.0)
                limit = side.limit(-float(special.ndtri(alpha / 2.0)))
        except BetterOptimum as better:
            best = model.from_minimum(better.holding, better.minimum)
            continue
        if not np.isfinite(limit):
            return None, 0.0
        found = min(side.points, key=lambda point: abs(point.v - limit)).minimum
        return holding.covariances(found), holding.residual_change(found)
    raise Lme4Error("the profile finds ever better optima: the fit has not converged. Simplify the random effects.")
