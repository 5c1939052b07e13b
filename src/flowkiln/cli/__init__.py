"""The command line: one file per verb that parses, calls and prints. Only this folder imports click and rich."""
