"""Options that all models of the keyword front door share."""

from __future__ import annotations

from typing import Any

import numpy as np

from lme4py.data.frame import Frame, as_factor_column
from lme4py.engine.optimise import Control
from lme4py.errors import OptionError
from lme4py.fits.conventions import Conventions
from lme4py.inference.estimates.coefficients import check_alpha, check_ddf
from lme4py.keyword.names import column

__all__ = ["check_robust", "control", "conventions"]


def control(maxiter: Any, tol: Any) -> Control:
    """Settings of the optimiser from Stata's words.

    Parameters
    ----------
    maxiter : int
        Largest number of evaluations.
    tol : float
        The optimiser stops when the criterion is predicted to fall by less than this; it is never less careful than by
        its own default.
    """
    if isinstance(maxiter, bool) or not isinstance(maxiter, int | np.integer) or maxiter < 1:
        raise OptionError(f"`maxiter` is {maxiter!r}; give a whole number of at least 1, such as 1000.")
    number = isinstance(tol, int | float | np.number) and not isinstance(tol, bool)
    if not number or not 0.0 < float(tol) < 1.0:
        raise OptionError(f"`tol` is {tol!r}; give a small positive number, such as 1e-9.")
    return Control(max_evaluations=int(maxiter), tolerance=min(float(tol), Control().tolerance))


def check_robust(vce: str | None, nAGQ: Any) -> None:
    """Refuse robust standard errors where there is no likelihood in all parameters, before any fitting."""
    if nAGQ == 0 and vce is not None:
        raise OptionError(
            f"vce={vce!r} needs a likelihood in all parameters, which nAGQ=0 does not have; use nAGQ=1 or more."
        )


def conventions(alpha: Any, ddf: Any, vce: Any, linear: bool, frame: Frame) -> Conventions:
    """What results of the model say, checked before any fitting.

    Parameters
    ----------
    alpha : float
    ddf : str or None
        None is "normal".
    vce : None, "model", "oim", "robust", or a column name
    linear : bool
    frame : Frame
    """
    level = check_alpha(alpha)
    chosen = check_ddf(ddf, linear=linear)
    cluster = _vce(vce, frame)
    if cluster is not None and chosen not in ("normal", "residual"):
        raise OptionError(
            f"ddf={ddf!r} belongs to the covariance of the model, and vce={vce!r} replaces it; leave one of them out."
        )
    clusters = None if cluster in (None, "robust") else _labels(str(cluster), frame)
    return Conventions(stata=True, alpha=level, ddf=chosen, vce=cluster, clusters=clusters)


def _labels(name: str, frame: Frame) -> Any:
    """A column as a Series of labels, missing ones as None."""
    import pandas as pd

    found = as_factor_column(frame.column(name))
    labels = [*found.levels, None]
    cells = [labels[code] for code in found.values.astype(int).tolist()]
    return pd.Series(cells, index=frame.index, name=name, dtype=object)


def _vce(vce: Any, frame: Frame) -> str | None:
    if vce is None or (isinstance(vce, str) and vce.strip().lower() in ("model", "oim", "conventional")):
        return None
    if isinstance(vce, str) and vce.strip().lower() == "robust":
        return "robust"
    if not isinstance(vce, str):
        raise OptionError(f"`vce` is {vce!r}; give 'robust', or the name of the column whose levels are the clusters.")
    # As Stata writes it: vce(cluster id).
    word, _, rest = vce.strip().partition(" ")
    return column(rest.strip() if word.lower() == "cluster" and rest.strip() else vce, frame, "vce")
