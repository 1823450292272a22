"""What a user gives beside the formula: known covariances, held parameters, priors, chosen rows."""
