"""How stages are run: entry of each, several in one process, and a process that stays warm."""
