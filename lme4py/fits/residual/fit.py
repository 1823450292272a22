"""The frozen result of a linear model with a residual structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lme4py.fits.derived import derived
from lme4py.fits.normal import NormalFit
from lme4py.fits.residual.problem import ResidualProblem
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from lme4py.covariance import NaturalParameter
    from lme4py.design.residual.side import ResidualDesign
    from lme4py.engine.marginal.criterion import MarginalPoint

__all__ = ["ResidualFit"]


@dataclass(frozen=True, kw_only=True)
class ResidualFit(NormalFit):
    """A fitted linear model with correlated or unequal residuals, with random effects or without.

    Beside those of `NormalFit`:

    Attributes
    ----------
    theta : ndarray, shape (m,)
        All covariance parameters, absolute: of the random effects, of the residuals of each stratum, and coefficients
        of the logarithm of the residual standard deviation.
    sigma : float
        Residual standard deviation where the variance function is 1, of the first position where each has an own one.
    fitted : ndarray, shape (n,)
        Fitted values, offset and conditional modes of the random effects included.
    residual : ResidualDesign
    problem : ResidualProblem
        The engine's side.
    par : ndarray, shape (m,)
        Covariance parameters inside.
    hessian : ndarray, shape (m, m)
        Of the criterion in them.
    second_order : bool
        Kenward and Roger's adjustment with second derivatives.
    """

    kind: ClassVar[str] = "linear model with a residual structure"
    fitted: FloatArray
    residual: ResidualDesign
    problem: ResidualProblem
    par: FloatArray
    hessian: FloatArray
    second_order: bool = True

    @property
    def independent_residuals(self) -> bool:
        """False but for a linear model without random effects, which is fitted here too."""
        return not self.residual.text and not self.residual.variance_text

    @property
    def has_fitted_variance(self) -> bool:
        return self.residual.fitted_column is not None

    @property
    def default_ddf(self) -> str:
        """As of other linear models; "normal" where no variance is estimated."""
        return self.conventions.ddf or (super().default_ddf if self.theta.size else "normal")

    @property
    def n_params(self) -> int:
        """Fixed effects and covariance parameters."""
        return self.beta.size + self.theta.size

    @property
    def theta_unit(self) -> float:
        """1: the covariance parameters are absolute."""
        return 1.0

    @property
    def has_residual(self) -> bool:
        """Whether one residual variance, that is estimated, belongs to all rows."""
        return self.residual.has_equal_variances and not self.residual.is_known

    @derived
    def point(self) -> MarginalPoint:
        """The criterion at the optimum."""
        found = self.problem.criterion.evaluate(self.par)
        assert found is not None
        return found

    # --- the residuals ----------------------------------------------------------------------------------------------

    def residual_theta(self, stratum: int) -> FloatArray:
        """theta of the residuals of a stratum on the user's scale.

        Parameters
        ----------
        stratum : int

        Returns
        -------
        ndarray, shape (m_h,)
        """
        return self.theta[self.residual_place(stratum)]

    def residual_place(self, stratum: int) -> slice:
        """Where the residual parameters of a stratum are among `theta`.

        Parameters
        ----------
        stratum : int

        Returns
        -------
        slice
        """
        sizes = [structure.n_theta for structure in self.residual.part.structures]
        start = self.theta.size - len(self.residual.scale_names) - sum(sizes[stratum:])
        return slice(start, start + sizes[stratum])

    def residual_covariance(self, stratum: int = 0) -> FloatArray:
        """Residual covariance of the positions of a grid, shape (k, k), where the variance function is 1.

        Parameters
        ----------
        stratum : int

        Returns
        -------
        ndarray, shape (k, k)
        """
        return self.residual.part.structures[stratum].covariance(self.residual_theta(stratum))

    def residual_estimates(self, stratum: int = 0) -> list[tuple[NaturalParameter, float]]:
        """Standard deviations, correlations, ranges of the residuals.

        Parameters
        ----------
        stratum : int

        Returns
        -------
        list of (NaturalParameter, float)
        """
        structure = self.residual.part.structures[stratum]
        values = structure.natural(self.residual_theta(stratum))
        return list(zip(structure.natural_parameters, values.tolist(), strict=True))

    @property
    def residual_deviations(self) -> list[tuple[str | None, float]]:
        """Residual standard deviations by stratum and position, where the variance function is 1."""
        side = self.residual
        if side.has_one_structure:
            return [(None, self.sigma)]
        found: list[tuple[str | None, float]] = []
        for h, stratum in enumerate(side.strata):
            own = [value for parameter, value in self.residual_estimates(h) if parameter.kind == "sd"]
            labels = side.columns if len(own) > 1 else ("",)
            names = [": ".join(part for part in (stratum, label) if part) for label in labels]
            found += list(zip(names, own, strict=True))
        return found

    @property
    def residual_values(self) -> FloatArray:
        """Standard deviations, correlations, ranges of all strata, then `scale_coefficients`."""
        own = [value for h in range(len(self.residual.strata)) for _, value in self.residual_estimates(h)]
        return np.array([*own, *self.scale_coefficients.tolist()])

    @property
    def scale_coefficients(self) -> FloatArray:
        """Coefficients of the logarithm of the residual standard deviation, shape (r,)."""
        r = len(self.residual.scale_names)
        return self.theta[self.theta.size - r :]

    @derived
    def residual_sd(self) -> FloatArray:
        """Residual standard deviation of each row used, shape (n,)."""
        return self.problem.residual_sd(self.par)
