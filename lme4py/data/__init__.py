"""Data in: any data frame becomes named columns of numbers or of codes into levels."""

from lme4py.data.beside import beside, in_name_order, in_row_order
from lme4py.data.column import Column, Kind
from lme4py.data.datasets import dataset_names, list_datasets, load_dataset
from lme4py.data.frame import (
    Frame,
    as_factor_column,
    drop_unused_levels,
    missing_rows,
    read_frame,
)

__all__ = [
    "Column",
    "Frame",
    "Kind",
    "as_factor_column",
    "beside",
    "dataset_names",
    "drop_unused_levels",
    "in_name_order",
    "in_row_order",
    "list_datasets",
    "load_dataset",
    "missing_rows",
    "read_frame",
]
