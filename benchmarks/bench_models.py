"""The models that are timed, the data they are fitted to, and the files in which workers find them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Size = Literal["small", "insteval", "large", "crossed"]


@dataclass(frozen=True)
class Factor:
    """A grouping factor: codes from 0 and, where they are not "1", "2", ..., its levels."""

    codes: NDArray[np.int32]
    n_levels: int
    levels: tuple[str, ...] | None = None
    ordered: bool = False


Columns = dict[str, NDArray[np.float64] | Factor]


@dataclass(frozen=True)
class Model:
    """One line of the table.

    Attributes
    ----------
    name : str
        What `--models` takes.
    formula : str
    reml : bool
    columns : tuple of str
        The columns that the formula uses.
    data : str
        Name of the data: a data set of lme4py, or a key of `SIMULATED`.
    size : str
        Decides how often each program fits it.
    target : float or None
        Seconds that our fit may take.
    reference : float or None
        The known minimum of the criterion.
    max_evaluations : int or None
    engine_target : float or None
        Seconds that the steps after the formula may take.
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


_INSTEVAL = "y ~ service + (1 | s) + (1 | d)"

MODELS: tuple[Model, ...] = (
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
    Model(
        "workers_firms", "y ~ x + (1 | worker) + (1 | firm)", True, ("y", "x", "worker", "firm"), "firms", "crossed"
    ),
)


def growth_model(n: int) -> Model:
    """One factor with a slope, 10 rows a group: for the growth of time in n."""
    return Model(f"growth_{n}", "y ~ x + (x | g)", True, ("y", "x", "g"), f"one_factor:{n}:{n // 10}", "large")


def one_factor(n: int, groups: int) -> Columns:
    """Random intercept and slope, rows in random order, every group present.

    Parameters
    ----------
    n, groups : int
    """
    rng = np.random.default_rng(1)
    g = rng.permutation(np.concatenate([np.arange(groups), rng.integers(groups, size=n - groups)])).astype(np.int32)
    x = rng.standard_normal(n)
    b = rng.standard_normal((groups, 2)) * [1.0, 0.5]
    b[:, 1] += 0.3 * b[:, 0]
    return {"y": 1.0 + 0.5 * x + b[g, 0] + b[g, 1] * x + rng.standard_normal(n), "x": x, "g": Factor(g, groups)}


def _crossed(rng: np.random.Generator, a: NDArray[np.int32], b: NDArray[np.int32], sizes: tuple[int, int]) -> Columns:
    x = rng.standard_normal(a.size)
    effects = rng.standard_normal(sizes[0])[a] + 0.7 * rng.standard_normal(sizes[1])[b]
    y = 1.0 + 0.5 * x + effects + 1.5 * rng.standard_normal(a.size)
    return {"y": y, "x": x, "a": Factor(a, sizes[0]), "b": Factor(b, sizes[1])}


def crossed_uniform(n: int = 500_000, levels: tuple[int, int] = (20_000, 5_000)) -> Columns:
    """Two crossed factors, each row a random pair of levels, every level present."""
    rng = np.random.default_rng(2)
    a, b = (
        rng.permutation(np.concatenate([np.arange(k), rng.integers(k, size=n - k)])).astype(np.int32) for k in levels
    )
    return _crossed(rng, a, b, levels)


def crossed_skewed(n: int = 898_170, levels: tuple[int, int] = (6_039, 3_691)) -> Columns:
    """Two crossed factors like users and films: popularity is skewed, and a pair comes once."""
    rng = np.random.default_rng(3)
    weights = [rng.gamma(shape, size=k) for shape, k in zip((0.8, 0.5), levels, strict=True)]
    chances = [w / w.sum() for w in weights]
    every = np.arange(max(levels))
    # Each level once, so that none is missing; then random pairs until there are enough different ones.
    pairs = np.unique((every % levels[0]) * levels[1] + every % levels[1])
    kept = pairs
    while kept.size < n:
        a, b = (rng.choice(k, size=n, p=p) for k, p in zip(levels, chances, strict=True))
        kept = np.union1d(kept, a * levels[1] + b)
    others = rng.permutation(np.setdiff1d(kept, pairs))[: n - pairs.size]
    rows = rng.permutation(np.concatenate([pairs, others]))
    return _crossed(rng, (rows // levels[1]).astype(np.int32), (rows % levels[1]).astype(np.int32), levels)


def workers_and_firms(n: int = 600_000, workers: int = 200_000, firms: int = 20_000) -> Columns:
    """Each worker is in one to three firms: two partially crossed factors."""
    rng = np.random.default_rng(4)
    worker = rng.permutation(np.concatenate([np.arange(workers), rng.integers(workers, size=n - workers)]))
    employers = rng.integers(firms, size=(workers, 3))
    jobs = rng.integers(1, 4, size=workers)
    firm = employers[worker, rng.integers(0, jobs[worker])]
    _, firm = np.unique(firm, return_inverse=True)
    columns = _crossed(rng, worker.astype(np.int32), firm.astype(np.int32), (workers, int(firm.max()) + 1))
    return {"y": columns["y"], "x": columns["x"], "worker": columns["a"], "firm": columns["b"]}


SIMULATED: dict[str, Callable[[], Columns]] = {
    "one_factor_500k": lambda: one_factor(500_000, 125_000),
    "one_factor_1m": lambda: one_factor(1_000_000, 100_000),
    "crossed_500k": crossed_uniform,
    "crossed_898k": crossed_skewed,
    "firms": workers_and_firms,
}


def shipped(name: str) -> Columns:
    """A data set that comes with lme4py, as columns."""
    import pandas as pd

    from lme4py import load_dataset

    out: Columns = {}
    for column, values in load_dataset(name).items():
        if isinstance(values.dtype, pd.CategoricalDtype):
            levels = tuple(str(level) for level in values.cat.categories)
            codes = values.cat.codes.to_numpy(dtype=np.int32)
            out[str(column)] = Factor(codes, len(levels), levels, bool(values.cat.ordered))
        else:
            out[str(column)] = values.to_numpy(dtype=np.float64)
    return out


def columns_of(data: str) -> Columns:
    """The columns of a data set by its name."""
    if data in SIMULATED:
        return SIMULATED[data]()
    if data.startswith("one_factor:"):
        n, groups = data.split(":")[1:]
        return one_factor(int(n), int(groups))
    return shipped(data)


def write_data(folder: Path, columns: Columns) -> None:
    """Write columns as raw little-endian numbers with a list of them, which R and Python both read fast.

    Parameters
    ----------
    folder : Path
        Made here. `schema.tsv` has name, kind (numeric, factor, ordered) and number of levels of each column;
        `NAME.bin` the float64 values or int32 codes from 0; `NAME.levels` the levels, one a line.
    columns : dict
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, values in columns.items():
        if isinstance(values, Factor):
            values.codes.astype("<i4").tofile(folder / f"{name}.bin")
            if values.levels is not None:
                (folder / f"{name}.levels").write_text("\n".join(values.levels) + "\n", encoding="utf-8")
            lines.append(f"{name}\t{'ordered' if values.ordered else 'factor'}\t{values.n_levels}")
        else:
            values.astype("<f8").tofile(folder / f"{name}.bin")
            lines.append(f"{name}\tnumeric\t0")
    (folder / "schema.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


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
            self._bytes[model.data] = {
                k: sizes[k] * (4 if isinstance(v, Factor) else 8) for k, v in columns.items()
            }
        line = "\t".join(
            [model.name, self.data_folder(model).name, "TRUE" if model.reml else "FALSE", ",".join(model.columns)]
        )
        line += f"\t{model.formula}"
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
