"""A namespace of a Kubernetes cluster as a place for functions."""
