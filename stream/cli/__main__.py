"""`python -m stream.cli`: the command, where its script is not on the path."""

from stream.cli import main

main()
