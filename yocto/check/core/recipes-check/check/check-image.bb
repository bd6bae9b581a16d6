inherit image
