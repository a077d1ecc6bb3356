"""The command line: ``jq-actors worker | check | db | jobs``."""

from .app import main

__all__ = ["main"]
