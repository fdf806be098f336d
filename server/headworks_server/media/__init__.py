"""Pictures: headers, decoding, letterbox geometry, detector heads."""
