"""Smooths of a fit: effective degrees of freedom, tests, curves with bands, differences, concurvity.

Tests are those of Wood (2013, Biometrika 100:221); curves and their limits come from `smooth_system`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, special

from lme4py.errors import OptionError, did_you_mean
from lme4py.inference.estimates.smooth_system import Smooth, smooth_system, smooths_of
from lme4py.inference.estimates.smooth_tests import smooth_test
from lme4py.linalg.small import symmetric_root
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.fits.base import Fit

__all__ = ["concurvity", "smooth_curves", "smooth_difference", "smooths"]

# Draws of a simultaneous band.
_DRAWS = 10_000
# Points of a curve, and of each variable of a surface.
_POINTS, _SURFACE = 100, 30


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
        eigenvector can have (mgcv takes one of them). Smooths of the levels of a factor, which are penalised as a
        whole, have no test: that would be one of variances. Labels of smooths in further parts begin with the part.

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
        T = p = np.nan
        if not one.factor:
            T, p = smooth_test(one.columns, system.coefficients[one.places], V, ref, scale_df)
        rows.append({"edf": edf, "ref_df": ref, "statistic": T / ref if np.isfinite(scale_df) else T, "p_value": p})
    index = pd.Index([one.label for one in system.smooths], name="term")
    return printed(pd.DataFrame(rows, index=index), title="Smooths")


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


def _values(
    basis: FloatArray, beta: FloatArray, V: FloatArray, level: float, draws: bool, seed: int
) -> dict[str, FloatArray]:
    """Values with standard errors and limits."""
    estimate = basis @ beta
    error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", basis, V, basis), 0.0))
    critical = float(special.ndtri(0.5 + 0.5 * level))
    if draws:
        normal = np.random.default_rng(seed).standard_normal((V.shape[0], _DRAWS))
        away = np.abs(basis @ symmetric_root(V) @ normal)[error > 0.0] / error[error > 0.0][:, None]
        critical = float(np.quantile(away.max(axis=0), level))
    half = critical * error
    return {"estimate": estimate, "std_error": error, "lower": estimate - half, "upper": estimate + half}


def _grid(x: FloatArray, n: int | None) -> list[FloatArray]:
    """Points over the ranges of the variables: of one variable a line, of two a square, further ones at medians.

    Parameters
    ----------
    x : ndarray, shape (n, number of variables)
    n : int or None
        Points of each variable.
    """
    count = n if n is not None else (_POINTS if x.shape[1] == 1 else _SURFACE)
    sides = [np.linspace(float(own.min()), float(own.max()), count) for own in x.T[:2]]
    rest = [np.full(count ** len(sides), float(np.median(own))) for own in x.T[2:]]
    return [*(side.ravel() for side in np.meshgrid(*sides, indexing="ij")), *rest]


def _slope(one: Smooth, derivative: bool | str) -> int | None:
    """Which variable the derivative is in; None for the curve itself."""
    if isinstance(derivative, str):
        if derivative not in one.variables:
            raise OptionError(
                f"derivative={derivative!r} is no variable of {one.label}."
                f"{did_you_mean(derivative, one.variables)} It has {', '.join(one.variables)}."
            )
        return one.variables.index(derivative)
    if derivative and len(one.variables) > 1:
        raise OptionError(
            f"{one.label} is a smooth of {', '.join(one.variables)}; name the variable, as "
            f"derivative={one.variables[0]!r}."
        )
    return 0 if derivative else None


def smooth_curves(
    fit: Fit,
    term: str | None = None,
    n: int | None = None,
    derivative: bool | str = False,
    simultaneous: bool = False,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """A smooth, or its derivative, over the range of its variables, with pointwise or simultaneous limits.

    Parameters
    ----------
    fit : Fit
    term : str, optional
        ``"s(x)"``, where the model has several.
    n : int, optional
        Points, 100; of two variables of each, 30. Further variables are at their medians.
    derivative : bool or str
        The first derivative; of several variables in the one that is named.
    simultaneous : bool
        Limits that hold the whole curve with the probability `level`, by simulation (Ruppert, Wand & Carroll 2003,
        section 6.5).
    level : float
    seed : int
        Of the simulation.

    Returns
    -------
    pandas.DataFrame
        The variables, estimate (centred, on the scale of the linear predictor), std_error, lower, upper; of a smooth
        for each level of a factor also that, and its levels one after the other.
    """
    import pandas as pd

    one, system = _chosen(fit, term), smooth_system(fit)
    slope, at = _slope(one, derivative), _grid(one.x, n)
    beta, V = system.coefficients[one.places], system.V[np.ix_(one.places, one.places)]
    basis = np.vstack([one.basis(at, slope, place) for place in range(len(one.levels))])
    where = {name: np.tile(own, len(one.levels)) for name, own in zip(one.variables, at, strict=True)}
    own = {one.factor: np.repeat(np.array(one.levels, dtype=object), at[0].size)} if one.factor else {}
    return pd.DataFrame({**where, **own, **_values(basis, beta, V, level, simultaneous, seed)})


def smooth_difference(
    fit: Fit,
    first: str,
    second: str,
    n: int | None = None,
    simultaneous: bool = False,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """First minus second smooth of the same variables, as those of two levels of a factor ``by``.

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
    import pandas as pd

    a, b, system = _chosen(fit, first), _chosen(fit, second), smooth_system(fit)
    if a.variables != b.variables:
        raise OptionError(f"{first} and {second} are smooths of different variables; there is no difference.")
    if a.factor or b.factor:
        raise OptionError(f"{first} and {second} have a curve for each level; take those of smooth_curves().")
    at = _grid(np.vstack([a.x, b.x]), n)
    places = np.concatenate([a.places, b.places])
    basis = np.hstack([a.basis(at), -b.basis(at)])
    V = system.V[np.ix_(places, places)]
    where = dict(zip(a.variables, at, strict=True))
    return pd.DataFrame(where | _values(basis, system.coefficients[places], V, level, simultaneous, seed))


def concurvity(fit: Fit) -> pd.DataFrame:
    """How far each smooth could be made of all other fixed columns and smooths of its predictor, between 0 and 1.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    pandas.DataFrame
        Columns worst (the largest share of any function of the smooth) and observed (of the one estimated).
    """
    import pandas as pd

    system = smooth_system(fit)
    X = {predictor.name: predictor.X for predictor in fit.design.predictors}
    rows = []
    for one in system.smooths:
        beside = [o.columns for o in system.smooths if o is not one and o.component == one.component]
        others = np.hstack([np.delete(X[one.component], one.null, axis=1), *beside])
        Q = linalg.orth(others) if others.shape[1] else np.zeros((others.shape[0], 0))
        used = one.columns[:, np.abs(one.columns).max(axis=0) > 0.0]
        own = linalg.orth(used - used.mean(axis=0))
        curve = one.columns @ system.coefficients[one.places]
        curve = curve - curve.mean()
        share = float(np.sum((Q.T @ curve) ** 2) / max(float(curve @ curve), 1e-300))
        worst = float(np.linalg.norm(Q.T @ own, 2) ** 2) if own.shape[1] else 0.0
        rows.append({"worst": min(worst, 1.0), "observed": min(share, 1.0)})
    return pd.DataFrame(rows, index=pd.Index([one.label for one in system.smooths], name="term"))
