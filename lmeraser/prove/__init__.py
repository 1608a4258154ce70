"""Evidence: what changed, whether a rebuild gives the same, certificates that say so, and their verification. Without torch."""
