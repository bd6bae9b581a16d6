"""The rules of meta-rust-ota: which variables there are, how a disk is laid out, where the source is, what a device is told.

Functions of values: no file is read and BitBake is not needed. The classes ask them and pass on what they say.
"""

# What BitBake imports, so that a change of a function is a change of the tasks that call it.
BBIMPORTS = ["variables", "layout", "source", "device"]


class VariableError(Exception):
    """A variable that is missing, makes no sense, or contradicts another one. Its text begins with its name."""

    def __init__(self, variable, problem):
        super().__init__("%s: %s" % (variable, problem))
        self.variable = variable
