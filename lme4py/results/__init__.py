"""Result objects: thin methods that hand a frozen fit to the functions of `inference` and `report`."""

from lme4py.results.generalised import MEGLMResult
from lme4py.results.linear import MixedResult

__all__ = ["MEGLMResult", "MixedResult"]
