"""Chunks of replicates spread over processes, whatever happens to a process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pickle import PicklingError
from typing import Any

import numpy as np

from lme4py.errors import Lme4Warning
from lme4py.inference.bootstrap.task import Part, Seeds

__all__ = ["Work", "run_chunks"]

Work = Callable[[Seeds], Part]
# How often all that is left is tried again together, before every chunk is tried by itself.
_ROUNDS = 2


def run_chunks(task: Work, chunks: Sequence[Seeds], n_jobs: int | None) -> Iterator[Part]:
    """The replicates of all chunks, in order.

    Parameters
    ----------
    task : callable
    chunks : sequence of sequences of SeedSequence
    n_jobs : int or None
        As joblib reads it; 1 works in this process.

    Warns
    -----
    Lme4Warning
        When a process died (killed, or out of memory). What it had not finished is tried again, with the same seeds;
        replicates that kill their process each time count as failed.
    """
    if n_jobs == 1 or len(chunks) == 1:
        for chunk in chunks:
            yield task(chunk)
        return
    done = 0
    for _ in range(_ROUNDS):
        try:
            with closing(_spread(task, chunks[done:], n_jobs)) as parts:
                for part in parts:
                    done += 1
                    yield part
            return
        except BrokenProcessPool:
            _report(chunks, done)
    for chunk in chunks[done:]:
        yield from _alone(task, chunk)


def _spread(task: Work, chunks: Sequence[Seeds], n_jobs: int | None) -> Generator[Part, None, None]:
    """Parts from several processes; without files for large arrays where none can be written."""
    done = 0
    try:
        with closing(_generator(task, chunks, n_jobs, "1M")) as parts:
            for part in parts:
                done += 1
                yield part
    except (OSError, PicklingError):
        yield from _generator(task, chunks[done:], n_jobs, None)


def _generator(task: Work, chunks: Sequence[Seeds], n_jobs: int | None, max_nbytes: str | None) -> Any:
    from joblib import Parallel, delayed

    return Parallel(n_jobs=n_jobs, return_as="generator", max_nbytes=max_nbytes)(
        delayed(task)(chunk) for chunk in chunks
    )


def _alone(task: Work, chunk: Seeds) -> Iterator[Part]:
    """One chunk in a process of its own; halves of it when that process dies, down to the replicate that kills it."""
    try:
        yield next(iter(_spread(task, [chunk], 2)))
    except BrokenProcessPool:
        if len(chunk) > 1:
            middle = len(chunk) // 2
            yield from _alone(task, chunk[:middle])
            yield from _alone(task, chunk[middle:])
            return
        why = "the process that computed this replicate was killed (a crash, or no memory left)"
        yield Part(np.full((1, 1), np.nan), ((0, why),), 0)


def _report(chunks: Sequence[Seeds], done: int) -> None:
    finished, count = sum(map(len, chunks[:done])), sum(map(len, chunks))
    warnings.warn(
        f"a process was killed (a crash, or no memory left) after {finished} of {count} replicates; "
        "the others are computed again. With too little memory, use a smaller `n_jobs`.",
        Lme4Warning,
        stacklevel=2,
    )
