"""Episodes to batches: windows by index, resumable loaders, Lightning data of each task."""
