"""What runs the pipeline many times over: `make test-long`."""
