"""Why: what a model uses, whether attention says so, what is conserved across species."""
