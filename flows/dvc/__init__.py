"""The only room that knows DVC's commands, its config files and its pipeline files."""
