"""Covariance structures: one class for each, and everything that is to be known about it.

The same classes serve random effects (T with Sigma = T T', and derivatives) and residuals (Sigma at some points, and
derivatives). `make_structure` makes one by name. A new structure is a module with a class that is `register`ed, and a
line here.
"""

from __future__ import annotations

from lme4py.covariance.collection import CovarianceStructures
from lme4py.covariance.jets import Jet
from lme4py.covariance.kinds import (  # noqa: F401  # each registers its structures
    autoregressive,
    compound,
    diagonal,
    distance,
    matern,
    toeplitz,
    unstructured,
)
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.registry import find_structure, make_structure, register, structure_names
from lme4py.covariance.spaces import TangentCone
from lme4py.covariance.structure import CovarianceStructure

__all__ = [
    "CovarianceStructure",
    "CovarianceStructures",
    "Jet",
    "NaturalParameter",
    "TangentCone",
    "find_structure",
    "make_structure",
    "register",
    "structure_names",
]
