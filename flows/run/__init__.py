"""Stages are run: in warm or fresh processes, on this machine's devices or in clones."""
