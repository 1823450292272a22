"""What inference asks of the engine's side of a fit, whatever kind of model it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

from lme4py.errors import OptionError
from lme4py.fits.groups import without_level
from lme4py.fits.refuse import GENERALISED, refuse, refuse_residual
from lme4py.fits.rows.clusters import home_of_levels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lme4py.data.frame import Frame
    from lme4py.design.design import Design
    from lme4py.engine.linear.problem import Problem
    from lme4py.families.response import ResponseData
    from lme4py.fits.answers.draws import Draws
    from lme4py.fits.answers.holding import HeldModel, Minimum
    from lme4py.fits.answers.joint import JointVariance
    from lme4py.fits.answers.many import Inferences, Many, UnitEstimate
    from lme4py.fits.answers.noise import Noise
    from lme4py.fits.answers.null import Null
    from lme4py.fits.answers.objective import Objective
    from lme4py.fits.answers.working import WorkingModel
    from lme4py.fits.base import Fit
    from lme4py.fits.derived import DerivedNumber
    from lme4py.fits.method import Method
    from lme4py.fits.parameters import KenwardRogerParts, Parameter, VarianceDerivatives, VarianceInformation
    from lme4py.fits.rows.arrays import RowArrays
    from lme4py.fits.rows.clusters import ClusterChoice, Clusters, RobustType
    from lme4py.fits.truth import Truth
    from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["ConeProblem", "Model"]


class ConeProblem(NamedTuple):
    """A linear model whose information weighs the cones of a test on the boundary."""

    problem: Problem
    reml: bool
    scale_is_known: bool


class Model(ABC):
    """The engine's side of a fit.

    What only one kind of model has is a method that refuses by name unless a subclass has it.

    Parameters
    ----------
    fit : Fit
    """

    fit: Fit

    @abstractmethod
    def __init__(self, fit: Any) -> None: ...

    # --- covariances ------------------------------------------------------------------------------------------------

    @abstractmethod
    def joint_variance(self, expected: bool = False, beside: bool = False) -> JointVariance:
        """The joint covariance of the errors of coefficients and conditional modes.

        The fixed effects have `fit.vcov`, robust where the fit was asked for that; the conditional modes given the
        fixed effects vary as the model says.

        Parameters
        ----------
        expected : bool
            The model's own covariance of the fixed effects; for generalised models with the expected weights, and the
            fixed effects of the working model (X'V^-1X)^-1.
        beside : bool
            Of generalised models with one predictor: the modes move with the parameters of the distribution too, whose
            errors follow those of the coefficients.

        Returns
        -------
        JointVariance
        """

    def predictor_variance(self, rows: RowArrays) -> FloatArray:
        """Variance of the errors of linear predictors with conditional modes, shape (n,); unknown groups left out.

        Parameters
        ----------
        rows : RowArrays
            Complete rows.
        """
        return self.joint_variance().variance(rows)

    def hat_values(self) -> FloatArray:
        """Derivative of the fitted value of each row in its response, shape (n,)."""
        joint = self.joint_variance(expected=True)
        return joint.w * joint.training() / joint.scale

    def noise(self, rows: RowArrays, whole: BoolArray, weights: FloatArray | None, eta: FloatArray) -> Noise:
        """Residual variances of rows of a model of normal responses.

        Parameters
        ----------
        rows : RowArrays
            Complete ones.
        whole : ndarray of bool
            Which rows of `rows.frame` these are.
        weights : ndarray, shape (n,), or None
            Prior weights of these rows.
        eta : ndarray, shape (n,)
            Their linear predictors.
        """
        refuse("a residual variance is", "there is none in generalised models")

    def information(self, columns: FloatArray) -> FloatArray:
        """Information of coefficients of any columns, and of thresholds or coefficients of further parts behind them.

        Parameters
        ----------
        columns : ndarray, shape (D n, c)
            Of the rows used, linear predictors with random effects below each other.

        Returns
        -------
        ndarray, shape (c + d, c + d)
            At the modes of the fit.
        """
        refuse("the information of all coefficients is", "fit the model with independent residuals")

    @abstractmethod
    def working_model(self) -> WorkingModel:
        """The linear model with the variances of the fit.

        Returns
        -------
        WorkingModel
            For a generalised model that of the working response at the conditional modes.
        """

    def in_blocks(self) -> Fit:
        """The same fit by covariances of whole groups where the engine has something sparser; else the fit itself."""
        return self.fit

    @abstractmethod
    def own_vcov(self) -> FloatArray:
        """Covariance of beta by the model, also where the fit was asked for a robust one, shape (p, p)."""

    def mean_square(self) -> float:
        """Mean square of the residuals in units of a covariance of the rows that is known.

        Raises
        ------
        OptionError
            The model estimates its residual variance, or has none.
        """
        raise OptionError(
            "ddf='knapp-hartung' is for models whose sampling variances are known, as in lmer(..., weights='1/vi', "
            "sigma=1); use 'satterthwaite' or 'kenward-roger'."
        )

    @abstractmethod
    def conditional_covariances(self, include_fixed: bool = False) -> tuple[FloatArray, ...]:
        """Covariance matrices of the random effects of every level given the data.

        Parameters
        ----------
        include_fixed : bool
            Add the uncertainty of the fixed effects (Stata's `reses`); False takes them as known (lme4's `condVar`).

        Returns
        -------
        tuple of ndarray, each (J, k, k)
            One per term of the design; sigma^2 times the diagonal blocks of Lambda M^-1 Lambda' (Bates et al. 2015,
            eq. 58). With the fixed effects P_j V_beta P_j' more, P = Lambda M^-1 Lambda'Z'WX.
        """

    def level_covariances(self, include_fixed: bool, exact: bool) -> tuple[tuple[FloatArray, ...], str]:
        """The same where probes may stand for a factor, and a sentence on how well they are known, or "".

        Parameters
        ----------
        include_fixed : bool
        exact : bool
            Of crossed effects that were solved iteratively: by a factor in tiles.
        """
        return self.conditional_covariances(include_fixed=include_fixed), ""

    def exact_criterion(self) -> float:
        """The criterion of a linear model at the estimates, without any Monte-Carlo error."""
        refuse("the exact criterion is", "see log_likelihood, and how the integral was approximated")

    def threshold_test(self, term: int, score: bool) -> tuple[float, int, str]:
        """Whether a term of the location of ordered categories has the same effect on all thresholds.

        Parameters
        ----------
        term : int
            Its number, from 1.
        score : bool
            By the score, without a fit of the larger model.

        Returns
        -------
        tuple of (float, int, str)
            Chi-squared, degrees of freedom, and why there is none, or "".
        """
        refuse("tests of effects on thresholds are", "compare models by lrtest()")

    @abstractmethod
    def variance_information(self) -> VarianceInformation:
        """Observed information of all parameters at the optimum."""

    @abstractmethod
    def parameter_vcov(self) -> FloatArray:
        """Covariance of (theta, beta, parameters of the distribution), theta on the user's scale.

        The last ones are log sigma^2 or the log dispersion, or the thresholds of ordered categories.
        """

    def variance_derivatives(self) -> VarianceDerivatives:
        """Derivatives of the covariance of beta in the variance parameters, for Satterthwaite's degrees of freedom."""
        refuse("Satterthwaite's degrees of freedom are", "use ddf='normal' or 'residual'")

    def kenward_roger(self) -> KenwardRogerParts:
        """The parts of Kenward and Roger's adjustment."""
        refuse("Kenward and Roger's adjustment is", "use ddf='normal' or 'residual'")

    def predictor_gradient(self, derivatives: VarianceDerivatives, rows: RowArrays) -> FloatArray:
        """Derivatives of the variance of linear predictors with modes in the variance parameters, shape (n, s).

        Parameters
        ----------
        derivatives : VarianceDerivatives
        rows : RowArrays

        Returns
        -------
        ndarray
            The last column is unused.
        """
        refuse("Satterthwaite's degrees of freedom are", "use ddf='normal' or 'residual'")

    # --- robust covariances -----------------------------------------------------------------------------------------

    @abstractmethod
    def robust_method(self, type: RobustType, cluster: ClusterChoice) -> Method:
        """Cluster-robust covariance of the fixed effects with its degrees of freedom.

        Parameters
        ----------
        type : {"CR0", "CR1", "CR2", "CR3"}
        cluster : str, array of shape (n,), or None
            A grouping factor, or labels of the rows; None takes the outermost grouping factor.
        """

    @abstractmethod
    def with_robust(self, type: RobustType, cluster: ClusterChoice) -> Fit:
        """The fit with a robust covariance of all that has one.

        Parameters
        ----------
        type, cluster
            As `robust_method`.
        """

    def robust_parameters(self, type: RobustType, cluster: ClusterChoice) -> FloatArray:
        """Cluster-robust covariance of all parameters, in the places of ``parameter_vcov``.

        Parameters
        ----------
        type, cluster
            As `robust_method`.
        """
        refuse("a robust covariance of variances is", "use a profile or a bootstrap for them", GENERALISED)

    def fixed_in_groups(self) -> list[FloatArray]:
        """Z'V^-1X by grouping factor, each (k J, p), in the engine's columns, V relative to sigma^2."""
        refuse("Satterthwaite's degrees of freedom are", "use ddf='normal' or 'residual'")

    # --- other fits -------------------------------------------------------------------------------------------------

    @abstractmethod
    def refit(self, y: Any, compare: bool = True) -> Fit:
        """The same model fitted to a new response.

        Parameters
        ----------
        y : array_like, shape (n,) or (n, 2)
        compare : bool
            False for one of many refits: nothing is said about how good the integral is, and fewer starts are tried.
        """

    @abstractmethod
    def like(
        self, design: Design, data: ResponseData | None = None, start: FloatArray | None = None, thorough: bool = True
    ) -> Fit:
        """The model of another design, fitted as this one was.

        Parameters
        ----------
        design : Design
        data : ResponseData, optional
            The response of a generalised model; that of the fit when not given.
        start : ndarray, shape (m,), optional
            theta on the user's scale.
        thorough : bool
            False for one of many similar fits.
        """

    @abstractmethod
    def by_maximum_likelihood(self) -> Fit:
        """The maximum-likelihood fit of the same model; the fit itself when it is one."""

    @abstractmethod
    def simulator(self, kept: Sequence[int] | None = ()) -> Draws:
        """What draws responses.

        Parameters
        ----------
        kept : sequence of int, or None
            Terms that keep their conditional modes; new effects are drawn for the others. None keeps all of them.
        """

    def resampler(self) -> Draws:
        """What draws responses from the residuals and modes themselves (semiparametric)."""
        refuse("type='semiparametric' is", "use type='parametric' or 'cases'")

    def with_truth(self, truth: Truth) -> Fit:
        """The fit with other parameters, as what responses are simulated from; no estimate of anything.

        Parameters
        ----------
        truth : Truth
        """
        refuse_residual("simulation with other parameters is", "simulate from the fit as it is")

    @abstractmethod
    def on_rows(self, design: Design, frame: Frame) -> Fit:
        """The fit with other rows, as what responses are simulated from.

        Parameters
        ----------
        design : Design
            As `lme4py.design.replay.replayed` makes it, with all levels kept.
        frame : Frame
            The data that it is made of.
        """

    # --- without rows -----------------------------------------------------------------------------------------------

    @abstractmethod
    def without_rows(self) -> Fit:
        """The fit with `DroppedRows` in the place of everything that grows with the number of rows."""

    @abstractmethod
    def outlives_rows(self) -> list[DerivedNumber[Any, Any]]:
        """Derived numbers that a fit without rows must have from the one with them."""

    @abstractmethod
    def objective(self) -> Objective:
        """The criterion in scaled parameters, for optimisers of every make."""

    # --- many responses ---------------------------------------------------------------------------------------------

    @abstractmethod
    def together(self) -> int:
        """Responses whose estimates are made in one task."""

    @abstractmethod
    def estimates(self, Y: FloatArray) -> Many:
        """Estimates for many responses, all at once where the model allows it.

        Parameters
        ----------
        Y : ndarray, shape (n, B)
            As a simulator draws them.
        """

    @abstractmethod
    def inferences(self, Y: FloatArray) -> Inferences:
        """What tests need of the fits to many responses, all at once where the model allows it.

        Parameters
        ----------
        Y : ndarray, shape (n, B)
            As a simulator draws them.
        """

    @abstractmethod
    def refits(self, Y: FloatArray) -> Iterator[Callable[[], Fit]]:
        """Makers of the fits to many responses.

        Parameters
        ----------
        Y : ndarray, shape (n, B)
        """

    @abstractmethod
    def estimates_of_design(self, design: Design) -> Many:
        """Estimates of the model of another design, as those of one response.

        Parameters
        ----------
        design : Design
        """

    @abstractmethod
    def fit_of_design(self, design: Design) -> Fit:
        """The fit of another design, as one of many.

        Parameters
        ----------
        design : Design
        """

    # --- the profile ------------------------------------------------------------------------------------------------

    def residual_parameters(self) -> tuple[Parameter, ...]:
        """Parameters of a residual structure and of variance functions; none where residuals have one variance."""
        return ()

    def residual_limits(self, z: float) -> list[tuple[float, float, float]]:
        """Standard errors and Wald limits, z errors away, of `Fit.residual_values`.

        Parameters
        ----------
        z : float
        """
        return []

    @property
    def limit_model(self) -> str:
        """What the model is where its dispersion is at the end of its range; "" without such an end."""
        return ""

    @abstractmethod
    def with_likelihood(self) -> Fit:
        """A fit whose criterion is minimised over all parameters: this one, or one with a better approximation."""

    @abstractmethod
    def with_profile(self) -> Fit:
        """The fit whose likelihood is profiled: of the same model, by maximum likelihood.

        Raises
        ------
        OptionError
            There is no profile.
        """

    @abstractmethod
    def holding(self, parameter: Parameter, own: bool = False) -> HeldModel:
        """The likelihood with one parameter held.

        Parameters
        ----------
        parameter : Parameter
        own : bool
            The criterion of the fit, also where that is the REML criterion.
        """

    @abstractmethod
    def from_minimum(self, holding: HeldModel, minimum: Minimum) -> Fit:
        """The fit from a better point that a profile has found.

        Parameters
        ----------
        holding : HeldModel
        minimum : Minimum
        """

    @abstractmethod
    def boundary_parameter(self, term: int, column: int) -> Parameter:
        """The parameter that measures how far a standard deviation is from zero.

        Parameters
        ----------
        term, column : int
        """

    # --- influence --------------------------------------------------------------------------------------------------

    # The first one keeps the variances, and is the usual one.
    influence_methods: tuple[str, ...]

    def independent_units(self, units: Clusters) -> bool:
        """Whether no two groups of rows are correlated by the model.

        Parameters
        ----------
        units : Clusters
        """
        return home_of_levels(self.fit.design, units) is not None

    def fit_without(self, codes: IntArray, unit: int) -> Fit:
        """The model fitted again, as one of many, without the rows of one unit.

        Parameters
        ----------
        codes : ndarray of int, shape (n,)
            Unit of each row.
        unit : int
        """
        design = without_level(self.fit.design, codes, unit)
        start = None if self.fit.certificate.is_singular else self.fit.theta
        return self.like(design, design.response, start, thorough=False)

    def deletions(
        self, ok: BoolArray, whole_levels: bool, full: bool
    ) -> tuple[dict[str, FloatArray], BoolArray] | None:
        """Estimates without each level of the only grouping factor, or each row, all at once; None one by one.

        Parameters
        ----------
        ok : ndarray of bool, shape (U,)
            Units without which the fixed effects can be estimated.
        whole_levels : bool
            The units are levels, not rows.
        full : bool
            False takes one Newton step of the variances.

        Returns
        -------
        tuple or None
            `lme4py.fits.answers.many.unit_table`, filled, and which units have estimates.
        """
        return None

    def newton_step(self, design: Design) -> UnitEstimate:
        """One Newton step of the variances for another design, and everything else at the new variances.

        Parameters
        ----------
        design : Design
        """
        refuse("a Newton step of the variances is", "use method='refit'")

    # --- likelihood ratios ------------------------------------------------------------------------------------------

    # Simulations of a likelihood ratio where no number is asked for.
    n_simulations: int
    # Simulated ratios that are less below the observed one than this are as large.
    tie: float

    @abstractmethod
    def without_random(self, result: Any = None) -> Null:
        """The model without random effects, by the method of the fit.

        Parameters
        ----------
        result : object, optional
            A fit of statsmodels with other fixed effects.
        """

    @abstractmethod
    def cone_problem(self, restricted: Fit | Null) -> ConeProblem:
        """The linear model whose information weighs the cones of a test on the boundary.

        Parameters
        ----------
        restricted : Fit or Null
            At whose estimates.
        """

    @abstractmethod
    def responses_at_once(self) -> int:
        """How many responses are worth drawing at a time."""

    @abstractmethod
    def criteria(self, Y: FloatArray, why: list[str]) -> FloatArray:
        """Minima of the criterion for responses (n, B), as `Null.criteria`.

        Parameters
        ----------
        Y : ndarray, shape (n, B)
        why : list of str
        """

    def exact_ratios(self, n_sim: int, seed: int | None) -> FloatArray:
        """Draws of the likelihood ratio of the only variance against zero, shape (n_sim,).

        Parameters
        ----------
        n_sim : int
        seed : int or None
        """
        raise OptionError(
            "method='exact' is the distribution of a linear mixed model; use method='asymptotic' or 'bootstrap'."
        )
