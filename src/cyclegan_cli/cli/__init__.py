"""The command line: parse one configuration, call the core once, render the result."""
