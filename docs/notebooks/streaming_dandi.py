# %% [markdown]
# # Streaming from DANDI
#
# Recordings of the [DANDI archive](https://dandiarchive.org) are measured where they lie: only the parts
# that are used come over the network.
#
# **This page asks a server on the same machine that answers as the archive does, with simulated
# recordings, so that it can be made without a network.** Leave this cell out, and the rest asks the real
# archive. (The server is in the tests of crosspatch: the cell runs in a checkout.)

# %%
import os
from pathlib import Path

from tests.archive_server import ArchiveServer

from crosspatch.simulation.cells import simulate_cells

simulate_cells("made", 2, "mouse", seed=1)
files = {
    f"sub-{file.stem}/{file.name}": file
    for file in sorted(Path("made").glob("*.nwb"))
}
server = ArchiveServer().__enter__()
server.add_dandiset("000020", files)
os.environ["CROSSPATCH_DANDI"] = server.api

# %% [markdown]
# ## What is there
#
# A dandiset is named as an input: `dandi:000020`, one version of it `dandi:000020@0.210913.1639`, a
# part of one `dandi:000636/sub-636948822/`.

# %%
from crosspatch.features.finding import find_recordings

assets = find_recordings(["dandi:000020"])
for asset in assets:
    print(asset, f"{asset.size / 1e6:.1f} MB")

# %% [markdown]
# ## Measured where it lies

# %%
import crosspatch
from crosspatch.features.extraction import ExtractionSettings

settings = ExtractionSettings("shared")
streamed = [crosspatch.extract(asset, settings) for asset in assets]
for cell in streamed:
    read, whole = cell.head["bytes_read"], cell.head["file_bytes"]
    share = f"{read / 1e6:.1f} of {whole / 1e6:.1f} MB"
    print(f"{cell.cell_id}: {share} in {cell.head['requests']} requests")

# %% [markdown]
# More than the whole files: a simulated recording holds nothing but sweeps that
# are measured, and over a connection without TLS what was looked up is fetched a
# second time and compared. Of recordings with the archive's whole stimulus set it
# is about a third ([measured](../../benchmarks/results/archive.md)).
#
# The features are those of the same files on disk, bit for bit:

# %%
local = [crosspatch.extract(file, settings) for file in files.values()]
[
    a.values.tobytes() == b.values.tobytes()
    for a, b in zip(streamed, local, strict=True)
]

# %%
import pandas as pd

from crosspatch.features.layouts import load_layout

names = load_layout("shared").feature_names
pd.DataFrame(
    [cell.values for cell in streamed], [c.cell_id for c in streamed], names
).T.head(8)

# %% [markdown]
# `crosspatch.predict("dandi:000020", species="mouse")` predicts them, and
# `crosspatch extract dandi:000020 --out cohort.h5ad` measures a whole dandiset with all cores, stops and
# goes on ([Recordings](../recordings.md)).

# %%
server.__exit__(None, None, None)
