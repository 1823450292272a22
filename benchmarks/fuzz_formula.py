"""Fuzz the formula parser with atheris.

``python -m pip install atheris && python benchmarks/fuzz_formula.py -max_total_time=600``

Anything but a FormulaError, or a text that takes longer than two minutes, stops the run with the offending input.
"""

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["lme4py.formula"]):
    from lme4py.errors import FormulaError
    from lme4py.formula import parse_formula


def one_input(data: bytes) -> None:
    """Parse one text."""
    text = atheris.FuzzedDataProvider(data).ConsumeUnicodeNoSurrogates(400)
    with contextlib.suppress(FormulaError):
        parse_formula(text)


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-timeout=120"], one_input)
    atheris.Fuzz()
