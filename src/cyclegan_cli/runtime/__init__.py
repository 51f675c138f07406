"""The machine: devices, memory, threads, and the processes that `torchrun` started."""
