"""Every reference formula gives the columns, the groups and the refusals of lme4's lFormula()."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from reference_data import REFERENCE, load_reference

from lme4py.design.build import lformula
from lme4py.design.design import Design
from lme4py.errors import IdentificationWarning, Lme4Error
from lme4py.fits.linear.steps import lmm_criterion

CASES = json.loads((REFERENCE / "formulas.json").read_text(encoding="utf-8"))["formulas"]

# The same arithmetic in another order: sums of a few thousand terms agree to about 1e-13.
# Columns of poly() and contr.poly sum to zero up to rounding errors, so an absolute floor is needed as well.
CLOSE: dict[str, float] = {"rel": 1e-10, "abs": 1e-10}


def build(case: dict[str, Any]) -> Design:
    return lformula(case["formula"], load_reference(case["data"]), contrasts=case["contrasts"])


def r_name(name: str) -> str:
    """The name that R gives to a column: ``arm[T.B]:late[T.True]`` is ``armB:lateTRUE``."""
    name = re.sub(r"\[(?:T\.)?(.+?)\](?=:|$)", r"\1", name)
    return {"Intercept": "(Intercept)"}.get(name, re.sub(r"(True|False)(?=:|$)", lambda m: m[0].upper(), name))


def r_names(names: tuple[str, ...], case: dict[str, Any]) -> list[str]:
    if "contr.sum" in case["formula"]:  # R numbers these columns, we name their levels
        names = tuple(re.sub(r"\[S\.(.)\]", lambda m: str("ABC".index(m[1]) + 1), name) for name in names)
    return [r_name(name) for name in names]


# Columns that R drops too are left out with a warning, of which one test is about.
pytestmark = pytest.mark.filterwarnings("ignore::lme4py.RankWarning")


def as_list(value: Any) -> list[Any]:
    return [] if value is None else value


@pytest.fixture(params=[c for c in CASES if "error" not in c], ids=lambda c: f"{c['id']} {c['formula']}")
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


@pytest.mark.parametrize("refused", [c for c in CASES if "error" in c], ids=lambda c: f"{c['id']} {c['formula']}")
def test_r_refuses_too(refused: dict[str, Any]) -> None:
    # As many random effects as rows are a matter of the second step, which looks at what the variances do: it refuses,
    # or says which of them the design determines.
    with pytest.raises((Lme4Error, IdentificationWarning)):
        lmm_criterion(build(refused))


def test_design_is_that_of_r(case: dict[str, Any]) -> None:
    design = build(case)
    check_fixed(design, case)
    check_terms(design, case)
    check_zt(design, case)


def check_fixed(design: Design, case: dict[str, Any]) -> None:
    X = case["X"]
    assert design.n_obs == case["nobs"]
    assert design.y.sum() == pytest.approx(case["y_sum"], **CLOSE)
    assert (design.offset is None) == (case["offset_sum"] is None)
    if design.offset is not None:
        assert design.offset.sum() == pytest.approx(case["offset_sum"], **CLOSE)
    assert r_names(design.x_names, case) == X["colnames"]
    assert r_names(design.dropped, case) == as_list(X["dropped"])
    assert list(design.assign) == X["assign"]
    assert design.X.sum(axis=0) == pytest.approx(np.array(X["col_sums"]), **CLOSE)
    assert (design.X**2).sum(axis=0) == pytest.approx(np.array(X["col_sumsq"]), **CLOSE)
    assert design.X[1] == pytest.approx(np.array(X["row_2"]), **CLOSE)
    assert design.X[-1] == pytest.approx(np.array(X["last_row"]), **CLOSE)


def check_terms(design: Design, case: dict[str, Any]) -> None:
    assert design.n_theta == case["n_theta"]
    assert len(design.terms) == len(case["terms"])
    for term, expected in zip(design.terms, case["terms"], strict=True):
        assert term.group == expected["group"]
        assert r_names(term.columns, case) == expected["columns"]
        assert term.n_levels == expected["nlevels"]
        assert [str(level) for level in term.levels[:4]] == expected["first_levels"]


def check_zt(design: Design, case: dict[str, Any]) -> None:
    Zt, expected = design.Zt, case["Zt"]
    row_sums = np.asarray(Zt.sum(axis=1)).ravel()
    assert list(Zt.shape) == expected["dim"]
    assert Zt.nnz == expected["nnz"]
    assert Zt.sum() == pytest.approx(expected["sum"], **CLOSE)
    assert (Zt.data**2).sum() == pytest.approx(expected["sumsq"], **CLOSE)
    head, tail = expected["row_sums_head"], expected["row_sums_tail"]
    assert row_sums[: len(head)] == pytest.approx(np.array(head), **CLOSE)
    assert row_sums[-len(tail) :] == pytest.approx(np.array(tail), **CLOSE)
