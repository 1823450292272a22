"""Words that methods take, as types: so that editors complete them and type checkers find misspelt ones."""

from __future__ import annotations

from typing import Literal, TypeAlias

from lme4py.fits.method import Ddf

__all__ = [
    "BootInterval",
    "BootstrapType",
    "DataLibrary",
    "Ddf",
    "IntervalMethod",
    "NewLevels",
    "PlotKind",
    "PredictInterval",
    "PredictType",
    "ResidualType",
    "Robust",
    "VarianceMethod",
]

Robust: TypeAlias = Literal["CR0", "CR1", "CR2", "CR3"]
IntervalMethod: TypeAlias = Literal["wald", "profile", "boot"]
BootInterval: TypeAlias = Literal["percentile", "basic", "bca", "normal"]
BootstrapType: TypeAlias = Literal["parametric", "semiparametric", "cases"]
DataLibrary: TypeAlias = Literal["pandas", "polars", "pyarrow"]
PlotKind: TypeAlias = Literal[
    "caterpillar", "residuals", "qq", "profile", "fitted", "shrinkage", "effect", "coef", "residual_panel", "check"
]
PredictType: TypeAlias = Literal["response", "linear", "prob", "cumulative", "class"]
PredictInterval: TypeAlias = Literal["confidence", "prediction"]
NewLevels: TypeAlias = Literal["zero", "error", "missing"]
ResidualType: TypeAlias = Literal[
    "response", "pearson", "scaled", "deviance", "working", "quantile", "normalized", "probability", "score"
]
VarianceMethod: TypeAlias = Literal["theoretical", "lognormal", "trigamma", "delta"]
