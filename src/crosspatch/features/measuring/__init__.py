"""What is measured on voltage: spikes, trains of them, the membrane, and traces in bins.

The definitions are the Allen Institute's: its whitepaper "Allen Cell Types Database,
Electrophysiology" (2017), Gouwens et al. 2019 (Nature Neuroscience 22:1182) and 2020 (Cell
183:935), and IPFX (2.1.2, github.com/AllenInstitute/ipfx), which this package equals on what both
can measure (`tests/oracle/test_measuring.py`). Arrays come in and arrays go out; numba compiles the
passes over samples, and is imported when the first sweep is measured.
"""
