"""Mixed models as estimators of scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lme4py

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from lme4py.sklearn import MixedClassifier, MixedRegressor

SLEEP = lme4py.load_dataset("sleepstudy")
X, Y = SLEEP[["Days", "Subject"]], SLEEP["Reaction"]


def test_the_regressor_is_lmer():
    model = MixedRegressor("Reaction ~ Days + (Days | Subject)").fit(X, Y)
    own = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP)
    np.testing.assert_array_equal(model.predict(X), own.predict(SLEEP))
    assert model.score(X, Y) == pytest.approx(1.0 - ((Y - own.predict()) ** 2).sum() / ((Y - Y.mean()) ** 2).sum())
    assert model.n_features_in_ == 2
    same = MixedRegressor("~ Days + (Days | Subject)").fit(X, Y)
    np.testing.assert_array_equal(same.predict(X), model.predict(X))
    np.testing.assert_array_equal(
        MixedRegressor("Reaction ~ Days + (Days | Subject)").fit(SLEEP).predict(X), same.predict(X)
    )


def test_groups_that_are_left_out_get_the_fixed_part():
    model = MixedRegressor("Reaction ~ Days + (Days | Subject)")
    folds = GroupKFold(3)
    found = cross_val_predict(model, X, Y, groups=X["Subject"], cv=folds)
    for train, test in folds.split(X, Y, X["Subject"]):
        own = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP.iloc[train])
        expected = own.predict(SLEEP.iloc[test], include_random=False)
        np.testing.assert_allclose(found[test], expected, rtol=1e-12)  # the same sum, in another order


def test_clone_and_parameters():
    model = MixedRegressor("Reaction ~ Days + (1 | Subject)", reml=False)
    again = clone(model)
    assert again.get_params() == model.get_params()
    assert again.set_params(reml=True).reml is True
    grid = GridSearchCV(model, {"include_random": [True, False]}, cv=3).fit(X, Y)
    assert grid.best_params_["include_random"] in (True, False)


def test_other_families_and_weights():
    data = lme4py.load_dataset("Salamanders")
    model = MixedRegressor("count ~ mined + (1 | site)", family="poisson").fit(data, data["count"])
    own = lme4py.glmer("count ~ mined + (1 | site)", data, "poisson")
    np.testing.assert_array_equal(model.predict(data), own.predict(data))
    weights = np.linspace(1.0, 2.0, len(X))
    weighted = MixedRegressor("Reaction ~ Days + (1 | Subject)").fit(X, Y, sample_weight=weights)
    expected = lme4py.lmer("Reaction ~ Days + (1 | Subject)", SLEEP, weights=weights)
    np.testing.assert_array_equal(weighted.result_.params, expected.params)


def test_the_classifier_is_glmer_with_labels():
    data = lme4py.load_dataset("Contraception")
    model = MixedClassifier("~ age + urban + (1 | district)").fit(data, data["use"])
    own = lme4py.glmer("use ~ age + urban + (1 | district)", data, "binomial")
    p = model.predict_proba(data)
    np.testing.assert_allclose(p[:, 1], own.predict(data), rtol=1e-12)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-15)
    assert set(model.predict(data)) <= {"N", "Y"}
    assert ((model.predict(data) == "Y") == (p[:, 1] > 0.5)).all()
    assert ((model.decision_function(data) > 0) == (p[:, 1] > 0.5)).all()
    assert model.score(data, data["use"]) == np.mean(model.predict(data) == data["use"].to_numpy())


def test_pipelines_keep_the_names_of_columns():
    scaled = FunctionTransformer(lambda d: d.assign(Days=d["Days"] / 10.0))
    pipe = make_pipeline(scaled, MixedRegressor("Reaction ~ Days + (1 | Subject)")).fit(X, Y)
    plain = MixedRegressor("Reaction ~ Days + (1 | Subject)").fit(X, Y)
    np.testing.assert_allclose(pipe.predict(X), plain.predict(X), rtol=1e-8)  # another unit, another rounding


def test_what_is_refused():
    model = MixedRegressor("Reaction ~ Days + (1 | Subject)")
    with pytest.raises(lme4py.DataError, match="set_output"):
        model.fit(np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(lme4py.FormulaError, match="no '~'"):
        MixedRegressor("Reaction").fit(X, Y)
    with pytest.raises(lme4py.DataError, match="3 classes"):
        MixedClassifier("~ Days + (1 | Subject)").fit(X, np.arange(len(X)) % 3)
    with pytest.raises(lme4py.DataError, match="plain name"):
        MixedRegressor("log(Reaction) ~ Days + (1 | Subject)").fit(X, Y)
    assert isinstance(X, pd.DataFrame)
