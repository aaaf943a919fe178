"""The command `uwasp`. Nothing here is for other programs to import: they start the command."""

__version__ = "0.1.0"
