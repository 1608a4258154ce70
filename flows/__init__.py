"""The only place that knows DVC commands and Prefect. Never imports stages: they meet in dvc.yaml and files."""
