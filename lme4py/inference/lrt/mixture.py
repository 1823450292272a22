"""Chi-bar-squared distributions: the likelihood ratio when parameters lie on the boundary.

Under the restricted model the statistic is distributed as the squared length of the projection of a normal vector on a
cone (Self & Liang 1987): as a mixture of chi-squared distributions whose weights depend on the cone and on the
information. The cone is a product of cones of positive semi-definite matrices, one for each term in the directions
that have no variance under the restricted model, after everything that may take either sign has been projected out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.problem import Problem
from lme4py.errors import OptionError
from lme4py.inference.lrt.nesting import Embedding
from lme4py.linalg.small import symmetric_root
from lme4py.linalg.types import FloatArray

__all__ = [
    "Mixture",
    "UnknownDistribution",
    "cone_information",
    "cone_mixture",
    "dispersion_mixture",
    "expected_information",
]

# Draws for weights without a closed form, and their seed: the same test gives the same p-value every time.
_DRAWS, _SEED = 100_000, 20_240_607
_PROJECTIONS = 4_000
# Relative step of the one-sided differences; their error is of order step^2.
_STEP = 1e-4


class UnknownDistribution(OptionError):
    """The likelihood ratio of two nested models has a distribution that no theory here covers."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of chi-squared distributions.

    Attributes
    ----------
    weights : dict of int to float
        Degrees of freedom -> weight; 0 degrees is a point mass at zero.
    note : str
        Where the weights come from.
    """

    weights: dict[int, float]
    note: str

    def p_value(self, chi2: float) -> float:
        """P(X >= chi2); 1 at zero."""
        if chi2 <= 0.0:
            return 1.0
        return float(sum(w * special.chdtrc(df, chi2) for df, w in self.weights.items() if df > 0))

    @property
    def is_plain(self) -> bool:
        """True for a chi-squared distribution."""
        return len(self.weights) == 1


def cone_mixture(embedding: Embedding, df: int, information: Callable[[], FloatArray] | None) -> Mixture:
    """The distribution of the likelihood ratio of two nested models.

    Parameters
    ----------
    embedding : Embedding
        The restricted model in the full one.
    df : int
        Difference of the numbers of parameters.
    information : callable or None
        Gives the information in the elements of the cones (`cone_information`); called when the weights depend on it.
        None where it is not known.
    """
    if not embedding.is_unique:
        return Mixture({df: 1.0}, "chi-squared: the covariances of the full model are not identified; conservative")
    if embedding.unknown:
        raise UnknownDistribution(
            f"the distribution of this likelihood ratio is not known, because {embedding.unknown}; use "
            "method='bootstrap'."
        )
    cones = embedding.blocks
    held = sum(r * (r + 1) // 2 for r in cones)
    if not cones or held > df:
        return Mixture({df: 1.0}, "chi-squared: nothing that is tested lies on a boundary")
    free = df - held
    if cones == [1]:
        note = f"50:50 mixture of chi-squared with {free} and {free + 1} degrees of freedom"
        return Mixture({free: 0.5, free + 1: 0.5}, note)
    if information is None:
        return Mixture({df: 1.0}, "chi-squared: the weights of the mixture are not available here; conservative")
    weights, how = _weights(cones, information())
    shares = ", ".join(f"{w:.4f}" for w in weights)
    last = free + len(weights) - 1
    note = f"mixture of chi-squared with {free} to {last} degrees of freedom, weights {shares} {how}"
    return Mixture({free + j: float(w) for j, w in enumerate(weights)}, note)


def dispersion_mixture(embedding: Embedding, df: int, parameter: str) -> Mixture:
    """The distribution for a Poisson model in a negative binomial one (Lawless 1987, Can. J. Stat. 15:209).

    1 / theta (alpha of NB-1) is zero under the restricted model and cannot be negative: a cone of one dimension, so
    that the information does not matter.

    Parameters
    ----------
    embedding : Embedding
        The restricted model in the full one.
    df : int
        Difference of the numbers of parameters.
    parameter : str
        Name of the dispersion parameter.

    Raises
    ------
    OptionError
        Variances are tested against zero at the same time.
    """
    if embedding.blocks:
        raise OptionError(
            "the models differ in the dispersion and in random effects, and both are on the boundary under the "
            "restricted model; test them one after the other, or use method='bootstrap'."
        )
    where = "infinity" if parameter == "theta" else "0"
    note = (
        f"50:50 mixture of chi-squared with {df - 1} and {df} degrees of freedom: the Poisson model is the negative "
        f"binomial one with {parameter} = {where}, on the boundary"
    )
    return Mixture({df - 1: 0.5, df: 0.5}, note)


def cone_information(problem: Problem, embedding: Embedding, reml: bool, scale_is_known: bool = False) -> FloatArray:
    """Expected information in the elements of the cones' blocks, everything else projected out.

    Parameters
    ----------
    problem : Problem
        Of the full model.
    embedding : Embedding
        The restricted model in it, covariances relative to sigma^2.
    reml : bool
    scale_is_known : bool
        sigma^2 is 1 and no parameter.
    """
    held, free = [], []
    for t, (S, cone) in enumerate(zip(problem.scaling.S, embedding.cones, strict=True)):
        inverse = np.linalg.inv(S)
        held += [(t, E) for E in _upright(inverse @ cone.held @ inverse.T, cone.blocks)]
        free += [(t, E) for E in _apart(inverse @ cone.free @ inverse.T)]
    J = expected_information(problem, embedding.covariances, reml, [*held, *free])
    if scale_is_known:
        J = J[:-1, :-1]
    h = len(held)
    rest = J[h:, h:]
    return J[:h, :h] - J[:h, h:] @ np.linalg.pinv(rest, rcond=1e-10, hermitian=True) @ J[h:, :h]


def _upright(held: FloatArray, blocks: Sequence[int]) -> FloatArray:
    """The same cones, of matrices W C W' with C positive semi-definite, with orthonormal columns in W.

    W = QR makes Q (R C R') Q' of them, where R C R' is positive semi-definite too. Columns far from zero, such as
    years, are nearly parallel to the constant, and the information in the elements of C would be lost in rounding.
    """
    out, start = [], 0
    for r in blocks:
        if r == 1:
            # One variance, perhaps of several columns.
            out.append(held[start])
            start += 1
            continue
        # The diagonal elements stand at 0, 2, 5, ... of the columns of the upper triangle: E = w w'.
        own = [held[start + a * (a + 3) // 2] for a in range(r)]
        W = np.column_stack([E[:, E.diagonal().argmax()] / np.sqrt(E.diagonal().max()) for E in own])
        Q, R = np.linalg.qr(W)
        # One sign for each column: the draws of simulated weights are the same whatever LAPACK chooses.
        Q *= np.where(R.diagonal() < 0.0, -1.0, 1.0)
        for b in range(r):
            out += [np.outer(Q[:, a], Q[:, b]) + (np.outer(Q[:, b], Q[:, a]) if a < b else 0.0) for a in range(b + 1)]
        start += r * (r + 1) // 2
    return np.array(out).reshape(held.shape)


def _apart(free: FloatArray) -> FloatArray:
    """An orthonormal basis of the same space of matrices."""
    if not len(free):
        return free
    flat = free.reshape(len(free), -1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return np.linalg.qr(unit.T)[0].T.reshape(free.shape)


def expected_information(
    problem: Problem, covariances: tuple[FloatArray, ...], reml: bool, directions: Sequence[tuple[int, FloatArray]]
) -> FloatArray:
    """Expected information of (coefficients of the directions, log sigma^2), shape (d + 1, d + 1).

    Parameters
    ----------
    problem : Problem
    covariances : tuple of ndarray
        Relative to sigma^2, on the user's scale.
    reml : bool
    directions : sequence of (term, E)
        E (k, k) is a direction of the relative covariance of a term in the engine's columns.

    Notes
    -----
    1/2 tr(P V_i P V_j) is minus half the derivative of the traces tr(P V_i), which the adjoint of the factor gives
    exactly; they are differentiated along matrices that stay inside the cone.
    """
    criterion = Criterion(problem, reml)
    scaling = problem.scaling
    inside = []
    for S, C in zip(scaling.S, covariances, strict=True):
        inverse = np.linalg.inv(S)
        inside.append(scaling.weight_scale * inverse @ C @ inverse.T)
    base = _traces(criterion, inside, directions)
    d = len(directions)
    J = np.zeros((d + 1, d + 1))
    J[d, d] = 0.5 * criterion.df
    J[d, :d] = J[:d, d] = 0.5 * base
    for i, (t, E) in enumerate(directions):
        J[i, :d] = -0.5 * sum(
            (sign * _slope(criterion, inside, t, part, directions, base) for sign, part in _signed(E)), np.zeros(d)
        )
    J[:d, :d] = 0.5 * (J[:d, :d] + J[:d, :d].T)
    return J


def _signed(E: FloatArray) -> Iterator[tuple[float, FloatArray]]:
    """A symmetric matrix as the difference of two that stay inside the cone of covariances."""
    values, vectors = np.linalg.eigh(E)
    for sign in (1.0, -1.0):
        used = np.where(sign * values > 1e-12 * np.abs(values).max(), sign * values, 0.0)
        if used.any():
            yield sign, (vectors * used) @ vectors.T


def _largest(problem: Problem, t: int) -> float:
    """Largest diagonal element of Z'WZ of a term, the unit in which its covariances matter."""
    f, factor = next((f, factor) for f, factor in enumerate(problem.factors) if t in factor.terms)
    columns = factor.columns[factor.terms.index(t)]
    return float(np.einsum("aaj->aj", problem.cross.diagonal[f][columns, columns]).max())


def _slope(
    criterion: Criterion,
    inside: list[FloatArray],
    t: int,
    step: FloatArray,
    directions: Sequence[tuple[int, FloatArray]],
    base: FloatArray,
) -> FloatArray:
    """One-sided derivative of the traces, of second order in the length of the step."""
    h = _STEP / (_largest(criterion.problem, t) * float(np.trace(step)))
    values = []
    for size in (h, 2.0 * h):
        moved = list(inside)
        moved[t] = inside[t] + size * step
        values.append(_traces(criterion, moved, directions))
    return (4.0 * values[0] - values[1] - 3.0 * base) / (2.0 * h)


def _traces(criterion: Criterion, inside: list[FloatArray], directions: Sequence[tuple[int, FloatArray]]) -> FloatArray:
    """tr(P V_i) for all directions (tr(V^-1 V_i) for ML)."""
    problem = criterion.problem
    point = criterion.evaluate_factors([symmetric_root(C) for C in inside])
    p = problem.n_fixed
    corner = np.zeros((p + 1, p + 1))
    if criterion.reml and p:
        inverse = np.linalg.inv(point.RX)
        corner[:p, :p] = inverse @ inverse.T
    by_factor = point.swept.adjoint(point.border, corner).sigma
    by_term = {
        term: G[columns, columns]
        for factor, G in zip(problem.factors, by_factor, strict=True)
        for term, columns in zip(factor.terms, factor.columns, strict=True)
    }
    return np.array([float(np.vdot(by_term[t], E)) for t, E in directions])


def _weights(cones: list[int], information: FloatArray) -> tuple[FloatArray, str]:
    """Weights of 0, 1, ... degrees of freedom, and how they were found."""
    if max(cones) > 1:
        return _matrix_weights(cones, information)
    s = len(cones)
    size = np.sqrt(information.diagonal())
    correlation = information / np.outer(size, size)
    if np.abs(correlation - np.eye(s)).max() < 1e-6:
        binomial = np.asarray(special.binom(s, np.arange(s + 1)) / 2.0**s, dtype=np.float64)
        return binomial, "(binomial: the information is diagonal)"
    if s == 2:
        # The projected normal vector lies in the cone with the probability of its angle.
        inside = np.arccos(np.clip(correlation[0, 1], -1.0, 1.0)) / (2.0 * np.pi)
        return np.array([0.5 - inside, 0.5, inside]), "(from the information matrix)"
    return _orthant_weights(information), f"(simulated from the information matrix, {_DRAWS} draws, fixed seed)"


def _orthant_weights(information: FloatArray) -> FloatArray:
    """Share of projections on the orthant with each number of positive elements."""
    s = information.shape[0]
    L = np.linalg.cholesky(information)
    draws = np.random.default_rng(_SEED).standard_normal((_DRAWS, s))
    scores = draws @ L.T
    counts = np.zeros(s + 1)
    done = np.zeros(_DRAWS, dtype=bool)
    # Exactly one set of free elements meets the conditions of the projection.
    for code in range(2**s):
        free = np.array([bool(code >> i & 1) for i in range(s)])
        own = np.zeros((_DRAWS, s))
        if free.any():
            own[:, free] = scores[:, free] @ np.linalg.inv(information[np.ix_(free, free)])
        rest = scores - own @ information
        fits = ~done & (own[:, free] > 0).all(axis=1) & (rest[:, ~free] <= 0).all(axis=1)
        counts[int(free.sum())] += fits.sum()
        done |= fits
    weights: FloatArray = counts / counts.sum()
    return weights


def _blocks(cones: list[int]) -> list[tuple[slice, int]]:
    out, start = [], 0
    for r in cones:
        size = r * (r + 1) // 2
        out.append((slice(start, start + size), r))
        start += size
    return out


def _as_matrices(values: FloatArray, r: int, dual: bool) -> FloatArray:
    """Symmetric matrices from elements in the order of `_coordinates`; a dual one halves what stands for two."""
    out = np.zeros((values.shape[0], r, r))
    position = 0
    for b in range(r):
        for a in range(b + 1):
            out[:, a, b] = out[:, b, a] = values[:, position] * (0.5 if dual and a != b else 1.0)
            position += 1
    return out


def _matrix_weights(cones: list[int], information: FloatArray) -> tuple[FloatArray, str]:
    """Weights for cones of positive semi-definite matrices, by simulation."""
    d = information.shape[0]
    rng = np.random.default_rng(_SEED)
    scores = rng.standard_normal((_DRAWS, d)) @ np.linalg.cholesky(information).T
    z = scores @ np.linalg.inv(information)
    blocks = _blocks(cones)
    inside = np.ones(_DRAWS, dtype=bool)
    polar = np.ones(_DRAWS, dtype=bool)
    for place, r in blocks:
        inside &= np.linalg.eigvalsh(_as_matrices(z[:, place], r, False))[:, 0] >= 0
        polar &= np.linalg.eigvalsh(_as_matrices(scores[:, place], r, True))[:, -1] <= 0
    first, last = float(polar.mean()), float(inside.mean())
    if d == 3:
        # Even and odd degrees of freedom have weight one half each (Gauss-Bonnet).
        weights = np.array([first, 0.5 - last, 0.5 - first, last])
        return weights, f"(simulated from the information matrix, {_DRAWS} draws, fixed seed)"
    lengths = _projected_lengths(scores[:_PROJECTIONS], information, blocks)
    weights = _fit_weights(lengths, d, first, last)
    return weights, f"(simulated from the information matrix, {_PROJECTIONS} projections, fixed seed)"


def _projected_lengths(scores: FloatArray, information: FloatArray, blocks: list[tuple[slice, int]]) -> FloatArray:
    """Squared lengths of the projections on the cone in the metric of the information (accelerated gradient)."""
    # The metric of a matrix counts an element off the diagonal twice.
    counts = np.concatenate([[1.0 if a == b else 2.0 for b in range(r) for a in range(b + 1)] for _, r in blocks])
    root = np.sqrt(counts)
    scaled = information / np.outer(root, root)
    step = 1.0 / float(np.linalg.eigvalsh(scaled)[-1])
    target = scores / root
    x = np.zeros_like(scores)
    y, momentum = x, 1.0
    for _ in range(400):
        moved = _project(y - step * (y @ scaled - target), blocks, root)
        following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        y = moved + (momentum - 1.0) / following * (moved - x)
        change = float(np.abs(moved - x).max())
        x, momentum = moved, following
        if change < 1e-6 * float(np.abs(x).max()):
            break
    lengths: FloatArray = np.einsum("ij,ij->i", x @ scaled, x)
    return lengths


def _project(x: FloatArray, blocks: list[tuple[slice, int]], root: FloatArray) -> FloatArray:
    out = np.empty_like(x)
    for place, r in blocks:
        values, vectors = np.linalg.eigh(_as_matrices(x[:, place] / root[place], r, False))
        M = (vectors * np.maximum(values, 0.0)[:, None, :]) @ vectors.transpose(0, 2, 1)
        out[:, place] = np.column_stack([M[:, a, b] for b in range(r) for a in range(b + 1)]) * root[place]
    return out


def _fit_weights(lengths: FloatArray, d: int, first: float, last: float) -> FloatArray:
    """Weights whose mixture has the simulated distribution; the ends and the sums over even and odd degrees are
    known."""
    from scipy.optimize import nnls

    grid = np.quantile(lengths[lengths > 1e-9], np.linspace(0.02, 0.98, 49))
    table = np.array([special.chdtrc(j, grid) if j else np.zeros(grid.size) for j in range(d + 1)]).T
    observed = np.array([np.mean(lengths > g) for g in grid])
    parity = np.array([[1.0 - j % 2 for j in range(d + 1)], [float(j % 2) for j in range(d + 1)]])
    ends = np.eye(d + 1)[[0, d]]
    rows = np.vstack([table, 1e3 * parity, 1e3 * ends])
    right = np.concatenate([observed, 1e3 * np.array([0.5, 0.5]), 1e3 * np.array([first, last])])
    weights = nnls(rows, right)[0]
    total: FloatArray = weights / weights.sum()
    return total
