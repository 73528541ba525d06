"""A first configuration for a user's own files: what is chosen, and why."""
