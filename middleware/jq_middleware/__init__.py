"""The middleware that jq_actors brings: one class a file. YAML names are entry points of `jq_actors.middleware`."""
