"""One of several responses with a family each, as a session sees it."""

from __future__ import annotations

from typing import Any

import numpy as np

from lme4py.data.beside import beside
from lme4py.data.column import Column
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.responses.generalised import response_view
from lme4py.formula.several import RESPONSE
from lme4py.margins.models.own import OwnAdapter

__all__ = ["ResponseAdapter"]


class ResponseAdapter(OwnAdapter):
    """A response of a fit of several, with the link of its family, over the rows that have it.

    Parameters
    ----------
    fit : GeneralisedFit
    response : str or None
        Its name; an error without one, as means of several links are not averaged.
    """

    def __init__(self, fit: Any, response: str | None) -> None:
        labels = fit.design.responses.labels
        if response not in labels:
            hint = "" if response is None else did_you_mean(str(response), labels)
            raise OptionError(
                "margins of several responses with a family each are those of one of them: choose it by component=, "
                f"one of {', '.join(labels)}.{hint}"
            )
        super().__init__(response_view(fit, labels.index(response)))
        self.chosen = np.flatnonzero(fit.data.responses == labels.index(response))
        self.columns = {name: column.take(self.chosen) for name, column in self.columns.items()}
        self.apart = RESPONSE

    @property
    def n_rows(self) -> int:
        return int(self.chosen.size)

    @property
    def row_labels(self) -> Any:
        return self.design.index[self.design.keep][self.chosen]

    def rows_given(self, data: Any) -> Any:
        frame = super().rows_given(data)
        column = frame.column(RESPONSE)
        wanted = column.levels.index(self.columns[RESPONSE].levels[int(self.columns[RESPONSE].values[0])])
        return frame.take(column.values == wanted)

    def beside(self, values: Any, what: str, *, as_labels: bool = False) -> Column:
        used = np.zeros(self.design.keep.size, dtype=bool)
        used[np.flatnonzero(self.design.keep)[self.chosen]] = True
        return beside(values, what, self.design, used, as_labels=as_labels)

    def other_column(self, name: str) -> Column | None:
        column = super().other_column(name)
        return None if column is None else column.take(self.chosen)
