# %% [markdown]
# # Train and compare on my cohort
#
# How good is a model on donors that it has never seen, and is another one better? The cohort here are
# the 702 human interneurons of Lee, Dalley et al.; any cohort table (`.h5ad`) or labelled table of
# [your own](my_table.py) goes through the same calls.

# %% tags=["tables"]
import crosspatch

cohort = crosspatch.load_cohort("human", layout="shared")
summary = crosspatch.describe(cohort)
summary

# %% tags=["tables"]
summary.plot()

# %% [markdown]
# ## Compare
#
# Folds are stratified, and grouped by donor. One run of five folds is a first look: `protocol="donor"`
# has ten runs, and says what can be told apart. A bar shows how far it is. With `out="results"` every
# fold is kept as it is done, and a run that was stopped goes on where it was.

# %% tags=["tables"]
models = ["logistic", "lda", "forest"]
result = crosspatch.benchmark(
    {"human": cohort}, models=models, protocol="quick", runs=1
)
result

# %% [markdown]
# The difference of each pair, on the same folds. The interval counts that training sets overlap. One
# with zero in it is no difference yet.

# %% tags=["tables"]
result.plot("differences")

# %% [markdown]
# Which subclass is taken for which:

# %% tags=["tables"]
result.plot("confusion")

# %% [markdown]
# Everything is a table: `result.results` has one row per model, run and fold, `result.summary` the means,
# `result.comparisons` the pairs.

# %% tags=["tables"]
columns = ["model_a", "model_b", "delta_macro_f1", "ci_low", "ci_high"]
result.comparisons[columns].round(3)

# %% [markdown]
# ## Train
#
# The chosen one is fitted on all cells, calibrated on folds by donor, and stored with a card.

# %% tags=["tables"]
model = crosspatch.train(cohort, model="lda", out="human-model")
prediction = crosspatch.predict(
    cohort[:8].copy(), model="human-model", species="human"
)
prediction.plot()

# %% [markdown]
# These cells were learned from: what a model says of its own training cells is too good.
