"""Mixed-effects models for Python, written in the formula language of R's lme4.

>>> import lme4py
>>> result = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy"))
>>> result.params.round(3).to_dict()
{'Intercept': 251.405, 'Days': 10.467}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Public name -> the module that defines it.  The module is imported when the name is first used, so that
# `import lme4py` does not pay for the scientific stack.
_HOME = {
    "BootstrapResult": "lme4py.inference.bootstrap.bootstrap",
    "Certificate": "lme4py.engine.certificate",
    "Control": "lme4py.engine.optimise",
    "Comparison": "lme4py.report.comparison.compare",
    "ConvergenceWarning": "lme4py.errors",
    "DataError": "lme4py.errors",
    "Design": "lme4py.design.design",
    "DesignError": "lme4py.errors",
    "Fit": "lme4py.fits.base",
    "FormulaError": "lme4py.errors",
    "IdentificationWarning": "lme4py.errors",
    "GeneralisedFit": "lme4py.fits.generalised.fit",
    "ICCResult": "lme4py.inference.shares.icc",
    "LRTestResult": "lme4py.inference.lrt.lrt",
    "Lme4Error": "lme4py.errors",
    "Lme4Warning": "lme4py.errors",
    "LinearFit": "lme4py.fits.linear.fit",
    "LmmCriterion": "lme4py.fits.linear.steps",
    "MEGLMResult": "lme4py.results",
    "Margins": "lme4py.margins.session.margins",
    "MarginsResult": "lme4py.margins.results.result",
    "MixedResult": "lme4py.results",
    "Optimum": "lme4py.engine.optimise",
    "OptimaWarning": "lme4py.errors",
    "PenalisedWarning": "lme4py.errors",
    "OptionError": "lme4py.errors",
    "Pedigree": "lme4py.covariance.relations.pedigree",
    "Precision": "lme4py.covariance.relations.known",
    "RankWarning": "lme4py.errors",
    "SpellingWarning": "lme4py.errors",
    "Profile": "lme4py.inference.profile.profile",
    "adjust": "lme4py.margins.results.result",
    "all_pairwise": "lme4py.margins.population.scenarios",
    "aicc": "lme4py.inference.overview.selection",
    "pool": "lme4py.inference.overview.selection",
    "vif": "lme4py.inference.overview.selection",
    "anova": "lme4py.inference.tests.anova",
    "at_levels": "lme4py.margins.population.scenarios",
    "clmm": "lme4py.categories",
    "compare": "lme4py.report.comparison.compare",
    "describe_dataset": "lme4py.data.datasets",
    "did": "lme4py.margins.population.scenarios",
    "glmer": "lme4py.api",
    "glmer_nb": "lme4py.api",
    "grid": "lme4py.margins.population.scenarios",
    "icc": "lme4py.inference.shares.icc",
    "lformula": "lme4py.design.build",
    "list_datasets": "lme4py.data.datasets",
    "lmer": "lme4py.api",
    "glmm_criterion": "lme4py.fits.generalised.criterion",
    "glmm_fit": "lme4py.fits.generalised.steps",
    "lmm_criterion": "lme4py.fits.linear.steps",
    "lmm_fit": "lme4py.fits.linear.steps",
    "load_dataset": "lme4py.data.datasets",
    "lrtest": "lme4py.inference.lrt.lrt",
    "make_fit": "lme4py.fits.linear.steps",
    "MadeModel": "lme4py.study.model",
    "extend": "lme4py.study.extend",
    "make_model": "lme4py.study.model",
    "all_subsets": "lme4py.study.subsets",
    "allfit": "lme4py.study.selection",
    "caic": "lme4py.inference.overview.conditional",
    "cross_validate": "lme4py.study.selection",
    "step": "lme4py.study.selection",
    "ManyFits": "lme4py.study.many",
    "fit_by": "lme4py.study.many",
    "fit_many": "lme4py.study.many",
    "PowerCurve": "lme4py.study.power",
    "PowerResult": "lme4py.study.power",
    "minimum_effect": "lme4py.study.power",
    "power": "lme4py.study.power",
    "power_curve": "lme4py.study.power",
    "sample_size": "lme4py.study.power",
    "simulate": "lme4py.study.model",
    "mecloglog": "lme4py.keyword",
    "megamma": "lme4py.keyword",
    "meglm": "lme4py.keyword",
    "melogit": "lme4py.keyword",
    "memlogit": "lme4py.keyword",
    "menbreg": "lme4py.keyword",
    "meologit": "lme4py.keyword",
    "meoprobit": "lme4py.keyword",
    "mepoisson": "lme4py.keyword",
    "meprobit": "lme4py.keyword",
    "meta": "lme4py.keyword",
    "mixed": "lme4py.keyword",
    "mmrm": "lme4py.trial",
    "optimize_criterion": "lme4py.fits.linear.steps",
    "pairwise": "lme4py.margins.population.scenarios",
    "reference": "lme4py.margins.population.scenarios",
    "ResidualFit": "lme4py.fits.residual.fit",
    "structure_table": "lme4py.inference.overview.structures",
    "trial_table": "lme4py.trial",
}

# Public submodules, imported when they are first used too.
_MODULES = ("adapters", "errors", "sklearn")

__all__ = [
    "BootstrapResult",
    "Certificate",
    "Comparison",
    "Control",
    "ConvergenceWarning",
    "DataError",
    "Design",
    "DesignError",
    "Fit",
    "FormulaError",
    "GeneralisedFit",
    "ICCResult",
    "IdentificationWarning",
    "LRTestResult",
    "LinearFit",
    "Lme4Error",
    "Lme4Warning",
    "LmmCriterion",
    "MEGLMResult",
    "MadeModel",
    "ManyFits",
    "Margins",
    "MarginsResult",
    "MixedResult",
    "OptimaWarning",
    "Optimum",
    "OptionError",
    "Pedigree",
    "PenalisedWarning",
    "PowerCurve",
    "PowerResult",
    "Precision",
    "Profile",
    "RankWarning",
    "ResidualFit",
    "SpellingWarning",
    "__version__",
    "adjust",
    "aicc",
    "all_pairwise",
    "all_subsets",
    "allfit",
    "anova",
    "at_levels",
    "caic",
    "clmm",
    "compare",
    "cross_validate",
    "describe_dataset",
    "did",
    "extend",
    "fit_by",
    "fit_many",
    "glmer",
    "glmer_nb",
    "glmm_criterion",
    "glmm_fit",
    "grid",
    "icc",
    "lformula",
    "list_datasets",
    "lmer",
    "lmm_criterion",
    "lmm_fit",
    "load_dataset",
    "lrtest",
    "make_fit",
    "make_model",
    "mecloglog",
    "megamma",
    "meglm",
    "melogit",
    "memlogit",
    "menbreg",
    "meologit",
    "meoprobit",
    "mepoisson",
    "meprobit",
    "meta",
    "minimum_effect",
    "mixed",
    "mmrm",
    "optimize_criterion",
    "pairwise",
    "pool",
    "power",
    "power_curve",
    "reference",
    "sample_size",
    "simulate",
    "step",
    "structure_table",
    "trial_table",
    "vif",
]

if TYPE_CHECKING:
    from lme4py.api import glmer, glmer_nb, lmer
    from lme4py.categories import clmm
    from lme4py.covariance.relations.known import Precision
    from lme4py.covariance.relations.pedigree import Pedigree
    from lme4py.data.datasets import describe_dataset, list_datasets, load_dataset
    from lme4py.design.build import lformula
    from lme4py.design.design import Design
    from lme4py.engine.certificate import Certificate
    from lme4py.engine.optimise import Control, Optimum
    from lme4py.errors import (
        ConvergenceWarning,
        DataError,
        DesignError,
        FormulaError,
        IdentificationWarning,
        Lme4Error,
        Lme4Warning,
        OptimaWarning,
        OptionError,
        PenalisedWarning,
        RankWarning,
        SpellingWarning,
    )
    from lme4py.fits.base import Fit
    from lme4py.fits.generalised.criterion import glmm_criterion
    from lme4py.fits.generalised.fit import GeneralisedFit
    from lme4py.fits.generalised.steps import glmm_fit
    from lme4py.fits.linear.fit import LinearFit
    from lme4py.fits.linear.steps import LmmCriterion, lmm_criterion, lmm_fit, make_fit, optimize_criterion
    from lme4py.fits.residual.fit import ResidualFit
    from lme4py.inference.bootstrap.bootstrap import BootstrapResult
    from lme4py.inference.lrt.lrt import LRTestResult, lrtest
    from lme4py.inference.overview.conditional import caic
    from lme4py.inference.overview.selection import aicc, pool, vif
    from lme4py.inference.overview.structures import structure_table
    from lme4py.inference.profile.profile import Profile
    from lme4py.inference.shares.icc import ICCResult, icc
    from lme4py.inference.tests.anova import anova
    from lme4py.keyword import (
        mecloglog,
        megamma,
        meglm,
        melogit,
        memlogit,
        menbreg,
        meologit,
        meoprobit,
        mepoisson,
        meprobit,
        meta,
        mixed,
    )
    from lme4py.margins.population.scenarios import all_pairwise, at_levels, did, grid, pairwise, reference
    from lme4py.margins.results.result import MarginsResult, adjust
    from lme4py.margins.session.margins import Margins
    from lme4py.report.comparison.compare import Comparison, compare
    from lme4py.results import MEGLMResult, MixedResult
    from lme4py.study.extend import extend
    from lme4py.study.many import ManyFits, fit_by, fit_many
    from lme4py.study.model import MadeModel, make_model, simulate
    from lme4py.study.power import PowerCurve, PowerResult, minimum_effect, power, power_curve, sample_size
    from lme4py.study.selection import allfit, cross_validate, step
    from lme4py.study.subsets import all_subsets
    from lme4py.trial import mmrm, trial_table
else:

    def __getattr__(name):
        """Import a public name, or a submodule, when it is first asked for."""
        import importlib

        if name in _HOME:
            value = getattr(importlib.import_module(_HOME[name]), name)
            globals()[name] = value
            return value
        if name in _MODULES:
            return importlib.import_module(f"lme4py.{name}")
        if name.startswith("_"):
            raise AttributeError(f"module 'lme4py' has no attribute {name!r}")
        from lme4py.errors import foreign_function

        raise AttributeError(foreign_function(name, __all__), name=name)

    def __dir__():
        """List the public names, imported or not."""
        return sorted([*__all__, *_MODULES])
