"""The frozen result of a model with sampling weights, and what its model does and does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from lme4py.engine.generalised.integrals.integral import IntegralCheck
from lme4py.engine.generalised.integrals.nested_quadrature import Rule, find_nesting
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.generalised.weighted_groups import weighted_rule
from lme4py.errors import OptionError
from lme4py.fits.derived import derived
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.model import GeneralisedModel
from lme4py.fits.generalised.scores import cluster_scores
from lme4py.fits.kinds import register
from lme4py.fits.rows.clusters import independent_clusters, row_sums
from lme4py.linalg.types import FloatArray, IntArray

if TYPE_CHECKING:
    from lme4py.fits.rows.clusters import ClusterChoice, RobustType
    from lme4py.fits.survey.weights import Units

__all__ = ["SurveyFit", "SurveyModel", "refuse_pseudo", "survey_covariance"]


def refuse_pseudo(what: str, instead: str = "standard errors and Wald tests are those of the survey") -> NoReturn:
    """Refuse what a pseudo-likelihood does not have.

    Parameters
    ----------
    what : str
        With its verb.
    instead : str

    Raises
    ------
    OptionError
    """
    raise OptionError(
        f"{what} not there for models with level_weights= or pweights=, whose pseudo-likelihood is no likelihood; "
        f"{instead}."
    )


@dataclass(frozen=True, kw_only=True)
class SurveyFit(GeneralisedFit):
    """A model fitted by weighted pseudo-maximum likelihood.

    Beside those of `GeneralisedFit`, of which `criterion` is -2 pseudo-log-likelihood and the covariances are those of
    the survey:

    Attributes
    ----------
    level_weights : ndarray, shape (J,)
        Of the groups, of two nested factors of the outer ones.
    level_codes : ndarray of int, shape (n,)
        The group of each row.
    units : Units or None
        Primary sampling units; None with replicate weights.
    """

    kind: ClassVar[str] = "mixed model with sampling weights"
    pseudo_likelihood: ClassVar[bool] = True

    level_weights: FloatArray
    level_codes: IntArray
    units: Units | None = None

    def cluster_rule(self, finder: ModeFinder) -> Rule | None:
        """As in `GeneralisedFit`; of two nested factors inner groups count as many times as they stand for."""
        if not self.problem.copies:
            return super().cluster_rule(finder)
        factor = find_nesting(finder.problem)
        outer = 0 if factor is None else factor[0]
        return weighted_rule(finder, self.nAGQ, np.ones(finder.problem.factors[outer].n_levels))

    @derived
    def integral_check(self) -> IntegralCheck:
        """Not made: the groups count differently."""
        return IntegralCheck(self.nAGQ, None, reason="groups have sampling weights; compare with more points (nAGQ=)")


class SurveyModel(GeneralisedModel):
    """What inference asks of a model with sampling weights.

    Parameters
    ----------
    fit : SurveyFit
    """

    fit: SurveyFit

    def robust_parameters(self, type: RobustType, cluster: ClusterChoice) -> FloatArray:
        fit = self.fit
        if type not in ("CR0", "CR1"):
            refuse_pseudo(f"type={type!r} is", "use 'CR0' or 'CR1'")
        clusters = independent_clusters(fit.design, cluster)
        home = np.zeros(fit.level_weights.size, dtype=np.intp)
        home[fit.level_codes] = clusters.codes
        own = row_sums(_weighted_scores(fit), home, clusters.n_clusters)
        count = clusters.n_clusters
        factor = count / (count - 1.0) if type == "CR1" else 1.0
        moves = own @ fit.own_parameter_vcov
        covariance: FloatArray = factor * moves.T @ moves
        return covariance

    def joint_variance(self, expected: bool = False, beside: bool = False) -> NoReturn:
        refuse_pseudo("joint uncertainty of coefficients and random effects is", "leave the random effects out of it")

    def working_model(self) -> NoReturn:
        refuse_pseudo("the working linear model is")

    def refit(self, y: Any, compare: bool = True) -> NoReturn:
        refuse_pseudo("refits to another response are", "call the function that fitted the model with the other data")

    def like(self, *args: Any, **kw: Any) -> NoReturn:
        refuse_pseudo("refits are", "call the function that fitted the model with the other data")

    def fit_of_design(self, design: Any) -> NoReturn:
        self.like()

    def estimates(self, Y: Any) -> NoReturn:
        self.like()

    def inferences(self, Y: Any) -> NoReturn:
        self.like()

    def refits(self, Y: Any) -> NoReturn:
        self.like()

    def estimates_of_design(self, design: Any) -> NoReturn:
        self.like()

    def criteria(self, Y: Any, why: list[str]) -> NoReturn:
        self.like()

    def objective(self) -> NoReturn:
        refuse_pseudo("other optimisers and slices of the criterion are")

    def holding(self, parameter: Any, own: bool = False) -> NoReturn:
        refuse_pseudo("profiles are", "use conf_int(method='wald')")

    def with_profile(self) -> NoReturn:
        self.holding(None)

    def without_random(self, result: Any = None) -> NoReturn:
        refuse_pseudo("likelihood-ratio tests are", "use wald_test()")

    def cone_problem(self, restricted: Any) -> NoReturn:
        self.without_random()

    def with_truth(self, truth: Any) -> NoReturn:
        refuse_pseudo("studies planned from a fit are", "make a model of its parameters with make_model()")

    def on_rows(self, design: Any, frame: Any) -> NoReturn:
        self.with_truth(None)


register(SurveyFit, SurveyModel)


def _weighted_scores(fit: SurveyFit) -> FloatArray:
    """Scores of the groups times their weights, (J, n_parameters)."""
    clusters = independent_clusters(fit.design, None)
    level = np.zeros(clusters.n_clusters, dtype=np.intp)
    level[clusters.codes] = fit.level_codes
    scores: FloatArray = fit.level_weights[:, None] * row_sums(cluster_scores(fit), level, fit.level_weights.size)
    return scores


def survey_covariance(fit: SurveyFit) -> FloatArray:
    """The linearised (sandwich) covariance of all parameters: A^-1 B A^-1.

    With t_c the weighted scores of the primary sampling units of stratum h, in which the share f_h of n_h units was
    sampled, B = sum_h (1 - f_h) n_h / (n_h - 1) sum_c (t_c - mean_h) (t_c - mean_h)' (Binder 1983, Int. Stat. Rev.
    51:279). A is the information of the pseudo-likelihood.

    Parameters
    ----------
    fit : SurveyFit
    """
    units = fit.units
    if units is None:
        refuse_pseudo("linearised standard errors are", "the replicate weights have their own")
    scores = row_sums(_weighted_scores(fit), units.psu, units.strata.size)
    counts = np.bincount(units.strata).astype(np.float64)
    centred = scores - (row_sums(scores, units.strata, counts.size) / counts[:, None])[units.strata]
    factor = np.sqrt((1.0 - units.sampled) * counts / (counts - 1.0))[units.strata]
    moves = (factor[:, None] * centred) @ fit.own_parameter_vcov
    covariance: FloatArray = moves.T @ moves
    return covariance
