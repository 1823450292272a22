"""Covariance structures of several sizes, their textbook definitions written out, and derivatives by differences."""

from __future__ import annotations

import numpy as np
from scipy import special

from lme4py.covariance import make_structure, structure_names

SIZES = (1, 2, 3, 7)


def positions(word, k, seed=0):
    """Positions that a structure of k columns can have: with gaps, uneven, or in the plane."""
    rng = np.random.default_rng([seed, k])
    if word in ("ou", "car1"):
        return np.cumsum(rng.uniform(0.2, 2.0, k))
    if word in ("exp", "gau", "mat", "sph"):
        return rng.uniform(0.0, 3.0, (k, 2))
    if word in ("ar1", "hetar1", "arma11"):
        return np.cumsum(rng.integers(1, 3, k)).astype(float)
    return None


def options(word, k):
    """Every choice of options worth trying."""
    if word == "rr":
        return [{"d": d} for d in sorted({1, min(2, k)})]
    if word in ("exp", "gau", "mat", "sph"):
        return [{}, {"nugget": True}]
    return [{}]


def cases(sizes=SIZES, words=None):
    """(name of the case, structure) of every structure."""
    out = []
    for word in words or structure_names():
        for k in sizes:
            for extra in options(word, k):
                label = "-".join([word, str(k), *(f"{name}={value}" for name, value in extra.items())])
                out.append((label, make_structure(word, k, positions(word, k), **extra)))
    return out


def random_theta(structure, seed=0):
    """theta well inside its space."""
    return np.random.default_rng([seed, structure.size]).uniform(0.4, 1.2, structure.n_theta)


def symmetric(k, seed=0):
    M = np.random.default_rng([seed, k]).normal(size=(k, k))
    return M + M.T


def slopes(function, x, step=2e-3):
    """Derivatives of an array-valued function: central differences of sixth order, (n, ...).

    Their error is about step^6 = 6e-17 times a seventh derivative, and rounding of 1e-16 / step.
    """
    out = []
    for i in range(x.size):
        h = np.zeros_like(x)
        h[i] = step
        pairs = [function(x + j * h) - function(x - j * h) for j in (1, 2, 3)]
        out.append((45.0 * pairs[0] - 9.0 * pairs[1] + pairs[2]) / (60.0 * step))
    return np.array(out) if out else np.zeros((0, *np.shape(function(x))))


def textbook(structure, values):
    """Sigma from natural parameters, element by element."""
    word, k = structure.name, structure.size
    sd, rest = _deviations(structure, values)
    if word == "rr":
        L = structure.factor(values)
        return L @ L.T
    Sigma = np.empty((k, k))
    for i in range(k):
        for j in range(k):
            Sigma[i, j] = sd[i] * sd[j] * (1.0 if i == j else _correlation(structure, rest, min(i, j), max(i, j)))
    return Sigma


def _deviations(structure, values):
    own = structure.name in ("us", "diag", "cs", "hetar1", "toep", "ad")
    n = structure.size if own else 1
    return np.broadcast_to(values[:n], (structure.size,)), values[n:]


def _correlation(structure, rest, i, j):
    word, places = structure.name, structure.places
    if word in ("diag", "homdiag"):
        return 0.0
    if word == "us":
        k = structure.size
        return rest[[(a, b) for a in range(k) for b in range(a + 1, k)].index((i, j))]
    if word in ("cs", "homcs"):
        return rest[0]
    if word == "ad":
        return np.prod(rest[i:j])
    if word in ("ar1", "hetar1"):
        return rest[0] ** (places[j] - places[i])
    if word in ("toep", "homtoep"):
        return rest[int(places[j] - places[i]) - 1]
    if word == "arma11":
        phi, theta = rest
        first = (1.0 + phi * theta) * (phi + theta) / (1.0 + 2.0 * phi * theta + theta**2)
        return first * phi ** (places[j] - places[i] - 1)
    if word == "car1":
        return rest[0] ** (places[j] - places[i])
    x = np.linalg.norm(np.atleast_1d(places[i] - places[j])) / rest[0]
    share = 1.0 - rest[-1] if getattr(structure.correlation, "nugget", False) else 1.0
    if word in ("exp", "ou"):
        return share * np.exp(-x)
    if word == "gau":
        return share * np.exp(-(x**2))
    if word == "sph":
        return share * (1.0 - 1.5 * x + 0.5 * x**3 if x < 1.0 else 0.0)
    nu = rest[1]
    return share * x**nu * special.kv(nu, x) / (2.0 ** (nu - 1.0) * special.gamma(nu))
