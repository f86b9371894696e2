"""Tar shards in the WebDataset layout: indexed once, read in place, never extracted."""
