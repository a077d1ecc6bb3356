"""The middleware that comes with jq_actors, one class a file; its names in YAML are entry points."""
