"""Several models side by side, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lme4py.errors import OptionError
from lme4py.inference.estimates.coefficients import coef_table
from lme4py.inference.estimates.dispersion import shown_dispersion
from lme4py.inference.estimates.likelihood import aic, bic
from lme4py.report.summaries.parts import AnyFit, entries, entry_label, family_label, method_label, threshold_table
from lme4py.tables.numbers import column_decimals, format_integer, format_value
from lme4py.tables.shown import Shown
from lme4py.tables.table import Align, Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a comparison.

    Attributes
    ----------
    part : str
        "fixed", "threshold", "random" or "model".
    label : str
    values : tuple of (float or str or None)
        One per model; None where a model has no such parameter.
    errors : tuple of (float or None)
        Standard errors; None where there is none.
    """

    part: str
    label: str
    values: tuple[float | str | None, ...]
    errors: tuple[float | None, ...] = field(default=())


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Models side by side; prints as text and shows itself as HTML in a notebook.

    Attributes
    ----------
    names : tuple of str
        One per model.
    rows : tuple of Row
    notes : tuple of str
    """

    names: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> Table:
        """The comparison as a table of finished text."""
        rows = tuple((row.label, *_cells(row)) for row in self.rows)
        right: tuple[Align, ...] = ("right",)
        align: tuple[Align, ...] = ("left", *(right * len(self.names)))
        return Table("Comparison of models", ("", *self.names), rows, align, self.notes)

    def _tables(self) -> list[Table]:
        return [self.table]

    def to_frame(self) -> pd.DataFrame:
        """Numbers: rows (part, term), columns (model, estimate or std_error).

        Returns
        -------
        DataFrame
        """
        import pandas as pd

        index = pd.MultiIndex.from_tuples([(row.part, row.label) for row in self.rows], names=["part", "term"])
        columns: dict[tuple[str, str], list[Any]] = {}
        for i, name in enumerate(self.names):
            columns[name, "estimate"] = [row.values[i] for row in self.rows]
            columns[name, "std_error"] = [row.errors[i] if row.errors else None for row in self.rows]
        frame = pd.DataFrame(columns, index=index)
        frame.columns = pd.MultiIndex.from_tuples(list(columns), names=["model", "statistic"])
        return frame


def _cells(row: Row) -> list[str]:
    """Text of the cells; one row has the same number of decimals throughout."""
    errors = [error for error in row.errors if error is not None]
    numbers = [value for value in row.values if isinstance(value, float)]
    decimals = column_decimals(errors or numbers)
    out = []
    for i, value in enumerate(row.values):
        if not isinstance(value, float):
            out.append(value or "")
        elif row.part == "model":
            out.append(format_integer(value) if row.label.startswith(("Rows", "Levels")) else format_value(value, 2, 6))
        elif row.part == "random" and row.label.startswith("Cor"):
            out.append(f"{value:z.2f}")
        else:
            error = row.errors[i] if row.errors else None
            shown = "" if error is None else f" ({format_value(error, decimals)})"
            out.append(format_value(value, decimals) + shown)
    return out


def compare(*models: Any, names: Sequence[str] | None = None, ddf: str | None = None) -> Comparison:
    """Several fitted models side by side: estimates with standard errors in parentheses, standard deviations and
    correlations of the random effects, sizes, log-likelihood, AIC and BIC.

    Parameters
    ----------
    *models : MixedResult or MEGLMResult
    names : sequence of str, optional
        Headings; (1), (2), ... when not given.
    ddf : str, optional
        "kenward-roger" takes the standard errors of its adjusted covariance for linear models; all others have the
        model's own. `default_ddf` of each model when not given.

    Returns
    -------
    Comparison
        ``print()`` it, or use ``to_markdown()``, ``to_latex()``, ``to_html()`` and ``to_frame()``.

    Raises
    ------
    OptionError

    Examples
    --------
    >>> import lme4py
    >>> sleepstudy = lme4py.load_dataset("sleepstudy")
    >>> one = lme4py.lmer("Reaction ~ Days + (1 | Subject)", sleepstudy)
    >>> two = lme4py.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
    >>> print(compare(one, two, names=["intercepts", "slopes"]))
    Comparison of models
                                                intercepts            slopes
      Intercept                            251.405 (9.747)   251.405 (6.825)
      Days                                10.4673 (0.8042)  10.4673 (1.5458)
      SD (Intercept | Subject)                       37.12             24.74
      ...
    """
    fits = [_fit_of(model) for model in models]
    if not fits:
        raise OptionError("compare() got no model; give at least one result.")
    if isinstance(names, str) or (names is not None and len(names) != len(fits)):
        raise OptionError(f"`names` must hold one name for each of the {len(fits)} models.")
    headings = tuple(f"({i})" for i in range(1, len(fits) + 1)) if names is None else tuple(map(str, names))
    if len(set(headings)) < len(headings):
        raise OptionError("`names` holds the same name twice; give each model its own.")
    rows = [*_fixed_rows(fits, ddf), *_random_rows(fits), *_model_rows(fits)]
    return Comparison(headings, tuple(rows), _notes(fits))


def _fit_of(model: Any) -> AnyFit:
    fit = getattr(model, "fit", model)
    if not hasattr(fit, "covariances") or not hasattr(fit, "design"):
        raise OptionError(
            f"compare() takes fitted models, got {type(model).__name__}; give results of lmer(), glmer() or their kin."
        )
    found: AnyFit = fit
    return found


def _merged(part: str, parts: list[dict[str, tuple[float, float | None]]]) -> list[Row]:
    """One row per label, in the order in which labels first occur."""
    labels = dict.fromkeys(label for own in parts for label in own)
    rows = []
    for label in labels:
        pairs = [own.get(label, (None, None)) for own in parts]
        rows.append(Row(part, label, tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)))
    return rows


def _estimates(table: pd.DataFrame) -> dict[str, tuple[float, float | None]]:
    pairs = zip(table["estimate"].tolist(), table["std_error"].tolist(), strict=True)
    return dict(zip(map(str, table.index), pairs, strict=True))


def _fixed_rows(fits: list[AnyFit], ddf: str | None) -> list[Row]:
    same: list[Any] = list(fits)
    tables = [coef_table(fit, ddf if fit.has_f_tests else None) for fit in same]
    fixed = _merged("fixed", [_estimates(table) for table in tables])
    return fixed + _merged("threshold", [_estimates(threshold_table(fit)) for fit in fits])


def _random_rows(fits: list[AnyFit]) -> list[Row]:
    parts: list[dict[str, tuple[float, float | None]]] = [
        {entry_label(entry): (entry.sdcor, None) for entry in entries(fit)} for fit in fits
    ]
    # Standard deviations first, then correlations, the residual one last.
    order = {"SD": 0, "Co": 1}
    rows = _merged("random", parts)
    return sorted(rows, key=lambda row: 2 if row.label == "SD (Residual)" else order[row.label[:2]])


def _model_rows(fits: list[AnyFit]) -> list[Row]:
    same: list[Any] = list(fits)
    rows = []
    if any(not fit.normal_errors for fit in fits):
        rows.append(Row("model", "Family (link)", tuple(family_label(fit) for fit in fits)))
    dispersion = [shown_dispersion(fit) for fit in fits]
    for name in dict.fromkeys(found.name for found in dispersion if found is not None):
        own = tuple(found.estimate if found is not None and found.name == name else None for found in dispersion)
        rows.append(Row("random", f"Dispersion ({name})", own))
    rows.append(Row("model", "Rows", tuple(float(fit.design.n_obs) for fit in fits)))
    for group in dict.fromkeys(group for fit in fits for group in fit.design.n_groups):
        counts = [fit.design.n_groups.get(group) for fit in fits]
        rows.append(Row("model", f"Levels of {group}", tuple(None if c is None else float(c) for c in counts)))
    rows.append(Row("model", "Method", tuple(method_label(fit) for fit in fits)))
    rows.append(Row("model", "Log-likelihood", tuple(float(fit.log_likelihood) for fit in fits)))
    rows.append(Row("model", "AIC", tuple(float(aic(fit)) for fit in same)))
    rows.append(Row("model", "BIC", tuple(float(bic(fit)) for fit in same)))
    return rows


def _notes(fits: list[AnyFit]) -> tuple[str, ...]:
    notes = ["Estimates with standard errors in parentheses; SD: standard deviation, Cor.: correlation."]
    if len({fit.design.response_name for fit in fits}) > 1 or len({fit.design.n_obs for fit in fits}) > 1:
        notes.append("The models have different responses or rows: log-likelihoods, AIC and BIC cannot be compared.")
    elif any(fit.reml for fit in fits) and _different_designs(fits):
        notes.append(
            "REML fits with different fixed effects, or REML and ML: log-likelihoods, AIC and BIC cannot be compared; "
            "fit with reml=False for that."
        )
    return tuple(notes)


def _different_designs(fits: list[AnyFit]) -> bool:
    return len({fit.design.x_names for fit in fits}) > 1 or len({fit.reml for fit in fits}) > 1
