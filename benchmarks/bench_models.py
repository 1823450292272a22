"""The models that are timed, and the files in which workers find them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench_data import Factor, columns_of, write_data

Size = Literal["small", "medium", "slow", "insteval", "large", "crossed"]
Action = Literal["fit", "profile", "bootstrap", "kenward_roger", "grid", "influence"]


@dataclass(frozen=True)
class Model:
    """One line of the table: a model, and what is timed.

    Attributes
    ----------
    name : str
        What `--models` takes.
    formula : str
    reml : bool
        False for every family but gaussian.
    columns : tuple of str
        The columns that the formula uses.
    data : str
        Name of the data: a data set of lme4py, or a key of `bench_data.SIMULATED`.
    size : str
        Decides how often each program fits it.
    target : float or None
        Seconds that our fit may take.
    reference : float or None
        The known minimum of the criterion.
    max_evaluations : int or None
    engine_target : float or None
        Seconds that the steps after the formula may take.
    family : str
        As our `glmer` calls it; "gaussian" stands for a linear mixed model, "ordinal" for `clmm`.
    link : str
    nagq : int
        1 for the Laplace approximation, otherwise points of adaptive Gauss-Hermite quadrature.
    plain_formula : str
        The same model for programs that take neither powers of sums nor expressions in `cbind`; empty when `formula`
        has none.
    action : str
        "fit", or what is asked of a model that is fitted beforehand.
    detail : str
        Numbers of the action: of bootstrap replicates by us and by the others, "10000,500" (times of the others are
        scaled up); of a grid of predictions, "age=20:74:28;female=0:1:2" (first, last, number of values).
    rivals : tuple of str or None
        The programs that can do it; None for all of the suite.
    agreement : float or None
        How far the numbers that an action gives may be from those of the other program, relative to the largest.
    """

    name: str
    formula: str
    reml: bool
    columns: tuple[str, ...]
    data: str
    size: Size
    target: float | None = None
    reference: float | None = None
    max_evaluations: int | None = None
    engine_target: float | None = None
    family: str = "gaussian"
    link: str = "identity"
    nagq: int = 1
    plain_formula: str = ""
    action: Action = "fit"
    detail: str = ""
    rivals: tuple[str, ...] | None = None
    agreement: float | None = None

    @property
    def is_generalised(self) -> bool:
        """Whether `glmer` or `clmm` fits it."""
        return self.family != "gaussian"


def growth_model(n: int) -> Model:
    """One factor with a slope, 10 rows a group: for the growth of time in n."""
    return Model(f"growth_{n}", "y ~ x + (x | g)", True, ("y", "x", "g"), f"one_factor:{n}:{n // 10}", "large")


class Store:
    """The folder in which workers find models and data; data are written when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, int] = {}
        self._bytes: dict[str, dict[str, int]] = {}
        self._listed: list[str] = []

    def prepare(self, model: Model) -> None:
        """Write the data of a model and enter it in `models.tsv`."""
        if model.data not in self.rows:
            columns = columns_of(model.data)
            write_data(self.data_folder(model), columns)
            sizes = {k: v.codes.size if isinstance(v, Factor) else v.size for k, v in columns.items()}
            self.rows[model.data] = next(iter(sizes.values()))
            self._bytes[model.data] = {k: sizes[k] * (4 if isinstance(v, Factor) else 8) for k, v in columns.items()}
        flag = "TRUE" if model.reml else "FALSE"
        fields = [model.name, self.data_folder(model).name, flag, ",".join(model.columns), model.formula]
        fields += [model.family, model.link, str(model.nagq), model.plain_formula or model.formula]
        fields += [model.action, model.detail or "-"]
        line = "\t".join(fields)
        if line not in self._listed:
            self._listed.append(line)
            (self.folder / "models.tsv").write_text("\n".join(self._listed) + "\n", encoding="utf-8")

    def data_folder(self, model: Model) -> Path:
        """Where the data of a model are."""
        return self.folder / model.data.replace(":", "_")

    def n_rows(self, model: Model) -> int:
        """Rows of the data of a prepared model."""
        return self.rows[model.data]

    def column_bytes(self, model: Model) -> int:
        """Bytes of the columns that a prepared model uses (8 a number, 4 a code)."""
        return sum(self._bytes[model.data][name] for name in model.columns)
