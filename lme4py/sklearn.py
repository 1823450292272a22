"""Mixed models as estimators of scikit-learn, which this module needs: for pipelines, `GroupKFold`, `clone`.

The data are a data frame with all columns of the formula; the response may be among them, or be given as `y`. Groups
that were not in the fit get the fixed part of a prediction: their random effects add nothing.
"""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise ImportError(
        "lme4py.sklearn needs scikit-learn, which is not installed; run `python -m pip install scikit-learn`."
    ) from None

from lme4py.api import glmer, lmer
from lme4py.errors import DataError, FormulaError, Lme4Warning
from lme4py.families.registry import make_family
from lme4py.linalg.types import FloatArray
from lme4py.results import MEGLMResult, MixedResult

__all__ = ["MixedClassifier", "MixedRegressor"]

_RESPONSE = "y"


class _MixedEstimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share: the data frame of a fit, and predictions."""

    formula: str
    include_random: bool | list[str] | str

    def _formula(self) -> tuple[str, str]:
        """The name of the response, and the formula with it on the left."""
        left, tilde, right = str(self.formula).partition("~")
        if not tilde:
            raise FormulaError(f"the formula {self.formula!r} has no '~'; write it as 'y ~ x + (1 | g)'.")
        name = left.strip() or _RESPONSE
        return name, f"{name} ~{right}"

    def _frame(self, X: Any, y: Any, name: str) -> Any:
        """X as a data frame with the response."""
        frame = _as_frame(X)
        if y is None:
            return frame
        if not name.isidentifier():
            raise DataError(f"`y` cannot take the place of {name!r}; write a plain name left of the tilde.")
        return frame.assign(**{name: np.asarray(y)})

    def _predict(self, X: Any, **options: Any) -> FloatArray:
        check_is_fitted(self, "result_")
        with warnings.catch_warnings():
            # New groups are the rule in cross-validation by groups.
            warnings.filterwarnings("ignore", "groups that are missing or were not in the training data", Lme4Warning)
            found = self.result_.predict(_as_frame(X), include_random=self.include_random, **options)
        return np.asarray(found, dtype=np.float64)

    def _remember(self, X: Any, result: MixedResult | MEGLMResult) -> None:
        columns = list(_as_frame(X).columns)
        self.result_ = result
        self.n_features_in_ = len(columns)
        self.feature_names_in_ = np.array(columns, dtype=object)


class MixedRegressor(RegressorMixin, _MixedEstimator):  # type: ignore[misc]
    """A linear or generalised linear mixed model that predicts means.

    Parameters
    ----------
    formula : str
        As in `lmer`; without a left side the response is `y` of `fit`.
    family : str
        "gaussian" fits a linear mixed model, every other one a generalised one, as in `glmer`.
    link : str, optional
        Of a generalised model.
    reml : bool
        REML or maximum likelihood of a linear mixed model.
    include_random : bool, or list of grouping factors
        As in `predict` of a result.

    Attributes
    ----------
    result_ : MixedResult or MEGLMResult

    Examples
    --------
    >>> from sklearn.model_selection import GroupKFold, cross_val_score
    >>> from lme4py import load_dataset
    >>> data = load_dataset("sleepstudy")
    >>> model = MixedRegressor("Reaction ~ Days + (Days | Subject)")
    >>> X, y = data[["Days", "Subject"]], data["Reaction"]
    >>> cross_val_score(model, X, y, groups=data["Subject"], cv=GroupKFold(6)).shape
    (6,)
    """

    def __init__(
        self,
        formula: str,
        *,
        family: str = "gaussian",
        link: str | None = None,
        reml: bool = True,
        include_random: bool | list[str] | str = True,
    ) -> None:
        self.formula = formula
        self.family = family
        self.link = link
        self.reml = reml
        self.include_random = include_random

    def fit(self, X: Any, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : data frame
        y : array of shape (n,), optional
            The response; a column of X when not given.
        sample_weight : array of shape (n,), optional
            Prior weights.

        Returns
        -------
        MixedRegressor
        """
        name, formula = self._formula()
        frame = self._frame(X, y, name)
        if make_family(self.family, self.link).has_no_link:
            made: MixedResult | MEGLMResult = lmer(formula, frame, reml=self.reml, weights=sample_weight)
        else:
            made = glmer(formula, frame, self.family, link=self.link, weights=sample_weight)
        self._remember(X, made)
        return self

    def predict(self, X: Any) -> FloatArray:
        """Means of rows.

        Parameters
        ----------
        X : data frame

        Returns
        -------
        ndarray, shape (n,)
        """
        return self._predict(X)


class MixedClassifier(ClassifierMixin, _MixedEstimator):  # type: ignore[misc]
    """A binomial mixed model of two classes.

    Parameters
    ----------
    formula : str
        As in `glmer`; without a left side the response is `y` of `fit`.
    link : str
        "logit", "probit", "cloglog", ...
    nAGQ : int
        As in `glmer`.
    include_random : bool, or list of grouping factors
        As in `predict` of a result.

    Attributes
    ----------
    result_ : MEGLMResult
    classes_ : ndarray, shape (2,)
        In ascending order; the model is that of the second one.

    Examples
    --------
    >>> from lme4py import load_dataset
    >>> data = load_dataset("Contraception")
    >>> model = MixedClassifier("~ age + urban + (1 | district)").fit(data, data["use"])
    >>> model.classes_.tolist(), model.predict_proba(data).shape
    (['N', 'Y'], (1934, 2))
    """

    def __init__(
        self,
        formula: str,
        *,
        link: str = "logit",
        nAGQ: int = 1,
        include_random: bool | list[str] | str = True,
    ) -> None:
        self.formula = formula
        self.link = link
        self.nAGQ = nAGQ
        self.include_random = include_random

    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : data frame
        y : array of shape (n,), optional
            Labels of two classes; a column of X when not given.

        Returns
        -------
        MixedClassifier
        """
        name, formula = self._formula()
        frame = self._frame(X, y, name)
        if name not in frame.columns:
            raise DataError(f"the data have no column {name!r}, and `y` is not given.")
        self.classes_, codes = np.unique(np.asarray(frame[name]), return_inverse=True)
        if self.classes_.size != 2:
            raise DataError(
                f"the response has {self.classes_.size} classes, and a binomial model two; lme4py.clmm() is for "
                "ordered ones."
            )
        result = glmer(formula, frame.assign(**{name: codes}), "binomial", link=self.link, nAGQ=self.nAGQ)
        self._remember(X, result)
        return self

    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities of both classes.

        Parameters
        ----------
        X : data frame

        Returns
        -------
        ndarray, shape (n, 2)
        """
        p = self._predict(X)
        return np.column_stack([1.0 - p, p])

    def decision_function(self, X: Any) -> FloatArray:
        """Linear predictors: positive where the second class is the more probable one with a symmetric link.

        Parameters
        ----------
        X : data frame

        Returns
        -------
        ndarray, shape (n,)
        """
        return self._predict(X, type="linear")

    def predict(self, X: Any) -> Any:
        """The more probable class of each row.

        Parameters
        ----------
        X : data frame

        Returns
        -------
        ndarray, shape (n,)
        """
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.5).astype(int)]


def _as_frame(X: Any) -> Any:
    """X as a pandas data frame; arrays have no names of columns and are refused."""
    import pandas as pd

    if isinstance(X, pd.DataFrame):
        return X
    if hasattr(X, "to_pandas"):
        return X.to_pandas()
    raise DataError(
        f"X is of type {type(X).__name__}; give a data frame, whose columns the formula names. In a pipeline call "
        "set_output(transform='pandas') of the steps before."
    )
