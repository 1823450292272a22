"""What a family says of rows of several responses: nothing, where there is one."""

from __future__ import annotations

from lme4py.families.response import ResponseData
from lme4py.linalg.types import FloatArray

__all__ = ["OneResponse"]


class OneResponse:
    """A family of one response."""

    @property
    def has_rows_of_several(self) -> bool:
        """Whether rows are of several responses, each with a family of its own."""
        return False

    @property
    def has_one_link(self) -> bool:
        """Whether all rows have the same link, so that coefficients of several responses can be compared."""
        return True

    def row_units(self, data: ResponseData) -> FloatArray | None:
        """Size of the linear predictor of each row, where rows of several responses have units of their own.

        Parameters
        ----------
        data : ResponseData
        """
        return None
