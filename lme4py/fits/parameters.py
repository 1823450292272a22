"""Names and values of all parameters of a model, on the scale of standard deviations and correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.covariance import CovarianceStructure, NaturalParameter
from lme4py.covariance.charts import Chart
from lme4py.covariance.naming import is_shape, natural_values, shape_words
from lme4py.design.design import Design, RandomTerm
from lme4py.design.names import INTERCEPTS
from lme4py.design.smooths import smooth_columns
from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.families.base import Family
from lme4py.families.ordered.categories import threshold_names
from lme4py.fits.base import Fit
from lme4py.linalg.small import symmetric_root
from lme4py.linalg.types import FloatArray

__all__ = [
    "DISPERSION",
    "RESIDUAL",
    "KenwardRogerParts",
    "Parameter",
    "VarianceDerivatives",
    "VarianceInformation",
    "check_names",
    "fit_parameters",
    "fit_values",
    "has_correlations",
    "is_determined",
    "is_inverted",
    "natural_names",
    "parameters",
    "profile_range",
    "select_parameters",
    "term_labels",
]

RESIDUAL = "sd(Residual)"
DISPERSION = "dispersion"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    Attributes
    ----------
    name : str
        ``"Days"``, ``"sd(Intercept | Subject)"``, ``"cor(Intercept, Days | Subject)"``, ``"sigma"``; of the keyword
        door `stata`; ``"dispersion"`` and ``"1|2"`` (a threshold) for generalised models.
    kind : str
        "fixed", "sd", "corr", "sigma", "dispersion", "threshold", "other" (of the family: a power, coefficients of
        further linear predictors), or another kind of `NaturalParameter` such as "range".
    term : int
        Position of the random-effects term in the design; -1 for fixed effects and the residual.
    first, second : int
        Columns of X (fixed) or of the term; `first` is the number of a threshold.
    alias : str
        lme4's name: ``"sd_(Intercept)|Subject"``, ``"sigma"``.
    stata : str
        The name in the keyword door: ``"sd(_cons)"``, ``"corr(_cons,Days)"``, ``"sd(Residual)"``; with several
        grouping factors ``"sd(_cons|g)"``.
    plain : str
        The name in the formula door.
    inverted : bool
        One over the parameter of the family is reported.
    natural : int
        Place among the natural parameters of the term's covariance structure; -1 for what belongs to none.
    shape : CovarianceStructure or None
        The structure, where the parameter is no standard deviation and no correlation of two columns.
    reciprocal : bool
        One over the parameter of the family is what a profile follows: its range ends at infinity.
    smooth : bool
        A coefficient of an unpenalised column of a smooth, which "fixed" does not take.
    natural_parameter : NaturalParameter or None
        Of a parameter of the residuals ("residual" is its kind, `natural` its place among all of them, `first` its
        stratum and `second` its place in the structure of it); None for coefficients of their standard deviation.
    """

    name: str
    kind: str
    term: int = -1
    first: int = -1
    second: int = -1
    alias: str = ""
    stata: str = ""
    plain: str = ""
    inverted: bool = False
    reciprocal: bool = False
    natural: int = -1
    shape: CovarianceStructure | None = None
    smooth: bool = False
    natural_parameter: NaturalParameter | None = None

    @property
    def is_angle(self) -> bool:
        """A correlation: a profile follows its arc sine."""
        own = self.natural_parameter
        return self.kind == "corr" or (own is not None and own.kind == "cor")

    @property
    def is_residual_sd(self) -> bool:
        """A standard deviation of the residuals of a structure."""
        return self.natural_parameter is not None and self.natural_parameter.kind == "sd"

    @property
    def is_random(self) -> bool:
        """Belongs to the random effects, or is the residual standard deviation."""
        return self.term >= 0 or self.kind == "sigma"

    def of_covariance(self, covariance: FloatArray) -> float:
        """The value of a parameter of a covariance structure where the covariance matrix of the term is this one."""
        if self.shape is None:
            raise TypeError(f"{self.name} is an element of the covariance matrix")
        if not np.isfinite(covariance).all():
            return float("nan")
        theta = self.shape.theta_of_factor(symmetric_root(covariance))
        return float(natural_values(self.shape, theta, covariance)[self.natural])

    @property
    def flipped(self) -> bool:
        """One over what a profile follows is reported."""
        return self.inverted != self.reciprocal

    def reported(self, value: Any) -> Any:
        """What is reported where the parameter of the family has this value, and the other way round."""
        with np.errstate(divide="ignore"):
            return 1.0 / np.asarray(value, dtype=np.float64)[()] if self.inverted else value


def parameters(design: Design, residual: bool = True, stata: bool = False) -> tuple[Parameter, ...]:
    """Fixed effects, then standard deviations and correlations of each term, then the residual one.

    Parameters
    ----------
    design : Design
    residual : bool
        Whether the model has a residual standard deviation.
    stata : bool
        Whether they have the names of the keyword door.
    """
    return tuple(_spoken(parameter, design, stata) for parameter in _parameters(design, residual))


def _parameters(design: Design, residual: bool) -> list[Parameter]:
    """The same under the names that they are made with."""
    smooth = smooth_columns(design).tolist() if design.smooth_terms else [False] * len(design.x_names)
    out = [
        Parameter(name, "fixed", first=j, alias=_lme4_name(name), smooth=own)
        for j, (name, own) in enumerate(zip(design.x_names, smooth, strict=True))
    ]
    several = len(design.n_groups) > 1
    taken: set[str] = set()
    for t, (term, label) in enumerate(zip(design.terms, term_labels(design.terms), strict=True)):
        own = _of_term(design, t, f"|{term.group}" if several else "", term.group, label)
        if any(parameter.stata in taken or parameter.plain in taken for parameter in own):
            own = _of_term(design, t, f"|{label}", label, label)
        taken.update(name for parameter in own for name in (parameter.stata, parameter.plain))
        out.extend(own)
    if residual:
        out.append(Parameter(RESIDUAL, "sigma", alias="sigma", stata=RESIDUAL, plain="sigma"))
    return out


def _spoken(parameter: Parameter, design: Design, stata: bool) -> Parameter:
    """The parameter under its name in the door that the model came by.

    A fixed effect that is called "sigma" leaves the residual standard deviation its longer name.
    """
    name = _spoken_name(parameter, design, stata)
    return parameter if name == parameter.name else replace(parameter, name=name)


def _spoken_name(parameter: Parameter, design: Design, stata: bool) -> str:
    name = parameter.stata if stata or parameter.plain in design.x_names else parameter.plain
    return name or parameter.name


def fit_parameters(fit: Fit) -> tuple[Parameter, ...]:
    """All parameters of a fit: fixed effects, thresholds, standard deviations and correlations, dispersion.

    Parameters
    ----------
    fit : Fit
    """
    plain = parameters(fit.design, fit.has_residual, fit.conventions.stata)
    fixed = [parameter for parameter in plain if parameter.kind == "fixed"]
    cuts = [Parameter(name, "threshold", first=k, alias=name) for k, name in enumerate(fit.threshold_names)]
    rest = [parameter for parameter in plain if parameter.kind != "fixed"]
    if fit.log_dispersion is not None and not fit.has_residual and fit.design.log_dispersion is None:
        name = fit.family.stata_parameter if is_inverted(fit) else fit.family.parameter
        endless = fit.family.limit is not None and np.isposinf(fit.family.limit.dispersion)
        rest.append(
            Parameter(DISPERSION, "dispersion", alias=name, inverted=is_inverted(fit), reciprocal=bool(endless))
        )
    names = fit.family.nuisance_names if fit.others else ()
    others = [Parameter(name, "other", first=k, alias=name) for k, name in enumerate(names)]
    return (*fixed, *cuts, *others, *rest)


def check_names(design: Design, family: Family | None = None, stata: bool = False) -> None:
    """Refuse a model in which a fixed effect has the name of another parameter, before it is fitted.

    Parameters
    ----------
    design : Design
    family : Family, optional
        None for a linear mixed model.
    stata : bool
        Whether results have the names of the keyword door.

    Raises
    ------
    DataError
    """
    residual = family is None or family.has_residual
    names = [_spoken_name(parameter, design, stata) for parameter in _parameters(design, residual)]
    if family is not None and family.n_dispersion and not residual:
        names.append(DISPERSION)
    if family is not None:
        names += family.nuisance_names
    ordered = family is None or family.has_thresholds
    names += threshold_names(() if design.response is None or not ordered else design.response.categories or ())
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(
            f"two parameters of the model would be called {twice!r} (results give the dispersion, the thresholds of "
            "ordered categories and the standard deviations such names); rename the column of the data, or the levels"
        )


def fit_values(fit: Fit, wanted: Sequence[Parameter]) -> FloatArray:
    """Estimates of parameters of a fit; NaN for a correlation with an effect that has no variance, and for what has no
    unique estimate.

    Parameters
    ----------
    fit : Fit
    wanted : sequence of Parameter
    """
    covariances = fit.covariance_estimates
    beta, thresholds = fit.beta_estimates, fit.threshold_estimates
    thetas = fit.design.structures.split(fit.theta)
    limits = fit.other_limits
    values = [
        float(natural_values(p.shape, thetas[p.term], covariances[p.term])[p.natural])
        if p.shape is not None
        else float(thresholds[p.first])
        if p.kind == "threshold" and thresholds is not None
        else p.reported(fit.dispersion)
        if p.kind == "dispersion"
        else float(limits[p.first] or fit.family.other_values(fit.others)[p.first])
        if p.kind == "other"
        else float(fit.residual_values[p.natural])
        if p.kind == "residual"
        else _value(p, beta, covariances, fit.sigma)
        for p in wanted
    ]
    return np.array(values)


def is_determined(fit: Fit, parameter: Parameter) -> bool:
    """Whether the design determines a parameter, so that it can have a standard error and an interval.

    Parameters
    ----------
    fit : Fit
    parameter : Parameter
    """
    if parameter.term < 0:
        return True
    mask = fit.identification.determined(parameter.term)
    if parameter.shape is not None:
        return mask is None or bool(mask.all())
    used = np.ix_((parameter.first, parameter.second), (parameter.first, parameter.second))
    return mask is None or bool(mask[used].all())


def profile_range(design: Design, parameter: Parameter) -> tuple[float, float]:
    """Ends of what a profile of a parameter of a covariance matrix moves in, which for a correlation is an angle.

    Parameters
    ----------
    design : Design
    parameter : Parameter
    """
    natural = design.terms[parameter.term].structure.natural_parameters[parameter.natural]
    if parameter.kind == "corr":
        return float(np.arcsin(natural.lower)), float(np.arcsin(natural.upper))
    return natural.lower, natural.upper


def _of_term(design: Design, t: int, suffix: str, group: str, label: str) -> list[Parameter]:
    """Standard deviations and correlations of a term: `suffix` of Stata's names, `group` of the plain ones."""
    term = design.terms[t]
    if term.smooth:
        return _of_smooth(term, t)
    names = [_stata_name(name) for name in term.columns]
    plain = [_plain_name(name) for name in term.columns]
    long = [_lme4_name(name) for name in term.columns]
    if not term.structure.linear:
        return _of_structure(term, t, suffix, group, label)
    place = term.structure.natural_place
    out = []
    for i in range(term.n_columns):
        stata, own = f"sd({names[i]}{suffix})", f"sd({plain[i]} | {group})"
        natural = place("sd", (i,))
        out.append(Parameter(stata, "sd", t, i, i, f"sd_{long[i]}|{label}", stata, own, natural=natural))
    if has_correlations(term):
        for j in range(term.n_columns):
            for i in range(j + 1, term.n_columns):
                stata, own = f"corr({names[j]},{names[i]}{suffix})", f"cor({plain[j]}, {plain[i]} | {group})"
                alias, natural = f"cor_{long[i]}.{long[j]}|{label}", place("cor", (j, i))
                out.append(Parameter(stata, "corr", t, j, i, alias, stata, own, natural=natural))
    return out


def natural_names(design: Design) -> list[Parameter]:
    """The parameters of all covariance structures, each once: ``"cor(homcs | g)"`` stands for those of all pairs.

    Parameters
    ----------
    design : Design
    """
    labels = enumerate(zip(design.terms, term_labels(design.terms), strict=True))
    return [own for t, (term, label) in labels for own in _of_structure(term, t, "", term.group, label)]


def _of_smooth(term: RandomTerm, t: int) -> list[Parameter]:
    """The standard deviations of the penalised coefficients of a smooth: one for each penalty."""
    out = []
    for i, natural in enumerate(term.structure.natural_parameters):
        _, _, detail = natural.label.partition("(")
        name = f"sd({term.label}{', ' if detail else ''}{detail.removesuffix(')')})"
        shape = term.structure if is_shape(term.structure, natural) else None
        alias = f"sd_{name.removeprefix('sd(').removesuffix(')')}"
        out.append(
            Parameter(name, "sd" if shape is None else "theta", t, 0, 0, alias, name, name, natural=i, shape=shape)
        )
    return out


def _of_structure(term: RandomTerm, t: int, suffix: str, group: str, label: str) -> list[Parameter]:
    """The parameters of a covariance structure that is no linear space, each once."""
    if term.smooth:
        return _of_smooth(term, t)
    structure, out = term.structure, []
    for i, natural in enumerate(structure.natural_parameters):
        if natural.held:
            continue
        word, own = shape_words(structure, natural, [_stata_name(name) for name in term.columns], ",")
        kind = {"cor": "corr"}.get(natural.kind, natural.kind)
        stata = f"{'corr' if word == 'cor' else word}({own}{suffix})"
        plain = f"{word}({shape_words(structure, natural, [_plain_name(n) for n in term.columns])[1]} | {group})"
        alias = f"{word}_{shape_words(structure, natural, [_lme4_name(n) for n in term.columns], '.')[1]}|{label}"
        first, second = (natural.columns * 2)[:2] or (0, 0)
        shape = structure if is_shape(structure, natural) else None
        out.append(Parameter(stata, kind, t, first, second, alias, stata, plain, natural=i, shape=shape))
    return out


def _plain_name(name: str) -> str:
    return "Intercept" if name in INTERCEPTS else name


def _stata_name(name: str) -> str:
    return "_cons" if name == "Intercept" else name


def _lme4_name(name: str) -> str:
    return "(Intercept)" if name in INTERCEPTS else name


def _value(parameter: Parameter, beta: FloatArray, covariances: Sequence[FloatArray], sigma: float) -> float:
    if parameter.kind == "fixed":
        return float(beta[parameter.first])
    if parameter.kind == "sigma":
        return sigma
    cov = covariances[parameter.term]
    if parameter.shape is not None:
        return parameter.of_covariance(cov)
    i, j = parameter.first, parameter.second
    if parameter.kind == "sd":
        return float(np.sqrt(cov[i, i]))
    size = float(np.sqrt(cov[i, i] * cov[j, j]))
    # Rounding may leave a correlation of a singular matrix just outside its range.
    return float(np.clip(cov[i, j] / size, -1.0, 1.0)) if size > 0 else float("nan")


def select_parameters(known: Sequence[Parameter], parm: str | Sequence[str] | None) -> list[Parameter]:
    """The parameters that a user asks for.

    Parameters
    ----------
    known : sequence of Parameter
    parm : str, sequence of str, or None
        "fixed", "random" (standard deviations, correlations and the residual one), "residual" (of a residual structure
        and variance functions), "all" (also None), or names; those of the other door and lme4's are understood too.
        Thresholds and the dispersion belong to "all".
    """
    if parm is None or (isinstance(parm, str) and parm == "all"):
        return list(known)
    if isinstance(parm, str) and parm in ("fixed", "random"):
        return [p for p in known if (p.kind == "fixed" and not p.smooth if parm == "fixed" else p.is_random)]
    if isinstance(parm, str) and parm == "residual" and any(p.kind == "residual" for p in known):
        return [p for p in known if p.kind == "residual"]
    names: Sequence[Any] = [parm] if isinstance(parm, str) else list(parm)
    if not names:
        raise OptionError("`parm` is empty; name a parameter, or use 'fixed', 'random' or 'all'.")
    return [_find(known, name) for name in names]


def _find(known: Sequence[Parameter], name: object) -> Parameter:
    # A column of the data may be called as lme4 calls a parameter: names come first.
    for attribute in ("name", "plain", "stata", "alias"):
        for parameter in known:
            if name == getattr(parameter, attribute):
                return parameter
    names = [parameter.name for parameter in known]
    for parameter in known:
        # "y1:x" is the coefficient x of the response y1.
        if name == parameter.name.replace(": ", ":"):
            return parameter
    raise OptionError(
        f"There is no parameter {name!r}.{did_you_mean(str(name), names)} The parameters are {', '.join(names)}; "
        "parm may also be 'fixed', 'random' or 'all'."
    )


def term_labels(terms: tuple[RandomTerm, ...]) -> list[str]:
    """Label of each term: its factor, numbered from the second term of a factor in a part on (as lme4)."""
    seen: dict[tuple[str, str], int] = {}
    labels = []
    for term in terms:
        place = (term.group, term.column_parts[0])
        count = seen.get(place, 0)
        labels.append(term.group if count == 0 else f"{term.group}.{count}")
        seen[place] = count + 1
    return labels


def has_correlations(term: RandomTerm) -> bool:
    """True where the covariances of the term are parameters, not zeros by definition."""
    return term.structure.has_correlations


def is_inverted(fit: Fit) -> bool:
    """True where one over the parameter of the family is reported."""
    return fit.conventions.stata and fit.family.stata_inverts


@dataclass(frozen=True)
class VarianceInformation:
    """Covariance of all s parameters phi, and derivatives of what is reported in phi.

    phi is (theta inside, log sigma, beta) for a linear model, (theta, beta, log dispersion or thresholds) for a
    generalised one.

    Attributes
    ----------
    covariance : ndarray, shape (s, s)
        Inverse of half the Hessian of the criterion (restricted likelihood for REML fits).
    covariances : tuple of ndarray, each (s, k, k)
        Derivatives of the covariance matrix of each term.
    residual : ndarray, shape (s,)
        Derivatives of log sigma^2 (log dispersion); zeros for a family without a dispersion parameter.
    fixed : ndarray, shape (s, p)
        Derivatives of the fixed effects.
    thresholds : ndarray, shape (s, K - 1)
        Derivatives of the thresholds of an ordinal model.
    thetas : tuple of ndarray, each (s, m_t)
        Derivatives of the user's theta of each term.
    relative : bool
        Covariances are relative to sigma^2.
    """

    covariance: FloatArray
    covariances: tuple[FloatArray, ...]
    residual: FloatArray
    fixed: FloatArray
    thresholds: FloatArray
    thetas: tuple[FloatArray, ...]
    relative: bool = False

    @property
    def scale(self) -> FloatArray:
        """Derivatives of the logarithm of sigma where covariances are relative to it, else zeros, (s,)."""
        return 0.5 * self.residual if self.relative else np.zeros_like(self.residual)

    def std_error(self, gradient: FloatArray) -> float:
        """Standard error of a function with this gradient in phi."""
        return float(np.sqrt(max(float(gradient @ self.covariance @ gradient), 0.0)))


@dataclass(frozen=True)
class VarianceDerivatives:
    """First and second derivatives in the s variance parameters; the last parameter is log sigma^2.

    Attributes
    ----------
    charts : tuple of Chart
        One per term.
    jacobian : ndarray, shape (s, p, p)
        Derivatives of the covariance of the fixed effects, in the user's columns.
    hessian : ndarray, shape (s, s)
        Of the criterion (-2 log-likelihood or REML criterion), not profiled over sigma.
    covariance : ndarray, shape (s, s)
        Asymptotic covariance of the parameters, twice the inverse of the Hessian; directions that the data do not
        identify are left out.
    covariances : tuple of ndarray, each (s, k, k)
        Derivatives of the covariance matrix of every term, in the user's columns.
    """

    charts: tuple[Chart, ...]
    jacobian: FloatArray
    hessian: FloatArray
    covariance: FloatArray
    covariances: tuple[FloatArray, ...]

    def degrees_of_freedom(self, variance: FloatArray, gradient: FloatArray) -> FloatArray:
        """Satterthwaite's 2 v^2 / (g'Ag) of estimates with variances v, (n,), and their gradients g, (n, s)."""
        spread = np.einsum("rs,st,rt->r", gradient, self.covariance, gradient)
        with np.errstate(divide="ignore", invalid="ignore"):
            df: FloatArray = 2.0 * variance**2 / spread
        return df


@dataclass(frozen=True)
class KenwardRogerParts:
    """Ingredients of Kenward-Roger; the variance parameters are relative to sigma^2.

    Attributes
    ----------
    vcov : ndarray, shape (p, p)
        Adjusted covariance, in the user's columns.
    C : ndarray, shape (p, p)
        The user's coefficients are C times those of the engine's columns.
    phi : ndarray, shape (p, p)
        (X'V^-1X)^-1 in the engine's columns.
    changes : ndarray, shape (s, p, p)
        Its derivatives Phi K_i Phi.
    inverse_traces : ndarray, shape (s, s)
        Half the asymptotic covariance of the parameters.
    missing : str
        Why the adjustment does not exist at the estimates, all of the above is then NaN; "" where it does.
    """

    vcov: FloatArray
    C: FloatArray
    phi: FloatArray
    changes: FloatArray
    inverse_traces: FloatArray
    missing: str = ""
