"""What a file, a store or a run holds, in a few lines."""
