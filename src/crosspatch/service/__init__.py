"""crosspatch in the browser: drop a recording, see the cell."""
