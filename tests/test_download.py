"""Fetching from a server on this machine that cuts, alters, ignores ranges, or has nothing; never half installed.

Labels: own-data.
"""

from __future__ import annotations

import errno
import hashlib
import io
import re
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from efvae import cli
from efvae.data import cache, catalog, download

TEXTS = {
    "a.txt": b"".join(hashlib.sha256(bytes([i])).digest() for i in range(256)),  # does not compress
    "b.txt": b"beta\n",
    "c.txt": b"gamma\n" * 1000,
}


def tar(*members: tuple[str, bytes], comment: str = "", **links: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in members:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(text), {"comment": comment} if comment else {}
            archive.addfile(info, io.BytesIO(text))
        for name, target in links.items():
            info = tarfile.TarInfo(f"set/{name}.txt")
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return packed.getvalue()


GOOD = {
    "/set.tgz": tar(("set/a.txt", TEXTS["a.txt"]), ("set/b.txt", TEXTS["b.txt"]), ("set/readme", b"not wanted")),
    "/c.txt": TEXTS["c.txt"],
}


MOST = 20_000


class Server(ThreadingHTTPServer):
    """Serves a dictionary; hangs up after ``cut`` bytes; knows ``ranges`` or not, or sends them off by ``shift``.

    It may keep the length to itself or tell another one (``told``), or send in chunks and no end of them (``chunked``).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages, self.cut, self.ranges, self.shift, self.asked = dict(GOOD), 10**9, True, 0, []
        self.told, self.chunked = True, False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.server.asked.append((self.path, span))
        body = self.server.pages.get(self.path)
        if body is None:
            return self.send_error(404)
        start, whole = 0, len(body)
        if span and self.server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", span)[1])
            if start >= whole:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{whole}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            start += self.server.shift
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        else:
            self.send_response(200)
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n" % (self.server.cut, body[: self.server.cut]))
            return None
        if self.server.told:
            self.send_header("Content-Length", str(whole - start) if self.server.told is True else self.server.told)
        self.end_headers()
        self.wfile.write(body[start : start + self.server.cut])
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(5)


@pytest.fixture
def data(server, tmp_path, monkeypatch):
    """A small data set that lives on the server, and an empty cache."""
    monkeypatch.setenv("EFVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EFVAE_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PATIENCE", 5.0)
    files = tuple(cache.SourceFile(n, len(t), hashlib.sha256(t).hexdigest()) for n, t in TEXTS.items())
    sources = (cache.Source("set.tgz", ("a.txt", "b.txt"), most=MOST), cache.Source("c.txt", ("c.txt",)))
    small = cache.DataSet("20news", server.url + "/", sources, files)
    monkeypatch.setitem(catalog.DATA_SETS, "20news", small)
    return small


def everything() -> dict[str, int]:
    root = cache.cache_root()
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


INSTALLED = {f"20news/{name}": len(text) for name, text in TEXTS.items()}
PART = "downloads/20news/set.tgz.part"


def refused(capsys, *words: str) -> str:
    assert cli.main(["data", "fetch", "20news", *words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    last = told.err.splitlines()[-1]
    assert last.startswith("efvae: error: ")
    assert not (cache.cache_root() / "20news").exists()
    assert not list(cache.cache_root().glob(".20news-*"))
    return last


def test_fetched_once(data, server, capsys):
    for _ in range(2):
        assert cli.main(["data", "fetch", "20news"]) == 0
        assert capsys.readouterr().out == f"{cache.cache_root() / '20news'}\n"
        assert everything() == INSTALLED
    assert server.asked == [("/set.tgz", None), ("/c.txt", None)]
    assert cli.main(["data", "verify", "20news"]) == 0


def test_from_a_mirror(data, server, capsys):
    server.pages = {f"/mirror{path}": page for path, page in GOOD.items()}
    assert "404" in refused(capsys)
    assert cli.main(["data", "fetch", "20news", "--from", f"{server.url}/mirror"]) == 0
    assert everything() == INSTALLED


def test_a_mirror_beside_a_folder_of_ones_own_is_refused(data, server, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("EFVAE_DATA", str(tmp_path))
    assert "unset it, or leave --from out" in refused(capsys, "--from", server.url)
    assert server.asked == []


def test_a_transfer_that_breaks_off_is_continued_at_once(data, server):
    server.cut = 3000
    download.fetch(data)
    assert everything() == INSTALLED
    assert server.asked[:3] == [("/set.tgz", None), ("/set.tgz", "bytes=3000-"), ("/set.tgz", "bytes=6000-")]


def test_a_part_is_kept_and_continued_by_the_next_command(data, server, capsys):
    server.cut = 1000
    size = len(GOOD["/set.tgz"])
    assert f"broke off at 5000 of {size} bytes: fetch again to continue" in refused(capsys)
    assert everything() == {PART: 5000}
    server.cut = 10**9
    assert cli.main(["data", "fetch", "20news"]) == 0
    assert server.asked[5] == ("/set.tgz", "bytes=5000-")
    assert everything() == INSTALLED


def test_a_server_without_ranges_starts_over(data, server, capsys):
    server.ranges, server.cut = False, 1000
    assert "broke off at 1000" in refused(capsys)
    assert everything() == {PART: 1000}
    server.cut = 10**9
    download.fetch(data)
    assert server.asked[-2:] == [("/set.tgz", "bytes=1000-"), ("/c.txt", None)]
    assert everything() == INSTALLED


def test_chunks_without_an_end_are_no_whole_file(data, server, monkeypatch, capsys):
    monkeypatch.setattr(Handler, "protocol_version", "HTTP/1.1")  # which has chunks
    server.chunked, server.ranges, server.cut = True, False, 1000
    assert "set.tgz broke off at 1000 bytes: fetch again to continue" in refused(capsys)
    assert everything() == {PART: 1000}


def test_a_length_that_is_no_number_is_as_none(data, server):
    server.told = "much"
    download.fetch(data)
    assert everything() == INSTALLED


def test_a_server_that_sends_another_part_than_was_asked_for(data, server):
    server.shift, server.cut = 7, 3000
    with pytest.raises(cache.DataError, match="broke off at 3000"):
        download.fetch(data)
    server.cut = 10**9
    download.fetch(data)
    assert [span for path, span in server.asked if path == "/set.tgz"][-2:] == ["bytes=3000-", None]
    assert everything() == INSTALLED


@pytest.mark.parametrize(
    "part",
    [
        GOOD["/set.tgz"],  # complete, but killed before the rename
        GOOD["/set.tgz"] + b"more",
        bytes(500),  # of another file
        bytes(len(GOOD["/set.tgz"])),
        bytes(MOST + 1),  # longer than any of it
    ],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_whatever_an_older_download_left(data, server, part, ranges):
    server.ranges = ranges
    path = cache.cache_root() / PART
    path.parent.mkdir(parents=True)
    path.write_bytes(part)
    download.fetch(data)
    assert everything() == INSTALLED


@pytest.mark.parametrize(
    ("page", "body", "message"),
    [
        ("/c.txt", TEXTS["c.txt"].replace(b"gamma\ngamma", b"gamma\nGAMMA", 1), "c.txt from http.* is altered"),
        ("/c.txt", TEXTS["c.txt"][:-1], "c.txt from http.* is truncated: 5999 bytes, expected 6000"),
        ("/c.txt", b"", "c.txt from http.* is truncated: 0 bytes"),
        ("/c.txt", None, "404 Not Found; is the address right"),
        ("/set.tgz", None, "404 Not Found; is the address right"),
        ("/set.tgz", b"<html>moved</html>", "not a sound archive"),
        ("/set.tgz", GOOD["/set.tgz"][:-3000], "not a sound archive"),
        ("/set.tgz", GOOD["/set.tgz"][:4000] + b"xyz" + GOOD["/set.tgz"][4003:], "altered|not a sound archive"),
        ("/set.tgz", tar(("set/a.txt", TEXTS["a.txt"])), "holds no b.txt"),
        ("/set.tgz", tar(("set/a.txt", TEXTS["a.txt"]), ("b.txt", b"BETA\n")), "b.txt from http.* is altered: sha256"),
        ("/set.tgz", tar(("a.txt", TEXTS["a.txt"]), ("b.txt", bytes(10**6))), "b.txt .* altered: 1000000 bytes"),
        ("/set.tgz", tar(("set/a.txt", TEXTS["a.txt"]), b="/etc/hostname"), "holds no b.txt"),
        # a header that would be read into memory
        ("/set.tgz", tar(*((n, TEXTS[n]) for n in ("a.txt", "b.txt")), comment="x" * 2**20), "not a sound archive"),
    ],
)
def test_a_wrong_download_is_named_and_not_installed(data, server, page, body, message, capsys):
    server.pages[page] = body
    assert re.search(message, refused(capsys))
    server.pages = dict(GOOD)
    assert cli.main(["data", "fetch", "20news"]) == 0, "and nothing of it stands in the way afterwards"
    assert everything() == INSTALLED


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("page", "most"), [("/c.txt", len(TEXTS["c.txt"])), ("/set.tgz", MOST)])
def test_a_download_that_is_too_long_is_not_read_to_its_end(data, server, told, page, most, monkeypatch, capsys):
    server.pages[page], server.told = bytes(10**7), told
    kept = []
    copy = download._copy
    monkeypatch.setattr(
        download, "_copy", lambda answer, file, end: (copy(answer, file, end), kept.append(file.tell()))
    )
    size = "10000000 bytes" if told else "the server sends more"
    assert f"{server.url}{page} is too long: {size}, expected at most {most}; is the address" in refused(capsys)
    assert max([0, *kept]) <= MOST + 1
    assert everything().get(f"downloads/20news{page}.part") == 0, "nor is it continued"
    server.pages = dict(GOOD)
    assert cli.main(["data", "fetch", "20news"]) == 0
    assert everything() == INSTALLED


def test_a_whole_download_that_is_too_long_is_not_taken(data, server):
    path = (cache.cache_root() / PART).with_suffix("")
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(MOST + 1))
    download.fetch(data)
    assert server.asked == [("/set.tgz", None), ("/c.txt", None)]


def test_a_data_set_says_how_long_its_archives_may_be():
    for known in catalog.DATA_SETS.values():
        for source in known.sources:
            assert source.most > 0 or source.files == (source.path,)


def test_no_more_of_a_wrong_file_is_read_than_tells(tmp_path):
    with (tmp_path / "b.txt").open("wb") as file:
        file.truncate(2**40)  # a hole: it would not fit into memory
    with pytest.raises(cache.DataError, match=r"b\.txt is altered"):
        cache.read(tmp_path, cache.SourceFile("b.txt", 5, hashlib.sha256(TEXTS["b.txt"]).hexdigest()))


def test_members_land_in_the_folder_whatever_they_are_called(data, server, tmp_path):
    server.pages["/set.tgz"] = tar(("../../../a.txt", TEXTS["a.txt"]), ("/b.txt", TEXTS["b.txt"]))
    download.fetch(data)
    assert everything() == INSTALLED
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_what_was_damaged_afterwards_is_replaced(data, capsys):
    folder = download.fetch(data)
    (folder / "b.txt").write_bytes(b"bet")
    assert cli.main(["data", "verify", "20news"]) == 2
    assert "b.txt is truncated" in capsys.readouterr().err
    assert cli.main(["data", "fetch", "20news"]) == 0
    assert everything() == INSTALLED


def test_a_failed_replacement_leaves_the_old_folder(data, server):
    folder = download.fetch(data)
    (folder / "b.txt").write_bytes(b"bet")
    server.pages["/c.txt"] = b"no"
    with pytest.raises(cache.DataError, match=r"c\.txt from"):
        download.fetch(data)
    assert everything()["20news/a.txt"] == len(TEXTS["a.txt"])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:9", "cannot reach http://127.0.0.1:9/set.tgz: .*refused"),
        ("http://[bad", "cannot"),
        ("http://127.0.0.1:x", "cannot reach"),
        ("ftp://127.0.0.1", "begins with http"),
        ("/etc", "begins with http"),
    ],
)
def test_an_address_that_leads_nowhere(data, address, message, capsys):
    assert re.search(message, refused(capsys, "--from", address))


def test_a_cache_that_cannot_be_made(data, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EFVAE_CACHE", str(tmp_path / "file" / "cache"))
    assert cli.main(["data", "fetch", "20news"]) == 2
    line = capsys.readouterr().err
    assert re.fullmatch(r"efvae: error: cannot write \S+: Not a directory; .* EFVAE_CACHE .*\n", line)


def test_a_full_disk(data, capsys):
    """The limit on the size of a file stands in: a write fails halfway, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        line = refused(capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert re.search("cannot write .*: File too large; free some space", line)
    assert everything() == {PART: 4096}
    assert cli.main(["data", "fetch", "20news"]) == 0
    assert everything() == INSTALLED


def test_a_read_only_folder(data, monkeypatch, capsys):
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert re.search(r"cannot write \S+20news: Read-only file system; let EFVAE_CACHE name another", refused(capsys))


def test_two_at_a_time(data, capsys):
    fcntl = pytest.importorskip("fcntl")
    path = cache.cache_root() / PART
    path.parent.mkdir(parents=True)
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "another process is downloading" in refused(capsys)
