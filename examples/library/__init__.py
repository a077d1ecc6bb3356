"""A library: indexes a tree of real documents with jobs.

`jobs` has the actors, `documents` finds the input, `text` does the counting, `index` collects the results.
"""
