"""`python -m crosspatch`."""

from crosspatch.cli import main

main()
