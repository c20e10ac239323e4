"""Training with PyTorch: the spine is `train`; what it stands on is one noun a file."""
