"""What the texts of `residual=` and `variance=` say, and the covariance term of an MMRM formula.

us(visit | id)                  unstructured by visit within id
us(visit | arm / id)            another matrix in each arm
ar1(1 | id)                     in the order of the rows
exp(sx + sy | 1, nugget=TRUE)   one field
ident(sex) * power(age)         standard deviations
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from lme4py.covariance import find_structure, structure_names
from lme4py.covariance.structure import CovarianceStructure
from lme4py.errors import FormulaError, OptionError, did_you_mean
from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Binary, Call, Name, Node, Number, Paren, Text, Unary
from lme4py.formula.parse import parse_formula
from lme4py.formula.syntax import parse_expression, read_formula

__all__ = [
    "ResidualSides",
    "ResidualText",
    "VarianceText",
    "known_sigma",
    "random_dispersion",
    "read_residual",
    "read_sides",
    "read_variance",
    "split_covariance",
]

_FITTED = "fitted"
_VARIANCE = ("ident", "power", "exp")


@dataclass(frozen=True)
class ResidualText:
    """A residual structure as it was written.

    Attributes
    ----------
    text : str
    kind : type
        Of `CovarianceStructure`.
    index : tuple of Node
        What places the rows of a subject; () for their order.
    strata, subject : tuple of Node
        Factors whose combination is the stratum, and, together with the stratum's, the subject; () for one.
    options : dict
    """

    text: str
    kind: type[CovarianceStructure]
    index: tuple[Node, ...]
    strata: tuple[Node, ...]
    subject: tuple[Node, ...]
    options: dict[str, Any]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All variables."""
        return (*self.index, *self.strata, *self.subject)


@dataclass(frozen=True)
class VarianceText:
    """One factor of the standard deviation.

    Attributes
    ----------
    function : {"ident", "power", "exp"}
    node : Node or None
        The covariate or factor; None for the fitted values.
    factors : tuple of Node
        Of ident: those whose combination is meant.
    text : str
    """

    function: str
    node: Node | None
    factors: tuple[Node, ...]
    text: str

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All variables."""
        return self.factors or (() if self.node is None else (self.node,))


@dataclass(frozen=True)
class ResidualSides:
    """All that a call says about the residuals.

    Attributes
    ----------
    residual : ResidualText or None
    variance : tuple of VarianceText
    dispformula : str
        "" for none.
    nodes : tuple of Node
        All variables.
    matrix : array_like or data frame, or None
        A covariance of the rows that is known.
    sigma : float or None
        A residual standard deviation that is known.
    """

    residual: ResidualText | None
    variance: tuple[VarianceText, ...]
    dispformula: str
    nodes: tuple[Node, ...]
    matrix: Any = None
    sigma: float | None = None

    @property
    def is_given(self) -> bool:
        """Whether the residuals have a covariance that is known, up to a factor or altogether."""
        return self.matrix is not None or self.sigma is not None


def read_sides(residual: object, variance: object, dispformula: object, sigma: object = None) -> ResidualSides:
    """Read the arguments `residual`, `variance`, `dispformula` and `sigma`; None for those that were not given.

    Raises
    ------
    OptionError, FormulaError
    """
    matrix = residual if hasattr(residual, "shape") else None
    found = None if residual is None or matrix is not None else read_residual(residual)
    known = known_sigma(sigma)
    if known is not None and found is not None:
        raise OptionError(
            f"sigma={sigma!r} and residual={found.text!r} cannot go together: the structure estimates its standard "
            "deviations. A covariance of the rows that is known is given as a matrix, residual=V with sigma=1."
        )
    parts = () if variance is None else read_variance(variance)
    text = "" if dispformula is None else _dispersion(dispformula)
    nodes = [] if found is None else list(found.nodes)
    nodes += [node for part in parts for node in part.nodes]
    if text:
        terms = parse_formula(f"y {text}")
        if terms.bars:
            raise random_dispersion(text)
        nodes += [*terms.fixed.variables, *terms.fixed.offsets]
    return ResidualSides(found, parts, text, tuple(nodes), matrix, known)


def random_dispersion(text: str) -> OptionError:
    """Why random effects in the dispersion of a normal response are refused.

    Parameters
    ----------
    text : str
        The dispersion formula.
    """
    return OptionError(
        f"dispformula={text!r}: random effects in the dispersion of a normal response have no exact integral; "
        "use glmer(..., family='gaussian'), maximum likelihood by the Laplace approximation."
    )


def known_sigma(sigma: object) -> float | None:
    """A residual standard deviation that is known, checked; None where none is given.

    Raises
    ------
    OptionError
    """
    if sigma is None:
        return None
    if isinstance(sigma, bool) or not isinstance(sigma, int | float | np.number) or not 0.0 < float(sigma) < np.inf:
        raise OptionError(
            f"`sigma` is {sigma!r}; give the known residual standard deviation, a positive number (1 where weights= "
            "are the inverses of sampling variances)."
        )
    return float(sigma)


def _dispersion(text: object) -> str:
    if not isinstance(text, str) or not text.strip().startswith("~"):
        raise OptionError(f"`dispformula` is {text!r}; give a formula without a response, such as '~ z'.")
    return text.strip()


def read_residual(text: object, what: str = "residual") -> ResidualText:
    """Read the text of a residual structure.

    Parameters
    ----------
    text : str
    what : str
        Name of the argument, for messages.

    Raises
    ------
    OptionError, FormulaError

    Examples
    --------
    >>> found = read_residual("us(visit | arm / id)")
    >>> found.kind.name, found.index, found.strata
    ('us', (Name(name='visit', quoted=False),), (Name(name='arm', quoted=False),))
    """
    if not isinstance(text, str):
        raise OptionError(
            f"`{what}` is of type {type(text).__name__}; give text such as 'ar1(visit | id)'. A covariance matrix "
            "of the "
            "rows is not taken."
        )
    node = _parsed(text, what)
    if not isinstance(node, Call) or not node.arguments:
        _no_structure(text, what)
    return _residual_of(node, text, what)


def _parsed(text: str, what: str) -> Node:
    try:
        return parse_expression(text)
    except FormulaError as error:
        message = f"`{what}` is {text!r}, which cannot be read: {error.message}"
        raise FormulaError(message, error.formula, error.start, error.end) from None


def _no_structure(text: str, what: str) -> NoReturn:
    raise OptionError(
        f"`{what}` is {text!r}; write a structure of an index within subjects, such as 'ar1(visit | id)'."
    )


def _residual_of(call: Call, text: str, what: str) -> ResidualText:
    kind = find_structure(call.function)
    if "residual" not in kind.sides:
        known = [name for name in structure_names() if "residual" in find_structure(name).sides]
        raise OptionError(f"{call.function}() is no structure of residuals; they are {', '.join(known)}.")
    first = call.arguments[0].value
    bar = first.inner if isinstance(first, Paren) else first
    if not isinstance(bar, Binary) or bar.operator != "|" or call.arguments[0].name is not None:
        _no_structure(text, what)
    options = {}
    for argument in call.arguments[1:]:
        if argument.name is None:
            raise OptionError(f"`{what}` is {text!r}: options of {call.function}() have names, as in nugget=TRUE.")
        options[argument.name] = _constant(argument.value, text, what)
    kind.refuse_options(options)
    strata, subject = _groups(bar.right, text, what)
    return ResidualText(text, kind, _index(bar.left), strata, subject, options)


def _constant(node: Node, text: str, what: str) -> Any:
    if isinstance(node, Number | Text):
        return node.value
    known = {"TRUE": True, "T": True, "True": True, "FALSE": False, "F": False, "False": False}
    if isinstance(node, Name) and node.name in known:
        return known[node.name]
    raise OptionError(f"`{what}` is {text!r}: {deparse(node)} is no constant.")


def _index(node: Node) -> tuple[Node, ...]:
    """Variables left of the bar; () for 1, ``0 + f`` as ``f``."""
    parts = [part for part in _summands(node) if not isinstance(part, Number)]
    if len(parts) == 1 and isinstance(parts[0], Call) and parts[0].function == "numFactor":
        return tuple(argument.value for argument in parts[0].arguments)
    return tuple(parts)


def _summands(node: Node) -> list[Node]:
    if isinstance(node, Paren):
        return _summands(node.inner)
    if isinstance(node, Binary) and node.operator == "+":
        return [*_summands(node.left), *_summands(node.right)]
    return [node]


def _groups(node: Node, text: str, what: str) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """Factors of the strata, left of a slash, and of the subjects."""
    if isinstance(node, Paren):
        return _groups(node.inner, text, what)
    if isinstance(node, Binary) and node.operator == "/":
        if isinstance(node.left, Binary) and node.left.operator == "/":
            raise OptionError(
                f"`{what}` is {text!r}: one slash stands between what the covariances differ by and the subjects; "
                "write "
                "a:b for a combination of factors."
            )
        return _factors(node.left, text, what), _factors(node.right, text, what)
    return (), _factors(node, text, what)


def _factors(node: Node, text: str, what: str) -> tuple[Node, ...]:
    if isinstance(node, Number):
        return ()
    if isinstance(node, Paren):
        return _factors(node.inner, text, what)
    if isinstance(node, Binary) and node.operator == ":":
        return (*_factors(node.left, text, what), *_factors(node.right, text, what))
    if isinstance(node, Binary | Unary):
        raise OptionError(
            f"`{what}` is {text!r}: {deparse(node)} is no factor; write a:b for a combination of factors."
        )
    return (node,)


def read_variance(text: object) -> tuple[VarianceText, ...]:
    """Read the text of `variance=`.

    Parameters
    ----------
    text : str

    Raises
    ------
    OptionError, FormulaError

    Examples
    --------
    >>> [part.function for part in read_variance("ident(sex) * power(fitted)")]
    ['ident', 'power']
    """
    if not isinstance(text, str):
        raise OptionError(f"`variance` is of type {type(text).__name__}; give text such as 'ident(sex)'.")
    return tuple(_variance_of(node, text) for node in _factors_of(_parsed(text, "variance")))


def _factors_of(node: Node) -> list[Node]:
    if isinstance(node, Paren):
        return _factors_of(node.inner)
    if isinstance(node, Binary) and node.operator == "*":
        return [*_factors_of(node.left), *_factors_of(node.right)]
    return [node]


def _variance_of(node: Node, text: str) -> VarianceText:
    if not isinstance(node, Call) or node.function not in _VARIANCE or len(node.arguments) != 1:
        word = node.function if isinstance(node, Call) else deparse(node)
        raise OptionError(
            f"`variance` is {text!r}: {word!r} is no variance function.{did_you_mean(word, _VARIANCE)} There are "
            "ident(f), "
            "power(x), exp(x), and products of them; x may be `fitted` in power()."
        )
    inner = node.arguments[0].value
    shown = deparse(node)
    if isinstance(inner, Name) and inner.name == _FITTED and node.function != "ident":
        if node.function == "exp":
            raise OptionError("`variance`: exp(fitted) is not taken; use power(fitted), or exp() of a covariate.")
        return VarianceText("power", None, (), shown)
    factors = _factors(inner, text, "variance") if node.function == "ident" else ()
    return VarianceText(node.function, inner, factors, shown)


def split_covariance(formula: str) -> tuple[str, str]:
    """An MMRM formula without its covariance term, and that term.

    Parameters
    ----------
    formula : str
        Such as ``"y ~ arm * visit + us(visit | id)"``.

    Raises
    ------
    FormulaError

    Examples
    --------
    >>> split_covariance("y ~ arm * visit + us(visit | id)")
    ('y ~ arm * visit', 'us(visit | id)')
    """
    tree = read_formula(formula)
    right = tree.right if isinstance(tree, Binary) and tree.operator == "~" else tree
    found = [part for part in _summands(right) if _is_covariance(part)]
    if len(found) != 1:
        many = "no covariance term" if not found else f"{len(found)} covariance terms"
        raise FormulaError(f"the formula '{formula}' has {many}; add one, such as us(visit | id)")
    start, end = found[0].span
    before, after = formula[:start].rstrip(), formula[end:]
    if before.endswith("+"):
        before = before[:-1].rstrip()
    elif after.lstrip().startswith("+"):
        after = " " + after.lstrip()[1:].lstrip()
    else:
        after = " 1" + after
    return (before + after).strip(), formula[start:end]


def _is_covariance(node: Node) -> bool:
    if not isinstance(node, Call) or not node.arguments:
        return False
    first = node.arguments[0].value
    return isinstance(first, Binary) and first.operator == "|"
