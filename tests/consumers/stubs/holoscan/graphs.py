"""Names that are imported and not used."""


class FlowGraph:
    pass


class FragmentFlowGraph:
    pass


class OperatorFlowGraph:
    pass
