# %% [markdown]
# # My table
#
# Another rig, other features, other classes: a table with one row per cell makes a model of your own.
# The table here is made up: two kinds of cells, fast and regular spiking, of 15 mice.

# %%
import numpy as np
import pandas as pd

import crosspatch

rng = np.random.default_rng(0)
fast = np.arange(120) % 2 == 0
cells = pd.DataFrame(
    {
        "Neuron ID": [f"n{number:03d}" for number in range(120)],
        "mouse": [f"m{number}" for number in rng.integers(15, size=120)],
        "type": np.where(fast, "FS", "RS"),
        "Rin (MOhm)": np.where(fast, 150, 180) + rng.normal(0, 25, 120),
        "half width (ms)": np.where(fast, 0.5, 0.8)
        * rng.lognormal(0, 0.3, 120),
        "Wildness": fast + rng.normal(0, 0.8, 120),
        "hump (mV)": fast + rng.normal(5, 2, 120),
    }
)
cells.head()

# %% [markdown]
# ## What is taken for what
#
# `label` is the column with the classes, `group` the one with the animals or patients: cells of one
# animal are alike, so no two folds share one. Its numeric columns are the features. What was taken for
# what is said, and what is no feature is left out.

# %%
cohort = crosspatch.load_labelled(
    cells, label="type", group="mouse", species="mouse"
)

# %%
crosspatch.describe(cohort)

# %% [markdown]
# ## A model of it
#
# The card says how good it is on mice that it has not seen.

# %%
model = crosspatch.train(cohort, model="logistic", out="my-model")
print(open("my-model/card.md").read())

# %% [markdown]
# ## New cells
#
# The columns are found again by their names. Without the label, a cell that is like none of the
# reference is told apart: the last one here has a width of 9 ms.

# %%
new = cells.drop(columns=["type", "mouse"]).iloc[:6].copy()
new.loc[5, "half width (ms)"] = 9.0
prediction = crosspatch.predict(new, model="my-model", species="mouse")
prediction

# %%
prediction.plot()
