"""Measurements of what crosspatch costs."""
