"""What stands where an array of rows was, or would be, and where the rows are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from lme4py.errors import Lme4Error

__all__ = ["STREAMED", "AbsentRows", "PassCost", "RowsReport", "absent"]

STREAMED = (
    "the rows of this model were streamed and are not in memory, and this needs them ({name}). Estimates, tests, "
    "intervals, random effects and predictions of new data need none; predict(data) gives the fitted values of any "
    "part of the source, and control={{'rows': 'memory'}} keeps the rows."
)


def _refusal(method: str) -> Callable[..., NoReturn]:
    def refuse(self: AbsentRows, *args: Any, **kw: Any) -> NoReturn:
        self.refuse()

    refuse.__name__ = method
    return refuse


class AbsentRows:
    """Knows its name and shape, and refuses everything else with an error that says what happened.

    Parameters
    ----------
    name : str
        What is absent, for the message.
    shape : tuple of int
    sentence : str
        The message, with a place for the {name}.
    """

    __slots__ = ("name", "sentence", "shape")
    __hash__ = object.__hash__

    def __init__(self, name: str, shape: tuple[int, ...] = (), sentence: str = STREAMED) -> None:
        self.name = name
        self.shape = shape
        self.sentence = sentence

    @property
    def size(self) -> int:
        """Number of elements that the array would have."""
        return int(np.prod(self.shape, dtype=np.intp))

    @property
    def ndim(self) -> int:
        """Number of axes that the array would have."""
        return len(self.shape)

    def refuse(self) -> NoReturn:
        """Raise, by name."""
        raise Lme4Error(self.sentence.format(name=self.name))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self.name}, shape {self.shape}: not in memory>"

    def __getattr__(self, attribute: str) -> NoReturn:
        # Python's own protocols (copying, pickling) ask for names that need not exist.
        if attribute.startswith("__") and not attribute.startswith("__array"):
            raise AttributeError(attribute)
        self.refuse()

    def __reduce__(self) -> tuple[Any, ...]:
        return AbsentRows, (self.name, self.shape, self.sentence)


def absent(name: str, shape: tuple[int, ...] = ()) -> Any:
    """What stands for an array of rows that are streamed: `AbsentRows`, in a field whose type is that of the array.

    Parameters
    ----------
    name : str
    shape : tuple of int
    """
    return AbsentRows(name, shape)


_OPERATORS = (
    "add sub mul matmul truediv pow neg eq ne lt le gt ge getitem setitem iter contains bool float int index array"
)
for _operator in _OPERATORS.split():
    setattr(AbsentRows, f"__{_operator}__", _refusal(f"__{_operator}__"))
for _operator in ("add", "sub", "mul", "matmul", "truediv", "pow"):
    setattr(AbsentRows, f"__r{_operator}__", _refusal(f"__r{_operator}__"))


@dataclass(frozen=True)
class PassCost:
    """What an evaluation, or a pass, of a generalised model over its streamed rows takes on average.

    Attributes
    ----------
    seconds : float
        On the clock, with the arithmetic between passes.
    traffic : float
        Bytes that come to this process: rows out of files, or sums of workers.
    """

    seconds: float
    traffic: float

    def __str__(self) -> str:
        return f"{self.seconds:.2g} s and {self.traffic / 1e6:.3g} MB each"


@dataclass(frozen=True)
class RowsReport:
    """Where the rows of a fit were, and how often they were gone through.

    Attributes
    ----------
    where : str
        "memory", or the source in words.
    passes : int
        How often all rows were read.
    blocks : int
        Blocks of rows in each pass.
    n_rows, n_obs : int
        Rows of the source, and those used.
    group_rows : dict of str to (int, float, int)
        Smallest, mean and largest number of rows of a level, by grouping factor.
    weight_range : (float, float), or None
    sums : dict of str to (float, float)
        Sum, and sum of squares, of each numeric column of the model on the rows used.
    cost : PassCost or None
        Of those evaluations, or passes over files or workers, that `where` counts.
    """

    where: str
    passes: int
    blocks: int
    n_rows: int
    n_obs: int
    group_rows: Mapping[str, tuple[int, float, int]] = field(default_factory=dict)
    weight_range: tuple[float, float] | None = None
    sums: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    cost: PassCost | None = None

    @property
    def summary(self) -> str:
        """Where the rows were and how they went by, in words."""
        times = f"{self.passes} pass{'es' * (self.passes != 1)}"
        return f"{self.where}, {times} over {self.blocks} block{'s' * (self.blocks != 1)}"

    def __str__(self) -> str:
        cost = "" if self.cost is None else f"; those of the fit take {self.cost}"
        return f"{self.n_rows} rows in {self.summary}{cost}"
