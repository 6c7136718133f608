"""What can go wrong on the user's side.

UserError                   the user's input; the command line prints one sentence and exits with 2
├── UnknownPart             a name that no method, reward, model, dataset, metric or stage has
├── BadConfig               a recipe or override that does not fit its typed config
├── BadData                 a clip, caption, prompt or pair that cannot be read or does not fit
├── BadCheckpoint           a checkpoint that is missing, damaged, unsafe or of another model
├── MissingExtra            an optional dependency that is not installed
└── RunStopped              a run that must not go on: non-finite loss or reward, nothing to train, disk full
    ├── PartFailed          a reward or metric that raised, or gave something else than one number a clip
    └── CannotWrite         a file that the system does not take
"""


class UserError(Exception):
    """Something the user can mend; the message says what was given, what is allowed and what to do."""


class UnknownPart(UserError):
    """A name that no part of that kind has."""


class BadConfig(UserError):
    """A recipe or an override that does not fit its typed config."""


class BadData(UserError):
    """A clip, caption, prompt or pair that cannot be read or does not fit the model."""


class BadCheckpoint(UserError):
    """A checkpoint that is missing, damaged, unsafe to load or of another model."""


class MissingExtra(UserError):
    """An optional dependency that is not installed."""


class RunStopped(UserError):
    """A run that must not go on; what was saved before stays intact."""


class PartFailed(RunStopped):
    """A reward or metric that misbehaved, before anything of the running step was changed."""


class CannotWrite(RunStopped):
    """A file that the system does not take: the disk is full, the place is read-only, its folder is gone."""

    def __init__(self, path: object, reason: str, remedy: str, then: str = " or choose another place") -> None:
        """Make the sentence; `remedy` is what helps, `then` how to go on."""
        self.path, self.reason, self.remedy = path, reason, remedy
        shown = str(path)
        shown = shown if len(shown) <= 200 else f"{shown[:120]}...{shown[-60:]}"
        super().__init__(f"cannot write {shown}: {reason}; {remedy}{then}.")
