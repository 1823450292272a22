"""Functions in two forms with one signature: NumPy, and loops in plain Python that numba compiles.

The loops read what NumPy would go over several times once. They are never needed: numba comes with the extra ``fast``,
and without it everything is computed by NumPy. Numbers of both agree to rounding, of which nothing is given away: no
fast-math, and products and sums in the order of the rows or in parts of them.

The environment variable ``LME4PY_COMPILED`` decides, when lme4py is imported:

=========  ============================================================================================
``auto``   as if it were not set: loops from 300,000 rows on, where one fit saves more time than the
           import of numba takes
``1``      loops for all sizes, as many small fits in one process want them; an error where numba is not installed
``0``      never
=========  ============================================================================================

Which form is taken depends on nothing else but the number of rows: equal fits give equal numbers. The first call of a
function compiles its loops, once on a machine: numba keeps them beside the module or, where that cannot be written, in
the user's cache folder.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from lme4py.chunks import from_size
from lme4py.errors import OptionError

__all__ = ["VARIABLE", "Twin", "choice", "with_loops"]

VARIABLE = "LME4PY_COMPILED"
_CHOICES = ("auto", "0", "1")
# Rows from which on loops save more than the import of numba takes: about 0.4 s of a logit model with as many.
_LEAST = from_size(300_000)

P = ParamSpec("P")
R = TypeVar("R")


def _read(text: str) -> str:
    """The choice as the variable has it.

    Examples
    --------
    >>> _read("")
    'auto'
    """
    text = text.strip() or "auto"
    if text not in _CHOICES:
        raise OptionError(f"the environment variable {VARIABLE} is '{text}'; it can be {', '.join(_CHOICES)}.")
    return text


_choice = _read(os.environ.get(VARIABLE, ""))


@contextmanager
def choice(text: str) -> Iterator[None]:
    """Another choice than that of the environment, for tests and benchmarks; not for several threads at once.

    Parameters
    ----------
    text : {"auto", "0", "1"}
    """
    global _choice
    before = _choice
    _choice = _read(text)
    try:
        yield
    finally:
        _choice = before


@functools.cache
def _numba() -> tuple[Any, str]:
    """The module, or None and why."""
    try:
        numba = importlib.import_module("numba")
    except Exception as error:
        # Where its version does not fit that of NumPy, say, this is no ImportError.
        return None, f"{type(error).__name__}: {error}"
    return (None, "NUMBA_DISABLE_JIT is set") if numba.config.DISABLE_JIT else (numba, "")


def _argument(numba: Any, code: str) -> Any:
    """The type of an argument, see `Twin`."""
    types = numba.types
    kind = {"f": types.float64, "i": types.intp}[code[0].lower()]
    if len(code) == 1:
        return kind
    # Read-only types take arrays that can be written as well.
    return types.Array(kind, int(code[1]), "C", readonly=code.islower())


def _compiled(loops: Callable[..., R], signature: str) -> Callable[..., R] | None:
    """The loops as machine code; None without numba."""
    numba, _ = _numba()
    if numba is None:
        return None
    codes = signature.split()
    arguments = tuple(_argument(numba, code) for code in codes)
    # What is written to is never copied.
    kinds = tuple({"f": np.float64, "i": np.intp}[code[0]] if code[1:] and code.islower() else None for code in codes)

    def compiled(cache: bool) -> Any:
        settings = {"nopython": True, "nogil": True, "error_model": "numpy", "fastmath": False}
        return numba.jit(arguments, cache=cache, **settings)(loops)

    try:
        machine = compiled(True)
    except RuntimeError:
        # There is no folder that can be written.
        machine = compiled(False)

    def call(*args: Any) -> R:
        result: R = machine(
            *[
                value if kind is None else np.ascontiguousarray(value, dtype=kind)
                for value, kind in zip(args, kinds, strict=True)
            ]
        )
        return result

    return call


class Twin(Generic[P, R]):
    """A function in two forms; `with_loops` makes one.

    Parameters
    ----------
    plain : callable
        With NumPy. Its first argument is an array with an element for each row.
    loops : callable
        The same in loops that numba can compile; calls nothing but NumPy and `math`.
    signature : str
        Types of the arguments, such as "i1 f1 f2 f i F1": vectors and matrices of intp and float64, numbers, and (with
        a capital letter) an array that is written to. Others than contiguous ones
        are copied.
    """

    def __init__(self, plain: Callable[P, R], loops: Callable[P, R], signature: str) -> None:
        functools.update_wrapper(self, plain)
        self.plain = plain
        self.loops = loops
        self._signature = signature

    @functools.cached_property
    def compiled(self) -> Callable[P, R] | None:
        """The loops as machine code, made when they are first needed; None without numba."""
        return _compiled(self.loops, self._signature)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        rows: Any = args[0]
        return self.of(rows.size)(*args, **kwargs)

    def of(self, n_rows: int) -> Callable[P, R]:
        """The form for data of so many rows.

        Parameters
        ----------
        n_rows : int
        """
        if _choice == "0" or (_choice == "auto" and n_rows < _LEAST):
            return self.plain
        if self.compiled is not None:
            return self.compiled
        if _choice == "1":
            raise OptionError(
                f"{VARIABLE}=1 needs numba, which cannot be used ({_numba()[1]}): "
                "python -m pip install 'lme4py[fast]', or take the variable away."
            )
        return self.plain

    def __reduce__(self) -> str:
        # By name, as functions are.
        return self.plain.__qualname__


def with_loops(loops: Callable[P, R], signature: str) -> Callable[[Callable[P, R]], Twin[P, R]]:
    """Give a function of NumPy a second form.

    Parameters
    ----------
    loops : callable
    signature : str
        As in `Twin`.
    """
    return lambda plain: Twin(plain, loops, signature)
