"""Pure rules of the stream contract. Standard library only, no I/O, no threads; time comes in as now_ns."""
