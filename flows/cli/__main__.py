"""`python -m flows.cli`: the command, by the code of the folder that it is run in."""

from flows.cli import main

main()
