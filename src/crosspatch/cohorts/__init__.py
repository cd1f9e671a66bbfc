"""Cells in a table: whose they are, what was measured, which subclass they belong to."""
