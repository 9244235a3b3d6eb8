"""Pictures in S3: a server of its API on this machine, which checks credentials, and Arrow's client."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_runs import batch_command, files, kill_after_a_shard

from pixelclip_sdk import ImageError, segment_archive
from pixelclip_sdk.batch import inputs
from pixelclip_sdk.batch.inputs import Picture, find_pictures, read_picture

pytest.importorskip("fsspec")
arrow = pytest.importorskip("pyarrow")
import pyarrow.parquet as parquet  # noqa: E402

pytestmark = pytest.mark.skipif(importlib.util.find_spec("moto") is None, reason="needs moto")

WORDS = "cat, sofa, grass"

# One user, who may do all with S3; whoever else comes is refused. Ends with stdin.
SERVER = """
import json, sys, urllib.request
import boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
url = f"http://127.0.0.1:{port}"
root = {"endpoint_url": url, "region_name": "us-east-1"}
root |= {"aws_access_key_id": "root", "aws_secret_access_key": "x"}
iam = boto3.client("iam", **root)
iam.create_user(UserName="reader")
allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="reader", PolicyName="s3", PolicyDocument=json.dumps(allowed))
key = iam.create_access_key(UserName="reader")["AccessKey"]
boto3.client("s3", **root).create_bucket(Bucket="photos")
plain = {"Content-Type": "text/plain"}
urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", plain)).read()
print(json.dumps([port, key["AccessKeyId"], key["SecretAccessKey"]]), flush=True)
sys.stdin.read()
"""


class Store:
    """The running server."""

    def __init__(self, port: int, key: str, secret: str) -> None:
        self.query = f"?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        self.environment = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}

    def address(self, place: str) -> str:
        return f"s3://{place}{self.query}"

    def upload(self, folder: Path, to: str) -> str:
        from pyarrow import fs

        system, place = fs.FileSystem.from_uri(self.address(to))
        for path in folder.rglob("*.*"):
            with system.open_output_stream(f"{place}/{path.relative_to(folder)}") as file:
                file.write(path.read_bytes())
        return self.address(to)


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        yield Store(*json.loads(process.stdout.readline()))
        process.stdin.close()


@pytest.fixture
def store(server, monkeypatch) -> Iterator[Store]:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    inputs._arrow.cache_clear()
    yield server
    inputs._arrow.cache_clear()


def test_the_rows_of_a_bucket_are_those_of_its_pictures(store, archive, tmp_path):
    address = store.upload(archive, "photos/all")
    for place, source in (("s3", address), ("here", str(archive))):
        done = segment_archive([source], tmp_path / place, WORDS, shard_size=3)
        assert (done.done, done.failed) == (8, 1)
    found, expected = (
        parquet.read_table(tmp_path / place / "results").to_pylist() for place in ("s3", "here")
    )
    for one, other in zip(found, expected, strict=True):
        assert one.pop("path") == store.address(
            f"photos/all/{Path(other.pop('path')).relative_to(archive).as_posix()}"
        )
        assert one == other
    before = files(tmp_path / "s3")
    assert segment_archive([address], tmp_path / "s3", WORDS, shard_size=3).kept == 8
    assert files(tmp_path / "s3") == before


def test_patterns_lists_and_parquet_files_in_a_bucket(store, archive):
    contents = [(archive / f"{i}.png").read_bytes() for i in range(3)]
    parquet.write_table(arrow.table({"bytes": contents}), archive / "rows.parquet", row_group_size=2)
    (archive / "list.txt").write_text(store.address("photos/kinds/more/5.png") + "\n")
    store.upload(archive, "photos/kinds")
    (pattern,) = find_pictures([store.address("photos/kinds/*/6.png")])
    assert read_picture(pattern) == (archive / "more" / "6.png").read_bytes()
    (listed,) = find_pictures([store.address("photos/kinds/list.txt")])
    assert read_picture(listed) == (archive / "more" / "5.png").read_bytes()
    rows = find_pictures([store.address("photos/kinds/rows.parquet")])
    assert [read_picture(row) for row in rows] == contents


def test_what_is_missing_is_named(store):
    with pytest.raises(
        ImageError, match=r"s3://nowhere/photos\?… (does not exist|cannot be read \(AWS Error )"
    ):
        find_pictures([store.address("nowhere/photos")])
    with pytest.raises(ImageError, match=r"s3://photos/nothing\.png\?… does not exist"):
        read_picture(Picture(store.address("photos/nothing.png")))


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_named_without_the_secret(store, archive, monkeypatch, name):
    address = store.upload(archive, "photos/closed")
    monkeypatch.setenv(name, "wrong-secret")
    inputs._arrow.cache_clear()
    for ask in (
        lambda: find_pictures([address]),
        lambda: find_pictures([store.address("photos/closed/*.png")]),
        lambda: read_picture(Picture(store.address("photos/closed/0.png"))),
    ):
        with pytest.raises(ImageError, match=r"cannot be read \(AWS Error ") as caught:
            ask()
        assert "wrong-secret" not in str(caught.value)


def test_credentials_in_an_address_are_in_no_row(store, archive, tmp_path, monkeypatch):
    store.upload(archive, "photos/own")
    key, secret = store.environment.values()
    for name in store.environment:
        monkeypatch.delenv(name)
    quoted = secret.replace("/", "%2F").replace("+", "%2B")
    address = store.address("photos/own").replace("s3://", f"s3://{key}:{quoted}@")
    assert segment_archive([address], tmp_path / "out", WORDS).done == 8
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert secret.encode() not in path.read_bytes()
        assert quoted.encode() not in path.read_bytes()
    paths = parquet.read_table(tmp_path / "out" / "results")["path"].to_pylist()
    assert paths[0] == store.address("photos/own/0.png")


@pytest.mark.slow
def test_a_killed_run_on_a_bucket_is_continued(store, archive, tmp_path, spawn):
    for i in range(60):
        (archive / f"copy{i}.png").write_bytes((archive / f"{i % 7 if i % 7 < 5 else 0}.png").read_bytes())
    address = store.upload(archive, "photos/many")
    command = batch_command(address, WORDS)
    kill_after_a_shard(spawn, command, tmp_path / "out", 100)
    written = len(list((tmp_path / "out" / "results").glob("part-*")))
    assert written < 17
    for out in ("out", "whole"):
        subprocess.run(
            [*command, "--out", str(tmp_path / out)], check=True, timeout=200, env=os.environ.copy()
        )
    assert files(tmp_path / "out") == files(tmp_path / "whole")
