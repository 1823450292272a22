"""Arrays only: types, small blocks, Cholesky factors, ordering, memory; knows no model."""
