"""The numbers of many fits as long tables, whether they were made together or one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import special

from lme4py.fits.base import Fit
from lme4py.linalg.types import BoolArray, FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BlockOfFits", "FitNumbers", "FitsTogether", "VarianceColumn"]


@dataclass(frozen=True)
class VarianceColumn:
    """One variance, covariance or correlation of B fits, as a row of `var_corr`.

    Attributes
    ----------
    group : str
    name1, name2 : str or None
    vcov, sdcor : ndarray, shape (B,)
    """

    group: str
    name1: str | None
    name2: str | None
    vcov: FloatArray
    sdcor: FloatArray


@dataclass(frozen=True)
class FitNumbers:
    """Numbers of B fits of one design, made together.

    Attributes
    ----------
    names : sequence
        Of the responses.
    terms : tuple of str
    n_obs : int
    estimate, std_error, df : ndarray, shape (B, p)
    variances : list of VarianceColumn
    sigma, criterion, log_likelihood, gradient_norm : ndarray, shape (B,)
    singular : ndarray of bool, shape (B,)
    """

    names: Sequence[Any]
    terms: tuple[str, ...]
    n_obs: int
    estimate: FloatArray
    std_error: FloatArray
    df: FloatArray
    variances: list[VarianceColumn]
    sigma: FloatArray
    criterion: FloatArray
    log_likelihood: FloatArray
    gradient_norm: FloatArray
    singular: BoolArray


@dataclass(frozen=True)
class BlockOfFits:
    """Numbers of some fits as long tables, see `lme4py.study.many.ManyFits`."""

    coefficients: pd.DataFrame
    variances: pd.DataFrame
    fits: pd.DataFrame

    @classmethod
    def failed(cls, names: Sequence[Any], why: str) -> BlockOfFits:
        """No fit for some responses.

        Parameters
        ----------
        names : sequence
        why : str
        """
        import pandas as pd

        nan, count = float("nan"), len(names)
        fits = pd.DataFrame(
            {
                "response": list(names),
                "n_obs": pd.array([0] * count, dtype="int64"),
                "criterion": nan,
                "log_likelihood": nan,
                "sigma": nan,
                "gradient_norm": nan,
                "converged": False,
                "singular": False,
                "message": why,
            }
        )
        return cls(pd.DataFrame(), pd.DataFrame(), fits)

    @classmethod
    def of_fit(cls, name: Any, fit: Fit, table: pd.DataFrame, variances: pd.DataFrame, message: str) -> BlockOfFits:
        """The numbers of one fit.

        Parameters
        ----------
        name : object
        fit : Fit
        table : DataFrame
            Its coefficients.
        variances : DataFrame
            Its `var_corr`.
        message : str
        """
        import pandas as pd

        columns = ["estimate", "std_error", "df", "statistic", "p_value"]
        coefficients = table.rename_axis("term").reset_index().reindex(columns=["term", *columns])
        fits = pd.DataFrame(
            {
                "response": [name],
                "n_obs": fit.design.n_obs,
                "criterion": fit.criterion,
                "log_likelihood": fit.log_likelihood,
                "sigma": fit.sigma,
                "gradient_norm": fit.certificate.gradient_norm,
                "converged": fit.certificate.converged,
                "singular": fit.certificate.is_singular,
                "message": message,
            }
        )
        coefficients.insert(0, "response", [name] * len(coefficients))
        variances = variances.reset_index(drop=True)
        variances.insert(0, "response", [name] * len(variances))
        return cls(coefficients, variances, fits)

    @classmethod
    def of_numbers(cls, numbers: FitNumbers) -> BlockOfFits:
        """The tables of certified fits that were made together.

        Parameters
        ----------
        numbers : FitNumbers
        """
        import pandas as pd

        names, count, p = np.array(numbers.names, dtype=object), len(numbers.names), len(numbers.terms)
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = numbers.estimate / numbers.std_error
        endless = np.isinf(numbers.df)
        below = -np.abs(statistic)
        tail = np.where(endless, special.ndtr(below), special.stdtr(np.where(endless, 1.0, numbers.df), below))
        coefficients = pd.DataFrame(
            {
                "response": np.repeat(names, p),
                "term": np.tile(np.array(numbers.terms, dtype=object), count),
                "estimate": numbers.estimate.ravel(),
                "std_error": numbers.std_error.ravel(),
                "df": numbers.df.ravel(),
                "statistic": statistic.ravel(),
                "p_value": (2.0 * tail).ravel(),
            }
        )
        fits = pd.DataFrame(
            {
                "response": names,
                "n_obs": numbers.n_obs,
                "criterion": numbers.criterion,
                "log_likelihood": numbers.log_likelihood,
                "sigma": numbers.sigma,
                "gradient_norm": numbers.gradient_norm,
                "converged": True,
                "singular": numbers.singular,
                "message": "",
            }
        )
        return cls(coefficients, _variances(names, numbers.variances), fits)


def _variances(names: Any, columns: list[VarianceColumn]) -> pd.DataFrame:
    """As `var_corr` of each response."""
    import pandas as pd

    order = np.arange(len(names))
    parts = [
        pd.DataFrame(
            {"order": order, "group": c.group, "name1": c.name1, "name2": c.name2, "vcov": c.vcov, "sdcor": c.sdcor}
        )
        for c in columns
    ]
    whole = pd.concat(parts, ignore_index=True).sort_values("order", kind="stable", ignore_index=True)
    whole.insert(0, "response", names[whole.pop("order").to_numpy()])
    return whole


class FitsTogether(Protocol):
    """What fits many responses of one design at once."""

    def size(self, n_rows: int) -> int:
        """Responses of one block.

        Parameters
        ----------
        n_rows : int
            Of the data.
        """

    def fits(self, names: Sequence[Any], Y: FloatArray) -> tuple[BlockOfFits | None, list[int]]:
        """The fits to some responses, and the places of those that have to be fitted by themselves.

        Parameters
        ----------
        names : sequence
        Y : ndarray, shape (n_data, B)
        """
