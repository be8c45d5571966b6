"""How text tables (CSV) of a log are written."""

from __future__ import annotations

from pydantic import Field, field_validator

from tfctr.features.yaml_file import Strict


class TableFormat(Strict):
    """How text tables are written; other formats say all this themselves."""

    delimiter: str = Field(",", min_length=1, max_length=1, description="between the values of a line")
    columns: tuple[str, ...] | None = Field(None, description="the columns' names; left out: the first line has them")
    nulls: tuple[str, ...] = Field(("",), description="texts that stand for a missing value; quoted ones do not")
    list_delimiter: str = Field(" ", min_length=1, description="between the events of a history")

    @field_validator("delimiter")
    @classmethod
    def _one_byte(cls, delimiter: str) -> str:
        if not delimiter.isascii() or delimiter in '"\0\r\n':
            raise ValueError("must be an ASCII character, such as ',' or a tab, and no quote or line break")
        return delimiter
