"""Functions with a second form: loops that numba compiles, where it is installed and pays."""
