"""Read and check what was published: files, folders, lists and metadata."""
