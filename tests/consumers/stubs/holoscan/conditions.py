"""Names that are imported and not used."""


class CountCondition:
    pass
