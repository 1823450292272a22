"""All models that leave out some of the fixed terms, by an information criterion."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.arguments import speaks
from lme4py.design.design import Design
from lme4py.errors import Lme4Error, Lme4Warning, OptionError, did_you_mean
from lme4py.fits.base import Fit, fit_of
from lme4py.fits.kinds import model_of
from lme4py.fits.refuse import refuse_penalised, refuse_several_responses, refuse_smooths
from lme4py.inference.estimates.likelihood import aic, bic
from lme4py.inference.overview.selection import aicc
from lme4py.linalg.spans import spans
from lme4py.tables.frames import printed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["all_subsets"]

_CRITERIA = {"aicc": aicc, "aic": aic, "bic": bic}
# Models of ten terms.
_MOST = 2**10


@speaks
def all_subsets(
    result: Any, criterion: str = "aicc", keep: str | Sequence[str] = (), most: int = _MOST
) -> pd.DataFrame:
    """Every model with some of the fixed terms, by maximum likelihood, as ``dredge`` of R's MuMIn.

    A term stays as long as one that contains it does. The random effects are those of the model, and all models are of
    the same rows. What is chosen by a criterion fits better than it predicts, and its tests do not know of the search.

    Parameters
    ----------
    result : MixedResult or MEGLMResult
    criterion : {"aicc", "aic", "bic"}
        The table is ordered by it.
    keep : str or sequence of str
        Terms that are in every model.
    most : int
        Models at most.

    Returns
    -------
    DataFrame
        Index terms, such as "Days + z" ("1" where none is left); columns df (parameters), log_likelihood, the
        criterion, delta (above the lowest), weight (Akaike's: exp(-delta / 2) over their sum), converged. NaN where a
        model could not be fitted; ``attrs["failures"]`` says why.

    Raises
    ------
    OptionError
        More models than `most`; a term of `keep` that the model does not have; a formula without an intercept for which
        a factor stands, so that leaving a term out changes the coding of others; columns that depend on others.

    Examples
    --------
    >>> from lme4py import all_subsets, lmer, load_dataset
    >>> table = all_subsets(lmer("Reaction ~ Days + I(Days^2) + (1 | Subject)", load_dataset("sleepstudy")))
    >>> table["delta"].round(1).to_dict()
    {'Days': 0.0, 'Days + I(Days^2)': 1.0, 'I(Days^2)': 5.1, '1': 114.4}
    """
    import pandas as pd

    fit = fit_of(result)
    if fit is None:
        raise OptionError(f"all_subsets() takes a fitted mixed model; this is of type {type(result).__name__}.")
    if criterion not in _CRITERIA:
        raise OptionError(f"criterion={criterion!r} is not known.{did_you_mean(str(criterion), _CRITERIA)}")
    refuse_penalised(fit, "all_subsets() is")
    refuse_smooths(fit, "all_subsets() is")
    refuse_several_responses(fit, "all_subsets() is")
    _refuse_other_columns(fit)
    chosen = _subsets(fit.design, [keep] if isinstance(keep, str) else list(keep), most)
    full = model_of(fit).by_maximum_likelihood()
    rows, failures = {}, {}
    for terms in chosen:
        label = " + ".join(fit.design.fixed_labels[i - 1] for i in terms) or "1"
        try:
            rows[label] = _row(full, terms, criterion)
        except (Lme4Error, ArithmeticError, np.linalg.LinAlgError) as error:
            rows[label], failures[label] = (np.nan, np.nan, np.nan, False), str(error)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["df", "log_likelihood", criterion, "converged"])
    table = table.sort_values(criterion, kind="stable").rename_axis(index="terms")
    delta = table[criterion] - table[criterion].min()
    likelihood = np.exp(-0.5 * delta)
    table.insert(3, "delta", delta)
    table.insert(4, "weight", likelihood / likelihood.sum())
    table.attrs["failures"] = failures
    return printed(table, title=f"Models by {criterion}")


def _refuse_other_columns(fit: Fit) -> None:
    """Refuse columns of a factor that stand for the intercept, and such that stand for others."""
    design = fit.design
    without = bool(design.X.shape[1]) and not fit.family.has_thresholds and 0 not in design.assign
    if without and spans(design.X, np.ones((design.n_obs, 1))):
        raise OptionError(
            "the formula has no intercept and a factor stands for it, so that without one term the others are coded in "
            "another way; fit the model with an intercept."
        )
    if design.dropped:
        raise OptionError(
            f"columns of X are linear combinations of others ({', '.join(design.dropped)}), so that terms without them "
            "are the same; fit the model without these."
        )


def _subsets(design: Design, keep: Sequence[str], most: int) -> list[tuple[int, ...]]:
    """Numbers (from 1) of the terms of each model, the smaller models first."""
    labels = design.fixed_labels
    for name in keep:
        if name not in labels:
            raise OptionError(f"keep={name!r} is no term of the model.{did_you_mean(str(name), labels)}")
    sets = [frozenset(term.variables) for term in design.recipe.formula.fixed.terms]
    margins = [{j for j, other in enumerate(sets) if other < own} for own in sets]
    kept = {labels.index(name) for name in keep}
    kept |= {j for i in kept for j in margins[i]}
    found = []
    for one in _chosen(len(sets), kept, margins):
        found.append(tuple(i + 1 for i in sorted(one)))
        if len(found) > most:
            raise OptionError(
                f"{len(sets) - len(kept)} terms that may be left out make more than {most} models; name terms that "
                "stay by keep=, or give a larger most=."
            )
    return found


def _chosen(count: int, kept: set[int], margins: Sequence[set[int]]) -> Iterator[set[int]]:
    """Sets of terms with all that they contain."""
    free = [i for i in range(count) if i not in kept]
    for size in range(len(free) + 1):
        for extra in combinations(free, size):
            own = kept | set(extra)
            if all(margins[i] <= own for i in own):
                yield own


def _row(full: Fit, terms: tuple[int, ...], criterion: str) -> tuple[float, float, float, bool]:
    """Parameters, log-likelihood, the criterion, and whether the optimum is certified."""
    design = full.design
    place = np.array(design.assign)
    own = np.flatnonzero((place == 0) | np.isin(place, terms))
    fit = full
    if own.size < place.size:
        names = tuple(design.x_names[i] for i in own)
        smaller = design.with_predictor(
            X=design.X[:, own], names=names, assign=tuple(place[own].tolist()), dropped=(), alias=None
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Lme4Warning)
            fit = model_of(full).like(smaller)
    return float(fit.n_params), fit.log_likelihood, _CRITERIA[criterion](fit), fit.certificate.converged
