"""The factor of the penalised normal equations: symbolic structure, sweep, adjoint, trailing block."""
