"""Documents and sentences: from raw text to the unit that is labelled."""
