"""The command line: ``jq-actors worker | check | db | jobs | groups | demo``."""

from .app import main

__all__ = ["main"]
