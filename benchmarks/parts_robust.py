"""Do models with further parts end at the lowest minimum, whatever the data?

    python benchmarks/parts_robust.py                 # 60 random data sets for each model
    python benchmarks/parts_robust.py --seeds 5       # a short one

Small and weak data (n from 30), parts without a signal, zero parts in which a cell has no zeros. A fit is compared with
the best of refits from other standard deviations, and of L-BFGS-B from random points in all parameters. A fit is wrong
when it is called converged, without a word about something lower, and is higher by more than 1e-4 in log-likelihood; an
exception is wrong when it is no error of the package. The last line of each model says how many of each
there are; the process ends with 1 if any is wrong.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import lme4py
from lme4py.errors import Lme4Error
from lme4py.fits.kinds import model_of
from lme4py.fits.optimisers import minimise_by_name

# Family, parts, and the shape of the response.
MODELS = {
    "zip": ("poisson", {"ziformula": "~ x"}, "count"),
    "zip, random": ("poisson", {"ziformula": "~ x + (1 | g)"}, "count"),
    "zinb": ("nbinomial", {"ziformula": "~ f"}, "count"),
    "hurdle": ("truncated_poisson", {"ziformula": "~ x + (1 | g)"}, "count"),
    "nb, dispersion": ("nbinomial", {"dispformula": "~ x"}, "count"),
    "beta, dispersion": ("beta", {"dispformula": "~ x + (1 | g)"}, "share"),
    "beta, zeros": ("beta", {"ziformula": "~ 1"}, "share0"),
    "gamma, zeros": ("gamma", {"ziformula": "~ x"}, "amount0"),
    "tweedie": ("tweedie", {}, "amount0"),
    "ordbeta": ("ordbeta", {}, "share01"),
    "nb1, zeros": ("nbinomial1", {"ziformula": "~ x"}, "count"),
    "hurdle, nb1": ("truncated_nbinomial1", {"ziformula": "~ f"}, "count"),
    "hurdle, nb2": ("truncated_nbinomial", {"ziformula": "~ x"}, "count"),
    "genpois": ("genpois", {}, "count"),
    "genpois, zeros": ("genpois", {"ziformula": "~ 1"}, "count"),
    "betabinomial": ("betabinomial", {"ziformula": "~ 1"}, "trials"),
    "binomial, zeros": ("binomial", {"ziformula": "~ x"}, "trials"),
    "lognormal": ("lognormal", {"dispformula": "~ x"}, "amount"),
    "lognormal, zeros": ("lognormal", {"ziformula": "~ f"}, "amount0"),
    "t": ("t", {"dispformula": "~ x"}, "real"),
    "gaussian": ("gaussian", {"dispformula": "~ x + (1 | g)"}, "real"),
    "compois": ("compois", {}, "count"),
}
# Other starts, as sizes of all standard deviations; and random ones in all parameters, this far from the usual one.
SIZES = (0.1, 2.0)
SPREADS = (1.0, 2.5)


@dataclass
class Counts:
    """How the fits of a model ended."""

    converged: int = 0
    told: int = 0
    refused: int = 0
    wrong: int = 0
    raised: int = 0

    @property
    def bad(self) -> int:
        return self.wrong + self.raised


def data_of(seed: int, kind: str) -> pd.DataFrame:
    """Random data with effects between none and large."""
    rng = np.random.default_rng(seed)
    groups, size = int(rng.integers(6, 16)), int(rng.integers(5, 16))
    n = groups * size
    g, x = np.repeat(np.arange(groups), size), rng.normal(size=n)
    f = rng.choice(["a", "b"], n)
    eta = rng.normal(0.4, 0.6) + rng.choice([0.0, 0.5]) * x + rng.choice([0.0, 0.5, 1.0]) * rng.normal(size=groups)[g]
    none = rng.random(n) < 1.0 / (1.0 + np.exp(1.0 - rng.choice([0.0, 1.0]) * x + 20.0 * rng.integers(2) * (f == "b")))
    share = np.clip(rng.beta(3.0 / (1.0 + np.exp(-eta)), 3.0 / (1.0 + np.exp(eta))), 1e-6, 1 - 1e-6)
    y = {
        "real": eta + rng.standard_t(4, n),
        "trials": np.where(none, 0, rng.binomial(8, share)),
        "amount": rng.gamma(2.0, np.exp(eta) / 2.0),
        "count": np.where(none, 0, rng.poisson(np.exp(eta))),
        "share": share,
        "share0": np.where(none, 0.0, share),
        "share01": np.where(none, rng.integers(0, 2, n), share),
        "amount0": np.where(none, 0.0, rng.gamma(2.0, np.exp(eta) / 2.0)),
    }[kind]
    return pd.DataFrame({"g": g, "x": x, "f": f, "y": y})


def left(kind: str) -> str:
    """The response of a formula."""
    return "cbind(y, 8 - y)" if kind == "trials" else "y"


def from_elsewhere(fit: Any, seed: int) -> float:
    """The largest log-likelihood that another optimiser finds from random points.

    Each run has a criterion of its own, and its end counts by the value of another one: the modes of the random effects
    are searched from those of the points before.
    """
    rng = np.random.default_rng(seed)
    best = -np.inf
    with np.errstate(all="ignore"):
        for spread in SPREADS:
            task, judge = (model_of(fit.fit).objective() for _ in range(2))
            start = task.start + spread * rng.standard_normal(task.start.size)
            found = minimise_by_name(task.value, start, "L-BFGS-B", 500)
            best = max(best, -0.5 * judge.value(found.x)[0])
    return best


def one(seed: int, family: str, parts: dict[str, str], kind: str, counts: Counts) -> None:
    """Fit, and compare with fits from other starts."""
    data = data_of(seed, kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            formula = f"{left(kind)} ~ x + (1 | g)"
            fit = lme4py.glmer(formula, data, family=family, **parts)
            if not fit.converged:
                counts.told += 1
                return
            counts.converged += 1
            others = [lme4py.glmer(formula, data, family=family, start=s * np.ones_like(fit.theta), **parts)
                      for s in SIZES]  # fmt: skip
    except Lme4Error:
        counts.refused += 1
        return
    except Exception as error:
        print(f"  seed {seed}: {type(error).__name__}: {error}")
        counts.raised += 1
        return
    for best, where in ((max(o.log_likelihood for o in others), "start"), (from_elsewhere(fit, seed), "optimiser")):
        if best > fit.log_likelihood + 1e-4 and not fit.certificate.caution:
            print(f"  seed {seed}: {fit.log_likelihood:.6f}, but {best:.6f} from another {where}")
            counts.wrong += 1
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    chosen = parser.parse_args()
    bad = 0
    for name in chosen.models:
        counts = Counts()
        for seed in range(chosen.first, chosen.first + chosen.seeds):
            one(seed, *MODELS[name], counts)
        print(
            f"{name:18} converged {counts.converged}, told {counts.told}, refused {counts.refused}, "
            f"wrong {counts.wrong}, raised {counts.raised}",
            flush=True,
        )
        bad += counts.bad
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
