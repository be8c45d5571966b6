"""The side of a column is said by what it stays the same with."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tfctr.project.codes import Codes
from tfctr.project.roles import Roles
from tfctr.project.sides import Sides


def sides_of(columns: dict[str, list[Any]], roles: Roles) -> dict[str, str]:
    sides = Sides(Codes(pa.table(columns)), roles)
    return {name: sides.of(name)[0] for name in columns if name not in roles.no_features}


def test_sides_by_what_changes() -> None:
    rows = range(1200)
    columns: dict[str, list[Any]] = {
        "user": [row // 3 % 30 for row in rows],
        "item": [row % 77 for row in rows],
        "request": [row // 3 for row in rows],
        "age": [row // 3 % 30 % 4 or None for row in rows],
        "genres": [["a"] * (row % 77 % 3) for row in rows],
        "device": [row // 3 % 5 for row in rows],
        "daytime": [row // 3 % 7 for row in rows],
        "affinity": [row % 11 for row in rows],
    }
    roles = Roles(user="user", item="item", request="request", sides={"device": "bias"})
    assert sides_of(columns, roles) == {
        "user": "user", "item": "candidate", "age": "user", "genres": "candidate", "device": "bias",
        "daytime": "context", "affinity": "candidate",
    }  # fmt: skip
    found = sides_of(columns, Roles(request="request"))
    assert (found["device"], found["affinity"]) == ("context", "candidate")


def test_many_rows_of_one_request_do_not_show_what_is_the_users() -> None:
    # Twenty users ask once, and two of them twice: hundreds of rows, but hardly anybody who came back.
    requests = [*range(20), 0, 1]
    rows = [request for request in range(len(requests)) for _ in range(30)]
    columns: dict[str, list[Any]] = {
        "user": [requests[request] for request in rows],
        "request": rows,
        "device": [requests[request] % 4 for request in rows],
        "age": [requests[request] for request in rows],
    }
    found = sides_of(columns, Roles(user="user", request="request"))
    assert (found["device"], found["age"]) == ("context", "context")


def test_what_is_another_name_of_a_request() -> None:
    rows = range(1200)
    columns: dict[str, list[Any]] = {
        "request": [row // 3 for row in rows],
        "request_key": [f"r{row // 3}" for row in rows],
        "session": [f"s{row // 6}" for row in rows],
        "item": [f"i{row}" for row in rows],
    }
    sides = Sides(Codes(pa.table(columns)), Roles(request="request"))

    assert [name for name in columns if sides.names_requests(name)] == ["request", "request_key"]
    assert not Sides(Codes(pa.table(columns)), Roles()).names_requests("request_key")
