"""Standard errors, degrees of freedom, robust covariances."""
