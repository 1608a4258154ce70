"""Accuracy and blast radius over people."""
