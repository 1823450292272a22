"""One model of a table, four renderers."""
