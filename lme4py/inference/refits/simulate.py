"""New responses from a fitted mixed model, linear or generalised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from lme4py.errors import Lme4Error, OptionError
from lme4py.fits.generalised import GlmmFit
from lme4py.fits.linear import Fit
from lme4py.inference.prediction.rows import chosen_terms, padded
from lme4py.inference.refits.generalised_simulate import GlmmSimulator
from lme4py.linalg.small import lower_factor
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Simulator",
    "check_count",
    "check_seed",
    "covariance_roots",
    "generators",
    "make_simulator",
    "simulate",
    "simulate_responses",
]

Seed: TypeAlias = "int | np.random.SeedSequence | np.random.Generator | None"


class _Draws(Protocol):
    """Anything that draws responses from seeds."""

    def draw(self, seeds: Sequence[np.random.SeedSequence]) -> FloatArray: ...


def check_count(name: str, value: object, least: int = 1) -> int:
    """A whole number of at least `least`, or OptionError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or int(value) < least:
        raise OptionError(f"`{name}` is {value!r}; give a whole number of at least {least}.")
    return int(value)


def check_seed(seed: object) -> int | None:
    """A whole number that is not negative, or None for a fresh seed."""
    return None if seed is None else check_count("seed", seed, 0)


def generators(seeds: Sequence[np.random.SeedSequence]) -> list[np.random.Generator]:
    """One generator for each seed."""
    return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]


def covariance_roots(covariances: Iterable[FloatArray]) -> list[FloatArray]:
    """A lower triangular factor of each covariance matrix (k, k); exact zeros stay zeros."""
    out = []
    for cov in covariances:
        values, vectors = np.linalg.eigh(cov)
        out.append(lower_factor(vectors * np.sqrt(np.maximum(values, 0.0))))
    return out


class Simulator:
    """Draws responses; the same seed gives the same response whatever else is drawn.

    Parameters
    ----------
    fit : Fit
    kind : {"parametric", "semiparametric", "conditional"}
        Random effects and residuals from normal distributions; from the fitted ones, centred, given the estimated
        covariances and drawn with replacement (Carpenter, Goldstein & Rasbash 2003); or normal residuals with the
        random effects kept at their conditional modes.
    """

    def __init__(self, fit: Fit, kind: str = "parametric") -> None:
        self.fit = fit
        self.kind = kind
        design = fit.design
        self.mean = design.X @ fit.beta
        if design.offset is not None:
            self.mean = self.mean + design.offset
        self.spread = np.full(design.n_obs, fit.sigma)
        if design.weights is not None:
            self.spread = fit.sigma / np.sqrt(design.weights)
        if kind == "conditional":
            self.mean = fit.fitted
        if kind == "semiparametric":
            self._modes, self._residuals = _reflated(fit)
        self.roots = covariance_roots(fit.covariances)

    def draw(self, seeds: Sequence[np.random.SeedSequence]) -> FloatArray:
        """One response for each seed, shape (n, B), on the user's scale."""
        make = self._resampled if self.kind == "semiparametric" else self._normal
        rows, effects = make(generators(seeds))
        # In place: large models make large arrays.
        rows *= self.spread
        rows += self.mean
        for term, b in zip(self.fit.design.terms, effects, strict=True):
            for j in range(term.n_columns):
                part = b[:, term.codes, j]
                part *= term.values[:, j]
                rows += part
        return rows.T

    def _normal(self, rngs: list[np.random.Generator]) -> tuple[FloatArray, list[FloatArray]]:
        """Standard residuals (B, n) and random effects of each term (B, J, k)."""
        terms = () if self.kind == "conditional" else self.fit.design.terms
        n = self.fit.design.n_obs
        sizes = [term.n_levels * term.n_columns for term in terms]
        total = sum(sizes)
        values = np.empty((len(rngs), total + n))
        for row, rng in zip(values, rngs, strict=True):
            rng.standard_normal(out=row)
        effects = []
        start = 0
        for term, size, root in zip(terms, sizes, self.roots, strict=False):
            block = values[:, start : start + size].reshape(len(rngs), term.n_levels, term.n_columns)
            effects.append(block @ root.T)
            start += size
        if not terms:
            effects = [np.zeros((1, term.n_levels, term.n_columns)) for term in self.fit.design.terms]
        return values[:, total:], effects

    def _resampled(self, rngs: list[np.random.Generator]) -> tuple[FloatArray, list[FloatArray]]:
        n = self.fit.design.n_obs
        rows = np.empty((len(rngs), n))
        effects = [np.empty((len(rngs), *modes.shape)) for modes in self._modes]
        for i, rng in enumerate(rngs):
            for out, modes in zip(effects, self._modes, strict=True):
                out[i] = modes[rng.integers(0, modes.shape[0], modes.shape[0])]
            rows[i] = self._residuals[rng.integers(0, n, n)]
        return rows, effects


def _reflated(fit: Fit) -> tuple[list[FloatArray], FloatArray]:
    """Conditional modes with the estimated covariances, and residuals with variance one, all with mean zero."""
    modes = []
    for b, cov in zip(fit.modes, fit.covariances, strict=True):
        centred = b - b.mean(axis=0)
        values, vectors = np.linalg.eigh(centred.T @ centred / centred.shape[0])
        keep = values > 1e-12 * max(float(values[-1]), 1e-300)
        whitened = centred @ (vectors[:, keep] / np.sqrt(values[keep]))
        # The symmetric root, taken along the directions in which the modes vary.
        sizes, axes = np.linalg.eigh(cov)
        root = (axes * np.sqrt(np.maximum(sizes, 0.0))) @ axes.T
        modes.append(whitened @ vectors[:, keep].T @ root)
    weights = fit.design.weights
    residuals = fit.design.y - fit.fitted
    standard = residuals if weights is None else residuals * np.sqrt(weights)
    standard = standard - standard.mean()
    return modes, standard / np.sqrt(np.mean(standard**2))


class PartialSimulator(Simulator):
    """A linear model's `Simulator` with some terms at their conditional modes and new effects for the others.

    Parameters
    ----------
    fit : Fit
    kept : collection of int
        Positions of the terms that stay at their modes.
    """

    def __init__(self, fit: Fit, kept: Sequence[int]) -> None:
        super().__init__(fit)
        for t in kept:
            term = fit.design.terms[t]
            self.mean = self.mean + np.einsum("nk,nk->n", term.values, fit.modes[t][term.codes])
            self.roots[t] = np.zeros_like(self.roots[t])


def make_simulator(fit: Fit | GlmmFit, include_random: bool | str | Iterable[str] = False) -> _Draws:
    """What draws responses of a fit.

    Parameters
    ----------
    fit : Fit or GlmmFit
    include_random : bool, str or iterable of str
        True keeps all random effects at their conditional modes, False draws new ones; names of grouping factors keep
        those at their modes.
    """
    if include_random == "integrate":
        raise OptionError("`include_random` is 'integrate', which simulate() has no use for; False draws new effects.")
    anything: Any = fit
    kept = chosen_terms(anything, include_random)
    if isinstance(fit, GlmmFit):
        return GlmmSimulator(fit, kept)
    if isinstance(include_random, bool):
        return Simulator(fit, "conditional" if include_random else "parametric")
    return PartialSimulator(fit, kept)


def simulate_responses(
    fit: Fit | GlmmFit, n: int, rng: Seed = None, include_random: bool | str | Iterable[str] = False
) -> FloatArray:
    """Responses drawn from the fitted model, in the form that `refit` reads.

    Parameters
    ----------
    fit : Fit or GlmmFit
    n : int
        Number of responses.
    rng : int, SeedSequence, Generator or None
        Where randomness comes from. Response i depends on the seed and i only.
    include_random : bool, str or iterable of str
        See `make_simulator`.

    Returns
    -------
    ndarray, shape (n_obs, n)
        For the rows used. Binomial models of several trials per row: numbers of successes (proportions where the
        model was given proportions). A column is NaN throughout where the random effects that were drawn lead to a
        mean outside the range of the link.
    """
    return make_simulator(fit, include_random).draw(_seeds(rng, check_count("n", n)))


def _seeds(rng: Seed, count: int) -> list[np.random.SeedSequence]:
    if isinstance(rng, np.random.Generator):
        rng = np.random.SeedSequence(rng.integers(0, 2**63, 4).tolist())
    if not isinstance(rng, np.random.SeedSequence):
        rng = np.random.SeedSequence(check_seed(rng))
    return rng.spawn(count)


def simulate(
    fit: Fit | GlmmFit, n: int = 1, seed: int | None = None, include_random: bool | str | Iterable[str] = False
) -> pd.DataFrame:
    """Responses drawn from the fitted model.

    Parameters
    ----------
    fit : Fit or GlmmFit
    n : int
        Number of responses.
    seed : int, optional
        The same seed gives the same numbers; column i depends on the seed and i only.
    include_random : bool, str or iterable of str
        True keeps the random effects at their conditional modes; False draws new ones; names of grouping factors keep
        the modes of these and draw all others.

    Returns
    -------
    pandas.DataFrame
        Columns sim_1, sim_2, ...; one row for each row used, and with ``na_action="exclude"`` for each row of the
        data, NaN where it was left out (as R's simulate). Each column can be given to `refit`: 0 and 1 for a
        binary response, numbers of successes for ``cbind()``, proportions for a response of proportions, the
        categories of an ordinal model.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> result = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff"))
    >>> result.simulate(2, seed=1).shape
    (30, 2)
    """
    import pandas as pd

    values = simulate_responses(fit, n, check_seed(seed), include_random)
    broken = int(np.isnan(values).any(axis=0).sum())
    if broken:
        raise Lme4Error(
            f"{broken} of {values.shape[1]} simulated responses have a mean outside the range of the link: the random "
            "effects that were drawn are too large for it. Use include_random=True, or a model with a log link."
        )
    names = [f"sim_{i + 1}" for i in range(values.shape[1])]
    table, index = padded(fit, values)
    frame = pd.DataFrame(table, index=index, columns=names)
    return _labelled(frame, fit.categories) if isinstance(fit, GlmmFit) and fit.categories else frame


def _labelled(frame: pd.DataFrame, categories: tuple[Any, ...]) -> pd.DataFrame:
    """Categories as the user has them: numbers stay numbers, labels become ordered categoricals."""
    import pandas as pd

    if all(isinstance(level, int | float | np.number) for level in categories):
        whole = all(float(level).is_integer() for level in categories)
        return frame.astype(np.int64) if whole and not frame.isna().any(axis=None) else frame
    kind = pd.CategoricalDtype(list(categories), ordered=True)
    codes = frame.fillna(-1)
    columns = {name: pd.Categorical.from_codes(codes[name].to_numpy(dtype=np.intp), dtype=kind) for name in codes}
    return pd.DataFrame(columns, index=frame.index)
