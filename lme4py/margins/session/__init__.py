"""The class Margins."""
