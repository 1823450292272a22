"""Models of categories: effects on single thresholds, tests of proportional odds, unordered ones."""
