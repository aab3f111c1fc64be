"""Stances in news sentences: train, judge and use multi-label sentence classifiers."""

__version__ = "0.1.0"
