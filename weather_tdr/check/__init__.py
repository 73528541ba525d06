"""Whether a run will work, before anything is computed."""
