"""A new cell: trained models, and what they say of it."""
