"""The pipeline as files: which file holds a stage, what the locks record, the recipe of tuning, and environments."""
