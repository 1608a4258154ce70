"""The only place that knows DVC commands and Prefect. Never imports stages: they meet in dvc.yaml and files."""

from lmeraser.core import determinism

determinism.settle()  # before numpy is imported: `predict` and `audit --membership` compute here with the stages' bits
