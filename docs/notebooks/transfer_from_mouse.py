# %% [markdown]
# # Transfer from mouse
#
# Mouse has thousands of labelled cells, human a few hundred. Does learning on mouse as well help on
# human donors that no model has seen?

# %% tags=["tables"]
import crosspatch

human = crosspatch.load_cohort("human", layout="shared")
mouse = crosspatch.load_cohort("mouse", layout="shared")
crosspatch.describe(mouse)

# %% [markdown]
# The same model without and with mouse. Mouse cells of Sncg count as Vip, as human taxonomies have it
# (`alignment="hodge2019"`). The models that learn from mouse see human cells of the training folds too.

# %% tags=["tables"]
result = crosspatch.benchmark(
    {"human": human, "mouse": mouse},
    tasks=["transfer"],
    models=["lda", "lda-mouse"],
    protocol="quick",
    runs=2,
)
result

# %% tags=["tables"]
result.plot("differences")

# %% [markdown]
# Beside all labelled human cells the mouse adds nothing that can be told here. Where it helps, with few
# labels or none, is in the [results](../../README.md#results), measured with
# `crosspatch learning-curve`. Which subclass gains or loses:

# %% tags=["tables"]
result.plot("classes")
