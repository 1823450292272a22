"""New responses from a fitted mixed model, linear or generalised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lme4py.design.replay import replayed
from lme4py.design.responses.responses import rows_of
from lme4py.errors import Lme4Error, OptionError
from lme4py.fits.answers.draws import Draws
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.truth import read_truth, truth_of
from lme4py.inference.prediction.rows import chosen_terms, padded
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "check_count",
    "check_seed",
    "drawn_from",
    "make_simulator",
    "simulate",
    "simulate_responses",
]

Seed: TypeAlias = "int | np.random.SeedSequence | np.random.Generator | None"


def check_count(name: str, value: object, least: int = 1) -> int:
    """A whole number of at least `least`, or OptionError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or int(value) < least:
        raise OptionError(f"`{name}` is {value!r}; give a whole number of at least {least}.")
    return int(value)


def check_seed(seed: object) -> int | None:
    """A whole number that is not negative, or None for a fresh seed."""
    return None if seed is None else check_count("seed", seed, 0)


def make_simulator(fit: Fit, include_random: bool | str | Iterable[str] = False) -> Draws:
    """What draws responses of a fit.

    Parameters
    ----------
    fit : Fit
    include_random : bool, str or iterable of str
        True keeps all random effects at their conditional modes, False draws new ones; names of grouping factors keep
        those at their modes.
    """
    if include_random == "integrate":
        raise OptionError("`include_random` is 'integrate', which simulate() has no use for; False draws new effects.")
    kept = chosen_terms(fit, include_random)
    return model_of(fit).simulator(None if include_random is True else kept)


def simulate_responses(
    fit: Fit, n: int, rng: Seed = None, include_random: bool | str | Iterable[str] = False
) -> FloatArray:
    """Responses drawn from the fitted model, in the form that `refit` reads.

    Parameters
    ----------
    fit : Fit
    n : int
        Number of responses.
    rng : int, SeedSequence, Generator or None
        Where randomness comes from. Response i depends on the seed and i only.
    include_random : bool, str or iterable of str
        See `make_simulator`.

    Returns
    -------
    ndarray, shape (n_obs, n), or (n_obs, n, K) of counts of categories
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
    fit: Fit,
    n: int = 1,
    seed: int | None = None,
    include_random: bool | str | Iterable[str] = False,
    data: Any = None,
    params: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Responses drawn from the model, one column each.

    Parameters
    ----------
    fit : Fit
    n : int
        Number of responses.
    seed : int, optional
        The same seed gives the same numbers; column i depends on the seed and i only.
    include_random : bool, str or iterable of str
        True keeps the random effects at their conditional modes; False draws new ones; names of grouping factors keep
        the modes of these and draw all others.
    data : data frame, optional
        Other rows, whose groups may be new; for numbers of trials all columns of the response are needed.
    params : mapping, optional
        Other parameters, by name as `lme4py.make_model` takes them; those that are not named stay estimates.

    Returns
    -------
    pandas.DataFrame
        Columns sim_1, sim_2, ...; one row for each row used, and with ``na_action="exclude"`` for each row of the
        data, NaN where it was left out (as R's simulate). Each column can be given to `refit`: 0 and 1 for a
        binary response, numbers of successes for ``cbind()``, proportions for a response of proportions, the
        categories of an ordinal model. Of counts of categories each is a frame with a column for each category.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> result = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff"))
    >>> result.simulate(2, seed=1).shape
    (30, 2)
    """
    import pandas as pd

    drawn = drawn_from(fit, data, params)
    if data is not None and include_random is not False:
        _refuse_new_groups(fit, drawn, chosen_terms(fit, include_random))
    values = simulate_responses(drawn, n, check_seed(seed), include_random)
    broken = int(np.isnan(values.reshape(*values.shape[:2], -1)).any(axis=(0, 2)).sum())
    if broken:
        raise Lme4Error(
            f"{broken} of {values.shape[1]} simulated responses have a mean outside the range of the link: the random "
            "effects that were drawn are too large for it. Use include_random=True, or a model with a log link."
        )
    names = [f"sim_{i + 1}" for i in range(values.shape[1])]
    table, index = padded(drawn, values)
    if table.ndim == 3:
        columns = pd.MultiIndex.from_product([names, list(fit.categories)], names=[None, fit.design.response_name])
        whole = np.isfinite(table).all()
        return pd.DataFrame(table.reshape(len(table), -1), index, columns).astype(np.int64 if whole else np.float64)
    frame = pd.DataFrame(table, index=index, columns=names)
    return _labelled(frame, fit.categories, fit.family.has_thresholds) if fit.categories else frame


def drawn_from(fit: Fit, data: Any = None, params: Mapping[str, Any] | None = None) -> Fit:
    """What responses of other rows or with other parameters are drawn from.

    Parameters
    ----------
    fit : Fit
    data : data frame, optional
    params : mapping, optional
    """
    if params is not None:
        truth = read_truth(fit.design, fit.family, params, truth_of(fit))
        fit = model_of(fit).with_truth(truth)
    if data is not None:
        frame = rows_of(fit.design, data)
        fit = model_of(fit).on_rows(replayed(fit.design, frame, fit.family, keep_levels=True), frame)
    return fit


def _refuse_new_groups(fit: Fit, drawn: Fit, kept: Iterable[int]) -> None:
    for t in kept:
        old, term = fit.design.terms[t], drawn.design.terms[t]
        new = [term.levels[j] for j in np.unique(term.codes).tolist() if j >= old.n_levels]
        if new:
            raise OptionError(
                f"{len(new)} groups of {term.group} ({', '.join(map(repr, new[:6]))}) were not in the fit and have no "
                "conditional modes; use include_random=False, which draws new effects."
            )


def _labelled(frame: pd.DataFrame, categories: tuple[Any, ...], ordered: bool) -> pd.DataFrame:
    """Categories as the user has them: numbers stay numbers, labels become categoricals."""
    import pandas as pd

    if all(isinstance(level, int | float | np.number) for level in categories):
        whole = all(float(level).is_integer() for level in categories)
        return frame.astype(np.int64) if whole and not frame.isna().any(axis=None) else frame
    kind = pd.CategoricalDtype(list(categories), ordered=ordered)
    codes = frame.fillna(-1)
    columns = {name: pd.Categorical.from_codes(codes[name].to_numpy(dtype=np.intp), dtype=kind) for name in codes}
    return pd.DataFrame(columns, index=frame.index)
