"""Small files in the layouts of public data sets, and the impressions that they must become."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.helpers import write_movielens

Rows = list[dict[str, Any]]
CONFIGS = Path(__file__).parents[2] / "configs"
REPEATED = 12
"""How often each row stands in the files: more often than any `min_count` asks."""


@dataclass(frozen=True)
class PublicFiles:
    """The files of a data set.

    Attributes:
        write: Writes them into a directory.
        features: The feature file, in `configs`.
        rows: The impressions by split, worked out by hand, each of which stands there `REPEATED` times; a data set that
            is split at random has them all under `all`.
        preset: What is trained on it.
    """

    write: Callable[[Path], object]
    features: str
    rows: Mapping[str, Rows]
    preset: str = "lr"


def csv_files(header: str, **lines: str) -> Callable[[Path], None]:
    """Writes CSV files, by their names; each line stands there many times. Test is packed."""

    def write(directory: Path) -> None:
        directory.mkdir()
        for name, text in lines.items():
            content = f"{header}\n{text.strip()}\n" + f"{text.strip()}\n" * (REPEATED - 1)
            if name == "test":
                (directory / "test.csv.gz").write_bytes(gzip.compress(content.encode()))
            else:
                (directory / f"{name}.csv").write_text(content)

    return write


def numbered(names: str, first: int, last: int) -> list[str]:
    """Names with a number each: C1, C2, C3."""
    return [f"{names}{number}" for number in range(first, last + 1)]


def row(names: str, values: str, label: int) -> dict[str, Any]:
    """A row of text: whole numbers are numbers, and `-` is missing."""
    found: dict[str, Any] = {}
    for name, value in zip(names.split(","), values.split(","), strict=True):
        found[name] = None if value == "-" else int(value) if value.lstrip("-").isdigit() else value
    return found | {"label": label}


def _movielens(directory: Path) -> None:
    times = (f"{user}::{item}::{rating}::{100 * n}\n" for n in range(REPEATED) for user, item, rating in _RATINGS)
    write_movielens(directory, ratings="".join(times))


_RATINGS = ((1, 1, 5), (1, 2, 3), (1, 11, 2), (2, 12, 4))
_WOMAN = {"user_id": 1, "gender": "F", "age": 25, "occupation": 7}
_MAN = {"user_id": 2, "gender": "M", "age": 56, "occupation": 0}

_CRITEO = ",".join([*numbered("I", 1, 13), *numbered("C", 1, 26)])
_ADS = {
    "train": (
        ("1,3,-1,,0,2,0,3,0,0,1,1,,0," + "8cf07265,," * 13)[:-1],
        ("0,,4,2,0,1382,4,15,2,181,1,2,0,2," + "68fd1e64,2c16a946," * 13)[:-1],
    ),
    "valid": (
        ("1,1,0,1,1,1,1,1,1,1,1,1,1,1," + "8cf07265,09e68b86," * 13)[:-1],
        ("0,2,,2,2,2,2,2,2,2,2,2,2,2," + ",09e68b86," * 13)[:-1],
    ),
    "test": (
        ("0,7,0,1,1,1,1,1,1,1,1,1,1,1," + "05db9164,09e68b86," * 13)[:-1],
        ("1,2,0,2,2,2,2,2,2,2,2,2,2,2," + "05db9164,," * 13)[:-1],
    ),
}


def _ads() -> dict[str, Rows]:
    of = {split: [line.partition(",") for line in lines] for split, lines in _ADS.items()}
    return {
        split: [
            row(_CRITEO, ",".join(value or "-" for value in rest.split(",")), int(label)) for label, _, rest in lines
        ]
        for split, lines in of.items()
    }


_SCALED = ",".join([*(["0.25"] * 12), "{first}", *(["{category}"] * 26)])


def _scaled(label: int, first: float, category: int) -> dict[str, Any]:
    numbers = dict.fromkeys(numbered("I", 1, 12), 0.25) | {"I13": first}
    return numbers | dict.fromkeys(numbered("C", 1, 26), category) | {"label": label}


def _scaled_lines(*rows: tuple[int, float, int]) -> str:
    return "\n".join(f"{label},{_SCALED.format(first=first, category=of)}" for label, first, of in rows)


_AVAZU = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,device_ip,"
    "device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
)
_SITE = "1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,07d7df22,a99f214a"


def _shown(label: int, hour: str, weekday: str, weekend: str, ip: str, c14: int) -> dict[str, Any]:
    ad = row(_AVAZU.partition("hour,")[2], f"1005,0,{_SITE},{ip},711ee120,1,0,{c14},320,50,1722,0,35,-1,79", label)
    return ad | {"hour": hour, "weekday": weekday, "weekend": weekend}


_TAGS = "user_id,item_id,tag_id"
_BIDS = (
    "weekday,hour,IP,region,city,adexchange,domain,slotid,slotwidth,slotheight,slotvisibility,slotformat,creative,"
    "advertiser,useragent,slotprice"
)
_SONGS = (
    "msno,song_id,source_system_tab,source_screen_name,source_type,city,gender,registered_via,language,genre_ids,"
    "artist_name,isrc,bd"
)


def _heard(values: str, label: int) -> dict[str, Any]:
    """A row of KKBox: the language is a number with a point, a genre a text, and `;` a comma in an artist's name."""
    found = row(_SONGS, values, label)
    genres = None if found["genre_ids"] is None else str(found["genre_ids"])
    artist = found["artist_name"].replace(";", ",")
    return found | {"language": float(found["language"]), "genre_ids": genres, "artist_name": artist}


_SEEN = ",".join(["user_id,item_id,video_category,gender,age", *numbered("hist_", 1, 10)])


def _microlens(directory: Path) -> None:
    directory.mkdir()
    tags = [[0, 0, 0, 0, 0], [0, 0, 0, 7, 9], [0, 0, 0, 0, 7], [0, 0, 0, 0, 0]]
    vectors = [[float(item), 1.0] for item in range(4)]
    fixed = {
        "item_tags": pa.array(tags, pa.list_(pa.int64(), 5)),
        "item_emb_d128": pa.array(vectors, pa.list_(pa.float32(), 2)),
    }
    pq.write_table(pa.table({"item_id": range(4)} | fixed), directory / "item_info.parquet")
    for name, rows in _MICROLENS.items():
        columns = list(zip(*(rows * REPEATED), strict=True))
        table = dict(
            zip(("user_id", "item_id", "likes_level", "views_level", "label"), columns[:4] + columns[5:], strict=True)
        )
        table["item_seq"] = pa.array(columns[4], pa.list_(pa.int64(), 4))
        pq.write_table(pa.table(table), directory / f"{name}.parquet")


_MICROLENS = {
    "train": [(11, 1, 3, 4, [0, 0, 2, 3], 1), (12, 2, 1, 2, [1, 2, 3, 1], 0)],
    "valid": [(11, 3, 0, 0, [0, 2, 3, 1], 0), (13, 1, 3, 4, [0, 0, 0, 0], 1)],
}
_LIKED = "user_id,item_id,likes_level,views_level"


def _watched(
    values: str, tags: list[int], history: list[int], of_history: list[list[int]], label: int
) -> dict[str, Any]:
    lists = {"item_tags": tags, "history_item_id": history, "history_item_tags": of_history}
    return row(_LIKED, values, label) | lists


_MICROLENS_VALID = [
    _watched("11,3,0,0", [], [1, 3, 2], [[7, 9], [], [7]], 0),
    _watched("13,1,3,4", [7, 9], [], [], 1),
]


def _bought(values: str, items: list[int], categories: list[int], label: int) -> dict[str, Any]:
    return row("user_id,item_id,cate_id", values, label) | {"history_item_id": items, "history_cate_id": categories}


_AMAZON_TEST = [_bought("1,8,5", [7, 6], [5, 4], 1), _bought("1,9,4", [7, 6], [5, 4], 0)]
_IPINYOU_TEST = [
    row(_BIDS, "6,1,33,2,3,1,5,6,300,250,2,0,7,1458,9,5", 0),
    row(_BIDS, "6,1,34,2,3,1,5,6,300,250,2,0,7,1458,9,5", 1),
]

PUBLIC_FILES: dict[str, PublicFiles] = {
    "movielens-1m-ctr": PublicFiles(
        _movielens,
        "movielens-ctr.yaml",
        {
            "all": [
                _WOMAN | {"item_id": 1, "year": 1981, "genres": "Drama", "label": 1},
                _WOMAN | {"item_id": 11, "year": 1999, "genres": "Comedy|Drama", "label": 0},
                _MAN | {"item_id": 12, "year": None, "genres": "Horror", "label": 1},
            ]
        },
    ),
    "criteo-x4": PublicFiles(
        csv_files("Label," + _CRITEO, **{split: "\n".join(lines) for split, lines in _ADS.items()}),
        "criteo-x4.yaml",
        _ads(),
    ),
    "criteo-x1": PublicFiles(
        csv_files(
            "label," + _CRITEO,
            train=_scaled_lines((1, 0.5, 7), (0, 0.05, 8)),
            valid=_scaled_lines((1, 0.5, 9), (0, 0.0, 7)),
            test=_scaled_lines((0, 0.004983, 7), (1, 1.0, 8)),
        ),
        "criteo-x1.yaml",
        {
            "train": [_scaled(1, 0.5, 7), _scaled(0, 0.05, 8)],
            "valid": [_scaled(1, 0.5, 9), _scaled(0, 0.0, 7)],
            "test": [_scaled(0, 0.004983, 7), _scaled(1, 1.0, 8)],
        },
    ),
    "avazu-x4": PublicFiles(
        csv_files(
            _AVAZU,
            train=f"""
10000169349117863715,0,14102100,1005,0,{_SITE},ddd2926e,711ee120,1,0,15704,320,50,1722,0,35,-1,79
10000371904215119486,1,14102523,1005,0,{_SITE},96809ac8,711ee120,1,0,15706,320,50,1722,0,35,-1,79
""",
            valid=f"""
10000640724480838376,0,14102609,1005,0,{_SITE},ddd2926e,711ee120,1,0,15704,320,50,1722,0,35,-1,79
10000679056417042096,1,14102405,1005,0,{_SITE},96809ac8,711ee120,1,0,15704,320,50,1722,0,35,-1,79
""",
            test=f"""
10000720757801103869,1,14102718,1005,0,{_SITE},ddd2926e,711ee120,1,0,15704,320,50,1722,0,35,-1,79
10000724729988544911,0,14102718,1005,0,{_SITE},ddd2926e,711ee120,1,0,15706,320,50,1722,0,35,-1,79
""",
        ),
        "avazu-x4.yaml",
        {  # October 21 of 2014 was a Tuesday.
            "train": [_shown(0, "00", "2", "no", "ddd2926e", 15704), _shown(1, "23", "6", "yes", "96809ac8", 15706)],
            "valid": [_shown(0, "09", "7", "yes", "ddd2926e", 15704), _shown(1, "05", "5", "no", "96809ac8", 15704)],
            "test": [_shown(1, "18", "1", "no", "ddd2926e", 15704), _shown(0, "18", "1", "no", "ddd2926e", 15706)],
        },
    ),
    "avazu-x1": PublicFiles(
        csv_files(
            ",".join(["label", *numbered("feat_", 1, 22)]),
            train="1," + ",".join(map(str, range(22))) + "\n0," + ",".join(map(str, range(22, 44))),
            valid="0" + ",5" * 22 + "\n1" + ",6" * 22,
            test="1" + ",5" * 22 + "\n0" + ",6" * 22,
        ),
        "avazu-x1.yaml",
        {
            "train": [
                {f"feat_{n}": first + n for n in range(1, 23)} | {"label": label} for first, label in ((-1, 1), (21, 0))
            ],
            "valid": [{f"feat_{n}": value for n in range(1, 23)} | {"label": value - 5} for value in (5, 6)],
            "test": [{f"feat_{n}": value for n in range(1, 23)} | {"label": 6 - value} for value in (5, 6)],
        },
    ),
    "movielens-tag": PublicFiles(
        csv_files("label," + _TAGS, train="1,3,8,20\n0,3,9,21", valid="0,3,8,22\n1,4,8,20", test="1,4,9,20\n0,3,9,20"),
        "movielens-tag.yaml",
        {
            "train": [row(_TAGS, "3,8,20", 1), row(_TAGS, "3,9,21", 0)],
            "valid": [row(_TAGS, "3,8,22", 0), row(_TAGS, "4,8,20", 1)],
            "test": [row(_TAGS, "4,9,20", 1), row(_TAGS, "3,9,20", 0)],
        },
    ),
    "ipinyou": PublicFiles(
        csv_files(
            "click," + _BIDS,
            train="0,4,23,33,2,3,1,5,6,300,250,2,0,7,1458,9,0\n1,5,0,34,2,4,1,5,6,300,250,2,0,8,1458,9,5",
            test="0,6,1,33,2,3,1,5,6,300,250,2,0,7,1458,9,5\n1,6,1,34,2,3,1,5,6,300,250,2,0,7,1458,9,5",
        ),
        "ipinyou.yaml",
        {
            "train": [
                row(_BIDS, "4,23,33,2,3,1,5,6,300,250,2,0,7,1458,9,0", 0),
                row(_BIDS, "5,0,34,2,4,1,5,6,300,250,2,0,8,1458,9,5", 1),
            ],
            "valid": _IPINYOU_TEST,
            "test": _IPINYOU_TEST,
        },
    ),
    "kkbox": PublicFiles(
        csv_files(
            "label,msno,song_id,source_system_tab,source_screen_name,source_type,song_length,genre_ids,artist_name,"
            "composer,lyricist,language,name,isrc,city,bd,gender,registered_via",
            train="""
1,u1,s1,explore,Explore,online-playlist,206471,359,Bastille,Dan Smith,,52.0,Good Grief,GBUM71602854,1,0,,7
0,u2,s2,my library,,local-library,284584,1259|465,"May, Brian|Queen",,,-1.0,"Who, me",,13,30,female,9
""",
            valid="""
1,u1,s2,my library,,local-library,284584,1259|465,"May, Brian|Queen",,,-1.0,"Who, me",,1,0,,7
0,u2,s1,explore,Explore,online-playlist,206471,359,Bastille,Dan Smith,,52.0,Good Grief,GBUM71602854,13,31,female,9
""",
            test="""
0,u1,s3,explore,Explore,radio,206471,,Bastille,Dan Smith,,52.0,Good Grief,TWA,1,95,,7
1,u3,s1,explore,Explore,radio,206471,359,Bastille,Dan Smith,,52.0,Good Grief,GBUM71602854,1,1051,male,7
""",
        ),
        "kkbox.yaml",
        {
            "train": [
                _heard("u1,s1,explore,Explore,online-playlist,1,-,7,52,359,Bastille,GB,-", 1),
                _heard("u2,s2,my library,-,local-library,13,female,9,-1,1259|465,May; Brian|Queen,-,3", 0),
            ],
            "valid": [
                _heard("u1,s2,my library,-,local-library,1,-,7,-1,1259|465,May; Brian|Queen,-,-", 1),
                _heard("u2,s1,explore,Explore,online-playlist,13,female,9,52,359,Bastille,GB,4", 0),
            ],
            "test": [
                _heard("u1,s3,explore,Explore,radio,1,-,7,52,-,Bastille,TW,7", 0),
                _heard("u3,s1,explore,Explore,radio,1,male,7,52,359,Bastille,GB,-", 1),
            ],
        },
    ),
    "tenrec": PublicFiles(
        csv_files(
            "user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age,"
            + ",".join(numbered("hist_", 1, 10)),
            ctr_data_1M="""
1,70,1,0,1,0,2,3,1,4,71,72,73,0,0,0,0,0,0,0
1,74,0,0,0,0,1,0,1,4,71,72,73,0,0,0,0,0,0,0
2,70,0,0,0,0,2,0,0,5,71,72,73,74,75,76,77,78,79,80
2,75,1,1,0,0,2,1,0,5,71,72,73,74,75,76,77,78,79,80
""",
        ),
        "tenrec.yaml",
        {
            "all": [
                row(_SEEN, "1,70,2,1,4,71,72,73,0,0,0,0,0,0,0", 1),
                row(_SEEN, "1,74,1,1,4,71,72,73,0,0,0,0,0,0,0", 0),
                row(_SEEN, "2,70,2,0,5,71,72,73,74,75,76,77,78,79,80", 0),
                row(_SEEN, "2,75,2,0,5,71,72,73,74,75,76,77,78,79,80", 1),
            ]
        },
    ),
    "microlens": PublicFiles(
        _microlens,
        "microlens.yaml",
        {
            "train": [
                _watched("11,1,3,4", [7, 9], [3, 2], [[], [7]], 1),
                _watched("12,2,1,2", [7], [1, 3, 2, 1], [[7, 9], [], [7], [7, 9]], 0),
            ],
            "valid": _MICROLENS_VALID,
            "test": _MICROLENS_VALID,
        },
        preset="din",
    ),
    "amazon": PublicFiles(
        csv_files(
            "label,user_id,item_id,cate_id,item_history,cate_history",
            train="1,1,7,5,6,4\n0,1,9,4,6,4\n1,2,6,4,9^8^7,4^5^5\n0,2,7,5,9^8^7,4^5^5",
            test="1,1,8,5,6^7,4^5\n0,1,9,4,6^7,4^5",
        ),
        "amazon.yaml",
        {
            "train": [
                _bought("1,7,5", [6], [4], 1),
                _bought("1,9,4", [6], [4], 0),
                _bought("2,6,4", [7, 8, 9], [5, 5, 4], 1),
                _bought("2,7,5", [7, 8, 9], [5, 5, 4], 0),
            ],
            "valid": _AMAZON_TEST,
            "test": _AMAZON_TEST,
        },
        preset="din",
    ),
}
"""The data sets that are a build file alone, by name."""
