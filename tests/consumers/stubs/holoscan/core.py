"""Empty bases of what runs operators."""


class ConditionType:
    NONE = 0


class OperatorSpec:
    def __init__(self, *_args, **_kwargs):
        self.inputs, self.outputs = [], []

    def input(self, name, *_args, **_kwargs):
        self.inputs.append(name)
        return self

    def output(self, name, *_args, **_kwargs):
        self.outputs.append(name)
        return self

    def condition(self, *_args, **_kwargs):
        return self

    def param(self, *_args, **_kwargs):
        return self


class Fragment:
    def __init__(self, *_args, **_kwargs):
        pass


class Application(Fragment):
    pass


class Operator:
    def __init__(self, _fragment=None, *_args, name="", **_kwargs):
        self.name = name
        self.spec = OperatorSpec()
        self.setup(self.spec)

    def setup(self, spec):
        pass


class Condition:
    pass


class Resource:
    pass
