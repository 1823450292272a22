"""From keywords to a design: the formula, the data it is evaluated on, and the conventions of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lme4py.data.frame import Frame, read_frame
from lme4py.data.hints import data_from_text
from lme4py.data.sources import find_source, is_path
from lme4py.data.sources.address import shown_address
from lme4py.design.build import lformula
from lme4py.design.design import Design
from lme4py.design.names import with_stata_names
from lme4py.errors import DesignError, OptionError
from lme4py.families.base import Family
from lme4py.families.registry import response_family
from lme4py.fits.conventions import Conventions
from lme4py.fits.rows.clusters import independent_clusters
from lme4py.fits.survey.weights import SurveyRequest
from lme4py.keyword.formula import chains_of, fixed_part, random_part
from lme4py.keyword.names import term
from lme4py.keyword.nesting import crossed_hint, nesting_notes
from lme4py.keyword.options import conventions
from lme4py.keyword.response import response_part

__all__ = ["KeywordModel"]


@dataclass(frozen=True)
class KeywordModel:
    """What all functions of the keyword front door take, as the user gave it.

    Attributes
    ----------
    data : data frame
    y, x_fixed, group, x_random : column names
    cov_type : str
    crossed : bool
    offset, weights, trials : None, column name, or array (`trials` also a number)
    alpha, ddf, vce : conventions of the results
    levels : categories of an ordinal response, in order
    pweights, pwscale, survey : sampling weights, as the functions take them
    """

    data: Any
    y: Any
    x_fixed: Any
    group: Any
    x_random: Any = None
    cov_type: Any = "unstructured"
    crossed: Any = False
    offset: Any = None
    weights: Any = None
    trials: Any = None
    alpha: Any = 0.05
    ddf: Any = None
    vce: Any = None
    levels: Any = None
    pweights: Any = None
    pwscale: Any = None
    survey: Any = None

    @property
    def request(self) -> SurveyRequest | None:
        """The sampling weights; None without any.

        Raises
        ------
        OptionError
            Weights of another kind, or options that do not go with them.
        """
        given = self.pweights
        if isinstance(given, Mapping):
            if self.weights is not None:
                raise OptionError("`weights` beside `pweights`: give the weights of rows as pweights={None: ...}.")
            if self.vce is not None:
                raise OptionError(
                    f"vce={self.vce!r} beside `pweights`, whose standard errors are robust anyway; leave it out, and "
                    "name units that are coarser than the groups by survey={'psu': ...}."
                )
            rows = given.get(None)
            levels = {name: value for name, value in given.items() if name is not None}
            if not levels:
                raise OptionError(
                    f"`pweights` has weights of rows only; name those of the groups too, "
                    f"{{{str(self.group)!r}: ..., None: {rows!r}}}, as a column of ones where all are equal."
                )
            return SurveyRequest.read(levels, rows, self.pwscale, self.survey, "pweights")
        return SurveyRequest.read(given, None, self.pwscale, self.survey, "pweights")

    def design(self, family: str | Family | None) -> tuple[Design, Conventions]:
        """The design of the formula that the keywords mean, and the conventions of its results.

        Parameters
        ----------
        family : str, Family or None
            The response distribution, or its name; None for a linear mixed model.
        """
        if isinstance(self.data, str) and not is_path(self.data):
            raise OptionError(
                f"`data` is the text {shown_address(self.data)!r}; the data come first, as a data frame, such as "
                f"{data_from_text(shown_address(self.data))}."
            )
        frame = read_frame(find_source(self.data, "memory")[0])
        request = self.request
        chosen = conventions(self.alpha, self.ddf, self.vce, family is None, frame)
        chains = chains_of(self.group, self.crossed, frame)
        offset = _offset(self.offset, frame)
        left, random, frame = self.formula(None if family is None else response_family(family), chains, frame)
        try:
            design = lformula(
                f"{left} + {random}",
                frame,
                weights=self.weights,
                offset=offset,
                family=family,
                levels=self.levels,
                beside=() if request is None else request.nodes(frame.names),
            )
        except DesignError as error:
            raise DesignError(f"{str(error).rstrip('.')}.{crossed_hint(chains)}") from None
        if chosen.vce is not None:
            self._check_clusters(design, chosen)
        if isinstance(offset, str):
            # Shown as lme4 writes it, and still an argument: predict(offset=...) takes its place.
            design = replace(design, formula=f"{left} + offset({offset}) + {random}")
        notes = (*design.notes, *nesting_notes(chains, design))
        return replace(with_stata_names(design), notes=notes), chosen

    def _check_clusters(self, design: Design, chosen: Conventions) -> None:
        """Refuse clusters that are not independent in the model, before any fitting."""
        try:
            independent_clusters(design, chosen.clusters)
        except OptionError as error:
            hint = " For crossed factors name a column of coarser clusters in vce." if self.crossed else ""
            raise OptionError(f"vce={self.vce!r} is not possible: {error}{hint}") from None

    def formula(self, family: Family | None, chains: Sequence[Sequence[str]], frame: Frame) -> tuple[str, str, Frame]:
        """The formula up to the fixed effects, its random effects, and the data it is evaluated on."""
        response, data = response_part(self.y, self.trials, family, frame)
        joint = family is not None and family.is_joint
        random = random_part(chains, self.x_random, self.cov_type, frame, joint)
        return f"{response} ~ {fixed_part(self.x_fixed, frame)}", random, data


def _offset(given: Any, frame: Frame) -> Any:
    """The offset with names as pieces of a formula; one for each category where it is a mapping."""
    if isinstance(given, Mapping):
        return {label: _offset(own, frame) for label, own in given.items()}
    return term(given, frame, "offset") if isinstance(given, str) else given
