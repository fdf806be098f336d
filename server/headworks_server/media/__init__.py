"""Pictures: headers, decoding, their place in a network's input, and what its outputs mean: the heads."""
