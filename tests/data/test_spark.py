"""A Spark DataFrame; its session takes most of a minute, so that a step of its own runs this."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from streamed_fits import same

import lme4py

pytestmark = [
    pytest.mark.skipif("LME4PY_SPARK" not in os.environ, reason="set LME4PY_SPARK=1; needs Java and pyspark"),
    pytest.mark.filterwarnings("default"),
]


def interrupt_the_third_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while cached partitions are gone through."""
    from lme4py.data.sources.spark import SparkTables

    left = [3]

    def interrupted(run: Any) -> Any:
        def own(self: SparkTables, *arguments: Any) -> Any:
            left[0] -= 1
            with self.interrupted():
                if not left[0]:
                    raise KeyboardInterrupt
            return run(self, *arguments)

        return own

    for name in ("_run", "reduce"):
        monkeypatch.setattr(SparkTables, name, interrupted(getattr(SparkTables, name)))


def test_spark_data_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    # The workers run the Python of the test, not the first one on the path.
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    rng = np.random.default_rng(8)
    g, h = rng.integers(0, 25, 900), rng.integers(0, 9, 900)
    data = pd.DataFrame({"x": rng.normal(size=900), "f": rng.choice(list("abc"), 900), "g": g})
    data["h"] = [f"h{i}" for i in h]
    data["b"] = (data.x + rng.normal(size=25)[g] + rng.logistic(size=900) > 0.0).astype(int)
    data["y"] = data.x + rng.normal(size=25)[g] + rng.normal(size=9)[h] + rng.normal(size=900)
    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        rows = session.createDataFrame(data).repartition(4)
        fit = lme4py.lmer("y ~ x * f + (x | g) + (1 | h)", rows)
        whole = lme4py.lmer("y ~ x * f + (x | g) + (1 | h)", data)
        # Sums in another order.
        assert_allclose(fit.params, whole.params, rtol=1e-9)
        assert_allclose(fit.criterion, whole.criterion, rtol=1e-11)
        assert (fit.rows.where, fit.rows.passes, fit.n_obs) == ("Spark DataFrame", 2, 900)
        found = fit.augment().toPandas()
        assert_allclose(found["fitted"], whole.predict(found[list(data)]), rtol=1e-9)
        # The first part by Spark's filter, the second one in its workers.
        condition = "x < 1.5 & h != 'h3' & (f == 'a' | x > 0)"
        some = lme4py.lmer("y ~ x + (1 | g)", rows, subset=condition)
        assert_allclose(some.params, lme4py.lmer("y ~ x + (1 | g)", data, subset=condition).params, rtol=1e-9)
        assert some.predict().count() == some.n_obs
        logit = lme4py.glmer("b ~ x + (1 | g)", rows, "binomial", control={"rows": "stream"})
        same(logit, lme4py.glmer("b ~ x + (1 | g)", data, "binomial"))
        assert "by group where they are" in logit.rows.where
        # A partition without rows, and one whose rows are all missing.
        missing = session.createDataFrame(data.head(9).assign(x=np.nan)).repartition(1)
        every = rows.union(missing).union(missing.where("b > 1"))
        crossed = "b ~ x + (1 | g) + (1 | h)"
        logit = lme4py.glmer(crossed, every, "binomial", control={"rows": "stream"})
        same(logit, lme4py.glmer(crossed, data, "binomial"))
        assert "parts where they are (" in logit.rows.where
        for formula in ("b ~ x + (1 | g)", crossed):
            interrupt_the_third_job(monkeypatch)
            with pytest.raises(KeyboardInterrupt):
                lme4py.glmer(formula, rows, "binomial", control={"rows": "stream"})
            monkeypatch.undo()
        assert not session.sparkContext.statusTracker().getActiveJobsIds()
        assert not session.sparkContext._jsc.getPersistentRDDs()
    finally:
        session.stop()
