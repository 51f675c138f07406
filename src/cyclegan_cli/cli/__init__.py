"""What a person types: parse, call the core once, show the answer. Touches no tensor."""
