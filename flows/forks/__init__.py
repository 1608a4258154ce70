"""Commands without the import of DVC: a process that has imported it forks a copy of itself for each."""
