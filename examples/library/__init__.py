"""A library: index a tree of real documents with jobs.

`jobs` has the actors, `documents` finds the input, `text` counts words, and `index` sends the jobs and collects their
results.
"""
