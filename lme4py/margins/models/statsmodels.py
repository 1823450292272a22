"""statsmodels' MixedLM fits, from formulas and from arrays, as a session sees them.

A formula is read again by this package. Where its columns are those of the fit (in whatever order), predictions and
exact slopes come from it; otherwise new columns are made by the fit's own formula engine (patsy or formulaic), and
slopes are differences of fourth order.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import Frame, read_frame
from lme4py.errors import DataError, Lme4Error, OptionError
from lme4py.fits.method import Plain
from lme4py.linalg.types import FloatArray, IntArray
from lme4py.margins.models.adapter import DdfMethod, FactoredRows, ModelAdapter, Random, Rows, to_pandas
from lme4py.margins.models.formula_rows import FormulaRows
from lme4py.margins.models.statsmodels_refits import replicates

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StatsmodelsMixedLMAdapter"]

_RESPONSE: Final = "_response_of_the_fit"
# Columns of the two formula engines agree to this, relative to their largest value.
_SAME: Final = 1e-9


class StatsmodelsMixedLMAdapter(ModelAdapter):
    """A fit of statsmodels' MixedLM (0.14 or later).

    Parameters
    ----------
    results : MixedLMResults
    training_data : pandas.DataFrame, optional
        The data of the fit. Formula fits hold theirs; for fits of arrays it gives the columns their names.

    Notes
    -----
    Coefficients have the covariance that statsmodels reports. Weights and grouping variables may be any column of the
    data.
    """

    def __init__(self, results: Any, training_data: Any = None) -> None:
        model = results.model
        self.results, self.model = results, model
        self.exog = np.asarray(model.exog, dtype=np.float64)
        p = self.exog.shape[1]
        self.names = tuple(str(name) for name in model.exog_names[:p])
        self.params = np.asarray(results.fe_params, dtype=np.float64)
        self.vcov = np.asarray(results.cov_params(), dtype=np.float64)[:p, :p]
        if not np.isfinite(self.vcov).all():
            raise OptionError(
                "statsmodels has no covariance for the fixed effects of this fit (its Hessian is not invertible); "
                "refit it, or fit the model with lme4py.lmer."
            )
        self.formula = getattr(model, "formula", None)
        spec = getattr(model.data, "model_spec", None)
        self.spec = getattr(model.data, "design_info", None) if spec is None else spec
        data = training_data if training_data is not None else getattr(model.data, "frame", None)
        self.formula_rows: FormulaRows | None = None
        self.order: IntArray | None = None
        if self.formula is not None and self.spec is not None and data is not None:
            self._read_formula(self._rows_used(data))
        else:
            self._read_arrays(None if training_data is None else self._rows_used(training_data))
        self.description = f"statsmodels MixedLM, {self.formula or ', '.join(self.names)}"

    @property
    def n_rows(self) -> int:
        return int(self.exog.shape[0])

    @property
    def row_labels(self) -> Any:
        labels = self.model.data.row_labels
        return super().row_labels if labels is None else labels

    # --- data

    def _rows_used(self, data: Any) -> pd.DataFrame:
        """The rows of the data that the fit used, in its order."""
        import pandas as pd

        if not isinstance(data, pd.DataFrame):
            frame = read_frame(data)
            data = to_pandas(frame)
        labels = self.model.data.row_labels
        if len(data) != self.n_rows and labels is not None and data.index.is_unique and labels.isin(data.index).all():
            data = data.loc[labels]
        if len(data) != self.n_rows:
            raise DataError(f"`training_data` has {len(data)} rows but the fit used {self.n_rows}; give these rows.")
        rows: pd.DataFrame = data.reset_index(drop=True)
        return rows

    def _read_formula(self, data: pd.DataFrame) -> None:
        from lme4py.design.build import lformula

        frame = read_frame(data)
        right = str(self.formula).partition("~")[2]
        used = [name for name in frame.names if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", right)]
        self.columns = _Converted(frame)
        self.variables = tuple(used)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                numbered = data[used].assign(**{_RESPONSE: np.arange(float(len(data)))})
                text = f"{_RESPONSE} ~ {_r_spelling(right)}"
                design = lformula(text, numbered, require_random=False)
            self.order = None if design.dropped else _matching(design.X, self.exog)
        except Lme4Error:
            self.order = None
        if self.order is None:
            self.notes = (
                "New columns are made by the formula engine of statsmodels; slopes are differences of fourth order.",
            )
            return
        self.formula_rows = FormulaRows(design.recipe, {**(design.columns or {})})
        self.variables = self.formula_rows.variables

    def _read_arrays(self, data: pd.DataFrame | None) -> None:
        """Every column of X is a variable; columns of the training data with the same values give their names."""
        self.columns = {} if data is None else _Converted(read_frame(data))
        own = {name: Column(name, "numeric", self.exog[:, j]) for j, name in enumerate(self.names)}
        varies = [j for j in range(len(self.names)) if np.ptp(self.exog[:, j]) > 0]
        self._constant = np.array([j for j in range(len(self.names)) if j not in varies], dtype=np.intp)
        found = {j: self._named(j, data) for j in varies}
        self._column_names = [found.get(j, name) for j, name in enumerate(self.names)]
        self.variables = tuple(self._column_names[j] for j in varies)
        renamed = {self._column_names[j]: own[self.names[j]] for j in range(len(self.names))}
        self.columns = {**dict(self.columns), **renamed}

    def _named(self, j: int, data: pd.DataFrame | None) -> str:
        if data is None or self.names[j] in data.columns:
            return self.names[j]
        for name in data.columns:
            values = data[name]
            if values.dtype.kind in "iufb" and np.array_equal(values.to_numpy(dtype=np.float64), self.exog[:, j]):
                return str(name)
        return self.names[j]

    # --- rows

    def is_categorical(self, name: str) -> bool:
        inside = self.formula_rows is not None and name in self.formula_rows.categorical
        made = self.formula_rows is None and self.formula is not None and f"C({name}" in str(self.formula)
        return super().is_categorical(name) or inside or made

    def rows(self, frame: Frame, random: Random) -> Rows:
        if self.formula_rows is not None and self.order is not None:
            X, offset = self.formula_rows.design(frame)
            return Rows(X[:, self.order], offset)
        if self.formula is not None and self.spec is not None:
            X = _spec_matrix(self.spec, to_pandas(frame))
            return Rows(X, np.zeros(frame.n_rows))
        X = np.empty((frame.n_rows, len(self.names)))
        for j, name in enumerate(self._column_names):
            X[:, j] = self.exog[0, j] if j in self._constant else frame.column(name).values
        return Rows(X, np.zeros(frame.n_rows))

    def slopes(self, frame: Frame, name: str, random: Random) -> Rows:
        if self.formula_rows is not None and self.order is not None:
            X, offset = self.formula_rows.slopes(frame, name)
            return Rows(X[:, self.order], offset)
        return super().slopes(frame, name, random)

    def factored(self, rows: Frame, scenarios: Frame, random: Random) -> FactoredRows | None:
        if self.formula_rows is None or self.order is None:
            return None
        made = self.formula_rows.factored(rows, scenarios)
        if made is None:
            return None
        (C, R), known = made
        return FactoredRows((C[:, self.order], R[:, self.order]), known)

    def offsets(self, frame: Frame) -> list[tuple[frozenset[str], FloatArray]]:
        return [] if self.formula_rows is None else self.formula_rows.offsets(frame)

    def training_offset(self, random: Random) -> FloatArray | None:
        """The conditional means of the random effects of the rows of the fit, where they are asked for."""
        if random != "conditional":
            return None
        exog_re = np.asarray(self.model.exog_re) if self.model.k_re else np.ones((1, 1))
        parts = [np.asarray(Z) for mats in self.model.exog_vc.mats for Z in mats] if self.model.k_vc else []
        if np.ptp(exog_re) > 0 or not all(np.isin(Z, (0.0, 1.0)).all() for Z in parts):
            raise OptionError(
                "random='conditional' with random slopes is not available for statsmodels fits; use random='zero', or "
                "fit the model with lme4py.lmer."
            )
        fitted: FloatArray = np.asarray(self.results.fittedvalues, dtype=np.float64)
        return fitted - self.exog @ self.params

    # --- inference

    def test_method(self, ddf: str) -> DdfMethod | None:
        if ddf == "residual":
            return Plain(self.vcov, float(self.n_rows - self.params.size))
        if ddf in ("satterthwaite", "kenward-roger"):
            raise OptionError(f"ddf={ddf!r} needs a fit of lme4py.lmer; for statsmodels fits there is 'residual'.")
        return None

    def replicates(self, n: int, kind: str, group: Any, seed: int, n_jobs: int) -> FloatArray:
        return replicates(self.results, n, kind, seed, n_jobs)


class _Converted(Mapping[str, Column]):
    """Columns of a frame, converted when they are asked for; those that are neither numbers nor labels are absent."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def __getitem__(self, name: str) -> Column:
        if name not in self.frame:
            raise KeyError(name)
        return self.frame.column(name)

    def __iter__(self) -> Any:
        return iter(self.frame.names)

    def __len__(self) -> int:
        return len(self.frame.names)


def _r_spelling(right: str) -> str:
    """Python's spellings of the functions of a formula in R's."""
    text = re.sub(r"\b(?:np|numpy|math|scipy\.special)\.", "", right)
    text = re.sub(r"\bQ\(\s*(['\"])(.*?)\1\s*\)", r"`\2`", text)
    return re.sub(r"\bTreatment\(\s*reference\s*=", "Treatment(", text)


def _matching(X: FloatArray, exog: FloatArray) -> IntArray | None:
    """For each column of `exog` the column of X with the same values; None where one has none."""
    if X.shape != exog.shape:
        return None
    size = np.maximum(np.abs(exog).max(axis=0), 1e-300)
    order = []
    for j in range(exog.shape[1]):
        gaps = np.abs(X - exog[:, [j]]).max(axis=0)
        order.append(int(gaps.argmin()))
        if gaps[order[-1]] > _SAME * size[j]:
            return None
    return np.array(order, dtype=np.intp) if len(set(order)) == len(order) else None


def _spec_matrix(spec: Any, data: pd.DataFrame) -> FloatArray:
    """New columns by patsy's design_info or formulaic's model spec."""
    if hasattr(spec, "get_model_matrix"):
        return np.asarray(spec.get_model_matrix(data), dtype=np.float64)
    import patsy  # type: ignore[import-untyped]

    return np.asarray(patsy.dmatrix(spec, data, NA_action="raise"), dtype=np.float64)
