"""What all parts of the settings have in common: they are frozen, know every key they take, and never print a value."""

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A mapping of the settings. A field is a key: its default and its description are what the reference says."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_empty(cls, value: object) -> object:
        """A mapping whose keys are all commented out is an empty one."""
        return {} if value is None else value
