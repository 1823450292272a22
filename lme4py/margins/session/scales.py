"""The ways to open a session: on which scale means are averaged and compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, Self, TypedDict, TypeVar, Unpack

from lme4py.arguments import speaks_throughout
from lme4py.docstrings import carries
from lme4py.fits.method import Ddf
from lme4py.margins.models.adapter import ModelAdapter
from lme4py.margins.session.base import SessionBase
from lme4py.margins.session.slopes import SlopeMethods

__all__ = ["ScaleMethods", "SessionOptions"]

P = ParamSpec("P")
R = TypeVar("R")


class SessionOptions(TypedDict, total=False):
    """Settings of a session; see `Margins.response`."""

    at: Any
    weights: Any
    level: float | None
    method: Literal["delta", "simulation", "bootstrap"]
    n_sim: int
    n_boot: int
    rng_seed: int | None
    n_jobs: int
    ddf: Ddf | None
    random: Literal["zero", "integrate", "conditional", "broad", "narrow"] | Sequence[str]
    adapter: ModelAdapter | type | None
    vcov: Any
    cluster: Any
    boot: Literal["parametric", "clusters"]
    component: str | None


def _signature_of_session(opens: Callable[P, R]) -> Callable[P, R]:
    """Show the settings of a session with their defaults, which are written once, in `SessionBase`."""
    settings = list(inspect.signature(SessionBase).parameters.values())
    parameters = [parameter for parameter in settings if parameter.name != "scale"]
    first = next(iter(inspect.signature(opens).parameters.values()))
    opens.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    return opens


@speaks_throughout
class ScaleMethods(SlopeMethods):
    """`response`, `link` and the scales of ratios."""

    @classmethod
    @_signature_of_session
    def response(cls, fit: Any, **options: Unpack[SessionOptions]) -> Self:
        """A session on the scale of the response: means (probabilities, mean counts) and their differences.

        Parameters
        ----------
        fit : MixedResult, MEGLMResult, or a statsmodels MixedLM fit
        at : str, dict or data frame
            Rows over which predictions are averaged. "overall": the data; "mean": numbers at their means, factors by
            their shares (the columns of the design are averaged); "median": the same with medians; "typical": means
            and the most frequent levels; "balanced": numbers at their means, all levels of factors alike (emmeans'
            reference grid); a dict fixes some variables and keeps the others; a data frame gives the rows.
        weights : array of shape (n,) or str, optional
            Weights of the rows in every average, share and median: one for each row used (or for each row of the
            data), or the name of a numeric column of the data.
        level : float, optional
            Confidence level; 0.95 when not given, or that of the keyword front door.
        method : {"delta", "simulation", "bootstrap"}
            Gradients; draws from the normal distribution of the estimates; or refits of the same model to new
            responses (``boot="parametric"``) or to groups drawn with replacement (``boot="clusters"``, `cluster`
            names the grouping factor).
        n_sim, n_boot : int
        rng_seed : int, optional
            Seed of the draws; 0 when not given, so that results can be repeated.
        n_jobs : int
            Processes of the bootstrap.
        ddf : {None, "normal", "satterthwaite", "kenward-roger", "residual"}
            Degrees of freedom of each estimate; None is `default_ddf` of the fit. With draws the limits are
            percentiles that are wider by as much as those of t are (Hesterberg 2015, Am. Stat. 69:371).
        random : {"zero", "integrate", "conditional"}, or list of grouping factors
            Random effects at zero (also called "broad": inference about the population of groups); averaged over their
            distribution; at their conditional modes ("narrow": inference about the groups of the data, whose effects
            are estimated with the joint covariance of Henderson's equations); or at their modes for the named factors
            and zero for the others (intermediate inference).
        adapter : ModelAdapter or its class, optional
            For fits of other packages.
        vcov : str or array of shape (p, p), optional
            Another covariance of the fixed effects: an array, or the name of a robust one, as `cov_params` takes it.
        cluster : str, optional
            Clusters of the robust covariance, or of the bootstrap.
        boot : {"parametric", "clusters"}
        component : str, optional
            One linear predictor of a model with further parts: "conditional" for the mean of its part,
            "zero_inflation" for the probability of a zero of its own, "dispersion". Without it means are those of the
            response, zeros included.

        Returns
        -------
        Margins
        """
        return cls(fit, "linear", **options)

    @classmethod
    @carries(response)
    @_signature_of_session
    def linear_scale(cls, fit: Any, **options: Unpack[SessionOptions]) -> Self:
        """`response` by its older name."""
        return cls(fit, "linear", **options)

    @classmethod
    @carries(response)
    @_signature_of_session
    def log_scale(cls, fit: Any, **options: Unpack[SessionOptions]) -> Self:
        """A session on the log scale: logarithms of means are averaged and compared, and shown by exp.

        Predictions are geometric means, contrasts and slopes ratios. The response of a linear mixed model is taken to
        be a logarithm already.
        """
        return cls(fit, "log", **options)

    @classmethod
    @carries(response)
    @_signature_of_session
    def logit_scale(cls, fit: Any, **options: Unpack[SessionOptions]) -> Self:
        """A session on the logit scale: logits of means are averaged and compared.

        Predictions are shown as probabilities, contrasts and slopes as odds ratios. The response of a linear mixed
        model is taken to be a logit already.
        """
        return cls(fit, "logit", **options)

    @classmethod
    @carries(response)
    @_signature_of_session
    def link(cls, fit: Any, **options: Unpack[SessionOptions]) -> Self:
        """A session on the scale of the linear predictor."""
        return cls(fit, "link", **options)

    @classmethod
    @carries(response)
    @_signature_of_session
    def link_scale(cls, fit: Any, **options: Unpack[SessionOptions]) -> Self:
        """`link` by its older name."""
        return cls(fit, "link", **options)
