"""Priors in blme's words: "wishart", "gamma(shape = 2.5, rate = 0)", "normal(sd = c(10, 2.5))"."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lme4py.errors import OptionError, did_you_mean
from lme4py.priors.covariance import LKJ, CovariancePrior, GammaPrior, InverseGamma, InverseWishart, Wishart
from lme4py.priors.fixed import FixedPrior, Jeffreys, Normal, PointPrior, ResidualGamma, ResidualPrior, StudentT

__all__ = ["read_covariance", "read_fixed", "read_residual"]

_Maker = Callable[..., Any]


def _residual_gamma(shape: float = 1.0, rate: float = 0.0, posterior_scale: str = "var") -> ResidualGamma:
    return ResidualGamma(GammaPrior(shape, rate, posterior_scale))


def _residual_invgamma(shape: float = 0.0, scale: float = 0.0, posterior_scale: str = "var") -> ResidualGamma:
    return ResidualGamma(InverseGamma(shape, scale, posterior_scale))


def _wishart(df: Any = None, scale: Any = None, common_scale: bool = True, posterior_scale: str = "cov") -> Wishart:
    _only_covariance("wishart", posterior_scale)
    infinite = scale is not None and np.ndim(scale) == 0 and np.isinf(scale)
    return Wishart(df, None if infinite else scale, common_scale)


def _invwishart(
    df: Any = None, scale: Any = None, common_scale: bool = True, posterior_scale: str = "cov"
) -> InverseWishart:
    _only_covariance("invwishart", posterior_scale)
    return InverseWishart(df, scale, common_scale)


def _only_covariance(name: str, posterior_scale: object) -> None:
    if posterior_scale != "cov":
        raise OptionError(
            f"posterior_scale={posterior_scale!r} of {name} is not there; it is of the covariance ('cov')"
        )


COVARIANCE: Mapping[str, _Maker] = {
    "wishart": _wishart,
    "invwishart": _invwishart,
    "gamma": GammaPrior,
    "invgamma": InverseGamma,
    "lkj": LKJ,
}
FIXED: Mapping[str, _Maker] = {"normal": Normal, "t": StudentT, "jeffreys": Jeffreys, "firth": Jeffreys}
RESIDUAL: Mapping[str, _Maker] = {"gamma": _residual_gamma, "invgamma": _residual_invgamma, "point": PointPrior}


def read_covariance(given: object, argument: str = "cov_prior") -> CovariancePrior | None:
    """A prior of a covariance matrix from text or an object.

    Parameters
    ----------
    given : object
    argument : str
        For messages.

    Raises
    ------
    OptionError

    Examples
    --------
    >>> read_covariance("gamma(shape = 2.5, rate = 0)")
    GammaPrior(shape=2.5, rate=0, posterior_scale='sd', common_scale=True)
    """
    found: CovariancePrior | None = _read(given, argument, COVARIANCE, CovariancePrior)
    return found


def read_fixed(given: object) -> FixedPrior | None:
    """A prior of the fixed effects from text or an object.

    Parameters
    ----------
    given : object

    Examples
    --------
    >>> read_fixed("normal(sd = c(10, 2.5))").sd
    (10, 2.5)
    """
    found: FixedPrior | None = _read(given, "fixef_prior", FIXED, FixedPrior)
    return found


def read_residual(given: object) -> ResidualPrior | PointPrior | None:
    """A prior of the residual variance from text or an object.

    Parameters
    ----------
    given : object

    Examples
    --------
    >>> read_residual("point(2)").sigma
    2
    """
    found: ResidualPrior | PointPrior | None = _read(given, "resid_prior", RESIDUAL, (ResidualPrior, PointPrior))
    return found


def _read(given: object, argument: str, makers: Mapping[str, _Maker], kind: Any) -> Any:
    if given is None or isinstance(given, kind):
        return given
    if not isinstance(given, str):
        raise OptionError(
            f"{argument} holds {given!r}; give text such as {next(iter(makers))!r}, one of {', '.join(makers)}, or a "
            "prior object."
        )
    if given.strip() in ("NULL", "None"):
        return None
    name, arguments, keywords = _parsed(given, argument)
    if name not in makers:
        raise OptionError(
            f"{argument}={given!r} is not known.{did_you_mean(name, list(makers))} Use one of {', '.join(makers)}."
        )
    try:
        return makers[name](*arguments, **keywords)
    except TypeError as error:
        what = re.sub(r"^.*?\(\) ", "", str(error))
        raise OptionError(f"{argument}={given!r}: {name} {what}.") from None


def _parsed(text: str, argument: str) -> tuple[str, list[Any], dict[str, Any]]:
    python = text.strip().replace("^", "**").replace(".scale", "_scale").replace("global.", "global_")
    try:
        node = ast.parse(python, mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, [], {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            keywords = {str(one.arg): _value(one.value) for one in node.keywords}
            return node.func.id, [_value(one) for one in node.args], keywords
    except (SyntaxError, ValueError, ZeroDivisionError):
        pass
    raise OptionError(f"{argument}={text!r} cannot be read; write it as 'gamma(shape = 2.5, rate = 0)'.")


_NAMES = {"TRUE": True, "T": True, "FALSE": False, "F": False, "Inf": np.inf, "inf": np.inf, "NULL": None}
_OPERATIONS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}


def _value(node: ast.expr) -> Any:
    """A number, text, c(...) or diag(...)."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(_value(one) for one in node.elts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        own = tuple(_value(one) for one in node.args)
        if node.func.id == "c":
            return own
        if node.func.id == "diag" and own:
            return np.diag(np.asarray(own[0], dtype=float)) if np.ndim(own[0]) else own[0] * np.eye(int(own[1]))
    raise ValueError(ast.dump(node))
