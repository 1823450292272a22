"""Simulated responses, tested in chunks spread over processes, kept and taken up again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from lme4py.chunks import chunk
from lme4py.engine.threads import limited_threads
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.inference.bootstrap.task import Part, Seeds
from lme4py.inference.bootstrap.workers import run_chunks
from lme4py.inference.power.tests import PowerTest
from lme4py.linalg.types import FloatArray
from lme4py.progress import keeping, tick

__all__ = ["Replicates", "exact_interval", "run_tests"]

# Simulations between two looks at the precision.
_LOOK = chunk(250, 20)


@dataclass(frozen=True)
class Replicates:
    """Tests of simulated responses.

    Attributes
    ----------
    values : ndarray, shape (n, 4)
        p-value, estimate, standard error, singular.
    failures : tuple of (int, str)
    n_not_converged : int
    """

    values: FloatArray
    failures: tuple[tuple[int, str], ...] = ()
    n_not_converged: int = 0

    @property
    def n(self) -> int:
        """Number of simulations."""
        return int(self.values.shape[0])

    def with_part(self, part: Part) -> Replicates:
        """These and more.

        Parameters
        ----------
        part : Part
        """
        failures = (*self.failures, *((self.n + i, why) for i, why in part.failures))
        return Replicates(
            np.concatenate([self.values, part.values]), failures, self.n_not_converged + part.n_not_converged
        )


@dataclass(frozen=True)
class _Work:
    """What every process needs to make tests."""

    fit: Fit
    test: PowerTest

    def __call__(self, seeds: Seeds) -> Part:
        with limited_threads(self.fit.design):
            return self.test(self.fit, model_of(self.fit).simulator().draw(seeds))


def exact_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a proportion.

    Parameters
    ----------
    hits, n : int
    level : float

    Examples
    --------
    >>> [round(limit, 4) for limit in exact_interval(80, 100)]
    [0.7082, 0.8733]
    """
    tail = (1.0 - level) / 2.0
    lower = 0.0 if hits == 0 else float(special.betaincinv(hits, n - hits + 1, tail))
    upper = 1.0 if hits == n else float(special.betaincinv(hits + 1, n - hits, 1.0 - tail))
    return lower, upper


def run_tests(
    fit: Fit,
    test: PowerTest,
    n_sim: int,
    seed: int | None,
    n_jobs: int | None,
    enough: Callable[[Replicates], bool],
    save: str | os.PathLike[str] | None = None,
    key: dict[str, Any] | None = None,
) -> Replicates:
    """Tests of responses; simulation i has its own seed, whatever the number of processes and of simulations.

    Parameters
    ----------
    fit : Fit
    test : PowerTest
    n_sim : int
    seed : int or None
    n_jobs : int or None
    enough : callable
        Whether the simulations so far are enough.
    save : path, optional
        A file in which the simulations are kept; those that it holds are not made again.
    key : dict, optional
        What they belong to.
    """
    seeds = np.random.SeedSequence(seed).spawn(n_sim)
    size = min(model_of(fit).together(), _LOOK)
    done = _loaded(save, key or {})
    failures = tuple((i, why) for i, why in done.failures if i < n_sim)
    done = Replicates(done.values[:n_sim], failures, done.n_not_converged)
    chunks = [seeds[i : i + size] for i in range(done.n, n_sim, size)]
    tick("simulations", done.n)
    if not chunks or (done.n and enough(done)):
        return done
    with keeping("simulations", n_sim) as kept:
        kept.done = done.n
        for part in _parts(_Work(fit, test), chunks, n_jobs):
            before, done = done.n, done.with_part(part)
            kept.done = done.n
            if save is not None:
                _store(save, key or {}, done)
            tick("simulations", done.n - before)
            if enough(done):
                break
    return done


def _parts(work: _Work, chunks: Sequence[Seeds], n_jobs: int | None) -> Iterator[Part]:
    yield from run_chunks(work, chunks, n_jobs)


def _loaded(path: str | os.PathLike[str] | None, key: dict[str, Any]) -> Replicates:
    """What a file holds, after a check that it belongs here."""
    if path is None or not os.path.exists(path):
        return Replicates(np.zeros((0, 4)))
    try:
        with np.load(path, allow_pickle=False) as stored:
            found, values, rest = str(stored["key"]), stored["values"], json.loads(str(stored["rest"]))
    except (OSError, ValueError, KeyError):
        raise OptionError(f"the file {os.fspath(path)!r} holds no simulations of power(); give another one.") from None
    if found != _text(key):
        raise OptionError(
            f"the file {os.fspath(path)!r} holds simulations of another model, test or seed; give another one, or "
            "remove it."
        )
    failures = tuple((int(i), str(why)) for i, why in rest["failures"])
    return Replicates(values, failures, int(rest["n_not_converged"]))


def _text(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, default=str)


def _store(path: str | os.PathLike[str], key: dict[str, Any], done: Replicates) -> None:
    """Write a file whole, so that no interruption leaves half of one."""
    rest = json.dumps({"failures": done.failures, "n_not_converged": done.n_not_converged})
    part = f"{os.fspath(path)}.part"
    with open(part, "wb") as file:
        np.savez(file, key=_text(key), values=done.values, rest=rest)
    os.replace(part, path)
