"""Ranks three films for a user with a served MovieLens model: `python examples/rank.py HOST:PORT [MODEL]`."""

import sys

from tfctr.client import ClientError, RankingClient

USER = {
    "user_id": 7,
    "gender": "F",
    "age": 25,
    "history_item_id": [31, 12],  # newest first; features that are not given count as missing
    "history_genres": ["Drama", ["Action", "Comedy"]],
    "history_time": [978_300_300, 978_300_100],
}
CANDIDATES = [
    {"item_id": 1, "genres": ["Animation", "Children's", "Comedy"], "year": 1995},
    {"item_id": 6, "genres": ["Action", "Crime", "Thriller"], "year": 1995},
    {"item_id": 11, "genres": "Comedy|Drama|Romance", "year": 1995},
]

if __name__ == "__main__":
    target, *model = sys.argv[1:] or ["localhost:8500"]
    with RankingClient(target, *model, timeout_seconds=5) as client:
        try:
            # With these two arguments, the client caches the state of this user for the next request.
            key = {"user_key": USER["user_id"], "history_version": 978_300_300}
            for place, one in enumerate(client.rank(USER, CANDIDATES, {"timestamp": 978_300_400}, k=2, **key), 1):
                print(f"{place}. item {one.candidate['item_id']}: {one.probability:.4f}")
        except ClientError as error:
            sys.exit(f"error: {error}")
