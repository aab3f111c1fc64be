"""Scoring documents in bulk."""
