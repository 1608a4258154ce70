"""How a project begins: the files that it needs, the params that suit its images, and its first commit."""
