"""The model that answers: what it leaves out while requests are open, its answers, and how good they are."""
