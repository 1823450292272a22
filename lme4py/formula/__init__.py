"""Formulas: text to syntax tree to terms."""

from __future__ import annotations

from lme4py.formula.deparse import deparse, names_in
from lme4py.formula.parse import DOUBLE_BAR_NOTE, parse_formula
from lme4py.formula.syntax import parse_expression
from lme4py.formula.terms import term_label

__all__ = ["DOUBLE_BAR_NOTE", "deparse", "names_in", "parse_expression", "parse_formula", "term_label"]
