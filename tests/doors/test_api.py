"""lmer: options, and what it refuses before fitting."""

from __future__ import annotations

import numpy as np
import pytest

import lme4py
from lme4py.errors import DataError, FormulaError, Lme4Error, OptionError

FORMULA = "Reaction ~ Days + (Days | Subject)"


def test_reml_is_the_default(sleep, sleepstudy):
    ml = lme4py.lmer(FORMULA, sleepstudy, reml=False)
    assert sleep.reml
    assert not ml.reml
    # As R prints them with REML = FALSE.
    assert round(ml.deviance, 4) == 1751.9393
    assert ml.bse.round(3).tolist() == [6.632, 1.502]


def test_modular_steps_give_the_same_fit(sleep, sleepstudy):
    design = lme4py.lformula(FORMULA, sleepstudy)
    criterion = lme4py.lmm_criterion(design)
    optimum = lme4py.optimize_criterion(criterion)
    fit = lme4py.make_fit(design, criterion, optimum)
    assert fit.criterion == sleep.criterion
    assert lme4py.lmm_fit(design).criterion == sleep.criterion
    assert lme4py.MixedResult(fit).summary() == sleep.summary()


def test_start_does_not_matter(sleep, sleepstudy):
    other = lme4py.lmer(FORMULA, sleepstudy, start=[0.3, -0.1, 0.6])
    # Two optimisations that stop at a predicted decrease of about 1e-13.
    assert other.criterion == pytest.approx(sleep.criterion, abs=1e-8)


def test_weights_and_offset_as_names_or_arrays(sleepstudy):
    weights = np.linspace(0.5, 2.0, 180)
    named = lme4py.lmer(FORMULA, sleepstudy.assign(w=weights, o=sleepstudy["Days"] * 2.0), weights="w", offset="o")
    arrays = lme4py.lmer(FORMULA, sleepstudy, weights=weights, offset=sleepstudy["Days"].to_numpy() * 2.0)
    assert named.criterion == arrays.criterion
    plain = lme4py.lmer(FORMULA, sleepstudy, weights=weights)
    # The offset takes 2 per day out of the slope, whatever the variances are.
    assert named.params["Days"] == pytest.approx(plain.params["Days"] - 2.0, abs=1e-6)


def test_contrasts_and_functions_are_passed_on():
    data = lme4py.load_dataset("Machines")
    result = lme4py.lmer("score ~ Machine + (1 | Worker)", data, contrasts={"Machine": "contr.sum"})
    assert result.params["Intercept"] == pytest.approx(data["score"].mean())
    halved = lme4py.lmer(
        "halve(score) ~ Machine + (1 | Worker)", data, functions={"halve": lambda x: np.asarray(x) / 2}
    )
    assert halved.params["Intercept"] == pytest.approx(
        lme4py.lmer("score ~ Machine + (1 | Worker)", data).params["Intercept"] / 2
    )


def test_na_action(sleepstudy):
    holes = sleepstudy.copy()
    holes.loc[[4, 20], "Reaction"] = np.nan
    omit = lme4py.lmer(FORMULA, holes)
    exclude = lme4py.lmer(FORMULA, holes, na_action="exclude")
    assert len(omit.residuals()) == 178
    assert exclude.residuals().index[exclude.residuals().isna()].tolist() == [4, 20]
    assert omit.criterion == exclude.criterion
    with pytest.raises(DataError, match="Reaction: 2"):
        lme4py.lmer(FORMULA, holes, na_action="raise")


def test_progress_writes_to_standard_error_only(sleepstudy, capsys):
    lme4py.lmer(FORMULA, sleepstudy, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "lmer, evaluations" in shown.err
    lme4py.lmer(FORMULA, sleepstudy)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reml": "ML"}, "`reml` is 'ML'; give True or False"),
        ({"reml": 1}, "`reml` is 1"),
        ({"progress": "yes"}, "`progress`"),
        ({"na_action": "omitted"}, "Did you mean 'omit'"),
        ({"contrasts": "contr.sum"}, "`contrasts` is of type str"),
        ({"functions": [np.log]}, "`functions` is of type list"),
        ({"functions": {"f": 3}}, "must be text and each value a function"),
        ({"control": 5}, "control"),
        ({"control": {"maxiter": 5}}, "no setting 'maxiter'"),
        ({"start": [1.0]}, "theta"),
    ],
)
def test_bad_options_are_refused(sleepstudy, options, message):
    with pytest.raises(Lme4Error, match=message):
        lme4py.lmer(FORMULA, sleepstudy, **options)


def test_swapped_arguments_are_explained(sleepstudy):
    with pytest.raises(OptionError, match="The formula comes first"):
        lme4py.lmer(sleepstudy, FORMULA)
    with pytest.raises(OptionError, match=r"load_dataset\('sleepstudy'\)"):
        lme4py.lmer(FORMULA, "sleepstudy")


def test_every_error_is_a_value_error(sleepstudy):
    with pytest.raises(ValueError, match="Reactions"):
        lme4py.lmer("Reactions ~ Days + (1 | Subject)", sleepstudy)
    with pytest.raises(FormulaError, match=r"\^"):
        lme4py.lmer("Reaction ~ Days + (Days | Subject", sleepstudy)
