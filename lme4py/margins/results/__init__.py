"""Tables, tests and plots of estimands."""
