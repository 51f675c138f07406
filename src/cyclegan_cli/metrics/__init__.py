"""Quality metrics of translated images, shared by inspection, training and benchmarks."""
