"""From a function's folder to an OCI image that runs its worker anywhere."""
