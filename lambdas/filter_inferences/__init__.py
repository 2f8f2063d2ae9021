"""Lambda `filter_inferences`: lets only confident predictions through."""
