"""The DANDI archive and the addresses of the tables: find, fetch, verify, stream."""
