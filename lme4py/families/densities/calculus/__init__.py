"""Jets, special functions, lattices and tables that the densities are written with."""
