"""Smooths of a fit: effective degrees of freedom, tests, curves with bands, differences, concurvity.

The coefficients of the model, thresholds among them, have the information J + S with S the inverse covariance of the
random effects; V = (J + S)^-1 is their covariance at known variances (Marra & Wood 2012, Scand. J. Stat. 39:53) and
F = V J, whose diagonal sums to effective degrees of freedom (Wood 2017, section 6.1). Tests are those of Wood (2013,
Biometrika 100:221).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, special

from lme4py.design.smooths import FIXED, PENALISED
from lme4py.errors import OptionError, did_you_mean
from lme4py.families.nuisance import as_columns
from lme4py.fits.derived import derived
from lme4py.formula.deparse import deparse
from lme4py.formula.evaluate import evaluate
from lme4py.formula.nodes import Call, Node, Text
from lme4py.formula.smooths import both_parts, slopes
from lme4py.linalg.small import symmetric_root
from lme4py.linalg.types import FloatArray, IntArray

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.fits.base import Fit

__all__ = [
    "Smooth",
    "System",
    "concurvity",
    "smooth_curves",
    "smooth_difference",
    "smooth_system",
    "smooths",
    "smooths_of",
]

# Coefficients of a model whose information is inverted as one dense matrix at most.
_LARGEST = 6000
# Draws of a simultaneous band.
_DRAWS = 10_000
# Terms of the sum that is the tail of a mixture.
_TERMS = 200_000
# P-values below this are those of the F or chi-squared distribution with as many degrees of freedom: the integral of
# the mixture has fewer digits.
_SMALL = 1e-7


@dataclass(frozen=True)
class Smooth:
    """One smooth of a fit.

    Attributes
    ----------
    label : str
        ``"s(x)"``, ``"s(x):fb"``.
    variable : str
        What it is a function of.
    x : ndarray, shape (n,)
        Of the rows used.
    places : ndarray of int, shape (k,)
        Of its coefficients in `System`: unpenalised ones, then penalised ones.
    n_null : int
    columns : ndarray, shape (n, k)
        Of the rows used.
    learnt : dict
        Of the basis.
    root : float
        Standard deviation of the penalised coefficients.
    by_factor : bool
    """

    label: str
    variable: str
    x: FloatArray
    places: IntArray
    n_null: int
    columns: FloatArray
    learnt: dict[str, object]
    root: float
    by_factor: bool

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return int(self.places.size)

    def basis(self, x: FloatArray, derivative: bool = False) -> FloatArray:
        """Columns at x, (n, k), or their derivatives; of a smooth times a number those of the number 1."""
        null, penalised = (slopes if derivative else both_parts)(x, self.learnt)
        return np.hstack([null, self.root * penalised])


@dataclass(frozen=True)
class System:
    """All coefficients of a fit: fixed effects, spherical random effects, thresholds.

    Attributes
    ----------
    coefficients : ndarray, shape (N,)
    V : ndarray, shape (N, N)
    F : ndarray, shape (N, N)
    smooths : tuple of Smooth
    """

    coefficients: FloatArray
    V: FloatArray
    F: FloatArray
    smooths: tuple[Smooth, ...]

    @property
    def edf(self) -> FloatArray:
        """Effective degrees of freedom of each coefficient, (N,)."""
        return np.asarray(self.F.diagonal())


def _spherical(fit: Fit) -> tuple[FloatArray, FloatArray, list[int]]:
    """Z Lambda (n, q), u (q,), and where each term begins."""
    blocks, modes, starts, at = [], [], [], 0
    for term, covariance, own in zip(fit.design.terms, fit.covariances, fit.modes, strict=True):
        root = symmetric_root(covariance)
        starts.append(at)
        k, n = term.n_columns, fit.design.n_obs
        block = np.zeros((n, term.n_levels * k))
        place = term.codes.astype(np.intp)[:, None] * k + np.arange(k)
        block[np.arange(n)[:, None], place] = term.values @ root
        blocks.append(block)
        modes.append((own @ np.linalg.pinv(root).T).ravel())
        at += block.shape[1]
    return np.hstack(blocks), np.concatenate(modes), starts


def _information(fit: Fit, C: FloatArray) -> FloatArray:
    """J of the columns, and of thresholds behind them."""
    if fit.normal_errors:
        w = np.ones(C.shape[0]) if fit.design.weights is None else fit.design.weights
        return np.asarray(C.T @ (w[:, None] * C) / fit.sigma**2)
    rows = fit.family.derivatives(fit.response, fit.linear_predictor, fit.lam, 3, expected=True)
    w = rows.w_work if rows.w_exp is None else rows.w_exp
    J = C.T @ (w[:, None] * C)
    if fit.thresholds is None:
        return np.asarray(J)
    beside = -C.T @ as_columns(rows.score_lam)
    return np.block([[J, beside], [beside.T, rows.curve_lam]])


@derived
def smooth_system(fit: Fit) -> System:
    """The information of all coefficients of a fit with smooths.

    Parameters
    ----------
    fit : Fit

    Raises
    ------
    OptionError
        No smooths, or too many coefficients.
    """
    design = fit.design
    if not any(term.smooth for term in design.terms):
        raise OptionError("the model has no smooths; write one as s(x) in the formula.")
    size = design.X.shape[1] + sum(term.n_levels * term.n_columns for term in design.terms)
    if size > _LARGEST:
        raise OptionError(
            f"the model has {size} coefficients, and tests and curves of smooths are made for {_LARGEST} at most; "
            "see predict()."
        )
    ZL, u, starts = _spherical(fit)
    p, q = design.X.shape[1], ZL.shape[1]
    J = _information(fit, np.hstack([design.X, ZL]))
    S = np.zeros(J.shape[0])
    S[p : p + q] = 1.0
    V = linalg.cho_solve(linalg.cho_factor(J + np.diag(S)), np.eye(J.shape[0]))
    coefficients = np.concatenate([fit.beta, u, np.zeros(J.shape[0] - p - q)])
    found = tuple(
        _smooth(fit, t, p + starts[t], ZL[:, starts[t] :]) for t, one in enumerate(design.terms) if one.smooth
    )
    return System(coefficients, V, np.asarray(V @ J), found)


def _smooth(fit: Fit, t: int, start: int, ZL: FloatArray) -> Smooth:
    design, recipe = fit.design, fit.design.recipe
    term = design.terms[t]
    call = recipe.bars[t].terms.variables[0]
    if not isinstance(call, Call) or call.function != PENALISED or design.columns is None:
        raise OptionError(f"the fit does not hold the data of {term.label}; fit the model again.")
    level = next((a.value.value for a in call.arguments if a.name == "level" and isinstance(a.value, Text)), None)
    plain = Call(FIXED, tuple(a for a in call.arguments if a.name != "level"))
    learnt = recipe.state[deparse(call)]
    n_null = learnt["null"].shape[1]
    fixed = recipe.formula.fixed
    own = [i for i, one in enumerate(fixed.terms, start=1) if fixed.variables[one.variables[0]] == plain]
    columns = np.flatnonzero(np.array(design.assign) == own[0]) if own else np.zeros(0, dtype=np.intp)
    levels = learnt.get("levels")
    if columns.size != n_null * (len(levels) if level is not None else 1):
        raise OptionError(
            f"an unpenalised part of {term.label} is a combination of other columns and was left out; take those out "
            "of the formula."
        )
    if level is not None:
        first = n_null * levels.index(level)
        columns = columns[first : first + n_null]
    root = float(np.sqrt(fit.covariances[t][0, 0]))
    places = np.concatenate([columns, start + np.arange(term.n_columns)])
    X = np.hstack([design.X[:, columns], ZL[:, : term.n_columns]])
    node = _variable(plain)
    stored = design.columns
    x = evaluate(node, stored.__getitem__, {}, functions=recipe.functions, formula=recipe.formula.text).values
    return Smooth(
        term.label, deparse(node), np.asarray(x, dtype=np.float64), places, n_null, X, learnt, root, level is not None
    )


def _variable(call: Call) -> Node:
    return next(a.value for a in call.arguments if a.name in (None, "x"))


def smooths_of(fit: Fit) -> tuple[Smooth, ...]:
    """The smooths of a fit.

    Parameters
    ----------
    fit : Fit

    Raises
    ------
    OptionError
        There are none.
    """
    found: tuple[Smooth, ...] = smooth_system(fit).smooths
    return found


def smooths(fit: Fit) -> pd.DataFrame:
    """Effective degrees of freedom and a test of no effect of each smooth (Wood 2013).

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    pandas.DataFrame
        Columns edf, ref_df (of the test), statistic and p_value, one row for each smooth: F of models with a residual
        variance, else chi-squared. Variances are taken as known; the statistic is the mean over the two signs that an
        eigenvector can have (mgcv takes one of them).

    Examples
    --------
    >>> import numpy as np
    >>> from lme4py import lmer
    >>> x = np.linspace(0, 1, 60)
    >>> fit = lmer("y ~ s(x, k = 8)", {"x": x, "y": np.sin(6 * x) + 0.1 * np.cos(90 * x)}).fit
    >>> smooths(fit)["edf"].round(2).to_dict()
    {'s(x)': 6.76}
    """
    import pandas as pd

    from lme4py.tables.frames import printed

    system = smooth_system(fit)
    double = 2.0 * system.edf - np.einsum("ij,ji->i", system.F, system.F)
    n = fit.design.n_obs
    scale_df = n - float(system.edf.sum()) if fit.normal_errors and fit.has_residual else np.inf
    rows = []
    for one in system.smooths:
        edf = float(system.edf[one.places].sum())
        ref = min(float(double[one.places].sum()), float(one.size))
        V = system.V[np.ix_(one.places, one.places)]
        T, p = _test(one.columns, system.coefficients[one.places], V, ref, scale_df)
        rows.append({"edf": edf, "ref_df": ref, "statistic": T / ref if np.isfinite(scale_df) else T, "p_value": p})
    index = pd.Index([one.label for one in system.smooths], name="term")
    return printed(pd.DataFrame(rows, index=index), title="Smooths")


def _test(X: FloatArray, beta: FloatArray, V: FloatArray, rank: float, scale_df: float) -> tuple[float, float]:
    """The statistic f'V_f^(r-) f of a real rank r, and its p-value."""
    R = np.asarray(np.linalg.qr(X, mode="r"), dtype=np.float64)
    values, vectors = np.linalg.eigh(R @ V @ R.T)
    order = np.argsort(-values)
    z = (vectors[:, order].T @ (R @ beta)) / np.sqrt(np.maximum(values[order], 1e-300))
    k = floor(rank + 1e-9)
    part = max(rank - k, 0.0)
    if part < 1e-9 or k == z.size:
        T = float(z[:k] @ z[:k])
        return T, _tail(T, [1.0] * k, float(k), scale_df)
    if k == 0:
        T = float(part * z[0] ** 2)
        return T, _tail(T, [part], part, scale_df)
    whole, a, b = float(z[: k - 1] @ z[: k - 1]), z[k - 1], z[k]
    cross = np.sqrt(0.5 * part * (1.0 - part))
    # The sign of an eigenvector is arbitrary: the mean of both.
    found = [float(whole + a * a + part * b * b + 2.0 * sign * cross * a * b) for sign in (1.0, -1.0)]
    first = 0.5 * (part + 1.0 + np.sqrt(1.0 - part**2))
    weights = [1.0] * (k - 1) + [float(first), float(part + 1.0 - first)]
    return float(np.mean(found)), float(np.mean([_tail(T, weights, rank, scale_df) for T in found]))


def _tail(T: float, weights: list[float], rank: float, scale_df: float) -> float:
    """P(sum of weights chi2_1 > T), or > T chi2 / df of the scale, by Davies' (1973) sum."""
    plain = special.chdtrc(rank, T) if np.isinf(scale_df) else special.fdtrc(rank, scale_df, T / rank)
    if plain < _SMALL or len(set(weights)) == 1 == weights[0]:
        return float(plain)
    lam, own, shift = np.array(weights), np.ones(len(weights)), T
    if np.isfinite(scale_df):
        lam, own, shift = np.append(lam, -T / scale_df), np.append(own, scale_df), 0.0
    reach = abs(float(own @ lam)) + shift + 12.0 * np.sqrt(2.0 * float(own @ lam**2))
    k = np.arange(_TERMS) + 0.5
    u = np.pi / reach * k
    angle, size = -0.5 * shift * u, np.zeros(_TERMS)
    for value, df in zip(lam.tolist(), own.tolist(), strict=True):
        angle += 0.5 * df * np.arctan(value * u)
        size += 0.25 * df * np.log1p((value * u) ** 2)
    found = 0.5 + float(np.sum(np.sin(angle) * np.exp(-size) / k)) / np.pi
    return float(np.clip(found, 0.0, 1.0))


def _chosen(fit: Fit, term: str | None) -> Smooth:
    found = smooths_of(fit)
    if term is None and len(found) == 1:
        return found[0]
    labels = [one.label for one in found]
    if term not in labels:
        raise OptionError(
            f"term={term!r} is no smooth of the model.{did_you_mean(str(term), labels)} They are {labels}."
        )
    return found[labels.index(str(term))]


def _frame(
    grid: FloatArray,
    basis: FloatArray,
    beta: FloatArray,
    V: FloatArray,
    name: str,
    level: float,
    draws: bool,
    seed: int,
) -> pd.DataFrame:
    """Values with standard errors and limits."""
    import pandas as pd

    estimate = basis @ beta
    error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", basis, V, basis), 0.0))
    critical = float(special.ndtri(0.5 + 0.5 * level))
    if draws:
        normal = np.random.default_rng(seed).standard_normal((V.shape[0], _DRAWS))
        away = np.abs(basis @ symmetric_root(V) @ normal)[error > 0.0] / error[error > 0.0][:, None]
        critical = float(np.quantile(away.max(axis=0), level))
    half = critical * error
    columns = {name: grid, "estimate": estimate, "std_error": error, "lower": estimate - half, "upper": estimate + half}
    return pd.DataFrame(columns)


def _grid(x: FloatArray, n: int) -> FloatArray:
    return np.linspace(float(x.min()), float(x.max()), n)


def smooth_curves(
    fit: Fit,
    term: str | None = None,
    n: int = 100,
    derivative: bool = False,
    simultaneous: bool = False,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """A smooth, or its derivative, over the range of its variable, with pointwise or simultaneous limits.

    Parameters
    ----------
    fit : Fit
    term : str, optional
        ``"s(x)"``, where the model has several.
    n : int
        Points.
    derivative : bool
        The first derivative.
    simultaneous : bool
        Limits that hold the whole curve with the probability `level`, by simulation (Ruppert, Wand & Carroll 2003,
        section 6.5).
    level : float
    seed : int
        Of the simulation.

    Returns
    -------
    pandas.DataFrame
        The variable, estimate (centred, on the scale of the linear predictor), std_error, lower, upper.
    """
    one, system = _chosen(fit, term), smooth_system(fit)
    grid = _grid(one.x, n)
    basis = one.basis(grid, derivative)
    V = system.V[np.ix_(one.places, one.places)]
    return _frame(grid, basis, system.coefficients[one.places], V, one.variable, level, simultaneous, seed)


def smooth_difference(
    fit: Fit,
    first: str,
    second: str,
    n: int = 100,
    simultaneous: bool = False,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """First minus second smooth of the same variable, as those of two levels of a factor ``by``.

    Parameters
    ----------
    fit : Fit
    first, second : str
        Labels, as ``"s(x):fa"`` and ``"s(x):fb"``; each smooth is centred, so that a difference of means is in the
        coefficients of the factor.
    n, simultaneous, level, seed
        As in `smooth_curves`.

    Returns
    -------
    pandas.DataFrame
    """
    a, b, system = _chosen(fit, first), _chosen(fit, second), smooth_system(fit)
    if a.variable != b.variable:
        raise OptionError(f"{first} and {second} are smooths of different variables; there is no difference.")
    grid = _grid(np.concatenate([a.x, b.x]), n)
    places = np.concatenate([a.places, b.places])
    basis = np.hstack([a.basis(grid), -b.basis(grid)])
    V = system.V[np.ix_(places, places)]
    return _frame(grid, basis, system.coefficients[places], V, a.variable, level, simultaneous, seed)


def concurvity(fit: Fit) -> pd.DataFrame:
    """How far each smooth could be made of all other fixed columns and smooths, between 0 and 1.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    pandas.DataFrame
        Columns worst (the largest share of any function of the smooth) and observed (of the one estimated).
    """
    import pandas as pd

    system, X = smooth_system(fit), fit.design.X
    rows = []
    for one in system.smooths:
        null = one.places[: one.n_null]
        others = [np.delete(X, null, axis=1), *(o.columns for o in system.smooths if o is not one)]
        Q = linalg.orth(np.hstack(others))
        used = one.columns[:, np.abs(one.columns).max(axis=0) > 0.0]
        own = linalg.orth(used - used.mean(axis=0))
        curve = one.columns @ system.coefficients[one.places]
        curve = curve - curve.mean()
        share = float(np.sum((Q.T @ curve) ** 2) / max(float(curve @ curve), 1e-300))
        worst = float(np.linalg.norm(Q.T @ own, 2) ** 2)
        rows.append({"worst": min(worst, 1.0), "observed": min(share, 1.0)})
    return pd.DataFrame(rows, index=pd.Index([one.label for one in system.smooths], name="term"))
