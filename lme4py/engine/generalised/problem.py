"""Generalised linear mixed models: the problem, and the conditional mode.

    eta = offset + X beta + Z Lambda u,      u~ = argmin -2 sum log f(y | eta, lambda) + |u|^2
    -2 log L = -2 sum log f + |u~|^2 + log|M|,      M = I + Lambda'Z'WZ Lambda

(Bates et al. 2015, JSS 67(1), for the symbols.) W holds the observed or the expected weights -d2 log f / d eta2.
lambda is the logarithm of the dispersion, or holds the parameters of the thresholds of ordered categories. Everything
is in the scaled columns of `lme4py.engine.linear.scaling`. Several linear predictors with random effects stand one
below the other, as `lme4py.engine.generalised.stacking` has it: eta then has D n rows, and fixed effects of the further
ones are part of lambda.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg

from lme4py.covariance import CovarianceStructures
from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.factor.sweep import Swept
from lme4py.engine.generalised.fixed_system import FixedSystem, WeightedFixed
from lme4py.engine.generalised.iterative.cells import CellProducts
from lme4py.engine.generalised.penalty import GlmmPenalty
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.generalised.stacking import Stack
from lme4py.engine.identification.record import Identification
from lme4py.families.nuisance import Nuisance, change
from lme4py.families.rows import DispersionLimit
from lme4py.linalg.types import BoolArray, FloatArray

if TYPE_CHECKING:
    from lme4py.engine.generalised.laplace import Laplace
    from lme4py.engine.generalised.making.chained import ChainPart

# The mode has been found when another Newton step would lower the penalised deviance by less than this.
TOLERANCE = 1e-15
_LAST_STEP = 1e-6
# Decreases go down by their squares, and a part of them: from this many roots of a tolerance to below it.
_SQUARED = 10.0
MAX_STEPS = 100
MAX_HALVINGS = 40
# Logarithms of parameters beyond this leave nothing of the likelihood in double precision.
_FARTHEST_NUISANCE = 80.0
# And those of scales of ordered categories: rows are steps or constants long before.
_FARTHEST_SCALE = 100.0


@dataclass(frozen=True)
class GlmmProblem:
    """A generalised linear mixed model in the engine's columns.

    Attributes
    ----------
    factors : tuple of Factor
    structures : CovarianceStructures
    C : ndarray, shape (p, p)
        X inside = X C.
    S : tuple of ndarray, each (k, k)
        Z inside = Z S for each term.
    X : ndarray, shape (D n, p)
        Rows of further predictors are zero: their fixed effects are in lambda, and the family adds them.
    offset : ndarray, shape (D n,)
    products : WeightedProducts
    family : Family
    data : object
        What the family needs to know of the response.
    expected : bool
        Use the expected weights in log|M|, as lme4 does.
    shift : ndarray, shape (p,), or None
        Ordered categories: X inside = X C + 1 shift'; the constant stands in the thresholds.
    unit : float
        Size of the linear predictor where it has the unit of the response (1 for logit, log and their like): the
        columns are multiplied by it, so that beta and theta inside have no unit.
    identification : Identification
        Which covariance parameters are determined.
    penalty : GlmmPenalty or None
        Of a model with priors.
    known : float or None
        Log dispersion, where it is no parameter.
    restricted : bool
        The criterion integrates over the fixed effects too, whose estimates are then those of the joint mode.
    copies : tuple of ndarray, each (J,), or None
        How many levels of a grouping factor each of its levels stands for, where these are not one; () where all are.
        The columns inside are divided by the root, so that u inside is the root times u (see
        `lme4py.engine.generalised.weighted_groups`).
    chain : ChainPart or None
        The term of many times that is fitted by its sparse inverse.
    """

    factors: tuple[Factor, ...]
    structures: CovarianceStructures
    C: FloatArray
    S: tuple[FloatArray, ...]
    X: FloatArray
    offset: FloatArray
    products: WeightedProducts
    family: Any
    data: Any
    expected: bool
    shift: FloatArray | None = None
    unit: float = 1.0
    identification: Identification = field(default_factory=Identification)
    penalty: GlmmPenalty | None = None
    known: float | None = None
    restricted: bool = False
    copies: tuple[FloatArray | None, ...] = ()
    chain: ChainPart | None = None

    @property
    def n_obs(self) -> int:
        return self.stack.n

    @property
    def is_iterative(self) -> bool:
        """Whether crossed effects are solved iteratively: there is no factor of them."""
        return isinstance(self.products, CellProducts)

    @cached_property
    def row_units(self) -> FloatArray | None:
        """Units of rows of several responses, by which their columns are multiplied; None for one response."""
        units: FloatArray | None = self.family.row_units(self.data)
        return units

    @property
    def units(self) -> float | FloatArray:
        """`unit`, or those of the rows of several responses."""
        return self.unit if self.row_units is None else self.row_units

    @property
    def stack(self) -> Stack:
        """How the linear predictors stand in one column."""
        return self.products.stack

    @property
    def factors_at_start(self) -> tuple[Factor, ...]:
        """The factors with the correlations of a chain that a search starts from."""
        if self.chain is None:
            return self.factors
        typical = self.chain.levels.relation(self.chain.levels.typical())
        f = self.chain.factor
        return (*self.factors[:f], replace(self.factors[f], relation=typical), *self.factors[f + 1 :])

    def effects(self, T: list[FloatArray], u: FloatArray, transpose: bool = False) -> FloatArray:
        """Lambda u (or Lambda' u) for stacked columns u, shape (Q,)."""
        factors, chain = self.factors, self.chain
        if len(factors) == 1 and T[0].shape == (1, 1):
            scaled: FloatArray = u * T[0][0, 0]
            return scaled
        out, start = np.empty_like(u), 0
        for f, (factor, t) in enumerate(zip(factors, T, strict=True)):
            stop = start + factor.size
            if chain is not None and f == chain.factor:
                out[start:stop] = chain.effects(T, u[start:stop], transpose)
            elif factor.n_columns == 1:
                np.multiply(u[start:stop], t[0, 0], out=out[start:stop])
            else:
                part = u[start:stop].reshape(factor.n_columns, -1)
                out[start:stop] = ((t.T if transpose else t) @ part).ravel()
            start = stop
        return out

    def spherical_effects(self, T: list[FloatArray], b: FloatArray) -> FloatArray | None:
        """u with Lambda u = b, shape (Q,); None where Lambda is singular, or not made of one T for each factor."""
        if self.chain is not None or not self.factors:
            return None
        parts = []
        for factor, t, own in zip(self.factors, T, self.products.split(b), strict=True):
            try:
                u = np.linalg.solve(t, own.reshape(factor.n_columns, -1))
            except np.linalg.LinAlgError:
                return None
            parts.append(u.ravel())
        return np.concatenate(parts) if np.isfinite(b).all() else None

    def scaled(self, T: list[FloatArray], size: float) -> list[FloatArray]:
        """T of Lambda times a number."""
        out = [size * own for own in T]
        if self.chain is not None:
            # Of (s, phi) the scale alone.
            out[self.chain.factor] = T[self.chain.factor] * np.array([[size, 1.0]])
        return out

    @cached_property
    def has_ones(self) -> bool:
        """Whether the first column of X is ones."""
        return bool(self.X.shape[1]) and bool((self.X[:, 0] == 1.0).all())

    def fixed_part(self, beta: FloatArray) -> FloatArray:
        """The first linear predictor without random effects, shape (n,)."""
        n = self.offset.size if self.family.is_joint else self.n_obs
        part: FloatArray = self.offset[:n] + self.X[:n] @ beta
        return part

    @property
    def n_fixed(self) -> int:
        return int(self.X.shape[1])

    @property
    def n_theta(self) -> int:
        return self.structures.n_theta

    @cached_property
    def n_dispersion(self) -> int:
        """1 when the family has a dispersion parameter that is estimated."""
        return int(self.family.n_dispersion) if self.known is None else 0

    @cached_property
    def n_nuisance(self) -> int:
        """Parameters beside theta and beta: the dispersion, or those of the thresholds."""
        return int(self.family.n_nuisance) if self.known is None else 0

    @property
    def lambda_without(self) -> float:
        """Log dispersion where it is no parameter: 0 where the family has none."""
        return 0.0 if self.known is None else self.known

    @property
    def score_order(self) -> int:
        """Order of the rows that holds the score in all parameters."""
        return int(self.family.nuisance_order) if self.n_nuisance else 1

    @property
    def uses_expected(self) -> bool:
        """Whether log|M| has other weights than the Newton steps."""
        return self.expected and not self.family.canonical

    def factor_T(self, theta: FloatArray) -> list[FloatArray]:
        """T of every grouping factor: block diagonal in its terms."""
        by_term = self.structures.factors(theta)
        return [
            by_term[factor.terms[0]]
            if len(factor.terms) == 1
            else scipy.linalg.block_diag(*[by_term[t] for t in factor.terms])
            for factor in self.factors
        ]

    # -- the dispersion near the end of its range; it is the last element of lambda -----------------------------------

    @cached_property
    def has_one_dispersion(self) -> bool:
        """Whether lambda is a log dispersion and nothing else."""
        return bool(self.n_dispersion) and self.n_nuisance == 1

    @cached_property
    def limit_lambda(self) -> float:
        """Log dispersion that stands for its limit; only for families that have one."""
        return self._limit.stand_in + self._lambda_unit

    @cached_property
    def _lambda_unit(self) -> float:
        return float(self.family.lambda_unit(self.data))

    @cached_property
    def has_limit(self) -> bool:
        """Whether the family has a dispersion, and that a limit."""
        return bool(self.n_dispersion) and self.family.limit is not None

    @property
    def end_of_dispersion(self) -> float:
        """Log dispersion at the end of what can be computed: at its limit, where it has one."""
        return self.limit_lambda if self.has_limit else self._lambda_unit - _FARTHEST_NUISANCE

    @property
    def limit_model(self) -> str:
        """What the model is at the limit of the dispersion, in words."""
        return self._limit.model

    def reported_lambda(self, lam: Any) -> float:
        """Log dispersion as users see it: inf or -inf at the end of its range."""
        own = _last(lam)
        return float(np.inf * np.sign(self._limit.stand_in)) if self.at_limit(own) else own

    @cached_property
    def _limit(self) -> DispersionLimit:
        limit: DispersionLimit | None = self.family.limit
        if limit is None:
            raise NotImplementedError(f"the {self.family.name} family does not say what its dispersion tends to")
        return limit

    def at_limit(self, lam: Any) -> bool:
        """Whether the dispersion stands for its limit."""
        return self.has_limit and self._limit.is_stand_in(_last(lam) - self._lambda_unit)

    def held(self, phi: FloatArray) -> BoolArray:
        """Which parameters stand at the end of their range: the log dispersion, the last one, at its limit."""
        held = np.zeros(phi.size, dtype=bool)
        if self.n_dispersion:
            held[-1] = self.at_limit(phi[-1])
        return held

    def beyond_limit(self, lam: Any) -> bool:
        """Whether lambda lies where the likelihood would have no digits left."""
        if not self.n_nuisance:
            return False
        if self.family.has_thresholds:
            return self.scale_depth(lam) > _FARTHEST_SCALE
        own = np.atleast_1d(lam)[sum(part.X.shape[1] for part in self.data.parts) :]
        if not self.has_one_dispersion and float(np.abs(own).max(initial=0.0)) > _FARTHEST_NUISANCE:
            return True
        if not self.has_limit:
            return bool(self.n_dispersion) and abs(_last(lam) - self._lambda_unit) > _FARTHEST_NUISANCE
        beyond = _last(lam) - self.limit_lambda
        return beyond > 1e-6 if self._limit.stand_in > 0.0 else beyond < -1e-6

    def scale_depth(self, lam: Any) -> float:
        """Largest logarithm of a scale of ordered categories, of either sign; 0 where all have one scale."""
        own = self.family.scale_columns(self.data)
        return 0.0 if own is None else float(np.abs(own[1] @ np.atleast_1d(lam)[own[0]]).max(initial=0.0))

    def in_tail(self, lam: Any) -> bool:
        """Whether the likelihood hardly changes any more between the dispersion and its limit."""
        return self.has_limit and self._limit.in_tail(_last(lam) - self._lambda_unit)

    def lambda_inwards(self, share: float) -> float:
        """Log dispersion where it, or its reciprocal, is `share` of its unit: towards the limit, but not there."""
        if not self.has_limit:
            return self._lambda_unit
        return self._lambda_unit - float(np.sign(self._limit.stand_in)) * float(np.log(share))

    def sloped_lambda(self, lam: Any) -> Any:
        """lambda with the dispersion moved to where the likelihood has a slope: a start."""
        if not self.has_limit:
            return lam
        own = self._lambda_unit + self._limit.before_tail(_last(lam) - self._lambda_unit)
        return own if self.has_one_dispersion else np.append(np.atleast_1d(lam)[:-1], own)

    def less_dispersed(self, lam: Any, by: float) -> Any:
        """lambda with a dispersion that leaves more of the variation to the random effects: a start."""
        if not self.has_limit:
            return lam
        own = _last(lam) + by * float(np.sign(self.limit_lambda - _last(lam)))
        return self.sloped_lambda(own if self.has_one_dispersion else np.append(np.atleast_1d(lam)[:-1], own))

    # ----------------------------------------------------------------------------------------------------------------

    def split(self, phi: FloatArray) -> tuple[FloatArray, FloatArray, Any]:
        """theta, beta and lambda (log dispersion, 0 without one; or an array) out of one vector of parameters."""
        m, p = self.n_theta, self.n_fixed
        return phi[:m], phi[m : m + p], self.nuisance(phi[m + p :])

    def nuisance(self, values: FloatArray) -> Any:
        """lambda as the family has it: a number, or an array where there are several, from an array, shape (d,)."""
        if self.has_one_dispersion or not self.n_nuisance:
            return float(values[0]) if self.n_nuisance else self.lambda_without
        return values

    def join(self, theta: FloatArray, beta: FloatArray, lam: Nuisance) -> FloatArray:
        """The inverse of `split`."""
        return np.concatenate([theta, beta, np.atleast_1d(lam) if self.n_nuisance else []])

    def user_nuisance(self, beta: FloatArray, lam: Any) -> Any:
        """lambda on the user's scale from beta and lambda inside."""
        if self.shift is None:
            return lam
        return lam - self.family.constant * float(self.shift @ beta)


def _last(lam: Any) -> float:
    """The log dispersion out of lambda."""
    return float(lam[-1]) if isinstance(lam, np.ndarray) and lam.ndim else float(lam)


@dataclass(frozen=True)
class Mode:
    """The conditional mode at one value of the parameters.

    Attributes
    ----------
    theta : ndarray, shape (m,)
    beta : ndarray, shape (p,)
    lam : float or ndarray, shape (d,)
    T : list of ndarray
    u, b : ndarray, shape (Q,)
        Spherical random effects (K (x) I of related levels) and b = Lambda u; rows over factors, then columns, then
        levels.
    eta : ndarray, shape (D n,)
    rows : object
        Log-likelihood of each row and its derivatives.
    score : ndarray, shape (Q,)
        Z's with s = d log f / d eta.
    w : ndarray, shape (n,), or (n_pairs n,)
        Weights of `swept`.
    swept : Swept
    objective : float
        -2 sum log f + |u|^2, in the metric of the distribution of u.
    steps : int
    complete : bool
        Whether `rows` are of order 3.
    fixed : WeightedFixed or None
        Products of W X, where the search for the mode has needed them.
    """

    theta: FloatArray
    beta: FloatArray
    lam: Any
    T: list[FloatArray]
    u: FloatArray
    b: FloatArray
    eta: FloatArray
    rows: Any
    score: FloatArray
    w: FloatArray
    swept: Swept
    objective: float
    steps: int
    complete: bool
    fixed: WeightedFixed | None = None

    def weighted_fixed(self, problem: GlmmProblem) -> WeightedFixed:
        """Products of W X."""
        return WeightedFixed.of(problem, self.swept, self.w) if self.fixed is None else self.fixed


class ModeError(ArithmeticError):
    """No conditional mode was found at these parameters."""


class ModeFinder:
    """Penalised iteratively reweighted least squares: Newton steps with guaranteed decrease.

    Parameters
    ----------
    problem : GlmmProblem
    """

    def __init__(self, problem: GlmmProblem) -> None:
        self.problem = problem
        self.factorizations = 0
        # No modes are found after this many.
        self.most = np.inf

    # -- pieces --------------------------------------------------------------------------------------------------

    def spread(self, T: list[FloatArray], u: FloatArray, transpose: bool = False) -> FloatArray:
        """Lambda u (or Lambda' u) for stacked columns u, shape (Q,)."""
        return self.problem.effects(T, u, transpose)

    def predictor(self, theta: FloatArray, beta: FloatArray, u: FloatArray) -> FloatArray:
        """The linear predictors, (D n,)."""
        problem = self.problem
        b = self.spread(problem.factor_T(theta), u)
        eta: FloatArray = problem.products.predictor(b, problem.X, beta, problem.offset)
        return eta

    def rows(self, eta: FloatArray, lam: Nuisance, order: int) -> Any:
        """Log-likelihood of each row with derivatives; expected weights only where they are needed (order 3)."""
        expected = order == 3 and self.problem.expected
        return self.problem.family.derivatives(self.problem.data, eta, lam, order, expected=expected)

    def objective(self, rows: Any, z: FloatArray) -> float:
        value = -2.0 * float(rows.loglik.sum()) + float(z @ z)
        return value if np.isfinite(value) else np.inf

    def factorize(self, T: list[FloatArray], rows: Any) -> tuple[Swept, FloatArray]:
        """The factor with the observed weights, or with positive ones where that is not positive definite."""
        self.factorizations += 1
        try:
            return self.problem.products.factorize(T, rows.w_obs), rows.w_obs
        except np.linalg.LinAlgError:
            return self.problem.products.factorize(T, rows.w_work), rows.w_work

    # -- Newton --------------------------------------------------------------------------------------------------

    def find(
        self,
        theta: FloatArray,
        beta: FloatArray,
        lam: Nuisance,
        u: FloatArray,
        joint: bool = False,
        tolerance: float = TOLERANCE,
        order: int = 2,
        rows: Any = None,
        exact: bool = False,
    ) -> Mode:
        """The mode of u (and of beta when `joint`) from the starting values given.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        beta : ndarray, shape (p,)
        lam : float or ndarray, shape (d,)
        u : ndarray, shape (Q,)
        joint : bool
        tolerance : float
        order : int
            3 when the start is expected to be the mode: the rows then come with all derivatives.
        rows : EtaDerivatives, optional
            Those at the start, of this order, where they are known.
        exact : bool
            Take the last step too, whose decrease is below the tolerance. Without it the modes are off by the root of
            the decrease, and so is log|M|.

        Raises
        ------
        ModeError
        """
        if self.factorizations > self.most:
            raise ModeError("enough has been tried")
        problem = self.problem
        products = problem.products
        T = problem.factor_T(theta)
        b = self.spread(T, u)
        eta = products.predictor(b, problem.X, beta, problem.offset)
        rows = self.rows(eta, lam, order) if rows is None else rows
        complete = order == 3
        z = products.whitened(u)
        value = self.objective(rows, z)
        if not np.isfinite(value):
            raise ModeError("the likelihood is zero at the starting values")
        last = max(_LAST_STEP, _SQUARED * np.sqrt(tolerance))
        at_end = not exact
        for step in range(MAX_STEPS):
            swept, w = self.factorize(T, rows)
            score = products.gather(rows.score)
            slope = problem.X.T @ rows.score if joint else None
            new_u, change_beta, fixed = self._newton(swept, w, b, score, slope)
            change = new_u - u
            z_change = products.whitened(change)
            gradient = products.pulled_back(self.spread(T, score, transpose=True)) - z
            decrease = float(gradient @ z_change)
            if slope is not None and change_beta is not None:
                decrease += float(slope @ change_beta)
            if at_end and decrease <= tolerance:
                return Mode(theta, beta, lam, T, u, b, eta, rows, score, w, swept, value, step, complete, fixed)
            b_change = self.spread(T, change)
            eta_change = products.spread(b_change)
            if change_beta is not None:
                eta_change += problem.X @ change_beta
            t = problem.family.room(eta, eta_change)
            # After a step this small the next point is the mode.
            order = 3 if decrease < last else 2
            at_end = at_end or decrease <= tolerance
            noise = None
            for _ in range(MAX_HALVINGS):
                trial_eta = eta + eta_change if t == 1.0 else eta + t * eta_change
                trial_u = u + t * change
                trial_rows = self.rows(trial_eta, lam, order)
                trial_z = z + t * z_change
                trial = self.objective(trial_rows, trial_z)
                if trial <= value - 1e-4 * t * decrease:
                    break
                if noise is None:
                    # Rounding of the rows: log f is a difference of terms of the size of w eta.
                    noise = 1e-13 * abs(value) + 1e-15 * float(w[: eta.size] @ np.abs(eta))
                if trial <= value - 1e-4 * t * decrease + noise:
                    break
                t *= 0.5
            else:
                if decrease < max(1e-8, noise or 0.0):
                    return Mode(theta, beta, lam, T, u, b, eta, rows, score, w, swept, value, step, complete, fixed)
                raise ModeError("the penalised likelihood does not rise along the Newton direction")
            u, z, eta, rows, value, complete = trial_u, trial_z, trial_eta, trial_rows, trial, order == 3
            b = b + t * b_change
            if change_beta is not None:
                beta = beta + t * change_beta
        raise ModeError(f"no mode after {MAX_STEPS} Newton steps")

    def _newton(
        self, swept: Swept, w: FloatArray, b: FloatArray, score: FloatArray, slope: FloatArray | None
    ) -> tuple[FloatArray, FloatArray | None, WeightedFixed | None]:
        """Where the quadratic approximation has its minimum: u, and with a slope in beta the change of beta."""
        products = self.problem.products
        gathered = products.normal(swept, w, b) + score
        if slope is None:
            return products.solve_gathered(swept, gathered)[0], None, None
        # Of the column W Z b + s, without W X beta: the fixed effects solved for are their change.
        fixed = WeightedFixed.of(self.problem, swept, w)
        system = FixedSystem(self.problem, swept, w, (gathered, fixed.whole.T @ b + slope), fixed)
        return system.residual_modes()[0], system.solution, fixed

    def predict(self, found: Laplace, phi: FloatArray) -> FloatArray:
        """First-order prediction of the mode at other parameters, shape (Q,): H du = Lambda'Z'ds + dLambda'Z's."""
        problem, mode = self.problem, found.mode
        theta, beta, lam = problem.split(phi)
        extra, moved = self._moved(problem.factor_T(theta), mode)
        if problem.n_nuisance and np.any(lam != mode.lam):
            start = change(found.rows.score_lam, lam - mode.lam)
        else:
            start = np.zeros(mode.eta.size)
        gathered = problem.products.weighted_sums(-moved, problem.X, mode.beta - beta, mode.w, start)[0]
        return mode.u + extra + problem.products.solve_gathered(mode.swept, gathered)[0]

    def _moved(self, T: list[FloatArray], mode: Mode) -> tuple[FloatArray, FloatArray]:
        """dLambda'Z's, and dLambda u + Lambda times it, where T is another one."""
        problem = self.problem
        if problem.chain is None:
            dT = [new - old for new, old in zip(T, mode.T, strict=True)]
            score, moved = self.spread(dT, mode.score, transpose=True), self.spread(dT, mode.u)
        else:
            # Lambda is not linear in T.
            score = self.spread(T, mode.score, transpose=True) - self.spread(mode.T, mode.score, transpose=True)
            moved = self.spread(T, mode.u) - mode.b
        extra = problem.products.related(score)
        return extra, moved + self.spread(mode.T, extra)
