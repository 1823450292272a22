"""From an estimand to its estimates with their uncertainty: gradients, simulation, or refits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Final

import numpy as np

from lme4py.data.beside import is_numbered
from lme4py.engine.identification.recession import Recession
from lme4py.errors import OptionError
from lme4py.fits.method import Plain, check_method
from lme4py.inference.tests.joint_tests import JointMethod
from lme4py.linalg.types import BoolArray, FloatArray
from lme4py.margins.estimands.estimands import Estimand, Values
from lme4py.margins.estimands.grids import Parameters
from lme4py.margins.estimands.limits import Limits, limits_of
from lme4py.margins.estimands.nearby import Nearby
from lme4py.margins.models.adapter import DdfMethod, ModelAdapter, Random

__all__ = ["Done", "Inference"]

# An average of parts that cancel is zero below this part of the gradient.
_ROUNDING: Final = 1e-9
# Coefficients and random effects whose whole covariance is formed.
_MOST_EFFECTS: Final = 2_000
_BOOT: Final = ("parametric", "clusters")


@dataclass(frozen=True, slots=True)
class Done:
    """Estimates with their uncertainty; see `MarginsResult`."""

    value: FloatArray
    covariance: FloatArray
    jacobian: FloatArray
    df: FloatArray
    draws: FloatArray | None
    tests: Any
    notes: tuple[str, ...] = ()
    nearby: Nearby | None = None


class Inference:
    """The part of a session that knows how uncertain the parameters are.

    Parameters
    ----------
    adapter : ModelAdapter
    method : {"delta", "simulation", "bootstrap"}
    n : int
        Draws or refits.
    seed : int or None
        None is 0: the same session gives the same numbers.
    n_jobs : int
    ddf : str or None
    vcov, cluster : object
    boot : {"parametric", "clusters"}
    random : str or tuple of factors
        Random effects at their modes are uncertain too.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        *,
        random: Random = "zero",
        method: str,
        n: int,
        seed: int | None,
        n_jobs: int,
        ddf: str | None,
        vcov: Any,
        cluster: Any,
        boot: str,
    ) -> None:
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 10:
            raise OptionError(f"the number of draws is {n!r}; give a whole number of at least 10.")
        ddf = None if ddf is None else check_method(ddf)
        if boot not in _BOOT:
            raise OptionError(f"boot={boot!r} is not known; use 'parametric' or 'clusters'.")
        if cluster is not None and vcov is None and not (method == "bootstrap" and boot == "clusters"):
            raise OptionError("`cluster` needs vcov= (a robust one), or method='bootstrap' with boot='clusters'.")
        if vcov is not None and method == "bootstrap":
            raise OptionError("method='bootstrap' makes its own covariance; leave `vcov` out.")
        self.adapter, self.method = adapter, method
        self.n, self.seed, self.n_jobs, self.boot, self.cluster = int(n), seed or 0, n_jobs, boot, cluster
        self.joint: JointMethod | None = None
        narrow = random not in ("zero", "integrate") or adapter.has_smooths
        if adapter.has_smooths and method == "bootstrap":
            raise OptionError("method='bootstrap' is not there for models with smooths; use 'delta' or 'simulation'.")
        if narrow and method == "bootstrap":
            raise OptionError(
                f"method='bootstrap' draws groups anew, and random={random!r} is about those of the data; use "
                "method='delta' or 'simulation'."
            )
        if narrow and ddf in (None, "kenward-roger") and vcov is None:
            self.joint = adapter.joint_method(ddf, None)
        # Kenward and Roger's are about fixed effects.
        usual = "satterthwaite" if self.joint is not None and adapter.default_ddf == "kenward-roger" else ddf
        self.tests, self.vcov = self._tests_and_covariance(usual, vcov, cluster)
        if narrow and self.joint is None:
            self.joint = adapter.joint_method(ddf, self.vcov if vcov is not None else None)
        self._whole_vcov: Callable[[], FloatArray | None] = cache(partial(self._all_parameters, vcov, cluster))
        self._replicates: FloatArray | None = None

    @property
    def estimates(self) -> Parameters:
        """The parameters of the fit."""
        return self._expanded(self._plain)

    @property
    def _plain(self) -> Parameters:
        """The parameters that the data determine."""
        effects = None if self.joint is None else np.zeros(self.joint.n_effects)
        return Parameters(self.adapter.params, self.adapter.theta, effects)

    def _expanded(self, plain: Parameters) -> Parameters:
        """Zero for the coefficients that the data do not determine."""
        return replace(plain, beta=np.append(plain.beta, np.zeros(self.adapter.n_beyond)))

    def _reduced(self, jacobian: FloatArray) -> FloatArray:
        """Without the columns of these coefficients."""
        p = self.adapter.params.size
        return np.delete(jacobian, slice(p, p + self.adapter.n_beyond), axis=1)

    def _tests_and_covariance(self, ddf: str | None, vcov: Any, cluster: Any) -> tuple[DdfMethod | None, FloatArray]:
        """Degrees of freedom, and the covariance of the coefficients, (p, p)."""
        adapter = self.adapter
        if vcov is None:
            tests = adapter.test_method(adapter.default_ddf if ddf is None else ddf)
            return tests, adapter.vcov if tests is None else tests.vcov
        if ddf == "kenward-roger" or (ddf == "satterthwaite" and not isinstance(vcov, str)):
            raise OptionError(
                f"ddf={ddf!r} does not belong to the covariance given as `vcov`; use ddf='satterthwaite' with a named "
                "robust covariance, ddf='residual', or none."
            )
        if isinstance(vcov, str):
            robust = adapter.robust(vcov, cluster, ddf)
            return robust, robust.vcov
        residual = (adapter.default_ddf if ddf is None else ddf) == "residual"
        tests = adapter.test_method("residual") if residual else None
        p = adapter.params.size
        return tests, _checked_matrix(_in_order(vcov, adapter.names), p, adapter.theta.size)[:p, :p]

    def _all_parameters(self, vcov: Any, cluster: Any) -> FloatArray | None:
        """Covariance of (coefficients, theta), (p + m, p + m), of the kind that was asked for; None without one."""
        if vcov is None:
            return self.adapter.parameter_vcov
        if isinstance(vcov, str):
            return self.adapter.robust_parameters(vcov, cluster)
        matrix = _in_order(vcov, self.adapter.names)
        return matrix if matrix.shape[0] > self.adapter.params.size else None

    def _whole(self, size: int) -> FloatArray:
        """Covariance of (beta, theta), or of beta and the random effects, where the estimand depends on both."""
        if size == self.adapter.params.size:
            return self.vcov
        if self.joint is not None:
            if size > _MOST_EFFECTS:
                raise OptionError(
                    f"draws of {size} coefficients and random effects need their whole covariance; use method='delta'."
                )
            return self.joint.covariance(np.eye(size))
        whole = self._whole_vcov()
        if whole is None or not np.isfinite(whole).all():
            p, m = self.adapter.params.size, self.adapter.theta.size
            raise OptionError(
                "averages over the random effects depend on the variances too, whose covariance is not known here; "
                "give vcov= by name (such as 'CR1'), or a matrix of the coefficients and then the covariance "
                f"parameters, of shape ({p + m}, {p + m}); or use random='zero', or method='bootstrap'."
            )
        return whole

    def apply(self, estimand: Estimand, curved: bool) -> Done:
        """Estimates, covariance, degrees of freedom and draws of an estimand.

        Parameters
        ----------
        estimand : callable
        curved : bool
            It is no linear function of the parameters.
        """
        p = self.adapter.params.size
        value, whole = estimand(self.estimates, True)
        jacobian = self._reduced(whole)
        lost = _moves(whole[:, p : p + self.adapter.n_beyond], jacobian)
        limits = self._limits(estimand, value)
        value, open_ones = limits.value, limits.depends
        if not np.isfinite(value[~open_ones]).all():
            bad = int((~np.isfinite(value)).sum())
            raise OptionError(
                f"{bad} of {value.size} estimates are not finite: a predicted value lies outside the range of the "
                "scale; use Margins.linear_scale, or other values of the variables."
            )
        draws: FloatArray | None = None
        notes: tuple[str, ...] = ()
        if self.method == "delta" and self.joint is not None:
            covariance = self.joint.covariance(jacobian)
        elif self.method == "delta":
            covariance = jacobian @ self._whole(jacobian.shape[1]) @ jacobian.T
        else:
            draws, notes = self._draws(estimand, jacobian.shape[1])
            covariance = np.atleast_2d(np.cov(draws, rowvar=False))
        df = np.full(value.size, np.inf)
        if self.joint is not None:
            df = self._df(jacobian, self.joint)
        elif self.tests is not None and (jacobian.shape[1] == p or isinstance(self.tests, Plain)):
            df = self._df(jacobian, self.tests)
        if draws is not None and np.isfinite(df).any():
            notes = (*notes, "Limits: percentiles of the draws, widened for the degrees of freedom.")
        # Joint tests of the model use its own covariance.
        fits = self.tests is not None and self.tests.vcov is self.vcov and jacobian.shape[1] == p
        tests: Any = self.tests if fits else self.joint
        tests = tests if self.method == "delta" else None
        nearby = None
        known = self.joint is None or jacobian.shape[1] <= _MOST_EFFECTS
        if curved and value.size > 1 and known:
            known_part = self._known_part(estimand, ~(lost | open_ones))
            nearby = Nearby(known_part, self._plain, self._uncertainty(jacobian.shape[1]))
        if (lost | open_ones).any():
            for array in (df, covariance, covariance.T, jacobian, *([] if draws is None else [draws.T])):
                array[lost | open_ones] = np.nan
            value[lost] = np.nan
            notes = (*notes, *_lost_notes(int(lost.sum()), int(open_ones.sum()), lost.size, self.adapter.recession))
        return Done(value, covariance, jacobian, df, draws, tests, notes, nearby)

    def _limits(self, estimand: Estimand, value: FloatArray) -> Limits:
        """The limits of estimates where some coefficients have no finite estimate."""
        recession, link = self.adapter.recession, self.adapter.link
        if recession is None or link is None:
            return Limits(value, np.zeros(value.size, dtype=bool))

        def moved(change: FloatArray) -> FloatArray:
            plain = replace(self._plain, beta=self._plain.beta + change[: self._plain.beta.size])
            return estimand(self._expanded(plain), False)[0]

        return limits_of(moved, value, recession, link.tail)

    def _known_part(self, estimand: Estimand, known: BoolArray) -> Estimand:
        """The estimands that can be estimated, as a function of the coefficients of the fit."""

        def evaluate(parameters: Parameters, gradient: bool) -> Values:
            value, jacobian = estimand(self._expanded(parameters), gradient)
            if gradient:
                jacobian = self._reduced(jacobian)
            return value[known], jacobian[known]

        return evaluate

    def _uncertainty(self, size: int) -> FloatArray:
        """Covariance of the parameters themselves, of the method that is in use."""
        if self.method != "bootstrap":
            return self._whole(size)
        return np.atleast_2d(np.cov(self._refitted()[:, :size], rowvar=False))

    def _df(self, jacobian: FloatArray, tests: DdfMethod | JointMethod) -> FloatArray:
        moves = np.abs(jacobian).max(axis=1) > 0
        df = np.full(jacobian.shape[0], np.inf)
        if moves.any():
            df[moves] = tests.t_df(jacobian[moves])
        return df

    def _draws(self, estimand: Estimand, size: int) -> tuple[FloatArray, tuple[str, ...]]:
        parameters, notes = self._parameter_draws(size)
        draws = np.stack([estimand(self._expanded(one), False)[0] for one in parameters])
        good = np.isfinite(draws).all(axis=1)
        if not good.all():
            notes = (*notes, f"{int((~good).sum())} draws gave values that are not finite and are left out.")
        if good.sum() < 10:
            raise OptionError("hardly any draw gave finite values; use method='delta'.")
        return draws[good], notes

    def _parameter_draws(self, size: int) -> tuple[list[Parameters], tuple[str, ...]]:
        """Other parameters, of which the first `size` numbers differ from the estimates."""
        if self.method == "bootstrap":
            p, rows = self.adapter.params.size, self._refitted()
            lost = self.n - rows.shape[0]
            left_out = (f"{lost} of {self.n} refits failed and are left out.",) if lost else ()
            theta = self.adapter.theta
            return [Parameters(row[:p], row[p:] if row.size > p else theta) for row in rows], left_out
        roots, vectors = np.linalg.eigh(self._whole(size))
        half = vectors * np.sqrt(np.maximum(roots, 0.0))
        z = np.random.default_rng(self.seed).standard_normal((self.n, size))
        return [self._plain.plus(change) for change in z @ half.T], ()

    def _refitted(self) -> FloatArray:
        """Estimates of the refits, (at most n, p + m)."""
        if self._replicates is None:
            group = self.cluster if self.boot == "clusters" else None
            self._replicates = self.adapter.replicates(self.n, self.boot, group, self.seed, self.n_jobs)
        return self._replicates


def _moves(beyond: FloatArray, jacobian: FloatArray) -> BoolArray:
    """Which estimates move with a coefficient that the data do not determine."""
    size = np.abs(jacobian).max(axis=1, initial=0.0)
    moves: BoolArray = np.abs(beyond).max(axis=1, initial=0.0) > _ROUNDING * size
    return moves


def _lost_notes(lost: int, infinite: int, total: int, recession: Recession | None) -> tuple[str, ...]:
    notes: list[str] = []
    if lost:
        notes.append(
            f"{lost} of {total} estimates cannot be estimated and are NaN: the data hold no rows for a combination of "
            "values that they need."
        )
    if infinite and recession is not None:
        notes.append(
            f"{infinite} of {total} estimates have no standard error: {recession.sentence} (separation), and they are "
            "the limits, NaN where there is none."
        )
    return tuple(notes)


def _in_order(vcov: Any, names: Sequence[str]) -> FloatArray:
    """A covariance matrix in the order of the coefficients; a data frame is matched by its names."""
    if hasattr(vcov, "columns") and hasattr(vcov, "loc") and not is_numbered(vcov.columns):
        rows, columns = list(vcov.index), list(vcov.columns)
        if len(columns) == len(names) and set(rows) == set(columns) == set(names):
            vcov = vcov.loc[list(names), list(names)]
        elif not columns[: len(names)] == rows[: len(names)] == list(names):
            raise OptionError(
                f"`vcov` has the columns {', '.join(map(str, columns))}, and the coefficients are {', '.join(names)}; "
                "give it their names in rows and columns, or an array in their order."
            )
    return np.asarray(vcov, dtype=np.float64)


def _checked_matrix(matrix: FloatArray, p: int, m: int) -> FloatArray:
    if (
        matrix.shape not in ((p, p), (p + m, p + m))
        or not np.isfinite(matrix).all()
        or not np.allclose(matrix, matrix.T, rtol=1e-6)
    ):
        raise OptionError(f"`vcov` must be a symmetric matrix of shape ({p}, {p}), not {matrix.shape}.")
    return matrix
