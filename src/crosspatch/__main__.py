"""`python -m crosspatch`."""

from crosspatch.commands.main import main

main()
