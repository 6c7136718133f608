"""What can go wrong on the user's side.

UserError                   the user's input; the command line prints one sentence and exits with 2
├── UnknownPart             a name that no method, reward, model, dataset, metric or stage has
├── BadConfig               a recipe or override that does not fit its typed config
├── BadData                 a clip, caption, prompt or pair that cannot be read or does not fit
├── BadCheckpoint           a checkpoint that is missing, damaged, unsafe or of another model
├── MissingExtra            an optional dependency that is not installed
└── RunStopped              a run that must not go on: non-finite loss or reward, nothing to train, disk full
    └── PartFailed          a reward or metric that raised, or gave something else than one number a clip
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
