"""One look at everything that can be wrong with a fitted model, in plain words.

Every check is one line: what was looked at, whether it needs attention, and the numbers. None of them proves a model
right or wrong; a line without attention only says that this look found nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.errors import Lme4Error
from lme4py.families.parts import ZERO_INFLATION
from lme4py.inference.diagnostics.bases import basis_use
from lme4py.inference.estimates.random_effects import known_columns
from lme4py.inference.estimates.smooth_system import smooths_of
from lme4py.inference.lrt.proportional import proportional_odds
from lme4py.linalg.types import FloatArray
from lme4py.tables.html import render_html
from lme4py.tables.table import Align, Table
from lme4py.text import Sentence

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CheckLine", "CheckResult", "check"]

# Scaled condition number of X from which collinearity harms (Belsley, Kuh & Welsch 1980).
_CONDITION = 30.0
# Columns whose spreads differ by more are hard to read together.
_SPREAD = 1e4
# Fewer levels say little about a variance.
_LEVELS = 6
# Small p-values are common by chance among several looks.
_P_VALUE = 0.01
# Pearson chi-squared over its degrees of freedom.
_OVER, _UNDER = 1.3, 0.7
# Zeros away from those expected, in standard deviations, and as a part of the rows.
_ZEROS, _MANY_ZEROS = 3.0, 0.02
_MOST_SHAPIRO = 5000
# Columns of the printed report, and of the mark before each line.
_WIDTH, _MARK = 88, 10
_MARKS = {True: "ok", False: "ATTENTION", None: "-"}


@dataclass(frozen=True, repr=False)
class CheckLine(Sentence):
    """One look.

    Attributes
    ----------
    name : str
    ok : bool or None
        False asks for attention; None was not looked at.
    message : str
    value : float or None
        The number that decided.
    """

    name: str
    ok: bool | None
    message: str
    value: float | None = None

    def __str__(self) -> str:
        line = f"{_MARKS[self.ok]:<{_MARK}}{self.name}: {self.message}"
        return textwrap.fill(
            line, _WIDTH, subsequent_indent=" " * _MARK, break_long_words=False, break_on_hyphens=False
        )


@dataclass(frozen=True)
class CheckResult:
    """All looks at a model.

    Attributes
    ----------
    lines : tuple of CheckLine
    """

    lines: tuple[CheckLine, ...]

    @property
    def ok(self) -> bool:
        """True when no line asks for attention."""
        return all(line.ok is not False for line in self.lines)

    @property
    def attention(self) -> tuple[CheckLine, ...]:
        """The lines that ask for attention."""
        return tuple(line for line in self.lines if line.ok is False)

    def __iter__(self) -> Iterator[CheckLine]:
        return iter(self.lines)

    def __getitem__(self, name: str) -> CheckLine:
        for line in self.lines:
            if line.name == name:
                return line
        raise KeyError(name)

    def to_frame(self) -> pd.DataFrame:
        """One row per line: check, ok, value, message."""
        import pandas as pd

        rows = [(line.name, line.ok, line.value, line.message) for line in self.lines]
        return pd.DataFrame(rows, columns=["check", "ok", "value", "message"])

    @property
    def verdict(self) -> str:
        """How many checks ask for attention, in words."""
        count = len(self.attention)
        return "Nothing asks for attention." if not count else f"{count} of {len(self.lines)} checks ask for attention."

    def __str__(self) -> str:
        return "\n".join([self.verdict, *map(str, self.lines)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        align: tuple[Align, ...] = ("left", "left", "left")
        rows = tuple((_MARKS[line.ok], line.name, line.message) for line in self.lines)
        return render_html([Table(self.verdict, ("", "Check", "Found"), rows, align)])


def check(fit: Any) -> CheckResult:
    """Convergence, singularity, scaling, separation, dispersion, normality and more, one plain line each.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    CheckResult

    Examples
    --------
    >>> import lme4py
    >>> fit = lme4py.lmer("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff2")).fit
    >>> [line.name for line in check(fit).attention]
    ['singularity']
    """
    looks: list[Callable[[Any], CheckLine | None]] = [
        _convergence,
        _identification,
        _penalty,
        _singularity,
        _scaling,
        _collinearity,
        _groups,
        _bases,
        _separation,
        _dispersion,
        _zeros,
        _residuals,
        _modes,
        _integral,
        _proportional,
        _crossing,
    ]
    if not fit.independent_residuals:
        # The others take residuals as independent with one variance, or need a grouping factor.
        looks = [_convergence, _singularity, _collinearity]
    found = (look(fit) for look in looks)
    return CheckResult(tuple(line for line in found if line is not None))


# --- ordered categories ---------------------------------------------------------------------------------------


def _proportional(fit: Any) -> CheckLine | None:
    """Whether terms have the same effect on all thresholds, by score tests."""
    if not fit.family.has_thresholds or fit.family.constant is None or not fit.beta.size or fit.recession is not None:
        return None
    table = proportional_odds(fit, "score")
    known = table[table["p_value"].notna()]
    if known.empty:
        return CheckLine("proportional odds", None, "the score tests of the terms cannot be computed.", None)
    term, p = known["p_value"].idxmin(), float(known["p_value"].min())
    if p >= _P_VALUE:
        message = f"no term clearly has other effects on some thresholds than on others (smallest p = {p:.2g}, {term})."
        return CheckLine("proportional odds", True, message, p)
    message = (
        f"the effect of {term} differs between thresholds (score test, p = {p:.2g}); see proportional_odds(), and "
        f"nominal='~ {term}'."
    )
    return CheckLine("proportional odds", False, message, p)


def _crossing(fit: Any) -> CheckLine | None:
    """Whether the curves of categories cross within the data."""
    if not fit.family.has_thresholds or "nominal" not in fit.family.components:
        return None
    count = int(fit.family.crossing(fit.lam, fit.data).sum())
    if not count:
        return CheckLine("thresholds", True, "they increase in every row: all categories have probabilities.", 0.0)
    message = f"in {count} of {fit.design.n_obs} rows they do not increase: the curves of categories cross there."
    return CheckLine("thresholds", False, message, float(count))


# --- the optimum ------------------------------------------------------------------------------------------------


def _convergence(fit: Any) -> CheckLine:
    certificate = fit.certificate
    if certificate.converged:
        message = f"the optimum is certified; the criterion could fall by {certificate.bound:.1g} at most."
    else:
        message = f"{certificate.verdict} See all_fit() for what other optimisers find."
    return CheckLine("convergence", certificate.converged, message, certificate.bound)


def _identification(fit: Any) -> CheckLine:
    certificate = fit.certificate
    weak = fit.identification.weak
    if certificate.identified and weak:
        return CheckLine("identification", False, f"{'; '.join(weak)}.", 0.0)
    if certificate.identified:
        return CheckLine("identification", True, "the design determines every variance and covariance.", 0.0)
    message = (
        f"{'; '.join(certificate.unidentified)}. Fixed effects, fitted values and the likelihood are right; take a "
        "term, or columns, out to have variances that can be estimated."
    )
    return CheckLine("identification", False, message, float(len(fit.identification.changes)))


def _penalty(fit: Any) -> CheckLine | None:
    if not fit.penalised:
        return None
    message = (
        f"{fit.design.priors.text}: estimates are posterior modes; there are no likelihood ratio tests and no AIC."
    )
    return CheckLine("priors", None, message)


def _singularity(fit: Any) -> CheckLine:
    certificate = fit.certificate
    if not certificate.is_singular:
        smallest = min((float(_relative_sizes(cov)[-1]) for cov in fit.covariances), default=1.0)
        return CheckLine("singularity", True, "all random-effects covariances have full rank.", smallest)
    if not certificate.singular:
        return CheckLine("singularity", None, "the design does not determine the covariances that have no full rank.")
    message = (
        f"{'; '.join(certificate.singular)}. The data do not need this direction: the fit is valid, but a simpler "
        "random-effects term gives the same likelihood. cov_prior='wishart' keeps the estimate off the boundary."
    )
    return CheckLine("singularity", False, message, 0.0)


def _relative_sizes(covariance: FloatArray) -> FloatArray:
    """Standard deviations of the principal components of the correlation matrix, decreasing."""
    sd = np.sqrt(np.diag(covariance))
    scaled = covariance / np.outer(sd, sd) if (sd > 0).all() else covariance
    sizes: FloatArray = np.sqrt(np.maximum(np.linalg.eigvalsh(scaled)[::-1], 0.0))
    return sizes


# --- the columns ------------------------------------------------------------------------------------------------


def _scaling(fit: Any) -> CheckLine:
    design = fit.design
    spread = design.X.std(axis=0)
    moving = np.flatnonzero(spread > 1e-12 * np.maximum(np.abs(design.X).max(axis=0, initial=0.0), 1e-300))
    if moving.size < 2:
        return CheckLine("scaling", True, "there are no two varying columns to compare.", 1.0)
    sizes = spread[moving]
    ratio = float(sizes.max() / sizes.min())
    widest, narrowest = (design.x_names[moving[int(f(sizes))]] for f in (np.argmax, np.argmin))
    if ratio < _SPREAD:
        return CheckLine("scaling", True, f"spreads of the fixed columns differ by a factor of {ratio:.3g}.", ratio)
    message = (
        f"the spread of {widest} is {ratio:.3g} times that of {narrowest}. The estimates are right (columns are scaled "
        "inside), but coefficients of such different sizes are hard to read; use other units."
    )
    return CheckLine("scaling", False, message, ratio)


def _collinearity(fit: Any) -> CheckLine:
    X = fit.design.X
    size = np.linalg.norm(X, axis=0)
    values = np.linalg.svd(X / np.where(size > 0, size, 1.0), compute_uv=False)
    condition = float(values[0] / values[-1]) if values.size else 1.0
    dropped = fit.design.dropped
    also = f" {', '.join(dropped)} dropped as linear combinations of other columns." if dropped else ""
    if condition < _CONDITION:
        return CheckLine(
            "collinearity", not dropped, f"the scaled condition number of X is {condition:.3g}.{also}", condition
        )
    message = (
        f"the scaled condition number of X is {condition:.3g}: some fixed effects are nearly combinations of others "
        f"(a column far from zero with the intercept, for one), which makes them uncertain. Centre columns.{also}"
    )
    return CheckLine("collinearity", False, message, condition)


def _groups(fit: Any) -> CheckLine | None:
    counts = fit.design.n_groups
    if not counts:
        return None
    few = [f"{name} ({count})" for name, count in counts.items() if count < _LEVELS]
    least = float(min(counts.values()))
    if not few:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        return CheckLine("groups", True, f"numbers of levels: {shown}.", least)
    message = f"few levels in {', '.join(few)}: their variances are very uncertain; look at profile intervals."
    return CheckLine("groups", False, message, least)


def _bases(fit: Any) -> CheckLine | None:
    """Whether a smooth uses up its basis, and neighbours in its variable have residuals that go together."""
    if not fit.design.smooth_terms:
        return None
    try:
        found = [(one, basis_use(fit, one)) for one in smooths_of(fit)]
    except Lme4Error as error:
        return CheckLine("bases", False, f"they could not be checked: {error}", float("nan"))
    poor = [
        f"{one.label} (edf {use.edf:.1f} of {one.size}, p = {use.p_value:.2g})" for one, use in found if use.is_small
    ]
    most = max(use.edf / one.size for one, use in found)
    if not poor:
        return CheckLine("bases", True, "no smooth needs a larger basis.", most)
    message = (
        f"the basis of {', '.join(poor)} may be too small: residuals of neighbours go together; raise k, and see "
        "whether edf rises."
    )
    return CheckLine("bases", False, message, most)


def _separation(fit: Any) -> CheckLine | None:
    if fit.normal_errors:
        return None
    if fit.recession is None:
        return CheckLine("separation", True, "every coefficient has a finite estimate.")
    prior = "normal" if fit.family.n_nuisance or not fit.family.has_expected else "jeffreys"
    offer = f" fixef_prior={prior!r} keeps every estimate finite."
    return CheckLine("separation", False, fit.recession.describe(fit.family.separates) + offer)


# --- the distribution -------------------------------------------------------------------------------------------


def _dispersion(fit: Any) -> CheckLine | None:
    """Pearson chi-squared where the family has no parameter for the dispersion."""
    if not fit.family.more_variable:
        return None
    if fit.family.has_trials and float(np.max(fit.data.n_trials)) <= 1.0:
        return CheckLine("dispersion", None, "0/1 responses cannot show overdispersion.")
    pearson = fit.family.pearson_at(fit.response, fit.fitted, fit.linear_predictor, fit.lam)
    ratio = float(pearson @ pearson) / max(fit.df_resid, 1)
    if ratio > _OVER:
        message = (
            f"Pearson chi-squared is {ratio:.2f} times its degrees of freedom: more variation than the family has. "
            f"Standard errors may be too small; think of an observation-level random effect or "
            f"{fit.family.more_variable} model."
        )
    elif ratio < _UNDER:
        less = " or that counts vary less than these: think of compois or genpois" * (fit.family.kind == "count")
        message = (
            f"Pearson chi-squared is {ratio:.2f} times its degrees of freedom; values below 1 are usual when random "
            f"effects are estimated, much smaller ones can mean that the model follows the data too closely,{less}."
        ).replace(",.", ".")
    else:
        message = f"Pearson chi-squared is {ratio:.2f} times its degrees of freedom."
    return CheckLine("dispersion", ratio <= _OVER, message, ratio)


def _zeros(fit: Any) -> CheckLine | None:
    """Zeros of counts beside those that the model expects at its conditional modes."""
    family = fit.family
    if family.kind != "count" or bool((fit.data.y > 0.0).all()):
        return None
    p = family.cdf(np.zeros(fit.data.n_obs), fit.linear_predictor, fit.lam, fit.response)
    observed, expected = int(np.sum(fit.data.y == 0.0)), float(np.sum(p))
    z = (observed - expected) / max(float(np.sqrt(np.sum(p * (1.0 - p)))), 1e-12)
    counted = f"{observed} of {fit.data.n_obs} responses are zero, and the model expects {expected:.0f}"
    if abs(z) < _ZEROS or abs(observed - expected) < _MANY_ZEROS * fit.data.n_obs:
        return CheckLine("zeros", True, f"{counted}.", z)
    if z < 0.0:
        return CheckLine("zeros", False, f"{counted}: think of a hurdle model, a truncated family with ziformula=.", z)
    wider = f"{family.more_variable} model, or of " if family.more_variable else ""
    own = "further columns in the zero part" if ZERO_INFLATION in family.components else "a zero part, ziformula='~ 1'"
    return CheckLine("zeros", False, f"{counted}: think of {wider}{own}.", z)


def _residuals(fit: Any) -> CheckLine | None:
    if not fit.normal_errors:
        return None
    w = 1.0 if fit.design.weights is None else np.sqrt(fit.design.weights)
    p = _shapiro((fit.design.y - fit.fitted) * w)
    if p is None:
        return CheckLine("residuals", None, "too few residuals for a look at their distribution.")
    if p >= _P_VALUE:
        return CheckLine("residuals", True, f"no clear departure from normality (Shapiro-Wilk p = {p:.2g}).", p)
    message = (
        f"they do not look normal (Shapiro-Wilk p = {p:.2g}). Fixed effects bear this well in large samples; look at "
        "plot('qq') and plot('residuals') for outliers and curvature."
    )
    return CheckLine("residuals", False, message, p)


def _modes(fit: Any) -> CheckLine:
    """Shapiro-Wilk of the modes of every random effect, with Bonferroni's correction for their number."""
    tests = []
    for term, modes in zip(fit.design.terms, known_columns(fit, fit.modes), strict=True):
        if term.smooth:
            continue
        for name, column in zip(term.columns, modes.T, strict=True):
            p = None if np.isnan(column).any() else _shapiro(column)
            if p is not None and term.n_levels >= _LEVELS:
                tests.append((p, f"{name} | {term.group}"))
    if not tests:
        return CheckLine(
            "normality of modes", None, "too few levels, or no variation, for a look at their distribution."
        )
    p, name = min(tests)
    adjusted = min(1.0, p * len(tests))
    if adjusted >= _P_VALUE:
        message = f"no clear departure from normality (smallest Shapiro-Wilk p = {p:.2g}, {name})."
        return CheckLine("normality of modes", True, message, adjusted)
    message = (
        f"those of {name} do not look normal (Shapiro-Wilk p = {p:.2g}): outlying groups, groups of different kinds, "
        "or very unequal group sizes, which do the same. Look at plot('qq', ...) and influence(group=...)."
    )
    return CheckLine("normality of modes", False, message, adjusted)


def _shapiro(values: FloatArray) -> float | None:
    """p-value; None for fewer than eight values or values that do not vary."""
    from scipy import stats

    spread = float(values.std())
    if values.size < 8 or spread <= 1e-10 * max(float(np.abs(values).max()), 1e-300):
        return None
    if values.size > _MOST_SHAPIRO:
        # The p-value is made for fewer values: evenly spaced order statistics stand for all.
        values = np.sort(values)[np.linspace(0, values.size - 1, _MOST_SHAPIRO).astype(int)]
    return float(stats.shapiro(values / spread).pvalue)


def _integral(fit: Any) -> CheckLine | None:
    """The Laplace approximation, or the number of quadrature points."""
    found = fit.integral_check
    if found is None:
        return None
    name = "Laplace" if fit.nAGQ in (0, 1) else "quadrature"
    if found.points is None:
        return CheckLine(name, None, f"{found.reason}; not checked.")
    return CheckLine(name, not found.matters, str(found), found.shift)
