"""Scores, intervals and pictures: one definition for every split and model."""
