"""Simulated cells of both species, recorded with the Allen stimulus set, written as NWB."""
