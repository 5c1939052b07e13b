"""Flows whose every step runs in a locked environment, and proves it."""

__version__ = "0.1.0"
