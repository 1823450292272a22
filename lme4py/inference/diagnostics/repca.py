"""Principal components of the random effects of each grouping factor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg

from lme4py.fits.refuse import refuse_structured
from lme4py.linalg.types import FloatArray
from lme4py.tables.html import render_html

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Components", "RePCA", "re_pca"]


@dataclass(frozen=True)
class Components:
    """Principal components of the random effects of one grouping factor, k of them.

    Attributes
    ----------
    group : str
    columns : tuple of str
        Names of the k random effects.
    sd : ndarray, shape (k,)
        Standard deviations of the components, decreasing.
    sdev : ndarray, shape (k,)
        The same relative to sigma, as R's ``rePCA``; equal to `sd` in generalised models.
    proportion : ndarray, shape (k,)
        Part of the variance of each; NaN where all variances are zero.
    rotation : ndarray, shape (k, k)
        Columns are the components.
    """

    group: str
    columns: tuple[str, ...]
    sd: FloatArray
    sdev: FloatArray
    proportion: FloatArray
    rotation: FloatArray

    @property
    def rank(self) -> int:
        """Components with more than a 1e-8 part of the variance."""
        return int((self.proportion > 1e-8).sum())


class RePCA(Mapping[str, Components]):
    """`Components` by grouping factor.

    Parameters
    ----------
    parts : dict of Components
    """

    def __init__(self, parts: dict[str, Components]) -> None:
        self._parts = parts

    def __getitem__(self, group: str) -> Components:
        return self._parts[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def to_frame(self) -> pd.DataFrame:
        """One row per component: group, component, sd, sdev, proportion, cumulative, then the rotation."""
        import pandas as pd

        tables = []
        for part in self.values():
            table = pd.DataFrame({"group": part.group, "component": np.arange(1, part.sd.size + 1), "sd": part.sd})
            table["sdev"], table["proportion"] = part.sdev, part.proportion
            table["cumulative"] = np.cumsum(part.proportion)
            tables.append(table.join(pd.DataFrame(part.rotation.T, columns=list(part.columns))))
        return pd.concat(tables, ignore_index=True)

    def __str__(self) -> str:
        lines = []
        for part in self.values():
            if np.isnan(part.sd).any():
                lines.append(f"{part.group}: the design does not determine the covariances")
                continue
            lines.append(f"{part.group}: {part.rank} of {part.sd.size} components carry variance")
            for i, (sd, share) in enumerate(zip(part.sd, part.proportion, strict=True), start=1):
                lines.append(f"  component {i}: SD {sd:.4g}, {100 * share:.2f} % of the variance")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from lme4py.tables.frames import frame_table

        return render_html([frame_table(self.to_frame())])


def re_pca(fit: Any) -> RePCA:
    """Principal components of the random-effects covariance of each grouping factor (as R's ``rePCA``).

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    RePCA

    Notes
    -----
    Terms of one factor are taken together; all is NaN where the design does not determine their covariances. A
    component without variance is a direction that the data do not need: a simpler random-effects term fits as well.

    Examples
    --------
    >>> import lme4py
    >>> fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy")).fit
    >>> re_pca(fit)["Subject"].sdev.round(4)
    array([0.9669, 0.2309])
    """
    refuse_structured(fit, "components of the random effects in units of sigma are")
    scale = fit.theta_unit
    return RePCA({group: _components(fit, group, scale) for group in fit.design.n_groups})


def _components(fit: Any, group: str, scale: float) -> Components:
    pairs = zip(fit.design.terms, fit.covariance_estimates, strict=True)
    terms = [(term, cov) for term, cov in pairs if term.group == group]
    names = tuple(name for term, _ in terms for name in term.columns)
    if any(np.isnan(cov).any() for _, cov in terms):
        nothing = np.full(len(names), np.nan)
        return Components(group, names, nothing, nothing, nothing, np.full((len(names), len(names)), np.nan))
    covariance = scipy.linalg.block_diag(*(cov for _, cov in terms))
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values[::-1], 0.0)
    # Rounding of an exact zero.
    values[values < 1e-14 * values[0]] = 0.0
    rotation = vectors[:, ::-1]
    # The largest element of each component is positive.
    signs = np.sign(rotation[np.abs(rotation).argmax(axis=0), np.arange(values.size)])
    total = float(values.sum())
    share = values / total if total > 0.0 else np.full(values.size, np.nan)
    return Components(group, names, np.sqrt(values), np.sqrt(values) / scale, share, rotation * signs)
