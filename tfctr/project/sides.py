"""Which side a column stands on: what does not change with it says so."""

from __future__ import annotations

from tfctr.features.columns import Side
from tfctr.project.codes import EVIDENCE, Codes, agree, count, decides, joint
from tfctr.project.roles import Roles


class Sides:
    """The sides of columns, by what the rows of a sample show.

    Args:
        codes: The columns of the rows.
        roles: What is known of the columns.
    """

    def __init__(self, codes: Codes, roles: Roles) -> None:
        self._codes, self._roles = codes, roles
        self._user = None if roles.user is None else codes.of(roles.user)
        self._item = None if roles.item is None else codes.of(roles.item)
        self._request = None if roles.request is None else codes.of(roles.request)
        if self._request is None and self._user is not None and roles.timestamp is not None:
            self._request = joint(self._user, codes.of(roles.timestamp))
        # Within one request all is alike: a column is seen to be the user's when it stays from a request to the next.
        self._users_return = (
            self._user is not None
            and self._request is not None
            and count(joint(self._user, self._request)) - count(self._user) >= EVIDENCE
        )

    @property
    def tell_requests(self) -> bool:
        """Whether rows of one request can be told from those of others."""
        return self._request is not None

    def names_requests(self, column: str) -> bool:
        """Whether each request has a value of its own, as if the column were another name of it."""
        codes = self._codes.of(column)
        return self._request is not None and decides(self._request, codes) and agree(codes, self._request)

    def of(self, column: str) -> tuple[Side, str]:
        """The side of a column, and how that is known, in words."""
        roles = self._roles
        if column in roles.sides:
            return roles.sides[column], ""
        if column in (roles.user, roles.item):
            return ("user" if column == roles.user else "candidate"), ""
        codes = self._codes.of(column)
        if self._item is not None and decides(self._item, codes):
            return "candidate", f"one value for each {roles.item}"
        if self._users_return and self._user is not None and decides(self._user, codes):
            return "user", f"one value for each {roles.user}"
        if self._request is not None and decides(self._request, codes):
            return "context", "one value for each request"
        return "candidate", ""
