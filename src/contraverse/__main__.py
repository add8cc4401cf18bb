"""``python -m contraverse``: the command line."""

from contraverse.cli import main

main()
