"""Models side by side: fits of this package and of statsmodels, and every way to write the table."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

import lme4py
from lme4py import OptionError, compare


@pytest.fixture(scope="module")
def sleep():
    return lme4py.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def slopes(sleep):
    return lme4py.lmer("Reaction ~ Days + (Days | Subject)", sleep)


@pytest.fixture(scope="module")
def use():
    return lme4py.load_dataset("Contraception").assign(y=lambda d: (d["use"] == "Y") * 1)


@pytest.fixture(scope="module")
def logit(use):
    return lme4py.glmer("use ~ age + urban + (1 | district)", use, "binomial")


def test_fits_of_statsmodels_stand_beside_ours(sleep, slopes):
    ols = smf.ols("Reaction ~ Days", sleep).fit()
    mixedlm = smf.mixedlm("Reaction ~ Days", sleep, groups="Subject", re_formula="~Days").fit()
    keyword = lme4py.mixed(sleep, "Reaction", ["Days"], "Subject", ["Days"])
    found = compare(ols, slopes, keyword, mixedlm, names=["ols", "lmer", "mixed", "sm"]).to_frame(wide=False)
    table = found.pivot(index="term", columns="model", values="estimate")
    error = found.pivot(index="term", columns="model", values="std_error")
    assert table.loc["Days", "ols"] == ols.params["Days"]
    assert error.loc["Days", "ols"] == ols.bse["Days"]
    # One model, fitted by two programs: statsmodels stops at about five digits.
    for term in ("Intercept", "Days", "SD (Intercept | Subject)", "SD (Days | Subject)", "SD (Residual)"):
        assert table.loc[term, ["lmer", "mixed"]].nunique() == 1
        assert table.loc[term, "sm"] == pytest.approx(table.loc[term, "lmer"], rel=1e-3)
    assert table.loc["Levels of Subject", "sm"] == 18
    assert table.loc["R² (marginal)", "ols"] == pytest.approx(ols.rsquared)
    assert np.isnan(table.loc["SD (Days | Subject)", "ols"])


@pytest.mark.parametrize(
    "fit",
    [
        lambda d: smf.logit("y ~ age + C(urban)", d).fit(disp=0),
        lambda d: smf.glm("y ~ age + C(urban)", d, family=sm.families.Binomial()).fit(),
        lambda d: sm.Logit(d["y"], sm.add_constant((d[["age"]]).assign(urban=(d["urban"] == "Y") * 1.0))).fit(disp=0),
    ],
)
def test_exponentiated_coefficients(use, logit, fit):
    other = fit(use)
    found = compare(other, logit, exponentiate=True, ci=True).to_frame(wide=False)
    ours = found[(found["model"] == "(2)") & (found["part"] == "fixed")].set_index("term")
    np.testing.assert_allclose(
        ours[["estimate", "ci_lower", "ci_upper"]], logit.odds_ratios().loc[ours.index], rtol=1e-12
    )
    tidy = logit.tidy("normal", "fixed", exponentiate=True).set_index("term")["std_error"]
    np.testing.assert_allclose(ours["std_error"], tidy.loc[ours.index], rtol=1e-12)
    theirs = found[(found["model"] == "(1)") & (found["part"] == "fixed")]
    np.testing.assert_allclose(theirs["estimate"], np.exp(other.params), rtol=1e-12)
    np.testing.assert_allclose(theirs[["ci_lower", "ci_upper"]], np.exp(other.conf_int()), rtol=1e-12)
    np.testing.assert_allclose(theirs["p_value"], other.pvalues, rtol=1e-12)


def test_limits_stars_and_p_values_are_those_of_the_model(slopes):
    found = compare(slopes, ci=True, p=True, stars=True, alpha=0.1)
    lower, upper = slopes.conf_int(0.1).loc["Days"]
    text = str(found)
    assert f"[{lower:.3f}, {upper:.3f}]" in text
    assert "10.467*** (1.546)" in text
    assert "p = 3.3e-06" in text
    assert "In brackets 90% confidence limits." in text
    row = found.to_frame(wide=False).set_index("term").loc["Days"]
    assert row["p_value"] == slopes.pvalues["Days"]
    # No stars without being asked, and none where there is no evidence.
    assert "*" not in str(compare(slopes))


def test_robust_errors(slopes):
    found = compare(slopes, vcov="CR2").to_frame(wide=False).set_index("term")
    assert found.loc["Days", "std_error"] == slopes.coef_table(vcov="CR2").loc["Days", "std_error"]
    assert "cluster-robust (CR2)" in str(compare(slopes, vcov="CR2"))


def test_what_is_refused(sleep, slopes):
    ols = smf.ols("Reaction ~ Days", sleep).fit()
    with pytest.raises(OptionError, match="log or logit link"):
        compare(slopes, ols, exponentiate=True)
    with pytest.raises(OptionError, match="cov_type="):
        compare(ols, vcov="CR2")
    with pytest.raises(OptionError, match="or of statsmodels"):
        compare(slopes, sleep)


def test_latex_stays_within_the_text(slopes, logit):
    text = compare(slopes, logit, ci=True, p=True, stars=True).to_latex(caption="Two models", label="tab:two")
    assert r"\begin{adjustbox}{max width=\linewidth}" in text
    assert r"$10.467$*** ($1.546$)" in text
    assert re.search(r"\[\$7\.\d+\$, \$13\.\d+\$\]", text)
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text).group(1)
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert {line.count(" & ") for line in rows} == {len(columns) - 1}


def test_word_and_excel_hold_the_table(tmp_path, slopes):
    docx, openpyxl = pytest.importorskip("docx"), pytest.importorskip("openpyxl")
    found = compare(slopes, names=["slopes"], ci=True)
    found.to_word(tmp_path / "table.docx")
    document = docx.Document(str(tmp_path / "table.docx"))
    cells = [[cell.text for cell in row.cells] for row in document.tables[0].rows]
    assert cells == [list(found.table.columns), *map(list, found.table.rows)]
    assert found.notes[0] in [paragraph.text for paragraph in document.paragraphs]
    found.to_excel(tmp_path / "table.xlsx")
    book = openpyxl.load_workbook(tmp_path / "table.xlsx")
    assert book.sheetnames == ["Table", "Numbers"]
    numbers = list(book["Numbers"].values)
    assert numbers[0] == tuple(found.to_frame(wide=False).columns)
    assert numbers[2][3] == pytest.approx(slopes.params["Days"], rel=1e-15)
    assert book["Table"]["A3"].value == "Intercept"
    with pytest.raises(OptionError, match=r"writes \.docx files"):
        found.to_word(tmp_path / "table.doc")
    with pytest.raises(OptionError, match="there is no directory"):
        found.to_excel(tmp_path / "nowhere" / "table.xlsx")


def test_office_packages_are_named_where_they_are_missing(tmp_path, slopes, monkeypatch):
    monkeypatch.setitem(sys.modules, "docx", None)
    with pytest.raises(lme4py.Lme4Error, match=r"needs python-docx.*lme4py\[office\]"):
        compare(slopes).to_word(tmp_path / "table.docx")
