"""The coefficients of a fit with smooths all together: their information, and which belong to which smooth.

The coefficients of the model, thresholds and those of further parts among them, have the information J + S with S the
inverse covariance of the random effects; V = (J + S)^-1 is their covariance at known variances (Marra & Wood 2012,
Scand. J. Stat. 39:53) and F = V J, whose diagonal sums to effective degrees of freedom (Wood 2017, section 6.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from lme4py.design.design import CONDITIONAL
from lme4py.design.smooths import level_of, part_of, variables_of
from lme4py.errors import OptionError
from lme4py.fits.derived import derived
from lme4py.fits.kinds import model_of
from lme4py.formula.deparse import deparse
from lme4py.formula.evaluate import evaluate
from lme4py.formula.nodes import Call
from lme4py.formula.smooth.columns import fixed_columns, penalised_columns, plain_call
from lme4py.linalg.small import symmetric_root
from lme4py.linalg.types import FloatArray, IntArray

if TYPE_CHECKING:
    from lme4py.design.recipe import Recipe
    from lme4py.fits.base import Fit

__all__ = ["Smooth", "System", "smooth_system", "smooths_of"]

# Coefficients of a model whose information is inverted as one dense matrix at most.
_LARGEST = 6000


@dataclass(frozen=True)
class Piece:
    """The columns of one penalty of a smooth.

    Attributes
    ----------
    part : str
        Its name in what the basis learnt.
    root : ndarray, shape (k, k)
        Of the covariance of its coefficients.
    """

    part: str
    root: FloatArray


@dataclass(frozen=True)
class Smooth:
    """One smooth of a fit.

    Attributes
    ----------
    label : str
        ``"s(x)"``, ``"s(x):fb"``, ``"te(x,z)"``.
    variables : tuple of str
        What it is a function of.
    x : ndarray, shape (n, number of variables)
        Of the rows used.
    places : ndarray of int, shape (k,)
        Of its coefficients in `System`: unpenalised ones, then penalised ones; level by level of each penalty.
    n_null : int
    columns : ndarray, shape (n, k)
        Of the rows used, in the linear predictor that it belongs to.
    learnt : dict
        Of the basis.
    pieces : tuple of Piece
    by_factor : bool
    levels : tuple
        Of the factor whose levels have a curve each; ("",) for one curve.
    factor : str
        Name of that factor, or "".
    component : str
        The linear predictor that it belongs to.
    null : ndarray of int, shape (n_null,)
        Columns of X of that predictor.
    """

    label: str
    variables: tuple[str, ...]
    x: FloatArray
    places: IntArray
    n_null: int
    columns: FloatArray
    null: IntArray
    component: str
    learnt: dict[str, object]
    pieces: tuple[Piece, ...]
    by_factor: bool
    levels: tuple[object, ...] = ("",)
    factor: str = ""

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return int(self.places.size)

    def basis(self, at: Sequence[FloatArray], slope: int | None = None, level: int = 0) -> FloatArray:
        """Columns at values of the variables, (n, k), or their derivatives in one of them.

        Parameters
        ----------
        at : sequence of ndarray, each (n,)
        slope : int, optional
            Which variable the derivative is in.
        level : int
            Of the factor whose levels have a curve each.

        Notes
        -----
        Of a smooth times a number those of the number 1.
        """
        blocks = [fixed_columns(at, self.learnt, slope)]
        for piece in self.pieces:
            own = penalised_columns(at, self.learnt, piece.part, slope) @ piece.root
            whole = np.zeros((own.shape[0], len(self.levels), own.shape[1]))
            whole[:, level] = own
            blocks.append(whole.reshape(own.shape[0], -1))
        return np.hstack(blocks)


@dataclass(frozen=True)
class System:
    """All coefficients of a fit: fixed effects, spherical random effects, thresholds or coefficients of parts.

    Attributes
    ----------
    coefficients : ndarray, shape (N,)
    V : ndarray, shape (N, N)
    F : ndarray, shape (N, N)
    smooths : tuple of Smooth
    """

    coefficients: FloatArray
    V: FloatArray
    F: FloatArray
    smooths: tuple[Smooth, ...]

    @property
    def edf(self) -> FloatArray:
        """Effective degrees of freedom of each coefficient, (N,)."""
        return np.asarray(self.F.diagonal())


@dataclass(frozen=True)
class _Effects:
    """Spherical random effects of all terms.

    Attributes
    ----------
    columns : ndarray, shape (D n, q)
        Z Lambda, predictors with random effects below each other.
    own : ndarray, shape (n, q)
        The same, each column in its own predictor.
    u : ndarray, shape (q,)
    starts : list of int
        Where each term begins.
    """

    columns: FloatArray
    own: FloatArray
    u: FloatArray
    starts: list[int]


def _spherical(fit: Fit) -> _Effects:
    predictors = (CONDITIONAL, *fit.family.stacked)
    n = fit.design.n_obs
    blocks, own, modes, starts, at = [], [], [], [], 0
    for term, covariance, mode in zip(fit.design.terms, fit.covariances, fit.modes, strict=True):
        root = symmetric_root(covariance)
        starts.append(at)
        k = term.n_columns
        place = term.codes.astype(np.intp)[:, None] * k + np.arange(k)
        block = np.zeros((len(predictors), n, term.n_levels * k))
        for d, name in enumerate(predictors):
            block[d, np.arange(n)[:, None], place] = term.values_of(name) @ root
        blocks.append(block.reshape(-1, block.shape[2]))
        own.append(block.sum(axis=0))
        modes.append((mode @ np.linalg.pinv(root).T).ravel())
        at += block.shape[2]
    return _Effects(np.hstack(blocks), np.hstack(own), np.concatenate(modes), starts)


@derived
def smooth_system(fit: Fit) -> System:
    """The information of all coefficients of a fit with smooths.

    Parameters
    ----------
    fit : Fit

    Raises
    ------
    OptionError
        No smooths, or too many coefficients.
    """
    design = fit.design
    if not design.smooth_terms:
        raise OptionError("the model has no smooths; write one as s(x) in the formula.")
    size = design.X.shape[1] + sum(term.n_levels * term.n_columns for term in design.terms)
    if size > _LARGEST:
        raise OptionError(
            f"the model has {size} coefficients, and tests and curves of smooths are made for {_LARGEST} at most; "
            "see predict()."
        )
    effects = _spherical(fit)
    p, q, n = design.X.shape[1], effects.u.size, design.n_obs
    X = np.zeros((effects.columns.shape[0], p))
    X[:n] = design.X
    J = model_of(fit).information(np.hstack([X, effects.columns]))
    S = np.zeros(J.shape[0])
    S[p : p + q] = 1.0
    V = linalg.cho_solve(linalg.cho_factor(J + np.diag(S)), np.eye(J.shape[0]))
    beside = np.asarray(fit.others, dtype=np.float64)[: fit.family.n_coefficients]
    rest = J.shape[0] - p - q
    known = np.concatenate([beside, np.zeros(rest - beside.size)]) if fit.thresholds is None else np.zeros(rest)
    coefficients = np.concatenate([fit.beta, effects.u, known])
    return System(coefficients, V, np.asarray(V @ J), tuple(_smooths(fit, effects)))


def _smooths(fit: Fit, effects: _Effects) -> list[Smooth]:
    """Terms of one smooth together, in the order of the formula."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for t in fit.design.smooth_terms:
        call = _call(fit, t)
        plain = deparse(plain_call(call))
        # Levels of a factor by group too: s(x, g) and s(x, h) have one call of their columns.
        group = fit.design.terms[t].group if fit.design.terms[t].n_levels > 1 else ""
        found.setdefault((fit.design.terms[t].column_parts[0], plain + group, level_of(call) or ""), []).append(t)
    components = (CONDITIONAL, *(predictor.name for predictor in fit.design.predictors[1:]))
    recipes = dict(zip(components, (fit.design.recipe, *fit.design.part_recipes), strict=True))

    def place(terms: list[int]) -> tuple[int, int]:
        """Number of the predictor, and where the smooth stands in its formula."""
        component = fit.design.terms[terms[0]].column_parts[0]
        written = [bar.label for bar in recipes[component].formula.bars]
        own = (fit.design.recipe.bars[t].label for t in terms)
        return components.index(component), min(written.index(label) for label in own)

    order = sorted(found.values(), key=place)
    return [_smooth(fit, terms, effects) for terms in order]


def _call(fit: Fit, t: int) -> Call:
    call = fit.design.recipe.bars[t].terms.variables[0]
    if not isinstance(call, Call) or fit.design.columns is None:
        raise OptionError(f"the fit does not hold the data of {fit.design.terms[t].label}; fit the model again.")
    return call


def _smooth(fit: Fit, terms: list[int], effects: _Effects) -> Smooth:
    """A smooth of its terms: the first penalty gives the label."""
    design = fit.design
    p = design.X.shape[1]
    terms = sorted(terms, key=lambda t: (len(design.terms[t].label), design.terms[t].label))
    call, term = _call(fit, terms[0]), design.terms[terms[0]]
    plain, level, component = plain_call(call), level_of(call), term.column_parts[0]
    recipe = design.recipe
    learnt = recipe.state[deparse(plain)]
    label = term.label if len(terms) == 1 or term.n_levels > 1 else term.label.rpartition(":")[0]
    columns, null, start = _unpenalised(fit, component, plain, level, learnt, label)
    places, blocks, pieces = [start + null], [columns], []
    for t in terms:
        own = effects.starts[t] + np.arange(design.terms[t].n_levels * design.terms[t].n_columns)
        places.append(p + own)
        blocks.append(effects.own[:, own])
        pieces.append(Piece(part_of(_call(fit, t)), symmetric_root(fit.covariances[t])))
    stored = design.columns or {}
    nodes = variables_of(plain)
    x = [
        evaluate(node, stored.__getitem__, {}, functions=recipe.functions, formula=recipe.formula.text).values
        for node in nodes
    ]
    several = term.n_levels > 1
    return Smooth(
        label,
        tuple(deparse(node) for node in nodes),
        np.column_stack(x).astype(np.float64),
        np.concatenate(places),
        columns.shape[1],
        np.hstack(blocks),
        null,
        component,
        learnt,
        tuple(pieces),
        level is not None,
        tuple(term.levels) if several else ("",),
        term.group if several else "",
    )


def _unpenalised(
    fit: Fit, component: str, plain: Call, level: str | None, learnt: dict[str, FloatArray], label: str
) -> tuple[FloatArray, IntArray, int]:
    """The fixed columns of a smooth, (n, d), their places in X of its predictor, and the place of its first column."""
    number, recipe, start = _predictor(fit, component)
    predictor, fixed = fit.design.predictors[number], recipe.formula.fixed
    own = [i for i, one in enumerate(fixed.terms, start=1) if fixed.variables[one.variables[0]] == plain]
    columns = np.flatnonzero(np.array(predictor.assign) == own[0]) if own else np.zeros(0, dtype=np.intp)
    levels = learnt.get("levels")
    n_null = len(learnt["fixed"].T) if "fixed" in learnt else learnt["null"].shape[1]
    if columns.size != n_null * (len(levels) if level is not None and levels is not None else 1):
        raise OptionError(
            f"an unpenalised part of {label} is a combination of other columns and was left out; take those out "
            "of the formula."
        )
    if level is not None and levels is not None:
        first = n_null * list(levels).index(level)
        columns = columns[first : first + n_null]
    return predictor.X[:, columns], columns, start


def _predictor(fit: Fit, component: str) -> tuple[int, Recipe, int]:
    """Number of a linear predictor, how it is made, and the place of its first coefficient."""
    design = fit.design
    if component == CONDITIONAL:
        return 0, design.recipe, 0
    number = [predictor.name for predictor in design.predictors].index(component)
    q = sum(term.n_levels * term.n_columns for term in design.terms)
    before = sum(predictor.n_columns for predictor in design.predictors[1:number])
    return number, design.part_recipes[number - 1], design.X.shape[1] + q + before


def smooths_of(fit: Fit) -> tuple[Smooth, ...]:
    """The smooths of a fit.

    Parameters
    ----------
    fit : Fit

    Raises
    ------
    OptionError
        There are none.
    """
    found: tuple[Smooth, ...] = smooth_system(fit).smooths
    return found
