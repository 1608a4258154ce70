"""The door: what is served by HTTP."""
