"""What is wrong with this machine and project, and how to mend it: it looks, and repairs nothing."""
