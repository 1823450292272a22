"""What the engine's side of a fit answers to inference with: draws, held parameters, joint variances, responses."""
