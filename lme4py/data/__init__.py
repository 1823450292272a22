"""Data in: any data frame becomes named columns of numbers or of codes into levels."""

from lme4py.data.column import Column, Kind
from lme4py.data.datasets import dataset_names, list_datasets, load_dataset
from lme4py.data.frame import (
    Frame,
    as_factor_column,
    column_from_array,
    drop_unused_levels,
    missing_rows,
    read_frame,
)

__all__ = [
    "Column",
    "Frame",
    "Kind",
    "as_factor_column",
    "column_from_array",
    "dataset_names",
    "drop_unused_levels",
    "list_datasets",
    "load_dataset",
    "missing_rows",
    "read_frame",
]
