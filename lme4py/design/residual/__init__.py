"""The residual side of a design: what its texts say, positions and strata of the rows, and arrays for the engine."""
