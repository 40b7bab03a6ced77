"""What an image is put together from: dependencies, the FleetFn runtime, the bill of materials.

Nothing but Python's standard library is imported here: the buildpack takes these files along into a builder image.
"""
