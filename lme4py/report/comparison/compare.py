"""Several models side by side, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lme4py.arguments import speaks
from lme4py.errors import OptionError
from lme4py.fits.base import fit_of
from lme4py.inference.estimates.coefficients import check_alpha
from lme4py.report.comparison.column import Entry, ModelColumn
from lme4py.report.comparison.draw import draw_comparison
from lme4py.report.comparison.foreign import foreign_column, is_foreign
from lme4py.report.comparison.own import Choices, own_column
from lme4py.tables.numbers import column_decimals, format_integer, format_p_value, format_value
from lme4py.tables.shown import Shown
from lme4py.tables.table import Align, Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Comparison", "compare"]

_STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
_INTERCEPTS = ("Intercept", "_cons")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a comparison.

    Attributes
    ----------
    part : str
        "fixed", "threshold", "random" or "model".
    label : str
    entries : tuple of (Entry or str or None)
        One per model; None where a model has no such parameter.
    """

    part: str
    label: str
    entries: tuple[Entry | str | None, ...]


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Models side by side; prints as text and shows itself as HTML in a notebook.

    Attributes
    ----------
    names : tuple of str
        One per model.
    rows : tuple of Row
    notes : tuple of str
    ci, p, stars : bool
        Whether limits, p-values and stars are shown.
    exponentiated : tuple of bool
        For each model whether its coefficients are shown as exp.
    """

    names: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    ci: bool = False
    p: bool = False
    stars: bool = False
    exponentiated: tuple[bool, ...] = ()

    @property
    def table(self) -> Table:
        """The comparison as a table of finished text."""
        rows = tuple(line for row in self.rows for line in self._lines(row))
        right: tuple[Align, ...] = ("right",)
        align: tuple[Align, ...] = ("left", *(right * len(self.names)))
        return Table("Comparison of models", ("", *self.names), rows, align, self.notes)

    def plot(
        self,
        terms: str | Sequence[str] | None = None,
        *,
        ax: Axes | None = None,
        figsize: tuple[float, float] | None = None,
    ) -> Axes:
        """Coefficients of all models with their confidence limits, models beside each other (needs matplotlib).

        Parameters
        ----------
        terms : str or sequence of str, optional
            Coefficients; all but the intercept when not given.
        ax : Axes, optional
        figsize : (float, float), optional

        Returns
        -------
        matplotlib Axes
        """
        return draw_comparison(self, terms, ax, figsize)

    def _tables(self) -> list[Table]:
        return [self.table]

    def _lines(self, row: Row) -> list[tuple[str, ...]]:
        """The row, and below it the lines of limits and p-values."""
        decimals = _decimals(row)
        lines = [(row.label, *(self._cell(row, entry, decimals) for entry in row.entries))]
        if row.part in ("fixed", "threshold"):
            below = [[_limits(entry, decimals) for entry in row.entries]] if self.ci else []
            below += [[_probability(entry) for entry in row.entries]] if self.p else []
            lines += [("", *cells) for cells in below if any(cells)]
        return lines

    def _cell(self, row: Row, entry: Entry | str | None, decimals: int) -> str:
        if not isinstance(entry, Entry):
            return entry or ""
        value = entry.estimate
        if row.part == "model":
            if row.label.startswith(("Rows", "Levels")):
                return format_integer(value)
            return f"{value:.3f}" if row.label.startswith("R²") else format_value(value, 2, 6)
        if row.part == "random" and row.label.startswith("Cor"):
            return f"{value:z.2f}"
        error = "" if entry.std_error is None else f" ({format_value(entry.std_error, decimals)})"
        return format_value(value, decimals) + (_stars(entry) if self.stars else "") + error

    def to_frame(self, wide: bool = True) -> pd.DataFrame:
        """Numbers.

        Parameters
        ----------
        wide : bool
            One row for each parameter, columns (model, estimate or std_error); False gives one row for each parameter
            of each model, with the columns model, part, term, estimate, std_error, ci_lower, ci_upper, p_value.

        Returns
        -------
        DataFrame
        """
        import pandas as pd

        if not wide:
            names = ["model", "part", "term", "estimate", "std_error", "ci_lower", "ci_upper", "p_value"]
            return pd.DataFrame(self._long_rows(), columns=names)
        index = pd.MultiIndex.from_tuples([(row.part, row.label) for row in self.rows], names=["part", "term"])
        columns: dict[tuple[str, str], list[Any]] = {}
        for i, name in enumerate(self.names):
            columns[name, "estimate"] = [_number(row.entries[i]) for row in self.rows]
            columns[name, "std_error"] = [
                entry.std_error if isinstance(entry, Entry) else None for entry in (row.entries[i] for row in self.rows)
            ]
        frame = pd.DataFrame(columns, index=index)
        frame.columns = pd.MultiIndex.from_tuples(list(columns), names=["model", "statistic"])
        return frame

    def _long_rows(self) -> list[tuple[Any, ...]]:
        out: list[tuple[Any, ...]] = []
        for i, name in enumerate(self.names):
            for row in self.rows:
                entry = row.entries[i]
                if isinstance(entry, Entry):
                    own = (entry.estimate, entry.std_error, entry.lower, entry.upper, entry.p_value)
                    out.append((name, row.part, row.label, *own))
        return out

    def to_word(self, path: str | Path) -> Path:
        """Write the table as a Word document (needs python-docx).

        Parameters
        ----------
        path : str or Path
            Ends in ``.docx``.

        Returns
        -------
        Path
            Where it was written.
        """
        from lme4py.tables.office import write_word

        write_word([self.table], path)
        return Path(path)

    def to_excel(self, path: str | Path) -> Path:
        """Write the table as an Excel workbook, and its numbers as a second sheet (needs openpyxl).

        Parameters
        ----------
        path : str or Path
            Ends in ``.xlsx``.

        Returns
        -------
        Path
            Where it was written.
        """
        from lme4py.tables.office import write_excel

        write_excel(self.table, self.to_frame(wide=False), path)
        return Path(path)


def _number(entry: Entry | str | None) -> float | str | None:
    return entry.estimate if isinstance(entry, Entry) else entry


def _decimals(row: Row) -> int:
    """One row has the same number of decimals throughout."""
    found = [entry for entry in row.entries if isinstance(entry, Entry)]
    errors = [entry.std_error for entry in found if entry.std_error is not None]
    return column_decimals(errors or [entry.estimate for entry in found])


def _limits(entry: Entry | str | None, decimals: int) -> str:
    if not isinstance(entry, Entry) or entry.lower is None or entry.upper is None:
        return ""
    return f"[{format_value(entry.lower, decimals)}, {format_value(entry.upper, decimals)}]"


def _probability(entry: Entry | str | None) -> str:
    if not isinstance(entry, Entry) or entry.p_value is None:
        return ""
    text = format_p_value(entry.p_value)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def _stars(entry: Entry) -> str:
    if entry.p_value is None:
        return ""
    return next((mark for limit, mark in _STARS if entry.p_value < limit), "")


@speaks
def compare(
    *models: Any,
    names: Sequence[str] | None = None,
    ddf: str | None = None,
    ci: bool = False,
    p: bool = False,
    stars: bool = False,
    exponentiate: bool = False,
    vcov: str | None = None,
    alpha: float | None = None,
) -> Comparison:
    """Several fitted models side by side: estimates with standard errors in parentheses, standard deviations and
    correlations of the random effects, sizes, R squared, log-likelihood, AIC and BIC.

    Parameters
    ----------
    *models : MixedResult, MEGLMResult, or results of statsmodels
        Of statsmodels: linear and generalised linear models, Logit, Poisson and their kin, MixedLM.
    names : sequence of str, optional
        Headings; (1), (2), ... when not given.
    ddf : str, optional
        Degrees of freedom of p-values and limits of linear models; "kenward-roger" takes the standard errors of its
        adjusted covariance. `default_ddf` of each model when not given.
    ci, p, stars : bool
        Show confidence limits and p-values below the estimates, and stars beside them (``*`` below 0.05, ``**`` below
        0.01, ``***`` below 0.001).
    exponentiate : bool
        exp of the coefficients of models with a log or logit link, with standard errors by the delta method; those of
        other models stay, and a note says so.
    vcov : {None, "CR0", "CR1", "CR2", "CR3"}
        Cluster-robust standard errors, as in `coef_table`.
    alpha : float, optional
        One minus the level of the limits; 0.05 when not given.

    Returns
    -------
    Comparison
        ``print()`` it, or use ``to_markdown()``, ``to_latex(caption=, label=)``, ``to_html()``, ``to_word(path)``,
        ``to_excel(path)`` and ``to_frame()``.

    Raises
    ------
    OptionError

    Examples
    --------
    >>> import lme4py
    >>> sleepstudy = lme4py.load_dataset("sleepstudy")
    >>> one = lme4py.lmer("Reaction ~ Days + (1 | Subject)", sleepstudy)
    >>> two = lme4py.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
    >>> print(compare(one, two, names=["intercepts", "slopes"], stars=True))
    Comparison of models
                                                   intercepts               slopes
      Intercept                            251.405*** (9.747)   251.405*** (6.825)
      Days                                10.4673*** (0.8042)  10.4673*** (1.5458)
      SD (Intercept | Subject)                          37.12                24.74
      ...
    """
    if not models:
        raise OptionError("compare() got no model; give at least one result.")
    choices = Choices(check_alpha(alpha), ddf, vcov, exponentiate)
    columns = _same_intercepts([_column(model, choices) for model in models])
    headings = _headings(names, len(columns))
    if exponentiate and not any(column.exponentiated for column in columns):
        raise OptionError("exponentiate=True is for models with a log or logit link, and none of these has one.")
    rows = [*_estimates(columns), *_random_rows(columns), *_model_rows(columns)]
    notes = _notes(columns, choices, ci, stars)
    ratios = tuple(column.exponentiated for column in columns)
    return Comparison(headings, tuple(rows), notes, bool(ci), bool(p), bool(stars), ratios)


def _headings(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if isinstance(names, str) or (names is not None and len(names) != count):
        raise OptionError(f"`names` must hold one name for each of the {count} models.")
    headings = tuple(f"({i})" for i in range(1, count + 1)) if names is None else tuple(map(str, names))
    if len(set(headings)) < len(headings):
        raise OptionError("`names` holds the same name twice; give each model its own.")
    return headings


def _column(model: Any, choices: Choices) -> ModelColumn:
    if is_foreign(model):
        return foreign_column(model, choices)
    fit = fit_of(model)
    if fit is None:
        raise OptionError(
            f"compare() takes fitted models, got {type(model).__name__}; give results of lmer(), glmer() or their kin, "
            "or of statsmodels."
        )
    return own_column(fit, choices)


def _same_intercepts(columns: list[ModelColumn]) -> list[ModelColumn]:
    """Where models call their intercepts by several names, all have the first of these."""
    found = dict.fromkeys(name for column in columns for name in column.fixed if name in _INTERCEPTS)
    if len(found) < 2:
        return columns
    first, other = found
    return [
        replace(
            column,
            fixed={first if name in _INTERCEPTS else name: one for name, one in column.fixed.items()},
            random={label.replace(f"({other}", f"({first}"): one for label, one in column.random.items()},
        )
        for column in columns
    ]


def _merged(part: str, parts: Sequence[dict[str, Entry]]) -> list[Row]:
    """One row per label, in the order in which labels first occur."""
    labels = dict.fromkeys(label for own in parts for label in own)
    return [Row(part, label, tuple(own.get(label) for own in parts)) for label in labels]


def _estimates(columns: list[ModelColumn]) -> list[Row]:
    fixed = _merged("fixed", [column.fixed for column in columns])
    return fixed + _merged("threshold", [column.thresholds for column in columns])


def _random_rows(columns: list[ModelColumn]) -> list[Row]:
    # Standard deviations first, then correlations, the residual one, and dispersions last.
    order = {"SD": 0, "Co": 1, "Di": 3}
    rows = _merged("random", [column.random for column in columns])
    return sorted(rows, key=lambda row: 2 if row.label == "SD (Residual)" else order[row.label[:2]])


def _model_rows(columns: list[ModelColumn]) -> list[Row]:
    rows = []
    for label in _fact_labels(columns):
        values = [column.facts.get(label) for column in columns]
        if label == "Family (link)" and {"gaussian (identity)", None} >= set(values):
            continue
        entries = tuple(Entry(value) if isinstance(value, float) else value for value in values)
        rows.append(Row("model", label, entries))
    return rows


def _fact_labels(columns: list[ModelColumn]) -> list[str]:
    """Labels in the order of the first model, those of others before the row that follows them there."""
    labels: list[str] = []
    for column in columns:
        at = 0
        for label in column.facts:
            if label in labels:
                at = labels.index(label) + 1
            else:
                labels.insert(at, label)
                at += 1
    return labels


def _notes(columns: list[ModelColumn], choices: Choices, ci: bool, stars: bool) -> tuple[str, ...]:
    notes = ["Estimates with standard errors in parentheses; SD: standard deviation, Cor.: correlation."]
    if ci:
        notes.append(f"In brackets {100.0 * (1.0 - choices.alpha):g}% confidence limits.")
    if stars:
        notes.append("* p < 0.05, ** p < 0.01, *** p < 0.001.")
    if choices.vcov is not None:
        notes.append(f"Standard errors of the coefficients are cluster-robust ({choices.vcov}).")
    if choices.exponentiate:
        others = "" if all(column.exponentiated for column in columns) else "; the others are not exponentiated"
        notes.append(f"Coefficients of models with a log or logit link are shown by exp{others}.")
    return (*notes, *_warnings(columns))


def _warnings(columns: list[ModelColumn]) -> list[str]:
    """What cannot be compared."""
    if len({column.response for column in columns} - {""}) > 1 or len({column.n_obs for column in columns}) > 1:
        return ["The models have different responses or rows: log-likelihoods, AIC and BIC cannot be compared."]
    different = len({frozenset(column.fixed) for column in columns}) > 1 or len({column.reml for column in columns}) > 1
    if any(column.reml for column in columns) and different:
        return [
            "REML fits with different fixed effects, or REML and ML: log-likelihoods, AIC and BIC cannot be compared; "
            "fit with reml=False for that."
        ]
    return []
