"""Python imports this at the start of every process of a sandbox, because its folder comes first on PYTHONPATH."""

from handing import main

main()
