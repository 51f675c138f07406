"""CycleGAN itself: pure tensor code. No files, no printing, no argument parsing."""
