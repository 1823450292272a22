"""Known covariances of the levels of a grouping factor: matrices, precision matrices and pedigrees."""
