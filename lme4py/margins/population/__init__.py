"""Which rows are averaged."""
