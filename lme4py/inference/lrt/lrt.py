"""Likelihood-ratio tests of nested models, with the right distribution on the boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.arguments import speaks
from lme4py.design.design import Design
from lme4py.engine.threads import limited_threads
from lme4py.errors import OptionError
from lme4py.fits.answers.null import Null
from lme4py.fits.base import Fit, fit_of
from lme4py.fits.kinds import model_of
from lme4py.fits.model import Model
from lme4py.fits.refuse import refuse_penalised, refuse_residual, refuse_without_random
from lme4py.inference.lrt.by_names import embed_by_names, same_rows
from lme4py.inference.lrt.families import check_families, differ_in_dispersion
from lme4py.inference.lrt.mixture import (
    Mixture,
    UnknownDistribution,
    cone_information,
    cone_mixture,
    dispersion_mixture,
)
from lme4py.inference.lrt.nesting import Embedding, check_same_smooths, embed, refuse_null_of_smooths, without_terms
from lme4py.inference.lrt.parts import lacks_zero_part, location_columns, zero_part_mixture
from lme4py.inference.lrt.residual import check_residuals
from lme4py.inference.lrt.simulation import bootstrap_ratios
from lme4py.inference.refits.simulate import check_count, check_seed
from lme4py.linalg.spans import same_span, spans
from lme4py.linalg.types import FloatArray
from lme4py.tables.html import render_html
from lme4py.tables.numbers import format_p_value
from lme4py.tables.shown import facts
from lme4py.text import Sentence

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LRTestResult", "likelihood_table", "lrtest"]

# A difference of offsets of this relative size is rounding of the columns that take it up.
_SPAN = 1e-9

METHODS = ("asymptotic", "bootstrap", "exact")


@dataclass(frozen=True, repr=False)
class LRTestResult(Sentence):
    """A likelihood-ratio test.

    Attributes
    ----------
    chi2 : float
        Twice the difference of the log-likelihoods.
    df : int
        Difference of the numbers of parameters.
    p_value : float
    boundary_corrected : bool
        True when the p-value is not that of a chi-squared distribution with `df` degrees of freedom.
    restricted_logL, full_logL : float
        (Restricted) log-likelihoods.
    note : str
        The distribution, in words.
    weights : dict of int to float
        Degrees of freedom -> weight of the mixture; empty for simulated tests.
    """

    chi2: float
    df: int
    p_value: float
    boundary_corrected: bool
    restricted_logL: float
    full_logL: float
    note: str = ""
    weights: dict[int, float] | None = None

    def __str__(self) -> str:
        return f"LR chi2({self.df}) = {self.chi2:.4f}, p = {self.p_value:.4g} ({self.note})"

    def _repr_html_(self) -> str:
        rows = [
            ("chi2", f"{self.chi2:.4f}"),
            ("Degrees of freedom", str(self.df)),
            ("p", format_p_value(self.p_value)),
            ("Log-likelihood, restricted", f"{self.restricted_logL:.4f}"),
            ("Log-likelihood, full", f"{self.full_logL:.4f}"),
        ]
        return render_html([facts("Likelihood-ratio test", rows, [self.note] if self.note else [])])


# Largest Monte-Carlo error of a statistic that is turned into a p-value.
_UNCERTAIN = 0.1


@dataclass(frozen=True)
class _Model:
    """What a test needs to know of a model; `fit` is None for a model without random effects.

    `plain` is that model where it is a generalised linear one.
    """

    design: Design
    X: FloatArray
    reml: bool
    logL: float
    n_params: int
    fit: Any
    null: Null | None = None

    @property
    def has_random(self) -> bool:
        return self.fit is not None

    @property
    def has_rows(self) -> bool:
        return self.design.streamed is None

    @property
    def n_redundant(self) -> int:
        """Parameters that no data of the design tell from others."""
        return self.fit.identification.n_redundant if self.has_random else 0

    @property
    def rank(self) -> int:
        """Parameters that the design determines."""
        return self.n_params - self.n_redundant


@speaks
def lrtest(
    restricted: Any,
    full: Any,
    boundary: bool | None = None,
    *,
    method: str = "asymptotic",
    n_sim: int | None = None,
    seed: int | None = None,
) -> LRTestResult:
    """Likelihood-ratio test of a model against a larger one.

    Parameters
    ----------
    restricted : result or None
        The smaller model. None is the full model without its random effects (a linear, generalised linear or
        cumulative link model); such a model fitted by statsmodels to the same response will do too.
    full : result
        The larger model, fitted to the same data by the same method. REML fits must have the same fixed effects.
    boundary : bool, optional
        None uses a mixture of chi-squared distributions where variances are tested against zero, with weights that
        follow from what is tested (for generalised models from the information of the working linear model), and for
        a Poisson model against a negative binomial one, which is Poisson at the boundary of its dispersion; False
        always uses the chi-squared distribution; True insists on a mixture.
    method : {"asymptotic", "bootstrap", "exact"}
        "bootstrap" simulates responses from the restricted model and fits both models to them; "exact" is the
        finite-sample distribution for the only variance of a linear model (Crainiceanu & Ruppert 2004).
    n_sim : int, optional
        Simulations of the last two; 10,000 for linear models and 1,000 for generalised ones when not given.
    seed : int, optional

    Returns
    -------
    LRTestResult

    Examples
    --------
    >>> from lme4py import lmer, load_dataset, lrtest
    >>> data = load_dataset("sleepstudy")
    >>> one = lmer("Reaction ~ Days + (1 | Subject)", data, reml=False)
    >>> two = lmer("Reaction ~ Days + (Days | Subject)", data, reml=False)
    >>> test = lrtest(one, two)
    >>> round(test.chi2, 4), test.df, f"{test.p_value:.3e}"
    (42.1393, 2, '3.961e-10')
    """
    if method not in METHODS:
        raise OptionError(f"method={method!r} is not known; use one of {', '.join(METHODS)}.")
    if boundary is not None and not isinstance(boundary, bool):
        raise OptionError(f"`boundary` is {boundary!r}; give None, True or False.")
    large = _model(full, "full")
    if restricted is None:
        refuse_without_random(large.fit, "the test against the model without them is")
    if _has_structure(restricted, large):
        return _residual_test(restricted, large, boundary, method)
    if restricted is None:
        refuse_without_random(large.fit, "a test of the model without its random effects is")
    small = _without_random(restricted, large) if _is_linear(restricted) else _model(restricted, "restricted")
    _check_same_data(small, large)
    _check_same_method(small, large)
    df = _check_sizes(small, large)
    embedding = _check_nested(small, large)
    chi2 = _statistic(small, large)
    if method != "asymptotic":
        count = model_of(large.fit).n_simulations if n_sim is None else n_sim
        return _simulated(small, large, chi2, df, method, check_count("n_sim", count, 100), check_seed(seed))
    mixture = _mixture(small, large, embedding, df, boundary)
    note = f"{mixture.note}{_monte_carlo(small, large)}"
    return LRTestResult(
        chi2, df, mixture.p_value(chi2), not mixture.is_plain, small.logL, large.logL, note, mixture.weights
    )


def _monte_carlo(small: _Model, large: _Model) -> str:
    """How well a statistic is known where a criterion is a mean over random probes, in words.

    Raises
    ------
    OptionError
        Not well enough for a p-value.
    """
    fits = [model.fit for model in (small, large) if model.has_random]
    known = [fit.certificate.monte_carlo for fit in fits if fit.certificate.monte_carlo is not None]
    if not known:
        return ""
    error = float(np.sqrt(sum(one.criterion_se**2 for one in known)))
    if error > _UNCERTAIN:
        raise OptionError(
            f"chi2 is known with a Monte-Carlo standard error of {error:.2g}, which p-values do not bear; fit the "
            f"models with control={{'criterion_se': {0.5 * _UNCERTAIN}}}, or with control={{'block': 'exact'}}."
        )
    return f"; Monte-Carlo standard error of chi2 {error:.2g}"


def _has_structure(restricted: Any, large: _Model) -> bool:
    fits = [large.fit, fit_of(restricted)]
    return any(fit is not None and not fit.independent_residuals for fit in fits)


def _residual_test(restricted: Any, large: _Model, boundary: bool | None, method: str) -> LRTestResult:
    """Models with a residual structure: chi-squared tests, with one variance at the end of its range at most.

    The small model is then on the edge of a half-space, whatever the information is: half of the weight is that of one
    degree of freedom less (Self & Liang 1987, case 5; Stram & Lee 1994).
    """
    if method != "asymptotic":
        refuse_residual("simulated likelihood ratios are", "use method='asymptotic'")
    if restricted is not None and _is_linear(restricted):
        refuse_residual("a test against a linear model of another package is", "fit the smaller model with lmer()")
    small = _model(without_terms(large.fit) if restricted is None else restricted, "restricted")
    _check_same_data(small, large)
    _check_same_method(small, large)
    df = _check_sizes(small, large)
    if not spans(large.X, small.X):
        raise OptionError(
            "the models are not nested: the fixed effects of the restricted one are no linear combinations of those "
            "of the full one. Compare AIC or BIC."
        )
    if boundary is False:
        at_boundary = False
        with suppress(UnknownDistribution):
            check_residuals(small.fit, large.fit)
    else:
        at_boundary = check_residuals(small.fit, large.fit)
    if boundary and not at_boundary:
        raise OptionError("boundary=True: no variance is at the end of its range in the restricted model.")
    chi2 = _statistic(small, large)
    if not at_boundary:
        p = float(special.chdtrc(df, chi2))
        return LRTestResult(chi2, df, p, False, small.logL, large.logL, "chi-squared", {df: 1.0})
    mixture = Mixture({df - 1: 0.5, df: 0.5}, f"0.5 chi2({df - 1}) + 0.5 chi2({df})")
    return LRTestResult(chi2, df, mixture.p_value(chi2), True, small.logL, large.logL, mixture.note, mixture.weights)


def _model(result: Any, role: str) -> _Model:
    fit = fit_of(result)
    if fit is None:
        raise OptionError(
            f"the {role} model is of type {type(result).__name__}; give a fitted mixed model"
            f"{' (or None for no random effects)' if role == 'restricted' else ''}."
        )
    refuse_penalised(fit, "a likelihood ratio test is", "use wald_test(), or the models without priors")
    if fit.pseudo_likelihood:
        raise OptionError(
            f"the {role} model has sampling weights: a pseudo-likelihood has no likelihood-ratio test; use wald_test()."
        )
    return _Model(fit.design, location_columns(fit), fit.reml, fit.log_likelihood, fit.n_params, fit)


def _is_linear(result: Any) -> bool:
    return result is None or (hasattr(result, "model") and hasattr(result.model, "exog"))


def _without_random(result: Any, large: _Model) -> _Model:
    """The model without random effects, by the method of the full model."""
    refuse_null_of_smooths(large.fit)
    null = model_of(large.fit).without_random(result)
    return _Model(large.design, null.X, large.reml, null.log_likelihood, null.n_params, None, null)


def _check_same_data(small: _Model, large: _Model) -> None:
    a, b = small.design, large.design
    check_same_smooths(a, b)
    if a.n_obs != b.n_obs:
        raise OptionError(
            f"the restricted model was fitted to {a.n_obs} rows and the full one to {b.n_obs}: their likelihoods "
            "cannot be compared. Fit both to the rows without missing values in any variable."
        )
    if not (small.has_rows and large.has_rows):
        reason = same_rows(a, b)
        if reason:
            raise OptionError(reason)
        return
    if a.y.shape != b.y.shape or not np.array_equal(a.y, b.y):
        raise OptionError(
            "the models have different responses (or rows in another order): their likelihoods cannot be compared."
        )
    for name, missing in (("weights", 1.0), ("offset", 0.0)):
        x, z = (np.full(d.n_obs, missing) if getattr(d, name) is None else getattr(d, name) for d in (a, b))
        if not np.array_equal(x, z) and not (name == "offset" and _fitted_by(large.X, z - x)):
            raise OptionError(f"the models have different {name}: they are not nested. Use the same {name} in both.")
    if a.sigma != b.sigma:
        known = ["estimated" if d.sigma is None else f"{d.sigma:g}" for d in (a, b)]
        raise OptionError(
            f"the known residual standard deviations differ ({known[0]} and {known[1]}); use the same sigma= in both."
        )


def _fitted_by(X: FloatArray, difference: FloatArray) -> bool:
    """Whether offsets differ by what columns can take up, as where a coefficient is known in one of the models."""
    left = difference - X @ np.linalg.lstsq(X, difference, rcond=None)[0]
    return bool(np.linalg.norm(left) <= _SPAN * np.linalg.norm(difference))


def _check_same_method(small: _Model, large: _Model) -> None:
    if small.reml != large.reml:
        one, other = ("REML", "ML") if small.reml else ("ML", "REML")
        raise OptionError(
            f"the restricted model was fitted by {one} and the full one by {other}; fit both with reml=False, or "
            "both with reml=True when they have the same fixed effects."
        )
    if small.reml and not _same_fixed(small, large):
        raise OptionError(
            "REML likelihoods of models with different fixed effects cannot be compared; fit both models with "
            "reml=False (result.anova() does so)."
        )
    if not small.has_random:
        return
    if small.fit.normal_errors != large.fit.normal_errors:
        raise OptionError(
            "one model is a linear mixed model and the other a generalised one: their likelihoods cannot be compared; "
            "fit both by the same function."
        )
    check_families(small.fit, large.fit)
    _check_thresholds(small.fit, large.fit)


def _same_fixed(small: _Model, large: _Model) -> bool:
    if large.has_rows:
        return same_span(small.X, large.X)
    return set(small.design.x_names) == set(large.design.x_names)


def _check_thresholds(small: Fit, large: Fit) -> None:
    """Thresholds of ordinal models: the structure of the restricted one must be a special case."""
    a, b = (fit.family.threshold_matrix for fit in (small, large))
    if a is None or b is None:
        return
    if a.shape[0] != b.shape[0] or not spans(b, a):
        raise OptionError(
            f"the models are not nested: {small.family.variant} are no special case of "
            f"{large.family.variant.removesuffix(' thresholds')} ones. Compare AIC or BIC."
        )


def _check_sizes(small: _Model, large: _Model) -> int:
    df = large.rank - small.rank
    if df < 0:
        raise OptionError(
            f"the restricted model has {small.rank} parameters and the full one {large.rank}; the restricted "
            "one comes first."
        )
    if df == 0 and (small.n_redundant or large.n_redundant):
        raise OptionError(
            f"both models have {small.rank} parameters that the data determine (one of them has more, which cannot be "
            "told apart): there is nothing to test."
        )
    if df == 0:
        raise OptionError(
            f"both models have {small.n_params} parameters: none is a special case of the other; compare AIC."
        )
    return df


def _check_nested(small: _Model, large: _Model) -> Embedding:
    if not large.has_rows:
        return _nested_by_names(small, large)
    if not spans(large.X, small.X):
        raise OptionError(
            "the models are not nested: the fixed effects of the restricted one are no linear combinations of those "
            "of the full one. Compare AIC or BIC."
        )
    covariances: tuple[FloatArray, ...] = ()
    if small.has_random:
        scale = small.fit.theta_unit**2
        covariances = tuple(cov / scale for cov in small.fit.covariances)
    found = embed(large.design, small.design if small.has_random else None, covariances)
    if found is None:
        terms = " + ".join(term.label for term in small.design.terms)
        raise OptionError(
            f"the models are not nested: the random effects {terms} are no special case of "
            f"{' + '.join(term.label for term in large.design.terms)}. Compare AIC or BIC."
        )
    return found


def _nested_by_names(small: _Model, large: _Model) -> Embedding:
    """The same without the rows."""
    hint = "compare AIC or BIC, or fit both with control={'rows': 'memory'}"
    if not small.has_random:
        raise OptionError(f"the model without random effects needs the rows, which were streamed; {hint}.")
    if not set(small.design.x_names) <= set(large.design.x_names):
        raise OptionError(f"the names of the fixed effects do not show that the models are nested; {hint}.")
    scale = small.fit.theta_unit**2
    covariances = tuple(cov / scale for cov in small.fit.covariances)
    found = embed_by_names(large.design, small.design, covariances)
    if found is None:
        raise OptionError(f"the names of the random effects do not show that the models are nested; {hint}.")
    return found


def _statistic(small: _Model, large: _Model) -> float:
    chi2 = 2.0 * (large.logL - small.logL)
    if large.reml and large.has_rows and not np.array_equal(small.X, large.X):
        # The restricted likelihood depends on the coding of the fixed effects; this part is constant.
        chi2 += _log_det(large.X) - _log_det(small.X)
    # Both optima are certified to less than this.
    noise = 1e-7 * max(1.0, abs(large.logL) * 1e-3)
    if chi2 < -10.0 * noise:
        raise OptionError(
            f"the full model has a lower log-likelihood ({large.logL:.6f}) than the restricted one "
            f"({small.logL:.6f}): it has not converged. Refit it with other starting values (`start=`)."
        )
    return chi2 if chi2 > noise else 0.0


def _log_det(X: FloatArray) -> float:
    """log|X'X|."""
    return 2.0 * float(np.log(np.abs(np.diag(np.linalg.qr(X)[1]))).sum())


def _mixture(small: _Model, large: _Model, embedding: Embedding, df: int, boundary: bool | None) -> Mixture:
    if boundary is False:
        return Mixture({df: 1.0}, "chi-squared, as asked for")
    fit, model = large.fit, model_of(large.fit)
    if small.has_random and differ_in_dispersion(small.fit, fit):
        return dispersion_mixture(embedding, df, fit.family.parameter)
    if small.has_random and lacks_zero_part(small.fit, fit):
        return zero_part_mixture(fit, embedding, df)

    def information() -> FloatArray:
        with limited_threads(large.design):
            at = model.cone_problem(small.fit if small.null is None else small.null)
            return cone_information(at.problem, embedding, at.reml, scale_is_known=at.scale_is_known)

    # The working linear model of several predictors is none of one.
    mixture = cone_mixture(embedding, df, None if fit.family.stacked else information)
    if boundary and mixture.is_plain:
        raise OptionError(
            "boundary=True, but the hypothesis does not put a variance on the boundary of zero, so that the plain "
            "chi-squared distribution is right; leave `boundary` out."
        )
    return mixture


def _simulated(
    small: _Model, large: _Model, chi2: float, df: int, method: str, n_sim: int, seed: int | None
) -> LRTestResult:
    exact = method == "exact"
    model = model_of(large.fit)
    if exact:
        with limited_threads(large.design):
            ratios, failed = _exact(small, large, n_sim, seed), 0
    else:
        ratios, failed = bootstrap_ratios(_drawn(small), large.fit, n_sim, seed)
    above = int((ratios >= chi2 - model.tie).sum())
    # The observed statistic counts as one of the simulated ones, so that p is never zero.
    p = above / n_sim if exact and above else (above + 1.0) / (ratios.size + 1.0)
    name = "finite-sample distribution" if exact else "parametric bootstrap"
    told = failed or not large.fit.normal_errors
    count = f"{n_sim} simulations, {failed} failed" if told else f"{ratios.size} simulations"
    return LRTestResult(chi2, df, 1.0 if chi2 == 0.0 else p, True, small.logL, large.logL, f"{name}, {count}", {})


def _drawn(small: _Model) -> Model | Null:
    """What responses of the restricted model are drawn from."""
    return model_of(small.fit) if small.null is None else small.null


def _exact(small: _Model, large: _Model, n_sim: int, seed: int | None) -> FloatArray:
    model = model_of(large.fit)
    if large.fit.normal_errors and (small.has_random or not same_span(small.X, large.X) or large.fit.theta.size != 1):
        raise OptionError(
            "method='exact' tests the only variance of a model with one random-effects parameter against "
            "zero; give None as the restricted model, or use method='bootstrap'."
        )
    return model.exact_ratios(n_sim, seed)


def likelihood_table(results: Sequence[Any], refit: bool = True, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Table of likelihood-ratio tests, each model against the one above it.

    Parameters
    ----------
    results : sequence of results
        Models of the same data, in any order; statsmodels' fits without random effects (OLS, GLM) may be among them.
    refit : bool
        Refit REML fits by maximum likelihood first; ``attrs["note"]`` says so.
    names : sequence of str, optional
        Names of the models; their formulas when not given.

    Returns
    -------
    pandas.DataFrame
        Columns npar, AIC, BIC, logLik, deviance, chi2, df, p_value, p_chi2: the last is the plain chi-squared p-value
        (it is not printed), `p_value` that of `lrtest`, NaN where a model is not nested in the next one.
        ``attrs["note"]`` holds what there is to say in words.
    """
    import pandas as pd

    from lme4py.tables.frames import printed

    if len(results) < 2:
        raise OptionError("a table of likelihood-ratio tests needs at least two models.")
    plain = [i for i, result in enumerate(results) if result is not None and _is_linear(result)]
    mixed = {i: _model(result, "compared") for i, result in enumerate(results) if i not in plain}
    labels = list(names) if names is not None else _labels(results, mixed)
    if len(labels) != len(results) or isinstance(names, str):
        raise OptionError(f"names= has {len(labels)} names for {len(results)} models; give one for each.")
    if not mixed:
        raise OptionError("none of the models is a fitted mixed model; compare the others in statsmodels.")
    notes = []
    if refit and any(model.reml for model in mixed.values()):
        mixed = {
            i: _model(model_of(model.fit).by_maximum_likelihood(), "compared") if model.reml else model
            for i, model in mixed.items()
        }
        notes.append("REML fits were refitted with ML.")
    largest = max(mixed.values(), key=lambda model: model.n_params)
    mixed |= {i: _without_random(results[i], largest) for i in plain}
    models = [mixed[i] for i in range(len(results))]
    order = sorted(range(len(models)), key=lambda i: models[i].n_params)
    rows = []
    for position, i in enumerate(order):
        rows.append(_row(models[i]))
        if position:
            before = order[position - 1]
            restricted = models[before].fit if models[before].has_random else results[before]
            rows[-1] |= _compare(restricted, models[before], models[i], labels[i], notes)
    columns = ["npar", "AIC", "BIC", "logLik", "deviance", "chi2", "df", "p_value", "p_chi2"]
    index = pd.Index([labels[i] for i in order], name="model")
    table = pd.DataFrame(rows, columns=columns, index=index)
    return printed(table, note=" ".join(notes), hidden=["p_chi2"])


def _labels(results: Sequence[Any], mixed: Mapping[int, _Model]) -> list[str]:
    """Formulas, with the family where models differ in it; of a model without one what it is."""
    families = {i: model.fit.family.name for i, model in mixed.items()}
    told = len(set(families.values())) > 1

    def label(i: int) -> str:
        if i not in mixed:
            return str(getattr(results[i].model, "formula", "without random effects"))
        text = mixed[i].design.formula
        return f"{text} ({families[i]})" if told and families[i] else text

    return [label(i) for i in range(len(results))]


def _row(model: _Model) -> dict[str, float]:
    deviance, k = -2.0 * model.logL, model.n_params
    bic = deviance + float(np.log(model.design.n_obs)) * k
    return {"npar": k, "AIC": deviance + 2.0 * k, "BIC": bic, "logLik": model.logL, "deviance": deviance}


def _compare(restricted: Any, small: _Model, large: _Model, label: str, notes: list[str]) -> dict[str, float]:
    _check_same_data(small, large)
    _check_same_method(small, large)
    chi2, df = max(2.0 * (large.logL - small.logL), 0.0), large.rank - small.rank
    out = {"chi2": chi2, "df": float(df)}
    if df > 0:
        out["p_chi2"] = float(special.chdtrc(df, chi2))
    if not large.has_random:
        # Two models without random effects: a plain test, where they are nested.
        nested = not small.has_random and df > 0 and spans(large.X, small.X)
        return out | ({"p_value": out["p_chi2"]} if nested else {})
    try:
        test = lrtest(restricted, large.fit)
    except OptionError as error:
        notes.append(f"{label}: {error}")
        return out
    if test.boundary_corrected:
        notes.append(f"{label}: {test.note}.")
    return out | {"p_value": test.p_value}
