"""A model as a folder that others hold: its files, its card, and a signed statement of what it is."""
