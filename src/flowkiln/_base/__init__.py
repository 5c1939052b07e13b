"""What every other folder stands on: values, digests, files and processes. Standard library only."""
