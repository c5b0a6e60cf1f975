"""Searches in virtual time: how far one driver carries, and which sampler and pruner earn their epochs."""
