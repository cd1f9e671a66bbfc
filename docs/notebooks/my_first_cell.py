# %% [markdown]
# # My first cell
#
# A recording goes in; what it holds, what was measured on it, and its subclass come out. A simulated
# cell stands here for yours, so that the page can be run anywhere: put the path of your own file
# (NWB, ABF or another [format](../recordings.md)) in its place.

# %%
from pathlib import Path

import crosspatch
from crosspatch.simulation.cells import simulate_cells

simulate_cells("recordings", 1, "mouse", seed=0)
(file,) = Path("recordings").glob("*.nwb")

# %% [markdown]
# ## What is in the file
#
# Nothing but its head is read for this. Samples are read sweep by sweep when they are asked for.

# %%
recording = crosspatch.open_recording(file)
recording

# %% [markdown]
# Its sweeps by stimulus, from the smallest step (dark) to the largest. The stimulus is recognised from
# the command itself, not from a name. Sweeps that quality control rejects are grey.

# %%
recording.plot()

# %%
sweep = recording.current_clamp[0]
print(f"{sweep.points:,} samples at {sweep.rate / 1e3:g} kHz")
print(f"the first is {sweep.voltage[0]:.1f} mV, {sweep.current[0]:g} pA")
recording.close()

# %% [markdown]
# ## What was measured
#
# The layout `shared` has the 32 features that both the mouse and the human tables of the Allen
# Institute have. What was not recorded is missing (NaN), never zero.

# %%
import pandas as pd

from crosspatch.features.extraction import ExtractionSettings
from crosspatch.features.layouts import load_layout

cell = crosspatch.extract(file, ExtractionSettings("shared"))
features = pd.DataFrame(load_layout("shared").features)
features["value"] = cell.values.round(4)
features[["name", "value", "unit", "family"]].head(12)

# %% [markdown]
# ## Which subclass it is
#
# Without `model` the best model of the species is trained once from the
# [Allen tables](../../README.md#two-commands) and kept: some minutes. Here a plain one of mouse cells
# is enough.

# %% tags=["tables"]
mouse = crosspatch.load_cohort("mouse")
crosspatch.train(mouse, model="logistic", out="mouse-model")
prediction = crosspatch.predict(file, model="mouse-model", species="mouse")
prediction

# %% tags=["tables"]
prediction.plot()

# %% [markdown]
# Each cell has a set of subclasses that holds the true one for 90 % of cells, a p-value that it is a
# cell like those of the reference, and a verdict. Believe the verdict before the subclass.

# %% tags=["tables"]
(answer,) = prediction
print(answer.verdict, answer.prediction_set, answer.text, sep="\n")
print(f"p = {answer.p_reference:.2f}")

# %% [markdown]
# `prediction.to_table()` is a DataFrame with one row per cell, `prediction.to_adata()` an AnnData with
# the features as well.
