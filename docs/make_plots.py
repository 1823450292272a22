"""Draw every kind of plot into files: ``python docs/make_plots.py [folder [name ...]]``.

The picture of README: ``python docs/make_plots.py docs/_static fitted_sleepstudy``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import lme4py


def many_levels(n_levels: int = 300, rows: int = 6) -> pd.DataFrame:
    """Simulated data with many groups."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(n_levels), rows)
    x = rng.normal(size=g.size)
    y = 1.0 + 0.5 * x + rng.normal(scale=0.8, size=n_levels)[g] + rng.normal(size=g.size)
    return pd.DataFrame({"y": y, "x": x, "school": [f"school {i:03d}" for i in g]})


def models() -> dict[str, Any]:
    """The fits that are drawn."""
    cake, oats = lme4py.load_dataset("cake"), lme4py.load_dataset("Oats")
    three = many_levels(3, 40)
    return {
        "sleepstudy": lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy")),
        "penicillin": lme4py.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", lme4py.load_dataset("Penicillin")),
        "cake": lme4py.lmer("angle ~ recipe * temp + (1 | recipe:replicate)", cake),
        "oats": lme4py.lmer("yield ~ nitro + Variety + (1 | Block / Variety)", oats),
        "cbpp": lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", lme4py.load_dataset("cbpp")),
        "contraception": lme4py.glmer(
            "use ~ age + I(age^2) + urban + livch + (1 | district)", lme4py.load_dataset("Contraception")
        ),
        "grouse": lme4py.glmer(
            "TICKS ~ YEAR + (1 | BROOD) + (1 | LOCATION)", lme4py.load_dataset("grouseticks"), family="poisson"
        ),
        "wine": lme4py.clmm("rating ~ temp + contact + (1 | judge)", lme4py.load_dataset("wine")),
        "machines": lme4py.lmer("score ~ Machine + (0 + Machine | Worker)", lme4py.load_dataset("Machines")),
        "schools300": lme4py.lmer("y ~ x + (1 | school)", many_levels()),
        "schools3": lme4py.lmer("y ~ x + (1 | school)", three),
    }


def plots(fits: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """File name -> what draws it."""
    sleep, cbpp, contraception = fits["sleepstudy"], fits["cbpp"], fits["contraception"]
    simple = lme4py.glmer("use ~ age + urban + (1 | district)", lme4py.load_dataset("Contraception"))
    return {
        "caterpillar_sleepstudy": lambda: sleep.plot(variable="all"),
        "caterpillar_two_factors": lambda: fits["penicillin"].plot(variable="all"),
        "caterpillar_3_levels": lambda: fits["schools3"].plot(variable="all"),
        "caterpillar_300_levels": lambda: fits["schools300"].plot(variable="all"),
        "caterpillar_cbpp": lambda: cbpp.plot(),
        "residuals_sleepstudy": lambda: sleep.plot("residuals"),
        "residuals_contraception": lambda: contraception.plot("residuals"),
        "qq_residuals_sleepstudy": lambda: sleep.plot("qq"),
        "qq_modes_schools": lambda: fits["schools300"].plot("qq", variable="Intercept"),
        "profile_sleepstudy": lambda: sleep.plot("profile"),
        "fitted_sleepstudy": lambda: sleep.plot("fitted", "Days"),
        "fitted_oats": lambda: fits["oats"].plot("fitted", "nitro"),
        "fitted_cbpp": lambda: cbpp.plot("fitted", "period"),
        "fitted_300_levels": lambda: fits["schools300"].plot("fitted"),
        "shrinkage_sleepstudy": lambda: sleep.plot("shrinkage"),
        "shrinkage_cbpp": lambda: cbpp.plot("shrinkage"),
        "shrinkage_300_levels": lambda: fits["schools300"].plot("shrinkage"),
        "effect_sleepstudy": lambda: sleep.plot("effect", "Days"),
        "effect_cake": lambda: fits["cake"].plot("effect", "temp", by="recipe"),
        "effect_contraception_age": lambda: contraception.plot("effect", "age", by="urban"),
        "effect_contraception_livch": lambda: contraception.plot("effect", "livch", by="urban"),
        "caterpillar_wine": lambda: fits["wine"].plot(),
        "effect_wine": lambda: fits["wine"].plot("effect", "temp", at={"contact": "no"}),
        "fitted_machines": lambda: fits["machines"].plot("fitted", "Machine"),
        "profile_cbpp": lambda: cbpp.plot("profile"),
        "effect_grouse": lambda: fits["grouse"].plot("effect", "YEAR"),
        "coef_contraception": lambda: contraception.plot("coef", exponentiate=True),
        "residual_panel_contraception": lambda: contraception.plot("residual_panel", seed=1),
        "check_sleepstudy": lambda: sleep.plot("check"),
        "check_wine": lambda: fits["wine"].plot("check"),
        "influence_sleepstudy": lambda: sleep.influence("Subject").plot(),
        "influence_rows": lambda: contraception.influence().plot("leverage"),
        "bootstrap_sleepstudy": lambda: sleep.bootstrap(300, seed=1, progress=False).plot(),
        "compare_contraception": lambda: lme4py.compare(contraception, simple, exponentiate=True).plot(),
        "margins_line": lambda: (
            lme4py.Margins.response(simple).predict(atexog={"age": [-10, 0, 10], "urban": ["N", "Y"]}).plot()
        ),
        "margins_forest": lambda: lme4py.Margins.response(simple).dydx().plot(),
    }


def main(folder: str = "plots", *names: str) -> None:
    """Draw all plots, or those of these names, into `folder`."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    drawn = plots(models())
    for name in names or drawn:
        axes = np.atleast_1d(np.asarray(drawn[name](), dtype=object)).ravel()
        axes[0].figure.savefig(target / f"{name}.png", dpi=110)
        plt.close("all")
        print(target / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
