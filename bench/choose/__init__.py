"""Values for a preset, chosen on public people alone."""
