"""Reading jobs and groups, without locks."""
