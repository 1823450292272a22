"""What goes wrong where functions run on other machines, in words that say what to do."""

from __future__ import annotations

import re

from lme4py.errors import DataError, DesignError, Lme4Error, OptionError

__all__ = ["cluster_error"]

_KINDS: dict[str, type[Lme4Error]] = {kind.__name__: kind for kind in (DataError, DesignError, OptionError)}


def cluster_error(error: Exception, engine: str, install: str) -> Lme4Error | None:
    """The error to raise in the place of one of a cluster; None where that speaks for itself.

    Parameters
    ----------
    error : Exception
    engine : str
        "Spark" or "Dask".
    install : str
        How packages come to its workers.
    """
    if isinstance(error, Lme4Error):
        return error
    text = str(error)
    missing = re.search(r"No module named '(\w+)", text)
    if missing is not None:
        return Lme4Error(
            f"the workers of {engine} have no {missing[1]}; install lme4py and what it needs where they run{install}."
        )
    # The text of an error of a worker, as it travels through a cluster.
    own = re.search(r"lme4py\.errors\.(\w+): (.*)", text)
    if own is not None:
        return _KINDS.get(own[1], Lme4Error)(own[2])
    if type(error).__name__ in ("KilledWorker", "CommClosedError", "FutureCancelledError", "CancelledError"):
        return Lme4Error(
            f"workers of {engine} died while they went through the rows ({type(error).__name__}), often for want of "
            "memory: make the partitions smaller, or give the workers more memory. No result was made."
        )
    return None
