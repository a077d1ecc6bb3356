"""How runs begin and end: claims, settlements, and the runs of lost workers."""
