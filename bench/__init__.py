"""Comparisons with peers and scaling. Every printed number comes from a run; results lie in bench/results/."""

import stages  # noqa: F401  (sets the maths libraries' variables before numpy is imported: the benches have the stages' bits)
