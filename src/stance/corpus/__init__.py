"""Sentences with gold labels, their splits and their quality."""
