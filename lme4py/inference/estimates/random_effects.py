"""Conditional modes of the random effects, and coefficients per level, as data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lme4py.design.design import Design
from lme4py.fits.base import Fit
from lme4py.inference.estimates.limits import coefficient_estimates

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Frames",
    "coef",
    "conditional_modes",
    "conditional_sds",
    "known_columns",
    "level_frames",
    "mode_covariances",
    "one_or_dict",
    "reliabilities",
    "standardised",
]

FloatArray = NDArray[np.float64]
Frames: TypeAlias = "dict[str, pd.DataFrame]"


def conditional_modes(fit: Fit) -> Frames:
    """Conditional modes, one frame per grouping factor; terms of one factor stand side by side.

    NaN stands for effects whose covariances have no unique estimate (see `lme4py.engine.identification.record`).
    """
    return level_frames(fit.design, known_columns(fit, fit.modes))


def known_columns(fit: Fit, blocks: tuple[FloatArray, ...]) -> tuple[FloatArray, ...]:
    """Columns of the effects of each term with NaN where nothing tells them from those of another column.

    Parameters
    ----------
    fit : Fit
    blocks : tuple of ndarray, each (J, k)
        Modes, or their standard deviations.
    """
    if fit.identification.complete:
        return blocks
    known = [~np.isnan(cov).any(axis=1) for cov in fit.covariance_estimates]
    return tuple(np.where(own, block, np.nan) for own, block in zip(known, blocks, strict=True))


def conditional_sds(fit: Fit, include_fixed: bool = False, exact: bool = False) -> Frames:
    """Conditional standard deviations of the random effects given the data, shaped as `conditional_modes`.

    Parameters
    ----------
    fit : Fit
    include_fixed : bool
        Count the uncertainty of the fixed effects too.
    exact : bool
        By an exact factor also where crossed effects were solved iteratively. What probes leave open says the ``note``
        in ``attrs`` of the frames.
    """
    from lme4py.fits.kinds import model_of

    blocks, note = model_of(fit).level_covariances(include_fixed, exact)
    sds = tuple(np.sqrt(np.diagonal(block, axis1=1, axis2=2)) for block in blocks)
    return _noted(level_frames(fit.design, known_columns(fit, sds)), note)


def _noted(frames: Frames, note: str) -> Frames:
    """With what is to be said of their numbers."""
    for frame in frames.values():
        if note:
            frame.attrs["note"] = note
    return frames


def reliabilities(fit: Fit, exact: bool = False) -> Frames:
    """1 - PEV / Var(b): how much of the variance of each random effect the data tell, shaped as `conditional_modes`.

    PEV is the variance of the prediction error with the fixed effects estimated (Henderson 1975, Biometrics 31:423). An
    effect without a variance has none: NaN.

    Parameters
    ----------
    fit : Fit
    exact : bool
        As in `conditional_sds`.
    """
    from lme4py.fits.kinds import model_of

    blocks, note = model_of(fit).level_covariances(True, exact)
    out = []
    for t, block in enumerate(blocks):
        variances = _own_sds(fit, t) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            out.append(np.where(variances > 0.0, 1.0 - np.einsum("jaa->ja", block) / variances, np.nan))
    return _noted(level_frames(fit.design, known_columns(fit, tuple(out))), note)


def standardised(fit: Fit, exact: bool = False) -> Frames:
    """Modes over their own standard deviations, shaped as `conditional_modes`: about standard normal in a right model.

    The variance of a mode over repeated samples is that of the effect less that of the prediction error, Var(b) - PEV
    ("diagnostic" standard errors; Goldstein 2011, Multilevel Statistical Models, section 2.8). NaN without a variance.

    Parameters
    ----------
    fit : Fit
    exact : bool
        As in `conditional_sds`.
    """
    known = reliabilities(fit, exact)
    out: Frames = {}
    for group, modes in conditional_modes(fit).items():
        sds = np.hstack([_own_sds(fit, t) for t in _terms_of(fit.design)[group]])
        with np.errstate(divide="ignore", invalid="ignore"):
            out[group] = modes.div(sds * np.sqrt(known[group].to_numpy(dtype=np.float64)))
        out[group].attrs.update(known[group].attrs)
    return out


def _own_sds(fit: Fit, t: int) -> FloatArray:
    """Standard deviations of the effects of each level of a term, shape (J, k)."""
    term = fit.design.terms[t]
    own = np.ones(term.n_levels) if term.relation is None else term.relation.variances
    sds: FloatArray = np.sqrt(np.outer(own, fit.covariances[t].diagonal()))
    return sds


def coef(fit: Fit) -> Frames:
    """Fixed effects plus conditional modes for each level.

    The columns are the fixed effects, then the columns of the random terms that are no fixed effects
    (their fixed part is zero).

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    DataFrame, or dict factor -> DataFrame when there are several grouping factors
    """
    modes = known_columns(fit, fit.modes)
    return {group: _coef_of(fit, modes, group, rows) for group, rows in _terms_of(fit.design).items()}


def mode_covariances(fit: Fit, include_fixed: bool = False, exact: bool = False) -> dict[str, FloatArray]:
    """Conditional covariances of the random effects of every level, by grouping factor, each (J, k, k).

    Terms of one factor stand side by side as in `conditional_modes`; covariances between them are NaN, because the
    blocks of the terms are what is known.

    Parameters
    ----------
    fit : Fit
    include_fixed : bool
        Count the uncertainty of the fixed effects too.
    exact : bool
        As in `conditional_sds`.
    """
    from lme4py.fits.kinds import model_of

    blocks, _ = model_of(fit).level_covariances(include_fixed, exact)
    out = {}
    for group, positions in _terms_of(fit.design).items():
        sizes = [fit.design.terms[i].n_columns for i in positions]
        ends = np.cumsum([0, *sizes])
        whole = np.full((fit.design.terms[positions[0]].n_levels, int(ends[-1]), int(ends[-1])), np.nan)
        for i, start, end in zip(positions, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            whole[:, start:end, start:end] = blocks[i]
        out[group] = whole
    return out


def one_or_dict(frames: Frames) -> pd.DataFrame | Frames:
    """The only frame when there is one grouping factor, otherwise the dictionary."""
    return next(iter(frames.values())) if len(frames) == 1 else frames


def _terms_of(design: Design) -> dict[str, list[int]]:
    """Positions of the terms of each grouping factor."""
    positions: dict[str, list[int]] = {}
    for i, term in enumerate(design.terms):
        if not term.smooth:
            positions.setdefault(term.group, []).append(i)
    return positions


def level_frames(design: Design, blocks: tuple[FloatArray, ...]) -> Frames:
    """Numbers of every level of each term, one frame per grouping factor.

    Parameters
    ----------
    design : Design
    blocks : tuple of ndarray, each (J, k)
    """
    return {group: _frame_of(design, blocks, group, rows) for group, rows in _terms_of(design).items()}


def _frame_of(design: Design, blocks: tuple[FloatArray, ...], group: str, positions: list[int]) -> pd.DataFrame:
    import pandas as pd

    names = _unique([name for i in positions for name in design.terms[i].columns])
    values = np.hstack([blocks[i] for i in positions])
    return pd.DataFrame(values, index=_level_index(design, group, positions[0]), columns=names)


def _coef_of(fit: Fit, modes: tuple[FloatArray, ...], group: str, positions: list[int]) -> pd.DataFrame:
    import pandas as pd

    fixed = dict(zip(fit.design.x_names, coefficient_estimates(fit), strict=True))
    n_levels = fit.design.terms[positions[0]].n_levels
    columns = {name: np.full(n_levels, value) for name, value in fixed.items()}
    for i in positions:
        for j, name in enumerate(fit.design.terms[i].columns):
            columns[name] = columns.get(name, np.zeros(n_levels)) + modes[i][:, j]
    return pd.DataFrame(columns, index=_level_index(fit.design, group, positions[0]))


def _level_index(design: Design, group: str, position: int) -> pd.Index:
    import pandas as pd

    index: pd.Index = pd.Index(list(design.terms[position].levels), name=group)
    return index


def _unique(names: list[str]) -> list[str]:
    """Number repeated names: Intercept, Intercept.1, ..."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        count = seen.get(name, 0)
        unique.append(name if count == 0 else f"{name}.{count}")
        seen[name] = count + 1
    return unique
