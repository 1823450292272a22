"""Tables of F tests and Wald tests of the fixed effects of a linear mixed model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.arguments import speaks
from lme4py.design.design import Design
from lme4py.design.smooths import smooth_columns
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit, fit_of
from lme4py.fits.method import FTest, Method
from lme4py.fits.refuse import refuse
from lme4py.formula.several import RESPONSE
from lme4py.inference.estimates.coefficients import coefficient_method, two_sided
from lme4py.inference.estimates.limits import known_errors, masked, unknown, warn_unknown
from lme4py.inference.estimates.restrictions import linear_hypotheses
from lme4py.inference.lrt.lrt import likelihood_table
from lme4py.inference.tests import hypotheses
from lme4py.inference.uncertainty.df import method
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from lme4py.fits.rows.clusters import ClusterChoice

__all__ = [
    "anova",
    "anova_table",
    "chi_squared_table",
    "contest",
    "drop_each",
    "hypotheses_table",
    "own_term_rows",
    "own_term_tests",
    "term_hypotheses",
]

# Variance of what is infinite, beside those of the rest: the inverse then gives it no weight.
_INFINITE = 1e6
_COLUMNS = ("sum_sq", "mean_sq", "num_df", "den_df", "F", "p_value")
_TYPES: dict[int | str, str] = {
    1: "1",
    2: "2",
    3: "3",
    "I": "1",
    "II": "2",
    "III": "3",
    "car-II": "car-2",
    "car-III": "car-3",
}
_TYPES |= {name: name for name in ("1", "2", "3", "sequential", "car-2", "car-3")}


def anova_table(fit: Fit, type: int | str = 3, ddf: str | None = None) -> pd.DataFrame:
    """Analysis of variance of the fixed effects: one F test for each term.

    Parameters
    ----------
    fit : Fit
    type : {1, 2, 3, "sequential", "car-2", "car-3"}
        As in `term_hypotheses`.
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        None is `default_ddf` of the fit.

    Returns
    -------
    pandas.DataFrame
        Columns sum_sq, mean_sq (the Wald statistic, before it is scaled, times the residual variance; and that over
        num_df), num_df, den_df, F, p_value; one row per term. A term whose columns were all dropped has num_df 0.
    """
    chosen = linear_method(fit, ddf)
    return _table(fit, term_hypotheses(fit.design, type, chosen.vcov), chosen)


def term_hypotheses(design: Design, type: int | str, vcov: FloatArray) -> dict[str, FloatArray]:
    """What the rows of an analysis of variance test, for every kind of model alike.

    Parameters
    ----------
    design : Design
    type : {1, 2, 3, "sequential", "car-2", "car-3"}
        Hypotheses that depend on the design alone, as in SAS and R's lmerTest: 1: each term adjusted for those before
        it; 2: for all that do not contain it; 3: free of the coding of the factors and of the sizes of the cells.
        Hypotheses that depend on the precision of the estimates too: "sequential": each term adjusted, by their
        covariance, for those before it (R's lme4; Bates et al. 2015, and nlme); "car-2": for all but those it is a
        margin of, continuous variables too; "car-3": the term's own coefficients, which depend on the coding of the
        factors, with a row for the intercept (R's car).
    vcov : ndarray, shape (p, p)
        Covariance of the fixed effects.

    Returns
    -------
    dict of str to ndarray, each (r, p)
        L with L beta = 0 for each term.
    """
    chosen = check_type(type)
    if chosen == "1":
        rows = hypotheses.type_one(design)
    elif chosen == "2":
        rows = hypotheses.type_two(design)
    elif chosen == "3":
        rows = hypotheses.type_three(design)
    elif chosen == "sequential":
        rows = hypotheses.type_one(design, _information_factor(vcov))
    elif chosen == "car-2":
        rows = hypotheses.type_two(design, _information_factor(vcov), margins=True)
    else:
        rows = hypotheses.own_columns(design)
    named = dict(zip(design.fixed_labels, rows, strict=True))
    if design.responses is not None:
        # The intercepts, which are no term.
        named.pop(RESPONSE, None)
    if design.smooth_terms:
        # A smooth is more than its unpenalised columns: see smooths().
        own = zip(design.assign, smooth_columns(design), strict=True)
        whole = {design.fixed_labels[place - 1] for place, smooth in own if smooth}
        named = {label: L for label, L in named.items() if label not in whole}
    if chosen == "car-3" and 0 in design.assign:
        first = np.eye(len(design.assign))[np.array(design.assign) == 0]
        return {design.x_names[design.assign.index(0)]: first, **named}
    return named


def _information_factor(vcov: FloatArray) -> FloatArray:
    """R with R'R the inverse of the covariance, upper triangular."""
    return np.asarray(np.linalg.cholesky(np.linalg.inv(vcov)).T, dtype=np.float64)


def drop_each(fit: Fit, ddf: str | None, terms: Sequence[int]) -> pd.DataFrame:
    """F tests of leaving out each of some terms.

    Parameters
    ----------
    fit : Fit
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        None is `default_ddf` of the fit.
    terms : sequence of int
        Their numbers, from 1.

    Returns
    -------
    pandas.DataFrame
        As `anova_table`.
    """
    design = fit.design
    rows = {design.fixed_labels[i - 1]: hypotheses.dropped_term(design, i) for i in terms}
    return _table(fit, rows, linear_method(fit, ddf))


def contest(
    fit: Fit,
    L: Any,
    ddf: str | None = None,
    value: float | ArrayLike = 0.0,
    joint: bool = True,
    vcov: str | None = None,
    cluster: ClusterChoice = None,
) -> pd.DataFrame:
    """F test of ``L beta = value``, or a t test of each row of L where `joint` is false.

    Parameters
    ----------
    fit : Fit
    L : str, sequence of str, dict, array of shape (p,) or (r, p), or data frame
        Hypotheses as text (``"a - b = 0"``), names, a dict from text to value, or a matrix with one column per fixed
        effect, as in `wald_test`. Rows that follow from others count once.
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        None is `default_ddf` of the fit; with a robust covariance "satterthwaite".
    value : float or array of shape (r,)
        L beta under the hypothesis.
    joint : bool
        One F test of all rows (linear models), or a t or z test of each row.
    vcov : {None, "CR0", "CR1", "CR2", "CR3"}
        A cluster-robust covariance; its F test is the approximate Hotelling one of clubSandwich ("HTZ").
    cluster : str, array of shape (n,), or None
        Its clusters; None takes the outermost grouping factor.

    Returns
    -------
    pandas.DataFrame
        Jointly, the columns of `anova_table` in one row "L"; otherwise estimate, std_error, df, statistic, p_value with
        one row for each row of L.
    """
    import pandas as pd

    if joint:
        linear_method(fit, "normal")
    chosen = coefficient_method(fit, ddf, vcov, cluster)
    tested = linear_hypotheses(fit.design.x_names, L, value)
    rows, target = tested.R, tested.target
    if not np.abs(rows).max(axis=1).all():
        raise OptionError("a row of L holds zeros only: it tests nothing; leave it out.")
    estimate = rows @ fit.beta
    if not joint:
        index = None if tested.labels is None else pd.Index(tested.labels, name="hypothesis")
        return pd.DataFrame(_t_columns(fit, chosen, rows, target), index=index)
    test = chosen.f_test(*_independent(fit, rows, estimate - target))
    return pd.DataFrame([_cells(test, fit)], columns=list(_COLUMNS), index=["L"])


def _independent(fit: Fit, rows: FloatArray, gap: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rows whose estimates are uncorrelated, as many as L has rank, and their gaps; L itself at full rank."""
    size = np.linalg.norm(rows, axis=1)
    rank = int(np.linalg.matrix_rank(rows / size[:, None], tol=1e-8))
    if rank == rows.shape[0]:
        return rows, gap
    along = rows @ np.linalg.lstsq(rows, gap, rcond=None)[0]
    if np.abs(along - gap).max() > 1e-8 * max(1.0, float(np.abs(gap).max())):
        raise OptionError("the rows of L depend on each other, and their `value`s contradict each other.")
    vectors = np.linalg.eigh(rows @ fit.vcov @ rows.T)[1][:, rows.shape[0] - rank :]
    return vectors.T @ rows, vectors.T @ gap


def chi_squared_table(fit: Fit, type: int | str = 3, ddf: str | None = None) -> pd.DataFrame:
    """Analysis of variance of a generalised model: one Wald chi-squared test for each term.

    Parameters
    ----------
    fit : Fit
    type : {1, 2, 3, "sequential", "car-2", "car-3"}
        As in `term_hypotheses`.
    ddf : {None, "normal"}
        There are no denominator degrees of freedom.

    Returns
    -------
    pandas.DataFrame
        Columns chi2, df, p_value; one row per term.
    """
    if ddf not in (None, "normal"):
        raise OptionError(
            f"ddf={ddf!r} belongs to F tests, which are for linear mixed models; a generalised one has Wald "
            "chi-squared tests: leave `ddf` out. drop1() has likelihood-ratio tests of the terms, wald_test() tests of "
            "coefficients that you choose."
        )
    if fit.family.is_joint:
        return own_term_tests(fit)
    rows = term_hypotheses(fit.design, type, _regular(fit))
    warn_unknown(fit, np.vstack([np.empty((0, fit.beta.size)), *rows.values()]), "a Wald test of a term", stacklevel=4)
    table = _chi_squared(fit, rows)
    return table.rename_axis(index="term")


def hypotheses_table(fit: Fit, rows: dict[str, FloatArray], ddf: str | None = None) -> pd.DataFrame:
    """Tests of L beta = 0: F tests of a linear model, Wald tests of a generalised one.

    Parameters
    ----------
    fit : Fit
    rows : dict of str to ndarray, each (r, p)
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        Of linear models.
    """
    if fit.has_f_tests:
        return _table(fit, rows, linear_method(fit, ddf))
    if ddf not in (None, "normal"):
        refuse(f"ddf={ddf!r} is", "leave it out")
    return _chi_squared(fit, rows).rename_axis(index="term")


def own_term_tests(fit: Fit) -> pd.DataFrame:
    """Wald tests of the coefficients of each term, given all others: of effects on thresholds, which share columns.

    Parameters
    ----------
    fit : Fit
    """
    return _chi_squared(fit, own_term_rows(fit)).rename_axis(index="term")


def own_term_rows(fit: Fit) -> dict[str, FloatArray]:
    """L of the coefficients of each term.

    Parameters
    ----------
    fit : Fit
    """
    return dict(zip(fit.design.fixed_labels, hypotheses.own_columns(fit.design), strict=True))


def _regular(fit: Fit) -> FloatArray:
    """The covariance, with very large variances where estimates are infinite: these say nothing to other terms."""
    if fit.recession is None:
        return fit.vcov
    p = fit.beta.size
    along = (fit.recession.to_user @ fit.recession.null)[:p]
    scale = float(np.trace(fit.vcov)) or 1.0
    covariance: FloatArray = fit.vcov + _INFINITE * scale * (along @ along.T) / np.trace(along @ along.T)
    return covariance


def _chi_squared(fit: Fit, rows: dict[str, FloatArray]) -> pd.DataFrame:
    """Wald tests of L beta = 0; a term without columns has df 0, one without a finite estimate no test."""
    import pandas as pd

    cells = {}
    for label, L in rows.items():
        rank, gap = L.shape[0], L @ fit.beta
        exists = rank > 0 and not unknown(fit, L).any()
        chi2 = float(gap @ np.linalg.solve(L @ fit.vcov @ L.T, gap)) if exists else np.nan
        cells[label] = (chi2, rank, float(special.chdtrc(rank, chi2)) if exists else np.nan)
    return pd.DataFrame.from_dict(cells, orient="index", columns=["chi2", "df", "p_value"])


@speaks
def anova(
    *results: Any,
    type: int | str = 3,
    ddf: str | None = None,
    refit: bool = True,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Analysis of variance of one model, or likelihood-ratio tests between several, as R's anova.

    Parameters
    ----------
    *results : MixedResult or MEGLMResult
        One model, or models of the same data in any order; fits of statsmodels without random effects (OLS, GLM) may be
        among several.
    type : {1, 2, 3, "sequential", "car-2", "car-3"}
        Of the tests of the terms of one model, linear and generalised ones alike. 1, 2 and 3 are those of SAS and R's
        lmerTest: each term adjusted for those before it, for those that do not contain it, or free of the coding of
        the factors and of the sizes of the cells; they test the same hypotheses whatever the estimates. "sequential"
        is the table of R's lme4, adjusted by the covariance of the estimates; "car-2" and "car-3" are those of R's
        car, where a factor is a margin of its product with a covariate too.
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        Degrees of freedom of the F tests of one linear model; None is its `default_ddf`.
    refit : bool
        Refit REML fits by maximum likelihood before they are compared; ``attrs["note"]`` of the table says so.
    names : sequence of str, optional
        Names of the models that are compared; their formulas when not given.

    Returns
    -------
    pandas.DataFrame
        One linear model: sum_sq, mean_sq, num_df, den_df, F, p_value for each term; one generalised model: chi2, df,
        p_value. Several models: npar, AIC, BIC, logLik, deviance, chi2, df, p_value, p_chi2.

    Examples
    --------
    >>> from lme4py import anova, lmer, load_dataset
    >>> data = load_dataset("sleepstudy")
    >>> one = lmer("Reaction ~ 1 + (1 | Subject)", data)
    >>> two = lmer("Reaction ~ Days + (1 | Subject)", data)
    >>> anova(one, two)[["npar", "logLik", "chi2", "df"]].round(2).to_string(index=False).split("\\n")[-1].split()
    ['4', '-897.04', '116.46', '1.0']
    """
    if len(results) != 1:
        return likelihood_table(results, refit, names)
    if names is not None:
        raise OptionError("names= is for several models; the rows of one model are its terms.")
    fit = fit_of(results[0])
    if fit is None:
        raise OptionError(f"anova() takes fitted mixed models; this is of type {results[0].__class__.__name__}.")
    return anova_table(fit, type, ddf) if fit.has_f_tests else chi_squared_table(fit, type, ddf)


def linear_method(fit: Fit, ddf: str | None) -> Method:
    """`lme4py.inference.uncertainty.df.method` (None: `default_ddf`), with an error for models that have no F tests."""
    if not fit.has_f_tests:
        refuse("F tests are", "use wald_test() or drop1() for this one")
    return method(fit, fit.default_ddf if ddf is None else ddf)


def check_type(type: object) -> str:
    """One of "1", "2", "3", "sequential", "car-2" and "car-3", or an OptionError."""
    if isinstance(type, int | str) and not isinstance(type, bool) and type in _TYPES:
        return _TYPES[type]
    hint = did_you_mean(str(type), ["1", "2", "3", "sequential", "car-2", "car-3"])
    raise OptionError(
        f"type={type!r} is not known; use 1, 2 or 3 (those of SAS and lmerTest), 'sequential' (lme4's own anova), "
        f"'car-2' or 'car-3' (those of R's car).{hint}"
    )


def _table(fit: Fit, rows: dict[str, FloatArray], chosen: Method) -> pd.DataFrame:
    import pandas as pd

    from lme4py.tables.frames import printed

    cells = [
        _cells(chosen.f_test(L, L @ fit.beta), fit) if L.shape[0] else (np.nan, np.nan, 0.0, np.nan, np.nan, np.nan)
        for L in rows.values()
    ]
    return printed(pd.DataFrame(cells, columns=list(_COLUMNS), index=pd.Index(list(rows), name="term")))


def _cells(test: FTest, fit: Fit) -> tuple[float, ...]:
    # Sums of squares need one residual variance to be compared with.
    mean_sq = test.F / test.scale * fit.sigma**2 if fit.independent_residuals else np.nan
    return mean_sq * test.num_df, mean_sq, test.num_df, test.den_df, test.F, test.p_value


def _t_columns(fit: Any, chosen: Method, rows: FloatArray, target: FloatArray) -> dict[str, FloatArray]:
    warn_unknown(fit, rows, "a test", stacklevel=4)
    estimate = masked(fit, rows, rows @ fit.beta)
    se = known_errors(fit, rows, chosen.vcov)
    df = chosen.t_df(rows)
    statistic = (estimate - target) / se
    return {
        "estimate": estimate,
        "std_error": se,
        "df": df,
        "statistic": statistic,
        "p_value": two_sided(statistic, df),
    }
