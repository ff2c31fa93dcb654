"""Names that are imported and not used."""


class PingRxOp:
    pass


class PingTxOp:
    pass


class VideoStreamRecorderOp:
    pass


class VideoStreamReplayerOp:
    pass
