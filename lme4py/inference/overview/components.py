"""Coefficients of the linear predictors after the first, and those of all of them.

A part is looked at as a model of its own: a view of the fit whose fixed effects are those of the part, with their block
of the covariance of all parameters, so that tables and Wald tests are made by the functions that make them for the
conditional part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.design.design import CONDITIONAL
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.inference.estimates import coefficients
from lme4py.inference.estimates.part_views import ALL, all_parameter_vcov, component_names, part_view
from lme4py.inference.estimates.random_effects import one_or_dict
from lme4py.inference.estimates.residual_part import DISPERSION_PART, dispersion_view, has_dispersion_part, only_wald
from lme4py.inference.overview.intervals import intervals
from lme4py.inference.tests.anova import anova, own_term_tests
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.fits.rows.clusters import ClusterChoice

__all__ = [
    "by_component",
    "component_anova",
    "component_covariance",
    "component_intervals",
    "component_modes",
    "component_table",
]


def by_component(
    fit: Fit,
    component: str | None,
    make: Callable[[Any], pd.DataFrame],
    view: Callable[[str], Any] | None = None,
) -> pd.DataFrame:
    """A table of one component, or of all below each other with a column that names them.

    Parameters
    ----------
    fit : Fit
    component : str or None
    make : callable
        The table of a fit, or of the view of a part.
    view : callable, optional
        The view of a part by its name.
    """
    import pandas as pd

    names = component_names(fit, component)
    look = view or (lambda name: part_view(fit, name))
    tables = [make(fit if name == CONDITIONAL else look(name)) for name in names]
    if component != ALL:
        return tables[0]
    for name, table in zip(names, tables, strict=True):
        table.insert(0, "component", name)
    return pd.concat(tables)


def component_table(
    fit: Fit,
    ddf: str | None = None,
    vcov: str | None = None,
    cluster: ClusterChoice = None,
    component: str | None = None,
) -> pd.DataFrame:
    """Table estimate, std_error, df, statistic, p_value of the coefficients of one component, or of all.

    Parameters
    ----------
    fit : Fit
    ddf, vcov, cluster
        As in `lme4py.inference.estimates.coefficients.coef_table`.
    component : str, optional
        One of `components`, or "all", which adds a column; None is the conditional part.
    """
    if has_dispersion_part(fit) and component == DISPERSION_PART:
        only_wald(ddf)

    def table(one: Any) -> pd.DataFrame:
        if one is fit:
            return coefficients.coef_table(one, ddf, vcov, cluster)
        return coefficients.coef_table(one, None if has_dispersion_part(fit) else ddf)

    return by_component(fit, component, table, lambda name: part_view(fit, name, vcov, cluster))


def component_covariance(
    fit: Fit, type: str | None = None, cluster: ClusterChoice = None, component: str | None = None
) -> pd.DataFrame:
    """Covariance matrix of the coefficients of one component, or of all together.

    Parameters
    ----------
    fit : Fit
    type, cluster
        As in `lme4py.inference.estimates.coefficients.covariance_frame`.
    component : str, optional
        With "all" the names of further parts are those of `conf_int(parm="all")`.
    """
    import pandas as pd

    names = component_names(fit, component)
    if names == (CONDITIONAL,):
        return coefficients.covariance_frame(fit, type, cluster)
    if component != ALL:
        return coefficients.covariance_frame(part_view(fit, names[0], type, cluster))
    if has_dispersion_part(fit):
        return _side_by_side(coefficients.covariance_frame(fit), part_view(fit, DISPERSION_PART, type, cluster))
    whole = all_parameter_vcov(fit, type, cluster)
    m, count = fit.theta.size, fit.beta.size + fit.family.n_coefficients
    labels = [*fit.design.x_names, *fit.family.nuisance_names[: fit.family.n_coefficients]]
    V: FloatArray = whole[m : m + count, m : m + count]
    return pd.DataFrame(V, index=labels, columns=labels)


def _side_by_side(fixed: pd.DataFrame, view: Any) -> pd.DataFrame:
    """Covariance of fixed effects and coefficients of the dispersion, which are independent in a linear model."""
    import pandas as pd

    own = coefficients.covariance_frame(view)
    names = [*fixed.index, *(f"{DISPERSION_PART}: {name}" for name in own.index)]
    p = len(fixed)
    V = np.zeros((len(names), len(names)))
    V[:p, :p], V[p:, p:] = fixed, own
    return pd.DataFrame(V, index=names, columns=names)


def _dispersion_or_both(fit: Fit, component: str | None, parm: str | Sequence[str], **options: Any) -> pd.DataFrame:
    """Wald limits of coefficients of the dispersion part of a linear model, or of it below the fixed effects."""
    import pandas as pd

    own = None if component == ALL else options.get("ddf")
    only_wald(own, options.get("vcov"), options.get("method", "wald"))
    view = dispersion_view(fit)
    # Coefficients only: the view keeps the variances of the model beside them.
    wanted = view.design.x_names if component == ALL or parm == "fixed" else [parm] if isinstance(parm, str) else parm
    strange = [name for name in wanted if name not in view.design.x_names]
    if strange:
        hint = did_you_mean(str(strange[0]), view.design.x_names)
        raise OptionError(f"the dispersion part has no coefficient {strange[0]!r}.{hint}")
    found = intervals(view, options.get("alpha"), "wald", list(wanted))
    if component != ALL:
        return found
    both = pd.concat([intervals(fit, parm="fixed", **options), found.rename(index=lambda x: f"{DISPERSION_PART}: {x}")])
    return both if parm == "fixed" else both.loc[[parm] if isinstance(parm, str) else list(parm)]


def component_intervals(fit: Fit, component: str | None, parm: str | Sequence[str], **options: Any) -> pd.DataFrame:
    """Confidence limits of the coefficients of one component, or of all.

    Parameters
    ----------
    fit : Fit
    component : str, optional
    parm : "fixed", or names
        Names of a part are those of its coefficients.
    **options
        Of `intervals`.
    """
    names = component_names(fit, component)
    if names == (CONDITIONAL,):
        return intervals(fit, parm=parm, **options)
    if has_dispersion_part(fit):
        return _dispersion_or_both(fit, component, parm, **options)
    own = fit.family.nuisance_names[: fit.family.n_coefficients]
    if component == ALL:
        found = intervals(fit, parm=[*fit.design.x_names, *own], **options)
        return found.loc[found.index if parm == "fixed" else [parm] if isinstance(parm, str) else list(parm)]
    prefix = f"{names[0]}: "
    wanted = [parm] if isinstance(parm, str) else list(parm)
    chosen = [n for n in own if n.startswith(prefix)] if parm == "fixed" else [f"{prefix}{name}" for name in wanted]
    found = intervals(fit, parm=chosen, **options)
    found.index = found.index.str.removeprefix(prefix)
    return found


def component_anova(fit: Fit, component: str | None, type: Any, ddf: Any) -> pd.DataFrame:
    """Wald tests of the terms of one component, or of all.

    Parameters
    ----------
    fit : Fit
    component : str, optional
    type, ddf
        As in `lme4py.inference.tests.anova.anova`.
    """

    def tests(one: Any) -> pd.DataFrame:
        # Effects on thresholds have the same columns, one threshold after the other.
        if one is not fit and has_dispersion_part(fit):
            only_wald(ddf)
            return anova(one, type=type)
        shared = one is not fit and int(np.linalg.matrix_rank(one.design.X)) < one.design.X.shape[1]
        return own_term_tests(one) if shared else anova(one, type=type, ddf=ddf)

    return by_component(fit, component, tests)


def component_modes(fit: Fit, tables: dict[str, pd.DataFrame], component: str | None) -> Any:
    """Modes of the random effects of one component: the columns of the tables that belong to it, under their own names.

    Parameters
    ----------
    fit : Fit
    tables : dict of str to DataFrame
        Of each grouping factor.
    component : str, optional
        None and "all" are all of them.
    """
    if component in (None, ALL):
        return one_or_dict(tables)
    (name,) = component_names(fit, component)
    further = [f"{part}: " for part in fit.family.components[1:]]
    kept = {}
    for factor, table in tables.items():
        conditional = [c for c in table.columns if not any(str(c).startswith(prefix) for prefix in further)]
        own = conditional if name == CONDITIONAL else [c for c in table.columns if str(c).startswith(f"{name}: ")]
        if own:
            kept[factor] = table[own].rename(columns=lambda c: str(c).removeprefix(f"{name}: "))
    if not kept:
        raise OptionError(f"the {name} part has no random effects.")
    return one_or_dict(kept)
