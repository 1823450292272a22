"""Numbers as text: enough digits to be useful, never a nonzero value printed as zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["format_column", "format_integer", "format_p_value", "format_value"]

_WIDEST = 7  # a fixed-point column shows at most about this many significant digits of its largest value
_SMALLEST = -5  # a column whose largest value is below 10**_SMALLEST is shown with exponents


def format_value(value: float, decimals: int, digits: int = 4, least: int = 2) -> str:
    """`value` with `decimals` places; in %g style with `digits` digits where it would show under `least`.

    >>> format_value(3.14159, 2), format_value(0.0000123, 2), format_value(6.02e23, 2), format_value(0.0, 2)
    ('3.14', '1.23e-05', '6.02e+23', '0')
    """
    if value == 0.0:
        return "0"
    if not math.isfinite(value):
        return _not_finite(value)
    exponent = _exponent(value)
    if exponent + decimals + 1 < least or exponent >= _WIDEST:
        return f"{value:.{digits}g}"
    return f"{value:.{decimals}f}"


def format_column(values: Sequence[float], digits: int = 4) -> list[str]:
    """Format the values of one column with common decimals, so that the smallest one shows `digits` digits.

    >>> format_column([612.1002, 35.0717, 654.94])
    ['612.10', '35.07', '654.94']
    >>> format_column([1.5e-9, 12.0, 0.0])
    ['1.5e-09', '12.00000', '0']
    >>> format_column([6.371882e-10, 1.911e-13])
    ['6.372e-10', '1.911e-13']
    """
    decimals = column_decimals(values, digits)
    return [format_value(value, decimals, digits) for value in values]


def column_decimals(values: Sequence[float], digits: int = 4) -> int:
    """How many decimals the smallest of `values` needs to show `digits` digits, within reason."""
    exponents = [_exponent(value) for value in values if value != 0.0 and math.isfinite(value)]
    fixed = [exponent for exponent in exponents if exponent < _WIDEST]
    if not fixed:
        return digits - 1
    if max(fixed) < _SMALLEST:
        return 0
    needed = digits - 1 - min(fixed)
    widest = _WIDEST - 1 - max(fixed)
    return max(0, min(needed, max(widest, digits - 1 - max(fixed))))


def format_integer(value: float) -> str:
    """A count, or a possibly fractional count with one decimal: 10, 7.5.

    >>> format_integer(10.0), format_integer(7.46), format_integer(73421)
    ('10', '7.5', '73421')
    """
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"


def format_p_value(value: float) -> str:
    """A p-value with three decimals, or two digits when smaller.

    >>> format_p_value(0.04321), format_p_value(0.000123), format_p_value(1e-20), format_p_value(0.0)
    ('0.043', '0.00012', '<2e-16', '<2e-16')
    """
    if math.isnan(value):
        return _not_finite(value)
    if value < 2e-16:
        return "<2e-16"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.2g}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value)))


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    return "inf" if value > 0 else "-inf"
