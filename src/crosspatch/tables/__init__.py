"""Feature tables of other laboratories: read them, and tell which column is which feature."""
