"""A bundle's configs as data: one builder per concern, each a function from a ``BundleSpec`` to a dictionary."""
