"""What several rooms do with rows of jobs and workers: dispatches, grants, outcomes, leases."""
