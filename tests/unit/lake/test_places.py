"""Where a lake lies, and what keeps somebody from it."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.errors import BadRequest, LogError
from topbill.domain.lake_url import LAKE_VARIABLE, parsed
from topbill.lake.buckets import with_buckets
from topbill.lake.causes import cause
from topbill.lake.places import DATABASE, LakePlace, lake_place


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket", "s3://bucket"),
        ("gs://bucket//a/b/", "gs://bucket/a/b"),
        ("az://container/x=1", "az://container/x=1"),
        ("file:///srv/my%20lake/", "file:///srv/my lake"),
        ("/srv/lake/", "file:///srv/lake"),
    ],
)
def test_a_url_has_one_form(text: str, url: str) -> None:
    assert parsed(text) == url
    assert parsed(url) == url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x://b/p", "got 'x://b/p', expected s3://, gs://, az://, file:// or a folder"),
        ("s3:///p", "expected s3://BUCKET/PREFIX"),
        ("s3://key:secret@b/p", "credentials come from the environment"),
        ("s3://b/p?region=x", "credentials come from the environment"),
        ("s3://b/a b", "letters, digits"),
        ("file://host/x", "file:///ABSOLUTE/FOLDER"),
    ],
)
def test_what_is_no_url_of_a_lake_is_refused(text: str, expected: str) -> None:
    with pytest.raises(BadRequest, match=LAKE_VARIABLE) as error:
        parsed(text)
    assert expected in str(error.value)
    assert "secret" not in str(error.value)


def test_a_lake_is_in_the_data_folder_unless_a_url_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LAKE_VARIABLE, raising=False)
    own = lake_place(tmp_path)
    assert own == LakePlace(f"{tmp_path}/lake", is_store=False)
    assert own.database == f"{tmp_path}/{DATABASE}"
    assert own.options is None
    monkeypatch.setenv(LAKE_VARIABLE, "s3://bucket/p/")
    place = lake_place(tmp_path)
    assert place.table("rewards") == "s3://bucket/p/rewards"
    assert place.database == f"s3://bucket/p/{DATABASE}"
    assert place.options is not None
    assert place.options["aws_conditional_put"] == "etag"
    (tmp_path / DATABASE).touch()
    with pytest.raises(LogError, match="expected one of them"):
        lake_place(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<Code>NoSuchBucket</Code>", "no such bucket"),
        ("PUT http://169.254.169.254/latest/api/token: 403 Forbidden", "there are no credentials"),
        ("403 Forbidden <Code>ExpiredToken</Code>", "have expired"),
        ("403 Forbidden <Code>SignatureDoesNotMatch</Code>", "does not know these credentials"),
        ("403 Forbidden <Code>AccessDenied</Code>", "do not give the right"),
        ("error sending request", "cannot be reached"),
        ('Traceback (most recent call last):\n  File "x", line 1\na.B: no x', "no x"),
        ("\x1b[31m↳\x1b[0m disk\n  full", "disk full"),
    ],
)
def test_errors_of_stores_are_said_in_words(text: str, said: str) -> None:
    assert said in cause(OSError(text))


@given(st.lists(st.one_of(st.none(), st.text()), max_size=30))
def test_a_units_rows_are_in_one_bucket_which_its_id_alone_says(units: list[str | None]) -> None:
    ids = [f"d{n}" for n in range(len(units))]
    columns = {"unit": pa.array(units, pa.string()), "decision_id": pa.array(ids, pa.string())}
    table = with_buckets(pa.table(columns))
    for row in table.to_pylist():
        unit = row["decision_id"] if row["unit"] is None else row["unit"]
        assert row["bucket"] == crc32(unit.encode()) % 64
