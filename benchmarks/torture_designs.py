"""Designs that are hard for a mixed model, each with a name: what `torture.py` fits.

Every case is data, a formula and the function that fits it. Seeds come from the names, so that a case does not change
when others are added.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Case:
    """One design."""

    theme: str
    name: str
    model: str  # lmer, clmm, or a family of glmer
    formula: str
    data: pd.DataFrame
    options: dict[str, Any] = field(default_factory=dict)


_seed = [0]


def generator(*names: object) -> np.random.Generator:
    """The generator of a case."""
    return np.random.default_rng([_seed[0], zlib.crc32(" ".join(map(str, names)).encode())])


def covariates(rng: np.random.Generator, g: np.ndarray, spread: float = 0.5) -> pd.DataFrame:
    """Two covariates, a factor and a linear predictor with a random intercept and slope of the groups `g`."""
    n, levels = g.size, int(g.max()) + 1
    x, z = rng.normal(size=n), rng.normal(size=n)
    eta = 0.3 + 0.4 * x + spread * rng.normal(size=levels)[g] + 0.5 * spread * rng.normal(size=levels)[g] * x
    f = rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1])
    return pd.DataFrame({"eta": eta, "x": x, "z": z, "f": f, "g": [f"g{i}" for i in g]})


def draw(model: str, rng: np.random.Generator, eta: Any) -> np.ndarray:
    """A response of a model with linear predictor `eta` (log link, or logit)."""
    eta = np.asarray(eta, dtype=float)
    mean = np.exp(np.clip(eta, -30.0, 30.0))
    chance = 1.0 / (1.0 + np.exp(-eta))
    if model == "clmm":
        return np.digitize(eta + rng.logistic(size=eta.size), [-1.0, 0.5, 2.0])
    makers: dict[str, Callable[[], np.ndarray]] = {
        "lmer": lambda: eta + rng.normal(size=eta.size),
        "gaussian": lambda: eta + rng.normal(size=eta.size),
        "binomial": lambda: (rng.uniform(size=eta.size) < chance).astype(float),
        "poisson": lambda: rng.poisson(mean).astype(float),
        "nbinomial": lambda: rng.poisson(mean * rng.gamma(2.0, 0.5, eta.size)).astype(float),
        "nbinomial1": lambda: rng.poisson(mean * rng.gamma(2.0, 0.5, eta.size)).astype(float),
        "gamma": lambda: mean * rng.gamma(2.0, 0.5, eta.size),
        "inverse_gaussian": lambda: rng.wald(mean, 2.0),
    }
    return makers[model]()


MODELS = ("lmer", "binomial", "poisson", "nbinomial", "nbinomial1", "gamma", "inverse_gaussian", "gaussian", "clmm")


def grouped(sizes: Any) -> np.ndarray:
    """Codes of groups of these sizes."""
    return np.repeat(np.arange(len(sizes)), sizes)


def ordinary(model: str, name: str, sizes: Any, spread: float = 0.5) -> pd.DataFrame:
    """Data of a model with groups of given sizes."""
    rng = generator(model, name)
    data = covariates(rng, grouped(sizes), spread)
    return data.assign(y=draw(model, rng, data["eta"]))


# -- one theme each --------------------------------------------------------------------------------


def unbalanced() -> Iterator[Case]:
    """One group of hundreds beside groups of one."""
    sizes = [300, 90, 40, 15, *[4] * 6, *[2] * 10, *[1] * 25]
    for model in MODELS:
        for formula in ("y ~ x + f + (1 | g)", "y ~ x + (x | g)"):
            yield Case("unbalanced", formula, model, formula, ordinary(model, "unbalanced", sizes))


def collinear() -> Iterator[Case]:
    """Columns that repeat others, exactly or up to 1e-3 .. 1e-12 of their length."""
    for model in ("lmer", "binomial", "poisson", "gamma", "clmm"):
        data = ordinary(model, "collinear", [8] * 20)
        noise = generator("collinear", model).normal(size=len(data))
        for size in (0.0, 1e-12, 1e-9, 1e-6, 1e-3):
            changed = data.assign(again=data["x"] + size * noise)
            yield Case("collinear", f"noise {size:g}", model, "y ~ x + again + (1 | g)", changed)
        yield Case(
            "collinear", "slopes 1e-6", model, "y ~ x + (x + again | g)", data.assign(again=data["x"] + 1e-6 * noise)
        )
    data = ordinary("lmer", "empty cells", [8] * 20)
    cells = data.assign(h=np.where(data["f"] == "c", "u", np.where(data["z"] > 0, "u", "v")))
    yield Case("collinear", "empty cells", "lmer", "y ~ f * h + (1 | g)", cells)


def tiny() -> Iterator[Case]:
    """Four to nine rows in two or three groups."""
    for model in MODELS:
        for sizes in ((2, 2), (3, 2), (3, 3, 3)):
            name = f"groups of {sizes}"
            yield Case("tiny", name, model, "y ~ 1 + (1 | g)", ordinary(model, name, sizes))
        yield Case("tiny", "slope, 2 x 4", model, "y ~ x + (x | g)", ordinary(model, "tiny slope", (4, 4)))


def scales() -> Iterator[Case]:
    """Units of 1e-12 to 1e12, alone and mixed; origins far away."""
    for model in MODELS:
        data = ordinary(model, "scales", [6] * 25)
        for unit in (1e-12, 1e-6, 1e6, 1e12):
            yield Case("scales", f"x times {unit:g}", model, "y ~ x + (x | g)", data.assign(x=data["x"] * unit))
        yield Case("scales", "x + 1e6", model, "y ~ x + (x | g)", data.assign(x=data["x"] + 1e6))
        if model in ("lmer", "gaussian", "gamma", "inverse_gaussian"):
            for unit in (1e-12, 1e12):
                yield Case("scales", f"y times {unit:g}", model, "y ~ x + (x | g)", data.assign(y=data["y"] * unit))
        mixed = data.assign(x=data["x"] * 1e-9, z=data["z"] * 1e9)
        yield Case("scales", "1e-9 and 1e9", model, "y ~ x + z + (x + z | g)", mixed)
    data = ordinary("lmer", "heavy weights", [6] * 25)
    weights = 10.0 ** generator("weights").uniform(-8, 8, len(data))
    yield Case("scales", "weights 1e-8 to 1e8", "lmer", "y ~ x + (1 | g)", data, {"weights": weights})


def extreme_responses() -> Iterator[Case]:
    """Counts of a billion, hardly any events, huge offsets, outliers."""
    rng = generator("extreme")
    data = covariates(rng, grouped([8] * 20))
    n = len(data)
    for model in ("poisson", "nbinomial", "nbinomial1"):
        formula = "y ~ x + (1 | g)"
        big = draw(model, rng, data["eta"] + 20.0)
        yield Case("responses", "counts of 1e9", model, formula, data.assign(y=big))
        yield Case(
            "responses", "three events", model, formula, data.assign(y=np.eye(1, n, 5)[0] + np.eye(1, n, 77)[0] * 2)
        )
        offset = np.where(np.arange(n) % 2, 15.0, -3.0)
        shifted = data.assign(y=draw(model, rng, data["eta"] + offset), o=offset)
        yield Case("responses", "offsets -3 and 15", model, formula + " + offset(o)", shifted)
    regular = np.round(np.exp(data["eta"] + 2.0))
    for model in ("nbinomial", "nbinomial1"):
        yield Case("responses", "underdispersed", model, "y ~ x + (1 | g)", data.assign(y=regular))
    for model in ("gamma", "inverse_gaussian"):
        wide = np.exp(data["eta"] + 4.0 * rng.normal(size=n))
        yield Case("responses", "1e-5 to 1e5", model, "y ~ x + (1 | g)", data.assign(y=wide))
        narrow = np.exp(data["eta"] + 1e-4 * rng.normal(size=n))
        yield Case("responses", "hardly any noise", model, "y ~ x + (1 | g)", data.assign(y=narrow))
    trials = rng.integers(10**6, 10**8, n)
    successes = rng.binomial(trials, 1 / (1 + np.exp(-data["eta"])))
    many = data.assign(s=successes, f_=trials - successes)
    yield Case("responses", "1e8 trials", "binomial", "cbind(s, f_) ~ x + (1 | g)", many)
    for model in ("lmer", "gaussian"):
        y = draw(model, rng, data["eta"])
        y[3] = 1e9
        yield Case("responses", "an outlier of 1e9", model, "y ~ x + (1 | g)", data.assign(y=y))
    rare = data.assign(y=np.where(np.arange(n) < 2, 3, np.arange(n) % 2))
    yield Case("responses", "a rare category", "clmm", "y ~ x + (1 | g)", rare)


def near_separation() -> Iterator[Case]:
    """One row away from separation, separated, or separated within all groups."""
    for model in ("binomial", "clmm"):
        rng = generator("separation", model)
        data = covariates(rng, grouped([6] * 20))
        cut = [0.0] if model == "binomial" else [-0.7, 0.7]
        for flips in (0, 1, 2, 8):
            y = np.digitize(data["x"], cut)
            where = np.argsort(np.abs(data["x"].to_numpy() - cut[-1]))[[0, 5, 9, 13, 20, 30, 40, 50]][:flips]
            y[where] = cut.__len__() - y[where]
            for link in ("logit", "probit", "cloglog"):
                yield Case(
                    "separation", f"{flips} exceptions", model, "y ~ x + (1 | g)", data.assign(y=y), {"link": link}
                )
        pure = data.assign(y=(grouped([6] * 20) % (len(cut) + 1)))
        yield Case("separation", "pure groups", model, "y ~ 1 + (1 | g)", pure)
        y = draw(model, rng, data["eta"])
        empty = data.assign(y=np.where(data["f"] == "c", 0, y))
        yield Case("separation", "a factor level of failures", model, "y ~ f + (1 | g)", empty)


def no_variance() -> Iterator[Case]:
    """Group means that are all alike, groups that say nothing, slopes without data."""
    for model in MODELS:
        rng = generator("no variance", model)
        data = covariates(rng, grouped([10] * 12), spread=0.0)
        # The same responses in all groups: no variation between them at all.
        y = np.tile(draw(model, rng, 0.3 + np.linspace(-1, 1, 10)), 12)
        yield Case("no variance", "equal groups", model, "y ~ 1 + (1 | g)", data.assign(y=y))
        some = data.assign(y=draw(model, rng, data["eta"]))
        yield Case("no variance", "no effects", model, "y ~ x + (x | g)", some)
        between = some.assign(x=grouped([10] * 12) % 2)
        yield Case("no variance", "slope constant in groups", model, "y ~ x + (x | g)", between)


def correlations() -> Iterator[Case]:
    """Slopes that are a multiple of the intercepts."""
    for model in MODELS:
        for sign in (-1.0, 1.0):
            rng = generator("correlation", model, sign)
            g = grouped([12] * 30)
            data = covariates(rng, g, spread=0.0)
            effect = rng.normal(size=30)[g]
            data["y"] = draw(model, rng, data["eta"] + 0.8 * effect + sign * 0.4 * effect * data["x"])
            yield Case("correlation", f"{sign:+.0f}", model, "y ~ x + (x | g)", data)


def many_groups() -> Iterator[Case]:
    """1e5 groups of one or two rows."""
    for model in ("lmer", "binomial", "poisson", "gamma", "clmm"):
        sizes = 1 + generator("many", model).integers(0, 2, 100_000)
        yield Case("1e5 groups", "of one or two", model, "y ~ x + (1 | g)", ordinary(model, "many", sizes, spread=0.8))
    yield Case("1e5 groups", "slopes", "lmer", "y ~ x + (x | g)", ordinary("lmer", "many slopes", [2] * 100_000))


def crossed() -> Iterator[Case]:
    """Crossed factors with one row per level, nested levels with one row, the same factor twice, rank lost."""
    for model in ("lmer", "binomial", "poisson", "nbinomial", "gamma", "clmm"):
        rng = generator("crossed", model)
        data = covariates(rng, rng.integers(0, 15, 90))
        data["h"] = [f"h{i}" for i in rng.integers(0, 40, 90)]
        data["k"] = [f"k{i // 2}" for i in range(90)]
        data["y"] = draw(model, rng, data["eta"])
        yield Case("crossed", "sparse", model, "y ~ x + (1 | g) + (1 | h)", data)
        yield Case("crossed", "three", model, "y ~ 1 + (1 | g) + (1 | h) + (1 | k)", data)
        yield Case("crossed", "twins", model, "y ~ x + (1 | g) + (1 | twin)", data.assign(twin="t" + data["g"]))
        yield Case("crossed", "uncorrelated", model, "y ~ x + (x + z || g) + (1 | g:h)", data)
    data = ordinary("lmer", "wide", [5] * 30)
    yield Case("crossed", "4 effects, 5 rows each", "lmer", "y ~ x + (x + z + I(x * z) | g)", data)


THEMES = (
    unbalanced,
    collinear,
    tiny,
    scales,
    extreme_responses,
    near_separation,
    no_variance,
    correlations,
    many_groups,
    crossed,
)


def cases(seed: int = 0) -> list[Case]:
    """All designs, with random numbers of their own for every seed."""
    _seed[0] = seed
    return [case for theme in THEMES for case in theme()]
