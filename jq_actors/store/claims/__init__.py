"""A run begins and ends: claims, settlements, and the runs of lost workers."""
