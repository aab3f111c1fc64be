"""Making labelled sentences: suggestions, queues, annotations, agreement."""
