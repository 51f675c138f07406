"""``index.html`` of a run: a page that opens from the disk and shows how the training goes."""
