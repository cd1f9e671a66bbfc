"""From features to class probabilities: scikit-learn estimators, by name in one registry."""
