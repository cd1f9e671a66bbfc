"""How good is a model: folds, metrics, comparisons, and the benchmark that owns them."""
