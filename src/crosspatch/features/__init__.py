"""What is measured on a cell: features, grouped in families."""
