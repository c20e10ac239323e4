"""Data sets: where pictures come from, their decoded cache, and the batches made of them."""
