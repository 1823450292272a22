"""The data that models are fitted to: shipped and simulated, and how they are written for the workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Factor:
    """A grouping factor: codes from 0 and, where they are not "1", "2", ..., its levels."""

    codes: NDArray[np.int32]
    n_levels: int
    levels: tuple[str, ...] | None = None
    ordered: bool = False


Columns = dict[str, NDArray[np.float64] | Factor]


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


def gamma_one_factor(groups: int = 30, size: int = 10) -> Columns:
    """A gamma response with log link and a random intercept."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(groups), size).astype(np.int32)
    x = rng.standard_normal(g.size)
    mean = np.exp(1.0 + 0.5 * x + 0.6 * rng.standard_normal(groups)[g])
    return {"y": mean * rng.gamma(2.0, 0.5, size=g.size), "x": x, "g": Factor(g, groups)}


def logit_one_factor(n: int = 200_000, groups: int = 20_000) -> Columns:
    """A 0/1 response with logit link and a random intercept, rows in random order, every group present."""
    rng = np.random.default_rng(6)
    g = rng.permutation(np.concatenate([np.arange(groups), rng.integers(groups, size=n - groups)])).astype(np.int32)
    x = rng.standard_normal(n)
    eta = -0.5 + 0.5 * x + rng.standard_normal(groups)[g]
    return {"y": (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(np.float64), "x": x, "g": Factor(g, groups)}


def poisson_one_factor(n: int = 1_000_000, groups: int = 100_000) -> Columns:
    """Counts with log link and a random intercept, rows in random order, every group present."""
    rng = np.random.default_rng(8)
    g = rng.permutation(np.concatenate([np.arange(groups), rng.integers(groups, size=n - groups)])).astype(np.int32)
    x = rng.standard_normal(n)
    eta = 0.5 + 0.3 * x + 0.5 * rng.standard_normal(groups)[g]
    return {"y": rng.poisson(np.exp(eta)).astype(np.float64), "x": x, "g": Factor(g, groups)}


def ordered_one_factor(n: int = 50_000, judges: int = 2_000) -> Columns:
    """A rating in five ordered categories, logit link and a random intercept of the judge, every judge present."""
    rng = np.random.default_rng(7)
    judge = rng.permutation(np.concatenate([np.arange(judges), rng.integers(judges, size=n - judges)])).astype(np.int32)
    x = rng.standard_normal(n)
    latent = 0.8 * x + 1.2 * rng.standard_normal(judges)[judge] + rng.logistic(size=n)
    codes = np.asarray(np.searchsorted([-2.0, -0.5, 0.5, 2.0], latent), dtype=np.int32)
    return {"y": Factor(codes, 5, ordered=True), "x": x, "judge": Factor(judge, judges)}


def scores_of_students(n: int = 400) -> Columns:
    """Ten scores of each student, with covariates, for margins."""
    rng = np.random.default_rng(42)
    age = rng.integers(20, 75, size=n)
    female, treated = rng.binomial(1, 0.52, size=n), rng.binomial(1, 0.40, size=n)
    school = rng.integers(4, size=n).astype(np.int32)
    student = np.repeat(np.arange(n // 10), 10).astype(np.int32)
    effects = rng.standard_normal(n // 10)[student]
    score = 50 + 0.3 * age - 2 * female + 3 * treated + effects + rng.normal(0, 5, size=n)
    return {
        "score": score,
        "age": age.astype(np.float64),
        "female": female.astype(np.float64),
        "treated": treated.astype(np.float64),
        "school": Factor(school, 4, tuple("ABCD")),
        "student": Factor(student, n // 10),
    }


def cbpp_counts() -> Columns:
    """The data set cbpp with a column of the failures, for programs that take no expression as response."""
    columns = shipped("cbpp")
    size, incidence = columns["size"], columns["incidence"]
    assert isinstance(size, np.ndarray)
    assert isinstance(incidence, np.ndarray)
    return columns | {"healthy": size - incidence}


def shipped(name: str) -> Columns:
    """A data set that comes with lme4py, as columns."""
    import pandas as pd

    from lme4py import load_dataset

    out: Columns = {}
    for column, values in load_dataset(name).items():
        if isinstance(values.dtype, pd.CategoricalDtype):
            levels = tuple(str(level) for level in values.cat.categories)
            codes = np.asarray(values.cat.codes, dtype=np.int32)
            out[str(column)] = Factor(codes, len(levels), levels, bool(values.cat.ordered))
        else:
            out[str(column)] = values.to_numpy(dtype=np.float64)
    return out


SIMULATED: dict[str, Callable[[], Columns]] = {
    "one_factor_500k": lambda: one_factor(500_000, 125_000),
    "one_factor_1m": lambda: one_factor(1_000_000, 100_000),
    "crossed_500k": crossed_uniform,
    "crossed_898k": crossed_skewed,
    "crossed_4k": lambda: crossed_uniform(4_000, (300, 200)),
    "firms": workers_and_firms,
    "gamma_300": gamma_one_factor,
    "logit_200k": logit_one_factor,
    "poisson_1m": poisson_one_factor,
    "judges_50k": ordered_one_factor,
    "scores_400": scores_of_students,
    "cbpp_counts": cbpp_counts,
}


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
