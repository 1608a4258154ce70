"""Comparisons with peers and scaling. Every printed number comes from a run; results lie in bench/results/."""

from lmeraser.core import determinism

determinism.settle()  # before numpy is imported: the benches have the stages' bits
