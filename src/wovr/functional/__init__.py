"""Formulas without state."""
