"""Names and values of all parameters of a model, on the scale of standard deviations and correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.design.conventions import INTERCEPTS
from lme4py.design.design import Design, RandomTerm
from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.families.base import Family
from lme4py.families.categories import threshold_names
from lme4py.fits.base import Fit
from lme4py.linalg.types import FloatArray

__all__ = [
    "DISPERSION",
    "RESIDUAL",
    "KenwardRogerParts",
    "Parameter",
    "Root",
    "VarianceDerivatives",
    "VarianceInformation",
    "check_names",
    "fit_parameters",
    "fit_values",
    "has_correlations",
    "is_determined",
    "is_inverted",
    "parameter_values",
    "parameters",
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
        "fixed", "sd", "corr", "sigma", "dispersion" or "threshold".
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
    reciprocal : bool
        One over the parameter of the family is what a profile follows: its range ends at infinity.
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

    @property
    def flipped(self) -> bool:
        """One over what a profile follows is reported."""
        return self.inverted != self.reciprocal

    def reported(self, value: Any) -> Any:
        """What is reported where the parameter of the family has this value, and the other way round."""
        with np.errstate(divide="ignore"):
            return 1.0 / np.asarray(value, dtype=np.float64)[()] if self.inverted else value


def parameters(design: Design, residual: bool = True) -> tuple[Parameter, ...]:
    """Fixed effects, then standard deviations and correlations of each term, then the residual one.

    Parameters
    ----------
    design : Design
    residual : bool
        Whether the model has a residual standard deviation.
    """
    out = [Parameter(name, "fixed", first=j, alias=_lme4_name(name)) for j, name in enumerate(design.x_names)]
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
    return tuple(_spoken(parameter, design) for parameter in out)


def _spoken(parameter: Parameter, design: Design) -> Parameter:
    """The parameter under its name in the door that the design came by.

    A fixed effect that is called "sigma" leaves the residual standard deviation its longer name.
    """
    name = parameter.stata if design.conventions.stata or parameter.plain in design.x_names else parameter.plain
    return replace(parameter, name=name) if name else parameter


def fit_parameters(fit: Fit) -> tuple[Parameter, ...]:
    """All parameters of a fit: fixed effects, thresholds, standard deviations and correlations, dispersion.

    Parameters
    ----------
    fit : Fit
    """
    plain = parameters(fit.design, residual=fit.has_residual)
    fixed = [parameter for parameter in plain if parameter.kind == "fixed"]
    cuts = [Parameter(name, "threshold", first=k, alias=name) for k, name in enumerate(fit.threshold_names)]
    rest = [parameter for parameter in plain if parameter.kind != "fixed"]
    if fit.log_dispersion is not None and not fit.has_residual:
        name = fit.family.stata_parameter if is_inverted(fit) else fit.family.parameter
        endless = fit.family.limit is not None and np.isposinf(fit.family.limit.dispersion)
        rest.append(
            Parameter(DISPERSION, "dispersion", alias=name, inverted=is_inverted(fit), reciprocal=bool(endless))
        )
    return (*fixed, *cuts, *rest)


def check_names(design: Design, family: Family | None = None) -> None:
    """Refuse a model in which a fixed effect has the name of another parameter, before it is fitted.

    Parameters
    ----------
    design : Design
    family : Family, optional
        None for a linear mixed model.

    Raises
    ------
    DataError
    """
    residual = family is None or family.has_residual
    names = [parameter.name for parameter in parameters(design, residual)]
    if family is not None and family.n_dispersion and not residual:
        names.append(DISPERSION)
    names += threshold_names(() if design.response is None else design.response.categories or ())
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
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
    values = [
        float(thresholds[p.first])
        if p.kind == "threshold" and thresholds is not None
        else p.reported(fit.dispersion)
        if p.kind == "dispersion"
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
    if parameter.kind not in ("sd", "corr"):
        return True
    mask = fit.identification.determined(parameter.term)
    used = np.ix_((parameter.first, parameter.second), (parameter.first, parameter.second))
    return mask is None or bool(mask[used].all())


def _of_term(design: Design, t: int, suffix: str, group: str, label: str) -> list[Parameter]:
    """Standard deviations and correlations of a term: `suffix` of Stata's names, `group` of the plain ones."""
    term = design.terms[t]
    names = [_stata_name(name) for name in term.columns]
    plain = [_plain_name(name) for name in term.columns]
    long = [_lme4_name(name) for name in term.columns]
    out = []
    for i in range(term.n_columns):
        stata, own = f"sd({names[i]}{suffix})", f"sd({plain[i]} | {group})"
        out.append(Parameter(stata, "sd", t, i, i, f"sd_{long[i]}|{label}", stata, own))
    if has_correlations(term):
        for j in range(term.n_columns):
            for i in range(j + 1, term.n_columns):
                stata, own = f"corr({names[j]},{names[i]}{suffix})", f"cor({plain[j]}, {plain[i]} | {group})"
                out.append(Parameter(stata, "corr", t, j, i, f"cor_{long[i]}.{long[j]}|{label}", stata, own))
    return out


def _plain_name(name: str) -> str:
    return "Intercept" if name in INTERCEPTS else name


def _stata_name(name: str) -> str:
    return "_cons" if name == "Intercept" else name


def _lme4_name(name: str) -> str:
    return "(Intercept)" if name in INTERCEPTS else name


def parameter_values(
    wanted: Sequence[Parameter], beta: FloatArray, covariances: Sequence[FloatArray], sigma: float
) -> FloatArray:
    """Values of parameters; a correlation with an effect that has no variance is NaN.

    Parameters
    ----------
    wanted : sequence of Parameter
    beta : ndarray, shape (p,)
    covariances : sequence of ndarray, each (k, k)
    sigma : float
    """
    return np.array([_value(parameter, beta, covariances, sigma) for parameter in wanted])


def _value(parameter: Parameter, beta: FloatArray, covariances: Sequence[FloatArray], sigma: float) -> float:
    if parameter.kind == "fixed":
        return float(beta[parameter.first])
    if parameter.kind == "sigma":
        return sigma
    cov = covariances[parameter.term]
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
        "fixed", "random" (standard deviations, correlations and the residual one), "all" (also None), or names; those
        of the other door and lme4's are understood too. Thresholds and the dispersion belong to "all".
    """
    if parm is None or (isinstance(parm, str) and parm == "all"):
        return list(known)
    if isinstance(parm, str) and parm in ("fixed", "random"):
        kinds = ("fixed",) if parm == "fixed" else ("sd", "corr", "sigma")
        return [p for p in known if p.kind in kinds]
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
    raise OptionError(
        f"There is no parameter {name!r}.{did_you_mean(str(name), names)} The parameters are {', '.join(names)}; "
        "parm may also be 'fixed', 'random' or 'all'."
    )


def term_labels(terms: tuple[RandomTerm, ...]) -> list[str]:
    """Label of each term: its factor, numbered from the second term of a factor on (as lme4)."""
    seen: dict[str, int] = {}
    labels = []
    for term in terms:
        count = seen.get(term.group, 0)
        labels.append(term.group if count == 0 else f"{term.group}.{count}")
        seen[term.group] = count + 1
    return labels


def has_correlations(term: RandomTerm) -> bool:
    """True where the covariances of the term are parameters, not zeros by definition."""
    return term.structure in ("unstructured", "exchangeable") and term.n_columns > 1


def is_inverted(fit: Fit) -> bool:
    """True where one over the parameter of the family is reported."""
    return fit.design.conventions.stata and fit.family.stata_inverts


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
    """

    covariance: FloatArray
    covariances: tuple[FloatArray, ...]
    residual: FloatArray
    fixed: FloatArray
    thresholds: FloatArray

    def std_error(self, gradient: FloatArray) -> float:
        """Standard error of a function with this gradient in phi."""
        return float(np.sqrt(max(float(gradient @ self.covariance @ gradient), 0.0)))


@dataclass(frozen=True)
class Root:
    """A root of the relative covariance matrix of one term and the directions in which it can move.

    Attributes
    ----------
    value : ndarray, shape (k, r)
        R with Sigma = R R', in the engine's columns.
    directions : tuple of ndarray, each (k, r)
    steps : tuple of float
        Length of the step of a difference in each direction.
    """

    value: FloatArray
    directions: tuple[FloatArray, ...]
    steps: tuple[float, ...]

    def sigma_directions(self) -> list[FloatArray]:
        """dSigma = D R' + R D' for each direction D, (k, k)."""
        halves = [D @ self.value.T for D in self.directions]
        return [half + half.T for half in halves]


@dataclass(frozen=True)
class VarianceDerivatives:
    """First and second derivatives in the s variance parameters; the last parameter is log sigma^2.

    Attributes
    ----------
    roots : tuple of Root
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

    roots: tuple[Root, ...]
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
    """

    vcov: FloatArray
    C: FloatArray
    phi: FloatArray
    changes: FloatArray
    inverse_traces: FloatArray
