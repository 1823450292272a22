"""The suites, and how often each program does what is timed."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench_lists import GLMM_MODELS, INFERENCE_MODELS, LMM_MODELS, ORDINAL_MODELS
from bench_models import Model

GROWTH = (10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000, 5_000_000)


@dataclass(frozen=True)
class Plan:
    """How often each program fits the models of each size.

    Attributes
    ----------
    models : tuple of Model
    repeats : dict
        Size -> number of our fits and of the fits of each rival.
    cap : float
        Seconds that one program may take for one model.
    growth : tuple of int
        Numbers of rows; empty for no growth measurement.
    """

    models: tuple[Model, ...]
    repeats: dict[str, tuple[int, int]]
    cap: float = 150.0
    growth: tuple[int, ...] = ()


@dataclass(frozen=True)
class Suite:
    """Models that are timed together.

    Attributes
    ----------
    title : str
        Heading of the tables.
    rivals : tuple of str
        The programs that can be compared.
    plans : dict
        Preset -> plan; "full" has every model.
    extras : str
        What `--extras` is when it is not given.
    """

    title: str
    rivals: tuple[str, ...]
    plans: dict[str, Plan]
    extras: str = field(default="none")

    @property
    def models(self) -> tuple[Model, ...]:
        """Every model."""
        return self.plans["full"].models

    @property
    def first(self) -> Model:
        """The small model with which a new process is set up."""
        return self.models[0]


def _small(models: tuple[Model, ...]) -> tuple[Model, ...]:
    return tuple(m for m in models if m.size == "small")


LMM = Suite(
    "Linear mixed models",
    ("lme4", "glmm", "mixedlm", "statsmodels"),
    {
        "full": Plan(
            LMM_MODELS,
            {"small": (25, 25), "insteval": (5, 5), "large": (5, 5), "crossed": (3, 1)},
            growth=GROWTH,
        ),
        "standard": Plan(
            LMM_MODELS,
            {"small": (15, 15), "insteval": (5, 2), "large": (3, 1), "crossed": (1, 0)},
            cap=60.0,
            growth=GROWTH,
        ),
        "quick": Plan(_small(LMM_MODELS), {"small": (3, 3)}, cap=30.0),
    },
    extras="busy,growth",
)

GLMM = Suite(
    "Generalised linear mixed models",
    ("lme4", "glmmTMB", "glmm"),
    {
        "full": Plan(GLMM_MODELS, {"small": (25, 25), "medium": (15, 7), "slow": (9, 3), "large": (3, 1)}),
        "standard": Plan(GLMM_MODELS, {"small": (15, 9), "medium": (9, 3), "slow": (5, 1), "large": (3, 1)}, cap=40.0),
        "quick": Plan(_small(GLMM_MODELS), {"small": (3, 3)}, cap=30.0),
    },
)

ORDINAL = Suite(
    "Ordinal mixed models",
    ("ordinal",),
    {
        "full": Plan(ORDINAL_MODELS, {"small": (25, 25), "medium": (15, 7), "slow": (9, 3), "large": (5, 3)}),
        "standard": Plan(
            ORDINAL_MODELS, {"small": (15, 15), "medium": (9, 5), "slow": (5, 2), "large": (3, 1)}, cap=60.0
        ),
        "quick": Plan(_small(ORDINAL_MODELS), {"small": (3, 3)}, cap=30.0),
    },
)

INFERENCE = Suite(
    "Inference",
    ("lme4", "pbkrtest", "emmeans"),
    {
        "full": Plan(INFERENCE_MODELS, {"small": (25, 25), "medium": (9, 9), "slow": (5, 3), "large": (3, 1)}, 600.0),
        "standard": Plan(
            INFERENCE_MODELS, {"small": (15, 9), "medium": (7, 3), "slow": (3, 1), "large": (3, 1)}, cap=60.0
        ),
        "quick": Plan(_small(INFERENCE_MODELS), {"small": (3, 3)}, cap=30.0),
    },
)

SUITES = {"lmm": LMM, "glmm": GLMM, "ordinal": ORDINAL, "inference": INFERENCE}
