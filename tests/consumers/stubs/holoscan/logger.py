"""Names that are imported and not used."""
