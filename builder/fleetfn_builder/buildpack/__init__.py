"""The buildpack: what runs in a builder image and makes a function's layers. It needs nothing but Python."""
