"""Is the default fit of a hard generalised model the best minimum? Random data against twenty wide starts.

    python benchmarks/glmm_optima.py             # 60 models of nine families, 20 starts each
    python benchmarks/glmm_optima.py --all       # also links with poles and cauchit
    python benchmarks/glmm_optima.py --ordinal   # cumulative link models
    python benchmarks/glmm_optima.py --write tests/reference/glmm_optima.json   # small data sets for the tests

Data of 10 to 60 rows in 3 to 8 groups, with heavy tails, and with covariates that lie between the groups. The starts
are drawn from standard deviations of 0.05 to 20 (relative, in columns of unit size), fixed effects around those of the
model without random effects, and dispersions around its moments; the descent from each is that of the package, in all
parameters at once. Only ends with a gradient of zero and a Hessian that is not negative count: where rows are met
exactly, or the Laplace approximation has a pole, the criterion falls without a minimum. With links that have a pole or
a zero at 0, such as sqrt and inverse, only ends whose predictor has one sign count: every way to give rows a sign has
minima of its own, and fits with both signs warn.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lme4py
from lme4py.engine.generalised.criteria import JointCriterion
from lme4py.engine.generalised.descent import finish, minimise_scaled
from lme4py.engine.generalised.hessian import curvature_floor, newton_step, scaled_eigen
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import ModeError, ModeFinder
from lme4py.engine.generalised.starts.start import find_start
from lme4py.engine.optimise import Control
from lme4py.errors import DesignError
from lme4py.families.ordered.ordinal import make_ordinal
from lme4py.families.registry import make_family

FAMILIES = (
    ("gaussian", "log"),
    ("gamma", "log"),
    ("inverse_gaussian", "log"),
    ("nbinomial", "log"),
    ("nbinomial1", "log"),
    ("poisson", "log"),
    ("binomial", "logit"),
    ("binomial", "probit"),
    ("binomial", "cloglog"),
)
MORE = (
    ("gaussian", "inverse"),
    ("gamma", "inverse"),
    ("nbinomial", "sqrt"),
    ("poisson", "sqrt"),
    ("binomial", "cauchit"),
    ("gaussian", "identity"),
)
ORDINAL = (("ordinal", "logit"), ("ordinal", "probit"), ("ordinal", "cloglog"), ("ordinal", "cauchit"))
RIGHT = (" ~ x + f + (1 | g)", " ~ x + (1 | g)", " ~ x + (x | g)", " ~ x + f + (x || g)")
# A fit is worse than another where its criterion is larger by more than this.
_WORSE = 1e-5
# Minima that differ by this much are worth a test.
_SEVERAL = 0.1


@dataclass(frozen=True)
class Case:
    """One model with its data."""

    family: str
    link: str
    formula: str
    seed: int
    data: pd.DataFrame

    def fit(self) -> Any:
        if self.family == "ordinal":
            return lme4py.clmm(self.formula, self.data, link=self.link).fit
        return lme4py.glmer(self.formula, self.data, family=self.family, link=self.link).fit

    def problem(self) -> Any:
        design = lme4py.lformula(self.formula, self.data, family=self.family)
        ordinal = self.family == "ordinal"
        family = make_ordinal(self.link, n_categories=3) if ordinal else make_family(self.family, self.link)
        return make_glmm(design, family, design.response)


def make_case(seed: int, family: str, link: str) -> Case:
    """Random data; the same for the same arguments."""
    rng = np.random.default_rng([seed, sum(map(ord, family + link))])
    n = int(rng.integers(10, 61))
    groups = int(rng.integers(3, max(4, min(9, n // 3))))
    g = rng.integers(groups, size=n)
    g[:groups] = np.arange(groups)
    b = rng.standard_t(2, groups) * rng.choice([0.0, 0.3, 1.0, 2.0])
    between = rng.random() < 0.4
    x = b[g] * rng.choice([-1, 1]) + 0.3 * rng.standard_normal(n) if between else rng.standard_t(3, n)
    f = rng.integers(2, size=n)
    f[:2] = 0, 1
    eta = 0.3 * rng.standard_normal() + rng.choice([-1.0, 0.0, 0.5, 1.0]) * x + 0.5 * f * rng.standard_normal() + b[g]
    if rng.random() < 0.3:
        # Responses that no regression explains.
        eta = rng.standard_t(2, n) * rng.choice([0.5, 1.0, 1.5])
    columns = _responses(family, link, np.clip(eta, -4.0, 4.0), rng)
    left = "cbind(y, m)" if family == "binomial" else "y"
    right = str(rng.choice(RIGHT, p=[0.5, 0.2, 0.15, 0.15]))
    data = pd.DataFrame({**columns, "x": np.round(x, 6), "f": np.array(["a", "b"])[f], "g": g})
    return Case(family, link, left + right, seed, data)


def _responses(family: str, link: str, eta: Any, rng: np.random.Generator) -> dict[str, Any]:
    n = eta.size
    if family == "gaussian":
        mean = eta if link == "identity" else np.exp(eta)
        y = mean + rng.standard_t(2, n) * rng.choice([0.1, 0.5, 2.0]) * (1.0 + np.abs(mean) * rng.choice([0.0, 0.5]))
        return {"y": np.round(y if link == "identity" else np.abs(y) + 0.01, 6)}
    if family in ("gamma", "inverse_gaussian"):
        y = np.exp(eta) * np.exp(np.clip(rng.standard_t(3, n), -6.0, 6.0) * rng.choice([0.1, 0.5, 1.0]))
        return {"y": np.round(y, 6) + 1e-4}
    if family in ("poisson", "nbinomial", "nbinomial1"):
        over = rng.choice([0, 0, 1]) * 0.5 * np.clip(rng.standard_t(3, n), -4.0, 4.0)
        return {"y": rng.poisson(np.exp(np.minimum(eta, 3.5) + over))}
    if family == "ordinal":
        y = np.digitize(eta + rng.logistic(size=n), [-1.0, 1.0])
        y[:3] = 0, 1, 2
        return {"y": pd.Categorical.from_codes(y, ["low", "mid", "high"], ordered=True)}
    trials = int(rng.choice([1, 5, 12]))
    y = rng.binomial(trials, 1.0 / (1.0 + np.exp(-eta)))
    return {"y": y, "m": trials - y}


def wide_starts(problem: Any, count: int, seed: int = 1) -> Iterator[float]:
    """The criterion at the ends of descents from wide starts that are local minima.

    Parameters
    ----------
    problem : GlmmProblem
    count : int
    seed : int
    """
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        first = find_start(problem)
    diagonal = problem.structures.even
    for k in range(count):
        sizes = np.exp(rng.uniform(np.log(0.05), np.log(20.0), diagonal.size))
        theta = np.where(diagonal, sizes if k % 2 else sizes[0], 0.5 * rng.normal(size=diagonal.size) * (k % 3 == 1))
        away = rng.standard_normal(problem.n_fixed) * (np.abs(first.beta) + 0.3)
        beta = first.beta + (rng.choice([0.3, 1.0]) * away if k % 2 else 0.0)
        lam = first.lam + 1.5 * rng.standard_normal() if problem.n_dispersion else first.lam
        if problem.n_dispersion:
            lam = problem.sloped_lambda(float(lam))
        value = _descend(problem, problem.join(theta, beta, lam))
        if value is not None:
            yield value


def _descend(problem: Any, phi: Any) -> float | None:
    """The end of a descent; None where it is no minimum."""
    criterion = JointCriterion(ModeFinder(problem))
    try:
        with np.errstate(all="ignore"):
            for _ in range(6):
                if criterion.local(phi) is not None:
                    break
                phi = phi.copy()
                phi[: problem.n_theta] *= 0.4
            found = minimise_scaled(criterion.local, phi, Control(tolerance=1e-9, max_evaluations=400))
            end = finish(criterion, found)
    except (DesignError, ModeError, np.linalg.LinAlgError):
        return None
    eta = end.found.mode.eta
    if problem.family.link.has_pole and (eta > 0.0).any() and (eta < 0.0).any():
        return None
    floor = curvature_floor(end.found, problem.unit)
    flat = newton_step(end.hessian, end.gradient, floor)[1] < 1e-4
    return end.value if flat and scaled_eigen(end.hessian, floor)[1][0] > -1e-3 else None


def compare(case: Case, starts: int) -> tuple[str, float, float]:
    """A verdict, the criterion of the default fit, and the best of the wide starts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit = case.fit()
        except lme4py.Lme4Error as error:
            # Without a finite estimate, or with a criterion that falls into a pole, there is nothing to compare with.
            lost = "all " in str(error) or "breaks down" in str(error)
            best = np.inf if lost else min(wide_starts(case.problem(), starts), default=np.inf)
            return f"{'refused' if np.isinf(best) else 'WORSE'} ({str(error)[:60]}...)", np.nan, best
        best = min(wide_starts(fit.problem, starts), default=np.inf)
    if fit.criterion > best + _WORSE:
        return "WORSE", fit.criterion, best
    if not fit.certificate.converged:
        return "no minimum", fit.criterion, best
    return "better" if fit.criterion < best - _WORSE else "the best", fit.criterion, best


def run(families: Any, models: int, first: int, starts: int) -> int:
    """All cases; the number of fits that are worse than a wide start."""
    counts: dict[str, int] = {}
    for number in range(models):
        family, link = families[number % len(families)]
        case = make_case(first + number // len(families), family, link)
        begun = time.process_time()
        verdict, own, best = compare(case, starts)
        counts[verdict.split(" (")[0]] = counts.get(verdict.split(" (")[0], 0) + 1
        where = f"{family}/{link} {case.seed}: {case.formula}, {len(case.data)} rows"
        print(
            f"{where}: {own:.6f}, wide starts {best:.6f}, {verdict} ({time.process_time() - begun:.1f} s)", flush=True
        )
    print(counts)
    return counts.get("WORSE", 0)


def write(path: Path, families: Any, models: int, first: int, starts: int) -> None:
    """Cases whose wide starts end in more than one minimum, with the lowest, for the tests."""
    cases = []
    for number in range(models):
        family, link = families[number % len(families)]
        case = make_case(first + number // len(families), family, link)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                own = case.fit().criterion
            except lme4py.Lme4Error:
                continue
            ends = list(wide_starts(case.problem(), starts))
        if ends and max(ends) > min(ends) + _SEVERAL:
            data = {name: column.tolist() for name, column in case.data.items()}
            known = round(min(own, *ends), 6)
            cases.append({"family": family, "link": link, "formula": case.formula, "best": known, "data": data})
            print(f"{family}/{link} {case.seed}: {own:.6f}, wide starts {min(ends):.6f} to {max(ends):.6f}", flush=True)
    path.write_text(json.dumps(cases, separators=(",", ":")) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--family", default="", help="only families and links whose names hold this")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--ordinal", action="store_true")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    families = (
        ORDINAL if options.ordinal else FAMILIES + (MORE if options.all else ()) + (ORDINAL if options.write else ())
    )
    families = tuple(pair for pair in families if options.family in "/".join(pair))
    if options.write:
        write(options.write, families, options.models, options.first, options.starts)
    else:
        raise SystemExit(run(families, options.models, options.first, options.starts) > 0)


if __name__ == "__main__":
    main()
