"""The models that are timed, and the files in which workers find them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench_data import Factor, columns_of, write_data

Size = Literal["small", "medium", "slow", "insteval", "large", "crossed"]


@dataclass(frozen=True)
class Model:
    """One line of the table.

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
        As our `glmer` calls it; "gaussian" stands for a linear mixed model.
    link : str
    nagq : int
        1 for the Laplace approximation, otherwise points of adaptive Gauss-Hermite quadrature.
    plain_formula : str
        The same model for programs that take neither powers of sums nor expressions in `cbind`; empty when `formula`
        has none.
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

    @property
    def is_generalised(self) -> bool:
        """Whether `glmer` fits it."""
        return self.family != "gaussian"


_INSTEVAL = "y ~ service + (1 | s) + (1 | d)"

LMM_MODELS: tuple[Model, ...] = (
    Model(
        "sleepstudy",
        "Reaction ~ Days + (Days | Subject)",
        True,
        ("Reaction", "Days", "Subject"),
        "sleepstudy",
        "small",
        target=0.004,
        reference=1743.628271959,
        engine_target=0.0015,
    ),
    Model(
        "penicillin",
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        True,
        ("diameter", "plate", "sample"),
        "Penicillin",
        "small",
        target=0.004,
    ),
    Model(
        "pastes",
        "strength ~ 1 + (1 | batch/cask)",
        True,
        ("strength", "batch", "cask"),
        "Pastes",
        "small",
        target=0.004,
    ),
    Model("dyestuff", "Yield ~ 1 + (1 | Batch)", True, ("Yield", "Batch"), "Dyestuff", "small", target=0.004),
    Model(
        "hsb82",
        "mAch ~ meanses * cses + sector * cses + (cses | school)",
        True,
        ("mAch", "meanses", "cses", "sector", "school"),
        "Hsb82",
        "small",
        target=0.010,
    ),
    Model(
        "chem97",
        "score ~ 1 + (1 | school) + (1 | lea)",
        True,
        ("score", "school", "lea"),
        "Chem97",
        "small",
        target=0.03,
    ),
    Model(
        "chem97_gcse",
        "score ~ gcsecnt + (1 | school) + (1 | lea)",
        False,
        ("score", "gcsecnt", "school", "lea"),
        "Chem97",
        "small",
        target=0.03,
        reference=141685.56021,
    ),
    Model("insteval", _INSTEVAL, False, ("y", "service", "s", "d"), "InstEval", "insteval", target=0.4),
    Model(
        "insteval_dept",
        _INSTEVAL + " + (1 | dept:service)",
        False,
        ("y", "service", "s", "d", "dept"),
        "InstEval",
        "insteval",
        target=0.6,
        max_evaluations=12,
    ),
    Model(
        "insteval_slope",
        _INSTEVAL + " + (1 + service | dept)",
        False,
        ("y", "service", "s", "d", "dept"),
        "InstEval",
        "insteval",
        target=1.5,
        reference=237647.0584,
    ),
    Model("intercept_500k", "y ~ x + (1 | g)", True, ("y", "x", "g"), "one_factor_500k", "large", target=0.4),
    Model("slope_500k", "y ~ x + (x | g)", True, ("y", "x", "g"), "one_factor_500k", "large", target=1.2),
    Model("slope_1m", "y ~ x + (x | g)", True, ("y", "x", "g"), "one_factor_1m", "large", target=0.8),
    Model(
        "crossed_500k", "y ~ x + (1 | a) + (1 | b)", True, ("y", "x", "a", "b"), "crossed_500k", "crossed", target=20.0
    ),
    Model(
        "crossed_898k", "y ~ x + (1 | a) + (1 | b)", True, ("y", "x", "a", "b"), "crossed_898k", "crossed", target=12.0
    ),
    Model("workers_firms", "y ~ x + (1 | worker) + (1 | firm)", True, ("y", "x", "worker", "firm"), "firms", "crossed"),
)


_CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
_CBPP_PLAIN = "cbind(incidence, healthy) ~ period + (1 | herd)"
_CBPP_COLUMNS = ("incidence", "size", "healthy", "period", "herd")
_CONTRACEPTION = "use ~ age + I(age^2) + urban + livch"
_CONTRACEPTION_COLUMNS = ("use", "age", "urban", "livch", "district")
_VERBAGG_COLUMNS = ("r2", "Anger", "Gender", "btype", "situ", "id", "item")


def _glmm(
    name: str,
    formula: str,
    columns: tuple[str, ...],
    data: str,
    size: Size,
    target: float,
    *,
    family: str = "binomial",
    link: str = "logit",
    reference: float | None = None,
    nagq: int = 1,
    plain_formula: str = "",
) -> Model:
    """A model of the table of generalised models; each may take 30 outer evaluations."""
    return Model(
        name,
        formula,
        False,
        columns,
        data,
        size,
        target=target,
        reference=reference,
        max_evaluations=30,
        family=family,
        link=link,
        nagq=nagq,
        plain_formula=plain_formula,
    )


GLMM_MODELS: tuple[Model, ...] = (
    _glmm(
        "cbpp", _CBPP, _CBPP_COLUMNS, "cbpp_counts", "small", 0.008, reference=184.0525636, plain_formula=_CBPP_PLAIN
    ),
    _glmm(
        "cbpp_agq9",
        _CBPP,
        _CBPP_COLUMNS,
        "cbpp_counts",
        "small",
        0.008,
        reference=183.96674,
        nagq=9,
        plain_formula=_CBPP_PLAIN,
    ),
    _glmm(
        "contraception",
        _CONTRACEPTION + " + (1 | district)",
        _CONTRACEPTION_COLUMNS,
        "Contraception",
        "medium",
        0.020,
    ),
    _glmm(
        "contraception_slope",
        _CONTRACEPTION + " + (urban | district)",
        _CONTRACEPTION_COLUMNS,
        "Contraception",
        "medium",
        0.040,
        reference=2360.610285,
    ),
    _glmm(
        "verbagg",
        "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
        _VERBAGG_COLUMNS,
        "VerbAgg",
        "slow",
        0.120,
        reference=8151.39972,
    ),
    _glmm(
        "verbagg_two_way",
        "r2 ~ (Anger + Gender + btype + situ)^2 + (1 | id) + (1 | item)",
        _VERBAGG_COLUMNS,
        "VerbAgg",
        "slow",
        0.5,
        reference=8124.18174,
        plain_formula="r2 ~ Anger + Gender + btype + situ + Anger:Gender + Anger:btype + Anger:situ + Gender:btype"
        " + Gender:situ + btype:situ + (1 | id) + (1 | item)",
    ),
    _glmm(
        "grouseticks",
        "TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)",
        ("TICKS", "YEAR", "cHEIGHT", "BROOD", "INDEX", "LOCATION"),
        "grouseticks",
        "medium",
        0.060,
        family="poisson",
        link="log",
        reference=1780.54266,
    ),
    _glmm("gamma_log", "y ~ x + (1 | g)", ("y", "x", "g"), "gamma_300", "small", 0.015, family="gamma", link="log"),
    _glmm(
        "salamanders_nb",
        "count ~ spp * mined + (1 | site)",
        ("count", "spp", "mined", "site"),
        "Salamanders",
        "medium",
        0.030,
        family="nbinomial",
        link="log",
    ),
    _glmm("logit_200k", "y ~ x + (1 | g)", ("y", "x", "g"), "logit_200k", "large", 1.0),
    _glmm(
        "contraception_slope_agq9",
        _CONTRACEPTION + " + (urban | district)",
        _CONTRACEPTION_COLUMNS,
        "Contraception",
        "medium",
        0.6,
        nagq=9,
    ),
)


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
